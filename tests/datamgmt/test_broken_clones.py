"""A broken clone is set aside and recreated with its unpushed commits; losses are reported by name."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import mao_git
from mao_datamgmt.datasets import broken
from mao_datamgmt.datasets.clones import ensure_clone
from mao_git import ObjectMissing
from mao_shared.errors import Conflict, NotFound
from mao_shared.host.data_dir import Workspace
from mao_shared.models.node import Condition
from mao_shared.states import StepPhase
from tests.support.git import bare_repository, file_at, git
from tests.support.waiting import eventually, eventually_answers

from .world import NODE, World, context_for, run_of, runs_on, step, working, writes


def _object(clone: Path, revision: str) -> Path:
    oid = git(clone, "rev-parse", revision)
    path = clone / "objects" / oid[:2] / oid[2:]
    path.chmod(0o644)
    return path


def spoil(revision: str) -> Callable[[Path], object]:
    return lambda clone: _object(clone, revision).write_bytes(b"spoilt")


def cut(revision: str) -> Callable[[Path], object]:
    def one(clone: Path) -> None:
        path = _object(clone, revision)
        os.truncate(path, path.stat().st_size // 2)

    return one


def emptied(name: str) -> Callable[[Path], object]:
    return lambda clone: (clone / name).write_bytes(b"")


def garbage(name: str) -> Callable[[Path], object]:
    return lambda clone: (clone / name).write_bytes(random.Random(1).randbytes(60))


def _packed(clone: Path, then: Callable[[Path], object]) -> None:
    git(clone, "repack", "-adq")
    git(clone, "pack-refs", "--all")
    then(clone)


def _no_pack(clone: Path) -> None:
    for path in (clone / "objects/pack").iterdir():
        path.unlink()


def _spoilt_pack(clone: Path) -> None:
    (pack,) = (clone / "objects/pack").glob("*.pack")
    pack.chmod(0o644)
    data = bytearray(pack.read_bytes())
    data[len(data) // 4 : len(data) // 4 * 3] = b"\0" * (len(data) // 4 * 3 - len(data) // 4)
    pack.write_bytes(data)


def _empty_folder(clone: Path) -> None:
    shutil.rmtree(clone)
    clone.mkdir()


def _a_file(clone: Path) -> None:
    shutil.rmtree(clone)
    clone.write_text("")


BRANCH = f"refs/heads/{NODE}"
BREAKAGES: dict[str, Callable[[Path], object]] = {
    "spoilt commit": spoil(NODE),
    "spoilt tree": spoil(f"{NODE}^{{tree}}"),
    "spoilt blob": spoil(f"{NODE}:d/f"),
    "commit cut short": cut(NODE),
    "tree cut short": cut(f"{NODE}^{{tree}}"),
    "missing commit": lambda clone: _object(clone, NODE).unlink(),
    "missing blob": lambda clone: _object(clone, f"{NODE}:d/f").unlink(),
    "emptied commit": lambda clone: _object(clone, NODE).write_bytes(b""),
    "emptied branch": emptied(BRANCH),
    "garbage branch": garbage(BRANCH),
    "branch of zeros": lambda clone: (clone / BRANCH).write_text("0" * 40 + "\n"),
    "missing branch": lambda clone: (clone / BRANCH).unlink(),
    "emptied packed-refs": lambda clone: _packed(clone, emptied("packed-refs")),
    "garbage packed-refs": lambda clone: _packed(clone, garbage("packed-refs")),
    "missing pack": lambda clone: _packed(clone, _no_pack),
    "spoilt pack": lambda clone: _packed(clone, _spoilt_pack),
    "emptied HEAD": emptied("HEAD"),
    "missing HEAD": lambda clone: (clone / "HEAD").unlink(),
    "garbage config": garbage("config"),
    "emptied config": emptied("config"),
    "missing config": lambda clone: (clone / "config").unlink(),
    "missing refs": lambda clone: shutil.rmtree(clone / "refs"),
    "missing objects": lambda clone: shutil.rmtree(clone / "objects"),
    "an empty folder": _empty_folder,
    "a file": _a_file,
}
LOST = {  # of the newest unpushed commit only
    "spoilt commit",
    "spoilt tree",
    "spoilt blob",
    "commit cut short",
    "tree cut short",
    "missing commit",
    "missing blob",
    "emptied commit",
}
NOTICED_LATE = {"spoilt tree", "tree cut short", "spoilt blob", "missing blob", "older"}  # when it is pushed
ALL_LOST = {"missing pack", "missing objects", "an empty folder", "a file"}
UNSURE = {"spoilt pack"}


def condition(world: World) -> Condition | None:
    found = {c.name: c for c in world.manager.conditions.current() if c.subject == "data"}
    return found.get("clone")


async def collect(world: World, number: int, pushed: bool = True) -> None:
    files = {"d__f": f"{number}", f"d__only-{number}": "x", "latest": f"{number}"}
    run = run_of(f"run-{number}", step("collect", "data", world.master), after=number)
    done = await world.whole(run, writes(**files))
    assert (done.phase, done.pushed) == (StepPhase.SUCCEEDED, pushed), done.error


async def lost_is_told(world: World, run: str) -> None:
    """Wait until the dataset's status reports the commit of this run as lost."""

    async def told() -> bool:
        (record,) = (await world.manager.status("data")).broken_clones
        return run in " ".join(record.lost.values())

    await eventually_answers(told)


