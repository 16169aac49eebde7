"""The folder of a node's sockets: its location, its ownership, and leftovers in it."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path

import pytest

from mao_node import preflight
from mao_node.preflight import (
    MAX_NAME,
    MAX_PATH,
    make_socket_dir,
    remove_sockets,
    socket_dir,
    wait_until_free,
)
from mao_shared.errors import Conflict
from mao_shared.host.sockets import unix_listener
from tests.support.users import NOBODY, common_folder, needs_root


@pytest.mark.parametrize("length", [10, MAX_PATH - 5 - MAX_NAME - 1, 90, 108, 300])
@pytest.mark.parametrize("letter", ["x", "é"])
def test_socket_dir_fits_any_data_directory(length: int, letter: str) -> None:
    data_dir = Path("/" + letter * length)
    folder = socket_dir(data_dir)
    assert len(os.fsencode(folder / ("s" * MAX_NAME))) <= MAX_PATH
    assert (folder == data_dir / "run") == (len(os.fsencode(data_dir / "run")) <= MAX_PATH - MAX_NAME - 1)
    assert folder != socket_dir(Path("/" + letter * (length - 1) + "y")) or length <= 1


@pytest.mark.parametrize("name", ["my data", "100%", "a#b", "what?", "a,b", "tab\there"])
def test_socket_dir_avoids_characters_with_a_meaning_in_urls(name: str) -> None:
    folder = socket_dir(Path("/srv") / name)
    assert folder.parent == preflight.FALLBACK
    assert folder != socket_dir(Path("/srv") / f"{name}x")


@pytest.mark.parametrize("name", ["it's", "Größe", "a;b", "$HOME", "(x)", "a&b", "back\\slash"])
def test_socket_dir_is_in_the_data_directory_otherwise(name: str) -> None:
    assert socket_dir(Path("/srv") / name) == Path("/srv") / name / "run"


def test_make_socket_dir_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "node/run"
    before = os.umask(0)
    try:
        make_socket_dir(folder)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o750, 0o1777])
def test_make_socket_dir_closes_an_open_folder(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(mode)
    make_socket_dir(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_make_socket_dir_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Conflict, match="cannot be used") as refused:
        make_socket_dir(tmp_path / "run")
    assert refused.value.code == "socket-dir-unusable"


def test_make_socket_dir_names_a_file_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(Conflict, match="run, cannot be used"):
        make_socket_dir(tmp_path / "run")


@needs_root
def test_make_socket_dir_refuses_another_users_folder() -> None:
    with common_folder(NOBODY) as folder, pytest.raises(Conflict, match=f"belongs to user {NOBODY}"):
        make_socket_dir(folder)


def test_socket_of_a_killed_service_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "runner.sock"
    with unix_listener(path):
        pass  # closed, but its name stays, as after kill -9
    with unix_listener(path) as listener:
        listener.listen()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))


def test_remove_sockets_keeps_a_folder_with_other_files(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    make_socket_dir(folder)
    (folder / "a.sock").touch()
    remove_sockets(folder, [folder / "a.sock", folder / "never-made.sock"])
    assert not folder.exists()
    make_socket_dir(folder)
    (folder / "kept").touch()
    remove_sockets(folder, [])
    assert (folder / "kept").exists()


async def test_wait_until_free_ends_when_the_sockets_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "localhost:2379"
    await wait_until_free([path, tmp_path / "never-made"])
    with unix_listener(path) as dying:
        await wait_until_free([path])  # only its name is there
        dying.listen()
        waiting = asyncio.create_task(wait_until_free([path]))
        with socket.socket(socket.AF_UNIX) as caller:
            await asyncio.to_thread(caller.connect, str(path))
        assert not waiting.done()
    await asyncio.wait_for(waiting, 60)

    monkeypatch.setattr(preflight, "STOP_TIMEOUT", 0.2)
    with unix_listener(path) as stubborn:
        stubborn.listen()
        with pytest.raises(Conflict, match="localhost:2379") as refused:
            await wait_until_free([path])
    assert refused.value.code == "node-ending"
