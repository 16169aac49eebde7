"""A start removes the leftovers of a killed writer, and keeps complete, young and foreign files."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pygit2
import pytest

import mao_git
from mao_datamgmt import upkeep
from mao_datamgmt.datasets.clones import sweep_old_locks
from mao_datamgmt.disk import MIN_FREE_INODES, DiskSpace, find_low_space, find_shortage
from mao_git import Clone
from mao_git.errors import disk_full, is_full
from mao_git.maintenance import pushing, unsynced
from mao_shared.host.data_dir import DataDir
from mao_shared.states import StepPhase
from tests.datamgmt.world import NODE, run_of, runs_on, step, working, writes
from tests.support.git import git
from tests.support.waiting import eventually


def test_sweep_removes_locks_and_half_written_files(tmp_path: Path) -> None:
    path = tmp_path / "x.git"
    pygit2.init_repository(str(path), bare=True)
    left = [
        "packed-refs.lock",
        "refs/heads/node-1.lock",
        "objects/tmp_object_git2_a1",
        "objects/pack/pack-1.idx",
    ]
    for name in left:
        (path / name).write_text("")
    before = {file for file in path.rglob("*") if file.is_file()}
    assert {str(file.relative_to(path)) for file in mao_git.sweep(path)} == set(left)
    assert before - {file for file in path.rglob("*") if file.is_file()} == {path / name for name in left}


def new_clone(path: Path, url: str) -> None:
    with Clone.create(path, url):
        pass


def test_sweep_removes_torn_objects(tmp_path: Path) -> None:
    path = tmp_path / "x.git"
    new_clone(path, "/nowhere")
    clone = Clone.open(path)
    power_goes = unsynced(clone)
    power_goes.__enter__()
    whole, torn, empty = (str(clone.git.create_blob(text)) for text in (b"whole", b"torn", b"empty"))
    loose = {name: path / "objects" / name[:2] / name[2:] for name in (whole, torn, empty)}
    for name, keep in ((torn, 5), (empty, 0)):
        loose[name].chmod(0o600)
        loose[name].write_bytes(loose[name].read_bytes()[:keep])
    assert set(mao_git.sweep(path)) == {loose[torn], loose[empty]}
    assert mao_git.sweep(path) == []


def test_sweep_locks_ignores_folders_removed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Remove a folder during a walk, as git removes a branch's empty folder."""
    path = tmp_path / "x.git"
    pygit2.init_repository(str(path), bare=True)
    (path / "refs/heads/a").mkdir()
    left = path / "objects/info/x.lock"
    left.write_text("")
    scan = os.scandir

    def goes(folder: Path) -> Any:
        if Path(folder).name == "a" and folder.is_dir():
            folder.rmdir()
        return scan(folder)

    monkeypatch.setattr(os, "scandir", goes)
    assert mao_git.sweep_locks(path) == [left]