def aside(world: World) -> list[Path]:
    return list((world.manager.context.data.root / "aside").glob("*/data.git"))


@pytest.mark.parametrize("how", BREAKAGES)
async def test_broken_clone_is_made_anew_from_its_remote(tmp_path: Path, how: str) -> None:
    async with working(tmp_path) as world:
        await collect(world, 0)
        await collect(world, 1)
        clone = world.manager.context.data.clone("data")
        BREAKAGES[how](clone)
        kept = world.manager.context.data.worktree("data")
        await eventually(kept.exists)
        shutil.rmtree(kept)  # so that the whole clone is read
        await collect(world, 2)
        assert runs_on(world.master) == ["run-2", "run-1", "run-0"]
        git(clone, "fsck", "--strict", "--full")
        assert len(aside(world)) == 1
        told = condition(world)
        assert told is not None
        assert str(aside(world)[0]) in told.detail
        assert "maoctl dataset acknowledge data" in told.next
        (record,) = (await world.manager.status("data")).broken_clones
        assert (record.state, record.lost) == ("made-anew", {})
        assert "Nothing is lost" in record.detail


@asynccontextmanager
async def with_outbox(tmp_path: Path, how: str) -> AsyncIterator[World]:
    """Yield a data manager with two unpushed commits, a broken clone, and its remote available again."""
    async with working(tmp_path) as world:
        await collect(world, 0)
        world.master.rename(tmp_path / "away")
        await collect(world, 1, pushed=False)
        await collect(world, 2, pushed=False)
        BREAKAGES[how](world.manager.context.data.clone("data"))
        if how not in NOTICED_LATE:
            await eventually(lambda: condition(world) is not None)
            told = condition(world)
            assert told is not None
            assert "has to answer" in told.detail
        (tmp_path / "away").rename(world.master)
        yield world


@pytest.mark.parametrize("how", BREAKAGES)
async def test_broken_clone_unpushed_commits_are_replayed(tmp_path: Path, how: str) -> None:
    async with with_outbox(tmp_path, how) as world:
        await collect(world, 3)
        if how in LOST:
            await lost_is_told(world, "run-2")
        (record,) = (await world.manager.status("data")).broken_clones
        found = runs_on(world.master)
        if how in ALL_LOST:
            assert found == ["run-3", "run-0"]
            assert record.lost
        elif how in LOST:
            assert found == ["run-3", "run-1", "run-0"]
            assert file_at(world.master, f"{NODE}:d/only-1") == "x"
        elif how not in UNSURE:
            assert found == ["run-3", "run-2", "run-1", "run-0"]
            assert file_at(world.master, f"{NODE}:d/only-2") == "x"
            assert record.lost == {}
            assert record.kept >= 2
        else:
            missing = {"run-1", "run-2"} - set(found)
            assert not missing or record.lost
        assert file_at(world.master, f"{NODE}:latest") == "3"
        for repository in (world.master, world.manager.context.data.clone("data")):
            git(repository, "fsck", "--strict", "--full")
        assert aside(world)
        told = condition(world)
        assert told is not None
        assert all(commit[:10] in told.detail for commit in record.lost)


