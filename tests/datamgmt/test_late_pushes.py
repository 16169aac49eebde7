"""With the remote unavailable, commits wait, are pushed later, and their runs are updated."""

from __future__ import annotations

from pathlib import Path

from mao_shared import keys
from mao_shared.models import Run
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store.memory import MemoryStore
from tests.support.git import bare_repository, git
from tests.support.waiting import eventually

from .world import NODE, push_as_stranger, run_of, runs_on, step, working, writes


async def test_late_push_remote_away_and_back(tmp_path: Path) -> None:
    store = MemoryStore()
    away = tmp_path / "away.git"
    async with working(tmp_path, store) as world:
        await world.whole(run_of("run-0", step("collect", "data", world.master)), writes(a="0"))
        world.master.rename(away)
        for number in (1, 2):
            run = run_of(f"run-{number}", step("collect", "data", world.master), after=number)
            done = await world.whole(run, writes(a=str(number)))
            assert done.phase is StepPhase.SUCCEEDED, done.error
            assert not done.pushed
            assert done.ground_truth == done.snapshot
            assert "not pushed yet" in (done.waiting or "")
        status = await world.manager.status("data")
        assert status.failure is not None
        assert status.unpushed == 4
        assert world.metric("mao_datamgmt_unpushed_datasets") == 1
        away.rename(world.master)
        await eventually(lambda: not world.manager.pusher.failures)
        assert runs_on(world.master, "ground-truth") == ["run-2", "run-1", "run-0"]
        assert (await world.manager.status("data")).unpushed == 0
        for number in (1, 2):
            told = await world.until(f"run-{number}", lambda run: run.steps[0].pushed)
            assert told.steps[0].waiting is None
        assert world.metric("mao_datamgmt_unpushed_datasets") == 0
        assert world.metric("mao_datamgmt_late_pushes_total", outcome="done")
        assert world.metric("mao_datamgmt_outcomes_total", phase="succeeded", code="") == 3
        assert world.metric("mao_datamgmt_prepare_seconds_count") == 3
        assert world.metric("mao_datamgmt_publish_seconds_count") == 3
        assert world.metric("mao_datamgmt_disk_free_bytes")


async def test_late_push_ended_run_records_the_push_time(tmp_path: Path) -> None:
    """The next run pushes the commit, which was replayed and has a new id."""
    store = MemoryStore()
    away = tmp_path / "away.git"
    async with working(tmp_path, store, push_retry=3600) as world:
        await world.whole(run_of("run-0", step("collect", "data", world.master)), writes(a="0"))
        world.master.rename(away)
        late = await world.whole(
            run_of("run-1", step("collect", "data", world.master), after=1), writes(b="1")
        )
        await world.change("run-1", lambda run: run.move(RunPhase.SUCCEEDED))
        push_as_stranger(tmp_path, away, NODE, theirs="x")
        away.rename(world.master)
        await world.whole(run_of("run-2", step("collect", "data", world.master), after=2), writes(c="2"))
        told = (await world.until("run-1", lambda run: run.steps[0].pushed)).steps[0]
        assert told.snapshot != late.snapshot
        for branch in (NODE, "ground-truth"):
            git(world.master, "merge-base", "--is-ancestor", str(told.snapshot), branch)
        git(world.master, "merge-base", "--is-ancestor", str(told.ground_truth), "ground-truth")


async def test_late_push_continues_after_restart(tmp_path: Path) -> None:
    store = MemoryStore()
    away = tmp_path / "away.git"
    async with working(tmp_path, store, push_retry=3600) as world:
        await world.whole(run_of("run-0", step("collect", "data", world.master)), writes(a="0"))
        world.master.rename(away)
        await world.whole(run_of("run-1", step("collect", "data", world.master), after=1), writes(a="1"))
        away.rename(world.master)
    async with working(tmp_path, store, push_retry=3600) as world:
        await eventually(lambda: runs_on(world.master) == ["run-1", "run-0"])
        await world.until("run-1", lambda run: run.steps[0].pushed)


async def test_late_push_killed_between_a_late_push_and_its_note(tmp_path: Path) -> None:
    store = MemoryStore()
    async with working(tmp_path, store) as world:
        await world.whole(run_of("run-0", step("collect", "data", world.master)), writes(a="0"))

    def unsaid(run: Run) -> Run:
        return run.with_step(
            0, run.steps[0].model_copy(update={"pushed": False, "waiting": "not pushed yet"})
        )

    await world.change("run-0", unsaid)
    await store.create(keys.run(NODE, "of-a-newer-version"), b'{"id": "x", "new": 1}')
    async with working(tmp_path, store) as world:
        assert (await world.until("run-0", lambda run: run.steps[0].pushed)).steps[0].waiting is None


async def test_late_push_second_step_reads_unpushed_ground_truth(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await world.whole(run_of("run-0", step("collect", "data", world.master)), writes(a="0"))
        world.master.rename(tmp_path / "away.git")
        done = await world.whole(
            run_of("run-1", step("collect", "data", world.master), after=1), writes(a="1")
        )
        source = ("data", str(world.master), "ground-truth")
        other = bare_repository(tmp_path / "other.git")
        await world.begin(run_of("run-2", step("sum", "other", other, source), after=2))
        ready = await world.phase("run-2", StepPhase.READY)
        assert ready.input_commit == done.snapshot
        assert (world.workspace("run-2").input / "a").read_text() == "1"
