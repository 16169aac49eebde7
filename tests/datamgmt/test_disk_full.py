"""A data directory that fills up: the fault is reported, steps wait, nothing is lost or run again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mao_datamgmt.steps import controller
from mao_shared.host.data_dir import Workspace
from mao_shared.models import Run
from mao_shared.states import StepPhase
from tests.support.disk import fill, small_disk
from tests.support.git import git

from .world import NODE, World, run_of, runs_on, step, working, writes

MIB = 1 << 20
SIZE = 24 * MIB


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Mount an empty file system of `SIZE` bytes."""
    with small_disk(tmp_path / "small", SIZE) as folder:
        yield folder


def noise(workspace: Workspace) -> None:
    """Write incompressible files."""
    for number in range(4):
        (workspace.data / f"noise-{number}").write_bytes(os.urandom(MIB))


def shown(run: Run) -> bool:
    return run.steps[0].error is not None


async def fill_and_publish(world: World, small: Path, *, leave: int) -> None:
    """Fill the disk between the tool's end and the commit, and free it later."""
    await world.whole(run_of("run-0", step("collect", "data", world.master)), writes(old="0"))
    await world.begin(run_of("run-1", step("collect", "data", world.master), after=1))
    fillers: list[Path] = []

    def tool(workspace: Workspace) -> None:
        noise(workspace)
        fillers.append(fill(small, leave=leave))

    await world.run_tool("run-1", tool)
    stuck = (await world.until("run-1", shown)).steps[0]
    assert stuck.phase is StepPhase.PUBLISHING
    assert stuck.error is not None
    assert (stuck.error.code, stuck.error.fault) == ("disk-full", "infrastructure")
    assert stuck.error.next
    assert (world.workspace("run-1").data / "noise-3").stat().st_size == MIB
    assert not list(world.manager.context.data.clone("data").rglob("*_git2_*"))
    fillers[0].unlink()
    done = await world.phase("run-1", StepPhase.SUCCEEDED, StepPhase.FAILED)
    assert (done.phase, done.attempt, done.error) == (StepPhase.SUCCEEDED, 1, None)
    assert runs_on(world.master) == ["run-1", "run-0"]
    assert git(world.master, "cat-file", "-s", f"{NODE}:noise-3") == str(MIB)
    for repository in (world.master, world.manager.context.data.clone("data")):
        git(repository, "fsck", "--strict", "--full")


async def test_disk_full_full_while_publishing(tmp_path: Path, small: Path) -> None:
    async with working(tmp_path, data_dir=small / "node", min_free=0) as world:
        await fill_and_publish(world, small, leave=MIB + MIB // 2)


async def test_disk_full_full_to_the_last_byte_while_publishing(tmp_path: Path, small: Path) -> None:
    async with working(tmp_path, data_dir=small / "node", min_free=0) as world:
        await fill_and_publish(world, small, leave=0)


async def test_disk_full_full_in_the_midst_of_writing_objects(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "mao_datamgmt.steps.publish.require_space", lambda *_: None
    )  # another process fills the disk at that moment
    async with working(tmp_path, data_dir=small / "node", min_free=0) as world:
        await fill_and_publish(world, small, leave=MIB + MIB // 2)


async def test_disk_full_reserve_is_left_alone(tmp_path: Path, small: Path) -> None:
    async with working(tmp_path, data_dir=small / "node", min_free=8 * MIB) as world:
        await fill_and_publish(world, small, leave=10 * MIB)


async def test_disk_full_nothing_begins_without_room(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "SPACE_CHECK_SECONDS", 0.05)
    async with working(tmp_path, data_dir=small / "node", min_free=8 * MIB) as world:
        filler = fill(small, leave=4 * MIB)
        await world.begin(run_of("run-0", step("collect", "data", world.master)))
        waits = await world.until("run-0", lambda run: run.steps[0].waiting is not None)
        assert waits.steps[0].phase is StepPhase.PREPARING
        assert "MAO_MIN_FREE" in str(waits.steps[0].waiting)
        assert (await world.manager.storage()).disk.shortage
        filler.unlink()
        await world.run_tool("run-0", writes(a="1"))
        done = await world.phase("run-0", StepPhase.SUCCEEDED, StepPhase.FAILED)
        assert (done.phase, done.waiting) == (StepPhase.SUCCEEDED, None)


@pytest.mark.parametrize("objects", [1, 12])
async def test_disk_full_full_while_the_clone_is_made(tmp_path: Path, small: Path, objects: int) -> None:
    """A fetch fills the disk: the step waits and the process survives."""
    async with working(tmp_path, data_dir=small / "node", min_free=0) as world:
        there = tmp_path / "there"
        git(tmp_path, "clone", "-q", str(world.master), str(there))
        for number in range(objects):
            (there / f"big-{number}").write_bytes(os.urandom(3 * MIB // objects))
        git(there, "add", "-A")
        git(there, "commit", "-qm", "big")
        git(there, "push", "-q", "origin", "HEAD:ground-truth")
        filler = fill(small, leave=MIB)
        await world.begin(run_of("run-0", step("collect", "data", world.master)))
        waits = await world.until("run-0", lambda run: run.steps[0].waiting is not None)
        assert "disk is full" in str(waits.steps[0].waiting)
        filler.unlink()
        await world.run_tool("run-0", writes(a="1"))
        done = await world.phase("run-0", StepPhase.SUCCEEDED, StepPhase.FAILED)
        assert done.phase is StepPhase.SUCCEEDED, done.error
