"""A node's files are private, and files that others could read are closed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mao_shared.host.data_dir import make_data_dir_private, process_lock
from mao_shared.host.files import (
    is_accessible_to_others,
    make_private,
    remove_access,
    replace_file,
    set_private_umask,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture(autouse=True)
def no_umask() -> Iterator[None]:
    """Set umask 000, so that files are open unless created with a mode."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.lstat().st_mode & 0o7777


def grown(root: Path) -> Path:
    """Create a data directory like an earlier version under umask 000."""
    files = [
        "logs/r1/0.1.log",
        "datasets/d.git/objects/ab/cdef",
        "datasets/d.git/config",
        "inbox/d/1.json",
        "etcd/member/snap/db",
        "federation/client.pem",
        "bare/d.git/HEAD",
        "installation",
        "secret.key",
        "workspaces/r1/0.1/data/x",
        "workspaces/r1/0.1/input/y",
        "worktrees/d/data/z",
        "agreements/p.json",
        "photos/holiday.jpg",
    ]
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return root


def test_make_private_closes_open_data_directory_except_workspaces(
    tmp_path: Path,
) -> None:
    root = grown(tmp_path / "node")
    (root / "datasets/d.git/hooks").mkdir()
    (root / "datasets/d.git/hooks/run").touch(0o755)
    make_data_dir_private(root)
    open_now = {str(path.relative_to(root)) for path in root.rglob("*") if mode(path) & 0o077}
    kept = {"workspaces/r1", "worktrees/d", "agreements", "photos"}
    assert {
        name for name in open_now if not any(f"{name}/".startswith(f"{prefix}/") for prefix in kept)
    } == set()
    assert mode(root) == mode(root / "workspaces") == mode(root / "worktrees") == 0o700
    assert mode(root / "workspaces/r1/0.1/input/y") == 0o666, "a tool of another uid reads it"
    assert mode(root / "photos/holiday.jpg") == 0o666, "none of ours"
    assert mode(root / "datasets/d.git/hooks/run") == 0o700, "what its owner may do, stays"
    assert mode(root / "logs/r1/0.1.log") == 0o600


def test_make_private_is_idempotent(tmp_path: Path) -> None:
    root = grown(tmp_path / "node")
    make_data_dir_private(root)
    before = {path: path.lstat().st_ctime_ns for path in root.rglob("*")}
    make_data_dir_private(root)
    assert {path: path.lstat().st_ctime_ns for path in root.rglob("*")} == before


def test_make_private_repeats_interrupted_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = grown(tmp_path / "node")

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("mao_shared.host.files.remove_access", killed)
        with pytest.raises(KeyboardInterrupt):
            make_private(root, names=["logs"])
    make_private(root, names=["logs"])
    assert mode(root / "logs/r1/0.1.log") == 0o600


@pytest.mark.parametrize("make", ["keep", "lock"])
def test_make_private_new_data_directory_is_closed_whatever_the_umask(tmp_path: Path, make: str) -> None:
    root = tmp_path / "new" / "node"
    if make == "keep":
        make_data_dir_private(root)
    else:
        with process_lock(root, "runner"):
            pass
    assert mode(root) == 0o700


def test_make_private_ignores_links_and_their_targets(tmp_path: Path) -> None:
    root = grown(tmp_path / "node")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    (root / "logs" / "link").symlink_to(elsewhere)
    (root / "aside").symlink_to(elsewhere)
    make_data_dir_private(root)
    assert (mode(elsewhere), mode(elsewhere / "file")) == (0o777, 0o666)


def test_make_private_ignores_shared_folder(tmp_path: Path) -> None:
    shared = grown(tmp_path / "shared")
    shared.chmod(0o1777)
    make_data_dir_private(shared)
    assert mode(shared) == 0o1777
    assert mode(shared / "logs") == 0o700


@as_root
def test_make_private_ignores_files_of_other_users(tmp_path: Path) -> None:
    root = grown(tmp_path / "node")
    os.chown(root / "inbox", 10001, 10001)
    make_data_dir_private(root)
    assert mode(root / "inbox") == 0o777
    assert not is_accessible_to_others(root / "inbox")


def test_make_private_ignores_missing_folder(tmp_path: Path) -> None:
    remove_access(tmp_path / "never")
    assert not is_accessible_to_others(tmp_path / "never")


def test_make_private_node_umask_creates_private_files(tmp_path: Path) -> None:
    set_private_umask()
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    replace_file(tmp_path / "whole", b"x")
    assert [mode(tmp_path / name) for name in ("folder", "file", "whole")] == [0o700, 0o600, 0o600]
