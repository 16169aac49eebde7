"""The data directory's path on the engine's host."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from docker.errors import NotFound

from mao_runner.containers import data_dir
from mao_runner.containers.data_dir import (
    HostDirInvalid,
    HostPaths,
    find_host_paths,
    map_to_host,
    parse_container_ids,
)
from mao_runner.drivers.docker import DockerDriver
from mao_runner.drivers.fake import FakeDriver
from mao_runner.labels import installation_id
from mao_shared.errors import MaoError
from tests.support.docker import Engine
from tests.support.users import NOBODY, as_user, common_folder, needs_root, python_for
from tests.support.waiting import eventually

from .harness import Bench, ready_run

ID = "4f" * 32
MOUNTS = {"/var/lib/mao": "/var/lib/docker/volumes/v/_data", "/var/lib/mao/bare": "/srv/bare", "/x": "/y"}


@pytest.mark.parametrize(
    ("path", "host"),
    [
        ("/var/lib/mao", "/var/lib/docker/volumes/v/_data"),
        ("/var/lib/mao/node", "/var/lib/docker/volumes/v/_data/node"),
        ("/var/lib/mao/bare/r.git", "/srv/bare/r.git"),
        ("/var/lib/mao2", None),
    ],
)
def test_map_to_host_uses_deepest_mount(path: str, host: str | None) -> None:
    assert map_to_host(Path(path), MOUNTS) == host


@pytest.mark.parametrize(
    ("line", "ids"),
    [
        (f"1 2 8:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/sda rw", [ID]),
        (f"12:memory:/docker/{ID}", [ID]),
        (f"0::/system.slice/docker-{ID}.scope", [ID]),
        (f"24 22 0:6 /overlay2/{ID}/merged / rw - overlay overlay rw", []),
        ("0::/user.slice/user-1000.slice", []),
    ],
)
def test_parse_container_ids(line: str, ids: list[str]) -> None:
    assert parse_container_ids([line]) == ids


async def test_host_paths_outside_container(tmp_path: Path) -> None:
    paths = await find_host_paths(FakeDriver(), tmp_path, None)
    assert paths == HostPaths(tmp_path, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


async def test_host_paths_inside_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_dir, "own_container_ids", lambda: ["unknown", ID])
    driver = FakeDriver()
    driver.own_mounts[ID] = {str(tmp_path): "/srv/mao"}
    paths = await find_host_paths(driver, tmp_path, None)
    assert paths.host(tmp_path / "workspaces" / "r") == "/srv/mao/workspaces/r"


async def test_host_paths_invalid_explains_next_step(tmp_path: Path) -> None:
    driver = FakeDriver()
    driver.unseen = ("/elsewhere",)
    with pytest.raises(HostDirInvalid) as caught:
        await find_host_paths(driver, tmp_path, "/elsewhere")
    assert "MAO_HOSTDIR" in (caught.value.next or "")


async def test_host_paths_invalid_starts_nothing_and_fails_readiness(tmp_path: Path) -> None:
    driver = FakeDriver()
    driver.unseen = ("/elsewhere",)
    bench = Bench(tmp_path, driver, hostdir="/elsewhere")
    await bench.submit(ready_run("r"))
    async with bench.runner() as runner:
        await eventually(lambda: any(call.startswith("sees") for call in driver.calls))
        await eventually(lambda: runner.containers.synced.is_set())
        with pytest.raises(MaoError):
            await runner.check_hostdir()
    assert driver.specs == {}


@pytest.mark.docker
@pytest.mark.parametrize("declared", ["VOLUME /x", 'VOLUME ["/x", "/var/lib/y"]'])
async def test_host_paths_check_leaves_no_volume(
    tmp_path: Path, engine: Engine, declared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = engine.build("true", before=declared)
    driver, made = DockerDriver(), list[str]()
    client = driver._connected()
    create = client.create_container

    def noting(*args: Any, **options: Any) -> Any:
        container = create(*args, **options)
        mounts = client.inspect_container(container["Id"])["Mounts"]
        made.extend(mount["Name"] for mount in mounts if mount["Type"] == "volume")
        return container

    monkeypatch.setattr(client, "images", lambda quiet: [image])  # as if it were the newest
    monkeypatch.setattr(client, "create_container", noting)
    try:
        assert await driver.sees(str(tmp_path), {"mao.test": engine.session})
        assert len(made) == declared.count("/x") + declared.count("/y")
        for name in made:
            with pytest.raises(NotFound):
                client.inspect_volume(name)
    finally:
        await driver.close()


ASK = """
import asyncio
from mao_runner.drivers.docker import DockerDriver
from mao_shared.errors import EngineUnavailable
async def ask():
    try:
        await DockerDriver().ping()
    except EngineUnavailable as error:
        print(error.detail, error.next)
asyncio.run(ask())
"""


@needs_root
@pytest.mark.parametrize("group", [4711, 0])
def test_docker_closed_socket_is_explained(group: int) -> None:
    python, env = python_for(NOBODY)
    with common_folder() as folder, socket.socket(socket.AF_UNIX) as engine:
        place = folder / "docker.sock"
        engine.bind(str(place))
        engine.listen()
        os.chown(place, 0, group)
        place.chmod(0o660)
        env = {**env, "DOCKER_HOST": f"unix://{place}"}
        done = subprocess.run(as_user(NOBODY, python, "-c", ASK), env=env, capture_output=True, text=True)
    assert f"the socket belongs to group {group}" in done.stdout, done.stderr
    assert "usermod -aG" in done.stdout


@pytest.mark.docker
async def test_docker_sees_directory(tmp_path: Path, engine: Engine) -> None:
    driver = DockerDriver()
    try:
        await find_host_paths(driver, tmp_path, None)
        with pytest.raises(HostDirInvalid):
            await find_host_paths(driver, tmp_path, "/proc/nowhere")
        with pytest.raises(HostDirInvalid):
            await find_host_paths(driver, tmp_path, "/tmp")
    finally:
        await driver.close()
    assert list(tmp_path.iterdir()) == []


def test_installation_id_is_stable(tmp_path: Path) -> None:
    first = installation_id(tmp_path / "new")
    assert len(first) == 16
    assert installation_id(tmp_path / "new") == first
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["installation"]


@pytest.mark.parametrize("content", [b"", b"\n", b"0123", b"\xff" * 16, b"0123456789abcdef0\n", bytes(17)])
def test_installation_id_torn(tmp_path: Path, content: bytes) -> None:
    """The runner starts with a new id: an empty one would be shared with others whose file is damaged."""
    (tmp_path / "installation").write_bytes(content)
    made = installation_id(tmp_path)
    assert len(bytes.fromhex(made)) == 8
    assert installation_id(tmp_path) == made
    assert [path.read_bytes() for path in tmp_path.glob("installation.torn-*")] == [content]


def test_installation_id_unusable_data_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MaoError) as caught:
        installation_id(tmp_path / "file")
    assert caught.value.code == "data-dir-unusable"
