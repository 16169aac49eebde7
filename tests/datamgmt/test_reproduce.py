"""A step reproduced on its original commits is compared file by file, without publishing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mao_datamgmt.steps.reproduce import MAX_LISTED, FileDigest, OutputComparison, summarize
from mao_shared.commit_messages import read_step_record
from mao_shared.host.data_dir import Workspace
from mao_shared.models import Original, Reproduced, Run, StepRun
from mao_shared.states import StepPhase
from mao_shared.store.memory import MemoryStore
from tests.support.git import bare_repository, file_at, git
from tests.support.waiting import eventually

from .world import BEGIN, NODE, Tool, World, run_of, step, working, writes


def again(run: Run, done: StepRun, run_id: str = "again") -> Run:
    """Create the reproduction of a run's only step, as the scheduler does."""
    fresh = StepRun(spec=done.spec, base_commit=done.base_commit, input_commit=done.input_commit)
    original = Original(run=run.id, step=done.spec.name, snapshot=done.snapshot or "")
    made = run_of(run_id, fresh, after=100)
    return made.model_copy(update={"trigger": "reproduce", "reproduces": original})


async def original(
    world: World, tool: Tool, run_id: str = "run-1", above: int | None = None
) -> tuple[Run, StepRun]:
    run = run_of(run_id, step("collect", "data", world.master, above=above))
    done = await world.whole(run, tool)
    assert done.phase is StepPhase.SUCCEEDED, done.error
    return run, done


async def reproduced(world: World, run: Run, tool: Tool) -> Reproduced:
    done = await world.whole(run, tool)
    assert done.reproduced is not None, done.error
    assert done.snapshot is None
    return done.reproduced


def summing(workspace: Workspace) -> None:
    """Append one line to the input, deterministically."""
    with (workspace.data / "sum").open("a") as file:
        file.write("x\n")


async def test_reproduce_deterministic_step(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        run, done = await original(world, summing)
        await original(world, summing, "run-2")  # the branch has gone on
        tips = git(world.master, "for-each-ref")
        found = await reproduced(world, again(run, done), summing)
        assert found == Reproduced(identical=1)
        assert git(world.master, "for-each-ref") == tips
        await eventually(lambda: not world.workspace("again").root.parent.exists())


async def test_reproduce_names_each_difference(tmp_path: Path) -> None:
    def other(workspace: Workspace) -> None:
        writes(same="1", value="3", new="x")(workspace)

    async with working(tmp_path) as world:
        run, done = await original(world, writes(same="1", value="2", gone="4"))
        found = await reproduced(world, again(run, done), other)
        assert found == Reproduced(identical=1, different=["value"], missing=["gone"], extra=["new"])
        assert (world.workspace("again").data / "value").read_text() == "3"


async def test_reproduce_counts_removals_and_rewrites(tmp_path: Path) -> None:
    def rewrites(workspace: Workspace) -> None:
        (workspace.data / "a").write_text("1")  # as it was
        (workspace.data / "b").unlink()

    async with working(tmp_path) as world:
        await original(world, writes(a="1", b="2", c="3"))
        run, done = await original(world, rewrites, "run-2")
        assert await reproduced(world, again(run, done), rewrites) == Reproduced(identical=1)
        kept = await reproduced(world, again(run, done, "again-2"), lambda _: None)
        assert kept == Reproduced(extra=["b"])


async def test_reproduce_waits_for_no_other_run(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        run, done = await original(world, summing)
        holds = run_of("holds", step("collect", "data", world.master), after=1)
        await world.begin(holds)
        await world.phase("holds", StepPhase.READY)
        await world.begin(again(run, done))
        await world.phase("again", StepPhase.READY)
        await world.run_tool("holds", summing)
        await world.phase("holds", StepPhase.SUCCEEDED)
        await world.begin(run_of("next", step("collect", "data", world.master), after=200))
        await world.phase("next", StepPhase.READY)


async def test_reproduce_uses_the_same_input(tmp_path: Path) -> None:
    def copies(workspace: Workspace) -> None:
        (workspace.data / "copy").write_text((workspace.input / "a").read_text())

    async with working(tmp_path) as world:
        await original(world, writes(a="first"))
        derived = bare_repository(tmp_path / "derived.git")
        source = ("data", str(world.master), "ground-truth")
        run = run_of("derive", step("derive", "derived", derived, source), after=1)
        done = await world.whole(run, copies)
        await original(world, writes(a="second"), "run-3")
        assert await reproduced(world, again(run, done), copies) == Reproduced(identical=1)


async def test_reproduce_without_the_commit_fails(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        run, done = await original(world, summing)
        lost = done.model_copy(update={"base_commit": "0" * 40})
        await world.begin(again(run, lost))
        failed = await world.phase("again", StepPhase.FAILED)
        assert failed.error is not None
        assert (failed.error.code, failed.error.fault) == ("commit-missing", "infrastructure")
        assert "maoctl dataset log data" in (failed.error.next or "")


@pytest.mark.parametrize("kind", ["different", "missing", "extra"])
def test_judge_limits_its_lists(kind: str) -> None:
    paths = [f"f{number:05}" for number in range(MAX_LISTED + 5)]
    ours = {path: None if kind == "missing" else FileDigest("1") for path in paths}
    theirs = dict.fromkeys(paths, None if kind == "extra" else "2")
    found = summarize(OutputComparison(ours, theirs))
    assert len(getattr(found, kind)) == MAX_LISTED
    assert found.unlisted == 5
    assert not found.same


def test_judge_compares_lfs_content() -> None:
    ours = {"a": FileDigest("blob", "f" * 64), "b": FileDigest("blob", "e" * 64)}
    found = summarize(OutputComparison(ours, {"a": "pointer", "b": "pointer"}, {"pointer": "f" * 64}))
    assert found == Reproduced(identical=1, different=["b"])


async def test_reproduce_killed_while_comparing_continues(tmp_path: Path) -> None:
    store = MemoryStore()
    async with working(tmp_path, store) as world:
        run, done = await original(world, summing)
        await world.begin(again(run, done))
        await world.phase("again", StepPhase.READY)
        summing(world.workspace("again"))

    def publishing(run: Run) -> Run:
        moved = run.steps[0]
        for phase in (StepPhase.STARTING, StepPhase.RUNNING, StepPhase.EXITED, StepPhase.PUBLISHING):
            moved = moved.move(phase, BEGIN)
        return run.with_step(0, moved)

    await world.change("again", publishing)
    async with working(tmp_path, store) as world:
        ended = await world.phase("again", StepPhase.SUCCEEDED)
        assert ended.reproduced == Reproduced(identical=1)


@pytest.mark.lfs
async def test_large_files_are_compared_and_recorded_by_their_content(tmp_path: Path) -> None:
    def writes_big(workspace: Workspace) -> None:
        (workspace.data / "big").write_text("x" * 5000)

    async with working(tmp_path) as world:
        run, done = await original(world, writes_big, above=1000)
        assert file_at(world.master, f"{NODE}:big").startswith("version https://git-lfs")
        written = read_step_record(git(world.master, "log", "-1", "--format=%B", NODE))
        assert written is not None
        assert written["outputs"]["big"] == {
            "size": 5000,
            "sha256": hashlib.sha256(b"x" * 5000).hexdigest(),
        }
        assert await reproduced(world, again(run, done), writes_big) == Reproduced(identical=1)
        found = await reproduced(world, again(run, done, "other"), writes(big="y" * 5000))
        assert found == Reproduced(different=["big"])
