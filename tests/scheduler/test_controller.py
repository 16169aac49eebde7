"""Controllers move runs through their phases: turns, overlap, two controllers at the same time."""

from __future__ import annotations

import asyncio

import pytest

from mao_shared import keys
from mao_shared.models import Overlap, Run
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store import Store, dump
from mao_shared.store.memory import MemoryStore
from tests.support.stores import UnknownOutcomeStore

from .harness import finish_step, put, run_records, scheduler, wait_phase, wait_run
from .samples import NODE, ManualClock, enrolment, run


async def create(store: Store, *runs: Run) -> None:
    for run_ in runs:
        await store.create(keys.run(NODE, run_.id), dump(run_))


async def test_controller_moves_run_through_its_steps(store: Store, clock: ManualClock) -> None:
    await create(store, run(steps=2))
    async with scheduler(store, clock, leads=True):
        await wait_phase(store, "r1", RunPhase.RUNNING)
        await finish_step(store, "r1", clock)
        await wait_run(store, "r1", lambda seen: seen.steps[1].phase is StepPhase.PREPARING)
        await finish_step(store, "r1", clock, 1)
        ended = await wait_phase(store, "r1", RunPhase.SUCCEEDED)
    assert ended.finished_at == clock.now()


async def _get(store: Store, run_id: str) -> Run:
    stored = await run_records(store).get(run_id)
    assert stored is not None
    return stored.record


async def test_controller_starts_queued_runs_in_order(store: Store, clock: ManualClock) -> None:
    names = ["r1", "r2", "r3"]
    await create(store, *(run(name) for name in reversed(names)))
    async with scheduler(store, clock, leads=True):
        for number, name in enumerate(names):
            await wait_phase(store, name, RunPhase.RUNNING)
            for later in names[number + 1 :]:
                waiting = await _get(store, later)
                assert waiting.phase is RunPhase.QUEUED
                assert waiting.reason in (
                    None,
                    "Waits for the run r1 of the same pipeline.",
                )
            await finish_step(store, name, clock)
            await wait_phase(store, name, RunPhase.SUCCEEDED)


async def test_controller_pipelines_do_not_wait_for_each_other(store: Store, clock: ManualClock) -> None:
    await create(store, run("r1"), run("r2", pipeline="other"))
    async with scheduler(store, clock, leads=True):
        await wait_phase(store, "r1", RunPhase.RUNNING)
        await wait_phase(store, "r2", RunPhase.RUNNING)


@pytest.mark.parametrize(
    ("overlap", "phase"),
    [("skip", RunPhase.MISSED), ("queue", RunPhase.RUNNING), ("replace", RunPhase.RUNNING)],
)
async def test_controller_overlap_policies(
    store: Store, clock: ManualClock, overlap: Overlap, phase: RunPhase
) -> None:
    await create(store, run("r1"))
    async with scheduler(store, clock, leads=True):
        await wait_phase(store, "r1", RunPhase.RUNNING)
        await create(store, run("r2", trigger="schedule", overlap=overlap))
        if overlap == "replace":
            await _answer_cancel(store, "r1", clock)
            first = await wait_phase(store, "r1", RunPhase.CANCELLED)
            assert first.reason == "Replaced by the run r2."
        elif overlap == "queue":
            await finish_step(store, "r1", clock)
        second = await wait_phase(store, "r2", phase)
    assert second.missed == ("overlap" if overlap == "skip" else None)


async def _answer_cancel(store: Store, run_id: str, clock: ManualClock) -> None:
    """Cancel a preparing step, as the data manager does for a run with a cancel request."""
    await wait_run(store, run_id, lambda seen: seen.cancel is not None)
    stored = await run_records(store).get(run_id)
    assert stored is not None
    moved = stored.record.steps[0].move(StepPhase.CANCELLED, clock.now())
    assert await run_records(store).replace(run_id, stored.record.with_step(0, moved), stored.revision)


async def test_controller_two_instances_start_one_run_at_a_time(store: Store, clock: ManualClock) -> None:
    """Check in the store's order of writes that a second run starts only after the first has ended."""
    names = [f"r{n}" for n in range(8)]
    records = run_records(store)
    before = (await store.list(records.prefix)).revision
    running: set[str] = set()
    ended: set[str] = set()
    async with asyncio.timeout(30), scheduler(store, clock, leads=True), scheduler(store, clock, leads=True):
        await asyncio.gather(*(create(store, run(name)) for name in names))
        async for batch in store.watch(records.prefix, after=before):
            for event in batch:
                assert event.entry is not None
                seen = records.parse(event.entry).record
                if seen.phase is RunPhase.RUNNING:
                    running.add(seen.id)
                    if seen.steps[0].phase is StepPhase.PREPARING:
                        await finish_step(store, seen.id, clock)
                elif seen.phase is RunPhase.SUCCEEDED:
                    running.discard(seen.id)
                    ended.add(seen.id)
                assert len(running) <= 1
            if len(ended) == len(names):
                break


@pytest.mark.parametrize("applies", [True, False])
async def test_controller_start_with_unknown_outcome_is_checked_again(
    clock: ManualClock, applies: bool
) -> None:
    store = UnknownOutcomeStore(applies=applies)
    await create(store, run())
    store.unsure = 1
    async with scheduler(store, clock, leads=True):
        started = await wait_phase(store, "r1", RunPhase.RUNNING)
    assert started.steps[0].phase == "preparing"


async def test_controller_cancelled_queued_run_ends(clock: ManualClock) -> None:
    store = MemoryStore()
    await put(store, enrolment())
    await create(store, run("r1"), run("r2"))
    async with scheduler(store, clock, leads=True) as made:
        await wait_phase(store, "r1", RunPhase.RUNNING)
        await made.runs.cancel("r2", "not needed")
        ended = await wait_phase(store, "r2", RunPhase.CANCELLED)
    assert ended.reason == "not needed"
    assert [step.phase for step in ended.steps] == ["skipped"]