async def test_broken_clone_spoilt_commit_in_between_costs_only_itself(tmp_path: Path) -> None:
    BREAKAGES["older"] = spoil(f"{NODE}~1")
    try:
        async with with_outbox(tmp_path, "older") as world:
            await eventually(lambda: runs_on(world.master) == ["run-2", "run-0"])
            assert file_at(world.master, f"{NODE}:d/only-1") == "x"  # run-2 held it as well
            await lost_is_told(world, "run-1")
    finally:
        del BREAKAGES["older"]


async def test_broken_clone_follows_remote_changed_meanwhile(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await collect(world, 0)
        world.master.rename(tmp_path / "away")
        await collect(world, 1, pushed=False)
        emptied(BRANCH)(world.manager.context.data.clone("data"))
        work = tmp_path / "work"
        git(tmp_path, "clone", "-q", "-b", NODE, str(tmp_path / "away"), str(work))
        (work / "theirs").write_text("1")
        git(work, "add", "-A")
        git(work, "commit", "-qm", "by a stranger")
        git(work, "push", "-q", "origin", NODE)
        (tmp_path / "away").rename(world.master)
        await eventually(lambda: runs_on(world.master) == ["run-1", "run-0"])
        assert file_at(world.master, f"{NODE}:theirs") == "1"
        assert file_at(world.master, f"{NODE}:d/only-1") == "x"


async def test_broken_clone_publishing_step_is_published_from_workspace(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await collect(world, 0)
        await world.begin(run_of("run-1", step("collect", "data", world.master), after=1))

        def tool(workspace: Workspace) -> None:
            writes(d__f="1")(workspace)
            spoil(NODE)(world.manager.context.data.clone("data"))
            world.master.rename(tmp_path / "away")

        await world.run_tool("run-1", tool)
        waits = await world.until("run-1", lambda run: run.steps[0].waiting is not None)
        assert waits.steps[0].phase is StepPhase.PUBLISHING
        assert "was broken" in str(waits.steps[0].waiting)
        other = bare_repository(tmp_path / "other.git")
        done = await world.whole(run_of("run-2", step("other", "more", other), after=2), writes(a="1"))
        assert done.pushed  # other datasets are still collected
        waiting = (await world.manager.status("data")).broken_clones
        assert [entry.state for entry in waiting] == ["waiting"]
        with pytest.raises(Conflict, match="has to answer"):
            await world.manager.acknowledge("data")
        (tmp_path / "away").rename(world.master)
        done = await world.phase("run-1", StepPhase.SUCCEEDED, StepPhase.FAILED)
        assert (done.phase, done.error, done.attempt) == (StepPhase.SUCCEEDED, None, 1)
        await eventually(lambda: runs_on(world.master) == ["run-1", "run-0"])


async def test_broken_clone_condition_stays_over_restarts_until_it_is_acknowledged(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await collect(world, 0)
        emptied("HEAD")(world.manager.context.data.clone("data"))
        await collect(world, 1)
        store = world.store
    async with working(tmp_path, store) as world:
        await eventually(lambda: condition(world) is not None)
        status = await world.manager.acknowledge("data")
        assert status.broken_clones == []
        assert condition(world) is None
        assert len(aside(world)) == 1
        with pytest.raises(NotFound) as caught:
            await world.manager.acknowledge("data")
        assert caught.value.code == "nothing-to-acknowledge"
    async with working(tmp_path, store) as world:
        await collect(world, 2)
        assert condition(world) is None


async def test_broken_clone_found_by_browsing(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await collect(world, 0)
        spoil(NODE)(world.manager.context.data.clone("data"))
        status = await world.manager.status("data")
        assert [clone.state for clone in status.broken_clones] == ["made-anew"]
        assert {branch.name for branch in status.branches} == {NODE, "ground-truth"}


async def test_broken_clone_list_shows_other_datasets_beside_a_broken_clone(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await collect(world, 0)
        other = bare_repository(tmp_path / "other.git")
        await world.whole(run_of("run-1", step("other", "more", other), after=1), writes(a="1"))
        spoil(NODE)(world.manager.context.data.clone("data"))
        listed = {item.name: item for item in (await world.manager.statuses(10, None)).items}
        assert "cannot be read" in str(listed["data"].failure)
        assert listed["more"].failure is None


async def test_broken_clone_failing_disk_is_not_filled_with_clones(tmp_path: Path) -> None:
    """A clone that breaks again at once is left where it is."""
    async with working(tmp_path) as world:
        await collect(world, 0)
        spoil(NODE)(world.manager.context.data.clone("data"))
        assert (await world.manager.status("data")).broken_clones
        emptied("HEAD")(world.manager.context.data.clone("data"))
        run = run_of("run-1", step("collect", "data", world.master), after=1)
        await world.begin(run)
        shown = await world.until("run-1", lambda run: run.steps[0].waiting is not None)
        assert "broken again" in str(shown.steps[0].waiting)
        assert len(aside(world)) == 1


@pytest.mark.parametrize(
    "how", ["sound", "stale lock", "half-written", "packed", "no hooks", "empty folders"]
)
def test_broken_clone_clone_in_order_is_left_alone(tmp_path: Path, how: str) -> None:
    context = context_for(tmp_path)
    master = bare_repository(tmp_path / "master.git")
    work = tmp_path / "work"
    git(tmp_path, "clone", "-q", str(master), str(work))
    (work / "f").write_text("1")
    git(work, "add", "-A")
    git(work, "commit", "-qm", "one")
    git(work, "push", "-q", "origin", f"HEAD:{NODE}", "HEAD:ground-truth")
    clone = ensure_clone(context, "data", str(master)).path
    if how == "stale lock":
        (clone / f"{BRANCH}.lock").touch()
        (clone / "HEAD.lock").touch()
    elif how == "half-written":
        (clone / "objects/pack/pack_git2_abc").write_text("x")
    elif how == "packed":
        git(clone, "gc", "-q")
    elif how == "no hooks":
        for name in ("hooks", "info", "description"):
            path = clone / name
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
    elif how == "empty folders":
        (clone / "refs/tags/empty").mkdir(parents=True)
    assert mao_git.fsck(clone, NODE) is None
    assert broken.set_broken_aside(context, "data") is None
    assert clone.is_dir()


def test_broken_clone_shallow_clone_is_in_order(tmp_path: Path) -> None:
    """A commit whose parents were never fetched is no fault."""
    master = bare_repository(tmp_path / "master.git")
    work = tmp_path / "work"
    git(tmp_path, "clone", "-q", str(master), str(work))
    for number in range(3):
        (work / "f").write_text(str(number))
        git(work, "add", "-A")
        git(work, "commit", "-qm", str(number))
    git(work, "push", "-q", "origin", f"HEAD:{NODE}")
    clone = tmp_path / "shallow.git"
    git(tmp_path, "clone", "-q", "--bare", "--depth=1", "-b", NODE, f"file://{master}", str(clone))
    assert mao_git.fsck(clone, NODE) is None
    (clone / "shallow").unlink()
    assert "missing" in str(mao_git.fsck(clone, NODE))


@pytest.mark.parametrize("number", [13, 28, 30, 122])
def test_broken_clone_closed_or_full_disk_is_no_broken_clone(number: int) -> None:
    assert not broken.may_be_broken(OSError(number, os.strerror(number)))
    assert not broken.may_be_broken(OSError(f"failed to open: {os.strerror(number)}"))
    assert broken.may_be_broken(OSError(5, os.strerror(5)))
    assert broken.may_be_broken(ObjectMissing("object not found"))