def test_sweep_locks_spares_unfinished_repositories(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    for name in ("x", ".new-1-x"):
        (data.bare(name) / "refs").mkdir(parents=True)
        (data.bare(name) / "refs/a.lock").write_text("")
        os.utime(data.bare(name) / "refs/a.lock", (0, 0))
    assert sweep_old_locks(data) == [data.bare("x") / "refs/a.lock"]


async def test_sweep_failure_ends_no_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(_: DataDir) -> list[Path]:
        raise PermissionError("not yours")

    monkeypatch.setattr(upkeep, "sweep_old_locks", breaks)
    async with working(tmp_path) as world:
        await world.manager.mirror.synced.wait()
        task = asyncio.create_task(world.manager.upkeep.run())
        done, _ = await asyncio.wait([task], timeout=0.5)
        task.cancel()
        assert not done


async def test_stale_lock_in_a_clone_is_removed(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await world.whole(run_of("run-0", step("collect", "data", world.master)), writes(a="0"))
        clone = world.manager.context.data.clone("data")
    lock = clone / f"refs/heads/{NODE}.lock"
    lock.write_text("")
    async with working(tmp_path) as world:
        done = await world.whole(
            run_of("run-1", step("collect", "data", world.master), after=1), writes(a="1")
        )
        assert done.phase is StepPhase.SUCCEEDED
        assert runs_on(world.master) == ["run-1", "run-0"]


async def test_stale_lock_in_a_remote_is_named(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await world.whole(run_of("run-0", step("collect", "data", world.master)), writes(a="0"))
        lock = world.master / f"refs/heads/{NODE}.lock"
        lock.write_text("")
        os.utime(lock, (time.time() - 3600,) * 2)
        done = await world.whole(
            run_of("run-1", step("collect", "data", world.master), after=1), writes(a="1")
        )
        assert (done.phase, done.pushed) == (StepPhase.SUCCEEDED, False)
        assert str(lock) in str(done.waiting)
        lock.unlink()
        await eventually(lambda: runs_on(world.master) == ["run-1", "run-0"])


def test_sweep_removes_only_our_locks_in_a_remote(tmp_path: Path) -> None:
    path, remote = tmp_path / "x.git", tmp_path / "remote.git"
    mao_git.init_bare(remote)
    new_clone(path, str(remote))
    moves = {"refs/heads/ours": "a" * 40, "refs/heads/empty": "b" * 40, "refs/heads/theirs": "c" * 40}
    dies = pushing(Clone.open(path), remote, moves)
    dies.__enter__()
    for name, text in (("ours", "a" * 40 + "\n"), ("empty", ""), ("theirs", "d" * 40), ("other", "")):
        (remote / f"refs/heads/{name}.lock").write_text(text)
    assert {file.name for file in mao_git.sweep(path)} == {"ours.lock", "empty.lock"}
    assert mao_git.sweep(path) == []


def test_sweep_lock_that_cannot_be_removed_is_left_for_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, remote = tmp_path / "x.git", tmp_path / "remote.git"
    mao_git.init_bare(remote)
    new_clone(path, str(remote))
    dies = pushing(Clone.open(path), remote, {"refs/heads/ours": "a" * 40})
    dies.__enter__()
    lock = remote / "refs/heads/ours.lock"
    lock.write_text("")
    with monkeypatch.context() as patch:
        unlink = Path.unlink

        def refused(at: Path, missing_ok: bool = False) -> None:
            if at == lock:
                raise PermissionError("not yours")
            unlink(at, missing_ok)

        patch.setattr(Path, "unlink", refused)
        assert mao_git.sweep(path) == []
    assert mao_git.sweep(path) == [lock]


async def test_sweep_locks_of_local_remotes_by_age(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        bare = world.manager.context.data.bare("shared")
        mao_git.init_bare(bare)
    old, young = bare / "packed-refs.lock", bare / "refs/heads/node-2.lock"
    for lock in (old, young):
        lock.write_text("")
    os.utime(old, (time.time() - 3600,) * 2)
    async with working(tmp_path):
        assert not old.exists()
        assert young.exists()


def test_is_full() -> None:
    assert is_full(OSError(28, "No space left on device"))
    assert is_full(pygit2.GitError("failed to write chunk: Disk quota exceeded"))
    assert not is_full(OSError(5, "Input/output error"))
    assert not is_full(KeyError("1234abcd"))
    assert find_shortage(DiskSpace(100, 1000), 50, 50) is None
    assert "MAO_MIN_FREE" in str(find_shortage(DiskSpace(100, 1000), 50, 51))


@pytest.mark.parametrize(
    ("room", "short", "low"),
    [
        (DiskSpace(200, 1000), None, None),
        (DiskSpace(199, 1000), None, "twice"),
        (DiskSpace(100, 1000), None, "twice"),
        (DiskSpace(99, 1000), "MAO_MIN_FREE", "twice"),
        (DiskSpace(500, 1000, inodes=2 * MIN_FREE_INODES), None, None),
        (DiskSpace(500, 1000, inodes=2 * MIN_FREE_INODES - 1), None, "inodes"),
        (DiskSpace(500, 1000, inodes=MIN_FREE_INODES - 1), "inodes", "inodes"),
        (DiskSpace(500, 1000, writable=False), "not writable", None),
    ],
)
def test_find_shortage_and_low_space(room: DiskSpace, short: str | None, low: str | None) -> None:
    for found, wanted in ((find_shortage(room, 100), short), (find_low_space(room, 100), low)):
        assert (found is None) == (wanted is None)
        assert (wanted or "") in (found or "")
    assert disk_full("x").next


def test_unsynced_leaves_whole_objects(tmp_path: Path) -> None:
    path = tmp_path / "x.git"
    new_clone(path, "/nowhere")
    clone = Clone.open(path)
    with unsynced(clone):
        clone.git.create_blob(b"kept")
    assert mao_git.sweep(path) == []
    git(path, "fsck", "--strict", "--full")
