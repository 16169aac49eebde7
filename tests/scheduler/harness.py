"""A scheduler on a store, in virtual time: tests set the clock and have due ticks recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from mao_scheduler.metrics import SchedulerMetrics
from mao_scheduler.scheduler import Scheduler, make_scheduler
from mao_scheduler.settings import SchedulerSettings
from mao_shared import keys
from mao_shared.clock import Clock
from mao_shared.metrics import Metrics
from mao_shared.models import Enrolment, Record, Run, Schedule, TickMark
from mao_shared.reconcile import background
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store import Records, Store, dump
from tests.support.waiting import eventually

from .samples import NODE, ManualClock


def settings() -> SchedulerSettings:
    return SchedulerSettings(node=NODE)


@asynccontextmanager
async def scheduler(store: Store, clock: Clock, *, leads: bool = False) -> AsyncIterator[Scheduler]:
    """Yield a scheduler whose mirrors run. The test calls its timer; with `leads` its controller runs too."""
    made = make_scheduler(settings(), store, store, clock, SchedulerMetrics(Metrics()))
    loops = [made.schedules.run(), made.enrolments.run(), made.run_mirror.run()]
    if leads:
        loops.append(made.controller.run())
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(background(*loops, on_failure=lambda: None))
        await made.timer.load()
        yield made


async def put(store: Store, *records: Record) -> None:
    """Store enrolments and schedules under their keys."""
    for record in records:
        if isinstance(record, Enrolment):
            await store.create(keys.enrolment(NODE, record.pipeline), dump(record))
        elif isinstance(record, Schedule):
            await store.create(keys.schedule(NODE, record.id), dump(record))


async def knows(made: Scheduler, *schedules: Schedule) -> None:
    """Wait until the scheduler's mirror has these schedules."""

    def seen() -> bool:
        found = (made.schedules.get(schedule.id) for schedule in schedules)
        return all(
            stored is not None and stored.record == schedule
            for stored, schedule in zip(found, schedules, strict=True)
        )

    await eventually(seen)


def run_records(store: Store) -> Records[Run]:
    return Records(store, keys.runs_prefix(NODE), Run)


async def all_runs(store: Store) -> list[Run]:
    """List every run record in the order of keys, which for ticks is that of time."""
    return [stored.record for stored in await run_records(store).all()]


async def mark(store: Store, schedule_id: str) -> TickMark | None:
    stored = await Records(store, keys.ticks_prefix(NODE), TickMark).get(schedule_id)
    return None if stored is None else stored.record


async def wait_phase(store: Store, run_id: str, phase: RunPhase) -> Run:
    """Wait, by the store's watch, until the run is in the phase."""
    return await wait_run(store, run_id, lambda run: run.phase is phase)


async def wait_run(store: Store, run_id: str, condition: Callable[[Run], bool]) -> Run:
    """Wait, by the store's watch, until the run meets the condition."""
    records = run_records(store)
    async with asyncio.timeout(60):
        stored = await records.get(run_id)
        assert stored is not None
        if condition(stored.record):
            return stored.record
        async with aclosing(store.watch(records.prefix + run_id, after=stored.revision)) as batches:
            async for batch in batches:
                for event in batch:
                    assert event.entry is not None
                    found = records.parse(event.entry).record
                    if condition(found):
                        return found
    raise AssertionError("unreachable")


async def finish_step(store: Store, run_id: str, clock: ManualClock, index: int = 0) -> None:
    """Bring a preparing step to its end, as the data manager and the runner would."""
    records = run_records(store)
    stored = await records.get(run_id)
    assert stored is not None
    moved = stored.record.steps[index]
    for phase in ("ready", "starting", "running", "exited", "publishing", "succeeded"):
        moved = moved.move(StepPhase(phase), clock.now())
    assert await records.replace(run_id, stored.record.with_step(index, moved), stored.revision)
