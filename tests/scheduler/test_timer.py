"""Each tick gets exactly one record, whatever happens to schedulers, clocks and the store."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from mao_scheduler.scheduler import Scheduler
from mao_scheduler.schedules.cron import parse_cron
from mao_scheduler.schedules.due import Tick
from mao_scheduler.schedules.new_runs import prepare_tick, tick_run
from mao_shared import keys
from mao_shared.clock import SystemClock
from mao_shared.errors import Conflict, StoreUnavailable
from mao_shared.models import Run, tick_run_id
from mao_shared.models.node import Restored
from mao_shared.models.schedule import BackfillRequest
from mao_shared.states import RunPhase
from mao_shared.store import Store, Stored, dump
from mao_shared.store.memory import MemoryStore
from tests.support.stores import UnavailableStore, UnknownOutcomeStore
from tests.support.waiting import eventually

from .doubles import StoreThatDiesAfter
from .harness import all_runs, knows, mark, put, run_records, scheduler
from .samples import NODE, START, ManualClock, enrolment, schedule


def ticks(runs: list[Run]) -> list[float]:
    """Return the minutes after START of ticks that were run or missed."""
    return [((run.scheduled_for or START) - START).total_seconds() / 60 for run in runs]


async def test_timer_tick_becomes_queued_run(store: Store, clock: ManualClock) -> None:
    plan = schedule()
    await put(store, enrolment(steps=2, overlap="queue"), plan)
    async with scheduler(store, clock) as made:
        await made.timer.record_due_ticks()
        assert await all_runs(store) == []
        clock.turn(minutes=1)
        await made.timer.record_due_ticks()
        await made.timer.save()
    (run,) = await all_runs(store)
    assert run.id == tick_run_id("crawler", NODE, START + timedelta(minutes=1))
    assert (run.phase, run.trigger, run.schedule, run.overlap) == ("queued", "schedule", plan.id, "queue")
    assert [step.spec.name for step in run.steps] == ["step-0", "step-1"]
    stored = await mark(store, plan.id)
    assert stored is not None
    assert stored.decided_until == START + timedelta(minutes=1)


async def test_timer_overlap_of_schedule_takes_precedence(store: Store, clock: ManualClock) -> None:
    await put(store, enrolment(overlap="queue"), schedule(overlap="replace"))
    async with scheduler(store, clock) as made:
        clock.turn(minutes=1)
        await made.timer.record_due_ticks()
    assert [run.overlap for run in await all_runs(store)] == ["replace"]


async def test_timer_tick_without_enrolment_is_missed(store: Store, clock: ManualClock) -> None:
    await put(store, schedule())
    async with scheduler(store, clock) as made:
        clock.turn(minutes=1)
        await made.timer.record_due_ticks()
    (run,) = await all_runs(store)
    assert (run.phase, run.missed) == ("missed", "not-enrolled")
    assert run.reason == "The pipeline 'crawler' is no longer enrolled on this node."


async def test_timer_follows_schedule_changes(store: Store, clock: ManualClock) -> None:
    await put(store, enrolment())
    async with scheduler(store, clock) as made:
        await made.timer.record_due_ticks()
        plan = schedule("*/2 * * * *")
        await put(store, plan)
        await knows(made, plan)
        clock.turn(minutes=2)
        await made.timer.record_due_ticks()
        paused = plan.model_copy(update={"paused": True, "paused_at": clock.now()})
        stored = made.schedules.get(plan.id)
        assert stored is not None
        await store.replace(keys.schedule(NODE, plan.id), dump(paused), stored.revision)
        await knows(made, paused)
        clock.turn(minutes=20)
        await made.timer.record_due_ticks()
        assert ticks(await all_runs(store)) == [2]
        await store.delete(keys.schedule(NODE, plan.id))
        await eventually(lambda: made.schedules.get(plan.id) is None)
        clock.turn(minutes=20)
        await made.timer.record_due_ticks()
    assert ticks(await all_runs(store)) == [2]


async def test_timer_records_pause_when_it_ends(store: Store, clock: ManualClock) -> None:
    plan = schedule(max_catch_up=3, catch_up="all")
    await put(store, enrolment(), plan)
    async with scheduler(store, clock) as made:
        await made.jobs.pause(plan.id)
        clock.turn(minutes=10)
        await made.timer.record_due_ticks()
        assert await all_runs(store) == []
        resumed = (await made.jobs.resume(plan.id)).record
        await made.timer.record_due_ticks()
        clock.turn(minutes=1)
        await made.timer.record_due_ticks()
    assert resumed.next == START + timedelta(minutes=11)
    runs = await all_runs(store)
    assert [run.missed for run in runs] == ["paused"] * 4 + [None]
    assert ticks(runs) == [7, 8, 9, 10, 11]
    assert [run.covers.count for run in runs if run.covers] == [7]


@pytest.mark.parametrize("minutes", [0, 2, 10])
async def test_timer_records_pause_when_its_schedule_is_removed(
    store: Store, clock: ManualClock, minutes: int
) -> None:
    plan = schedule(max_catch_up=3, catch_up="all")
    await put(store, enrolment(), plan)
    async with scheduler(store, clock) as made:
        await made.jobs.pause(plan.id)
        clock.turn(minutes=minutes)
        await made.jobs.remove(plan.id, None)
        clock.turn(minutes=1)
        await made.timer.record_due_ticks()
    runs = await all_runs(store)
    assert {run.missed for run in runs} <= {"paused"}
    assert sum(run.covers.count if run.covers else 1 for run in runs) == minutes
    assert await mark(store, plan.id) is None


async def test_timer_records_pause_once_if_the_removal_is_repeated(store: Store, clock: ManualClock) -> None:
    plan = schedule(max_catch_up=3, catch_up="all")
    await put(store, enrolment(), plan)
    async with scheduler(store, clock) as made:
        await made.jobs.pause(plan.id)
        clock.turn(minutes=8)
        stored = made.schedules.get(plan.id)
        assert stored is not None
        await made.timer.record_pause(stored.record)  # and killed before it removes the schedule
    clock.turn(minutes=2)
    async with scheduler(store, clock) as made:
        await made.jobs.remove(plan.id, None)
    runs = await all_runs(store)
    assert sum(run.covers.count if run.covers else 1 for run in runs) == 10


async def test_timer_removed_pause_leaves_ticks_of_another_schedule_alone(
    store: Store, clock: ManualClock
) -> None:
    plan, other = schedule(), schedule("*/2 * * * *", id="crawler-2")
    await put(store, enrolment(), plan, other)
    async with scheduler(store, clock) as made:
        await made.jobs.pause(plan.id)
        clock.turn(minutes=4)
        await made.timer.record_due_ticks()
        await made.jobs.remove(plan.id, None)
    runs = sorted(await all_runs(store), key=lambda run: run.scheduled_for or START)
    assert ticks(runs) == [1, 2, 3, 4]
    assert [run.missed == "paused" for run in runs] == [True, False, True, False]


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [
        ("none", ["late", "late", "late", "late", None]),
        ("latest", ["coalesced", "coalesced", "coalesced", "coalesced", None]),
        ("all", [None, None, None, None, None]),
    ],
)
async def test_timer_downtime_follows_catch_up_policy(
    store: Store, clock: ManualClock, catch_up: str, expected: list[str | None]
) -> None:
    await put(store, enrolment(), schedule(catch_up=catch_up, start_deadline=30))
    async with scheduler(store, clock) as made:
        await made.timer.record_due_ticks()
    clock.turn(minutes=5)
    async with scheduler(store, clock) as made:
        await made.timer.record_due_ticks()
        await made.timer.record_due_ticks()
    runs = await all_runs(store)
    assert ticks(runs) == [1, 2, 3, 4, 5]
    assert [run.missed for run in runs] == expected
    caught_up = [run.overlap for run in runs[:4] if run.phase is RunPhase.QUEUED]
    assert set(caught_up) <= {"queue"}  # else the first would make the others skip


async def test_timer_clock_jumps_run_nothing_twice(store: Store, clock: ManualClock) -> None:
    await put(store, enrolment(), schedule(start_deadline=30))
    async with scheduler(store, clock) as made:
        clock.turn(minutes=1)
        await made.timer.record_due_ticks()
        clock.turn(hours=1)  # ahead by mistake
        await made.timer.record_due_ticks()
        clock.turn(hours=-1)
        for _ in range(70):
            await made.timer.record_due_ticks()
            clock.turn(minutes=1)
    runs = await all_runs(store)
    assert ticks(runs) == list(range(1, 71))
    assert Counter(run.phase for run in runs) == {"queued": 11, "missed": 59}


async def test_timer_clock_set_back_across_restart_runs_nothing_twice(
    store: Store, clock: ManualClock
) -> None:
    await put(store, enrolment(), schedule())
    for minutes in (3, -3, 4):  # the marks are not even saved
        clock.turn(minutes=minutes)
        async with scheduler(store, clock) as made:
            await made.timer.record_due_ticks()
    runs = await all_runs(store)
    assert ticks(runs) == [1, 2, 3, 4]
    assert [run.phase for run in runs] == ["missed", "queued", "queued", "queued"]


async def test_timer_two_schedulers_create_each_run_once(store: Store, clock: ManualClock) -> None:
    """Two schedulers write 200 ticks of 20 schedules at the same time."""
    plans = [schedule(pipeline=f"p{n}") for n in range(20)]
    await put(store, *(enrolment(f"p{n}") for n in range(20)), *plans)
    async with scheduler(store, clock) as one, scheduler(store, clock) as other:
        for _ in range(10):
            clock.turn(minutes=1)
            await asyncio.gather(one.timer.record_due_ticks(), other.timer.record_due_ticks())
            await asyncio.gather(one.timer.save(), other.timer.save())
    runs = await all_runs(store)
    assert len(runs) == 200
    assert Counter((run.pipeline, run.scheduled_for) for run in runs).most_common(1)[0][1] == 1
    assert {run.phase for run in runs} == {RunPhase.QUEUED}
    for plan in plans:
        stored = await mark(store, plan.id)
        assert stored is not None
        assert stored.decided_until == START + timedelta(minutes=10)


async def test_timer_two_schedulers_summarise_backlog_once(store: Store, clock: ManualClock) -> None:
    await put(store, enrolment(), schedule(max_catch_up=5))
    async with scheduler(store, clock) as one, scheduler(store, clock) as other:
        clock.turn(hours=3)
        await asyncio.gather(one.timer.record_due_ticks(), other.timer.record_due_ticks())
        clock.turn(minutes=1)
        await asyncio.gather(one.timer.record_due_ticks(), other.timer.record_due_ticks())
    runs = await all_runs(store)
    covered = sum(run.covers.count for run in runs if run.covers)
    assert covered + sum(run.covers is None for run in runs) == 181


@pytest.mark.parametrize("writes", range(6))
async def test_timer_killed_after_any_write_loses_and_doubles_nothing(
    store: Store, clock: ManualClock, writes: int
) -> None:
    """The first scheduler is killed after some writes of summary, records and marks; the next continues."""
    await put(
        store, enrolment(), enrolment("other"), schedule(max_catch_up=4), schedule("*/2 * * * *", "other")
    )
    clock.turn(minutes=9)
    dying = StoreThatDiesAfter(store, writes)
    async with scheduler(dying, clock) as made:
        with pytest.raises(StoreUnavailable):
            await _work(made, clock)
    clock.moment = START + timedelta(minutes=20)
    async with scheduler(store, clock) as made:
        await made.timer.record_due_ticks()
    runs = await all_runs(store)
    for pipeline, expected in (("crawler", 20), ("other", 10)):
        own = [run for run in runs if run.pipeline == pipeline]
        covered = sum(run.covers.count for run in own if run.covers)
        assert covered + sum(run.covers is None for run in own) == expected


async def _work(made: Scheduler, clock: ManualClock) -> None:
    while True:
        await made.timer.record_due_ticks()
        await made.timer.save()
        clock.turn(minutes=1)


async def test_timer_lagging_mark_does_not_summarise_recorded_ticks(store: Store, clock: ManualClock) -> None:
    await put(store, enrolment(), schedule(max_catch_up=2, start_deadline=30))
    async with scheduler(store, clock) as made:
        clock.turn(minutes=1)
        await made.timer.record_due_ticks()  # and is killed before the mark is saved
    clock.turn(minutes=9)
    async with scheduler(store, clock) as made:
        await made.timer.record_due_ticks()
    runs = await all_runs(store)
    assert [run.covers.count if run.covers else run.phase for run in runs] == [
        "queued",
        7,
        "missed",
        "queued",
    ]


@pytest.mark.parametrize("applies", [True, False])
async def test_timer_write_with_unknown_outcome_is_repeated(clock: ManualClock, applies: bool) -> None:
    store = UnknownOutcomeStore(applies=applies)
    await put(store, enrolment(), schedule())
    async with scheduler(store, clock) as made:
        clock.turn(minutes=1)
        await made.timer.record_due_ticks()
        clock.turn(minutes=1)
        store.unsure = 1
        with pytest.raises(Exception, match="got lost"):
            await made.timer.record_due_ticks()
        await made.timer.record_due_ticks()
    assert ticks(await all_runs(store)) == [1, 2]


async def test_timer_handles_ticks_of_store_outage(clock: ManualClock) -> None:
    store = UnavailableStore()
    await put(store, enrolment(), schedule())
    async with scheduler(store, clock) as made:
        for away in (True, True, True, False):
            clock.turn(minutes=1)
            store.away = away
            if away:
                with pytest.raises(StoreUnavailable):
                    await made.timer.record_due_ticks()
        await made.timer.record_due_ticks()
    runs = await all_runs(store)
    assert ticks(runs) == [1, 2, 3, 4]
    assert [run.missed for run in runs] == ["coalesced", "coalesced", None, None]


async def test_creator_batch_with_existing_record_is_written_singly(store: Store, clock: ManualClock) -> None:
    pipelines = [f"p{n}" for n in range(5)]
    await put(store, *map(enrolment, pipelines), *(schedule(pipeline=pipeline) for pipeline in pipelines))
    tick = START + timedelta(minutes=1)
    there = tick_run_id("p2", NODE, tick)
    async with scheduler(store, clock) as made:
        clock.turn(minutes=1)
        await store.create(keys.run(NODE, there), b"{}")
        await made.timer.record_due_ticks()
    listed = await store.list(keys.runs_prefix(NODE))
    assert len(listed.entries) == 5
    assert (await store.get(keys.run(NODE, there))).value == b"{}"  # type: ignore[union-attr]
    assert (await run_records(store).get(tick_run_id("p3", NODE, tick))) is not None


async def test_prepared_document_equals_fresh_one(clock: ManualClock) -> None:
    plan, tick, now = schedule(), START + timedelta(minutes=1), START + timedelta(minutes=1, milliseconds=3)
    cron = parse_cron(plan.cron)
    made = prepare_tick(plan, cron, Stored(enrolment(), 5), tick, NODE)
    document = made.document_at(now)
    assert document.run == tick_run(plan, Tick(tick), enrolment(), NODE, now)
    assert document.value == dump(document.run)
    assert made.following == START + timedelta(minutes=2)


async def test_timer_prepared_ticks_follow_changed_enrolment(clock: ManualClock) -> None:
    store = MemoryStore()
    plan = schedule("*/2 * * * * *", seconds=True)
    await put(store, enrolment(), plan)
    async with scheduler(store, clock) as made:
        await made.timer.record_due_ticks()
        for _ in range(3):
            await made.timer.prepare_ticks()
            clock.turn(seconds=2)
            await made.timer.record_due_ticks()
        await made.timer.prepare_ticks()
        stored = made.enrolments.get("crawler")
        assert stored is not None
        renewed = enrolment(steps=2)
        await store.replace(keys.enrolment(NODE, "crawler"), dump(renewed), stored.revision)
        await eventually(lambda: made.enrolments.get("crawler") != stored)
        clock.turn(seconds=2)
        await made.timer.record_due_ticks()
        await made.timer.prepare_ticks()
        clock.turn(seconds=20)  # late for what was prepared, and more than that is due
        await made.timer.record_due_ticks()
    runs = await all_runs(store)
    assert [len(run.steps) for run in runs[:4]] == [1, 1, 1, 2]
    assert len(runs) == 14
    assert [run.created_at for run in runs[:4]] == [START + timedelta(seconds=n) for n in (2, 4, 6, 8)]


async def test_timer_sleeps_until_next_tick_or_change() -> None:
    """In real time, a schedule that is added later ticks at its second, without waiting for MAX_SLEEP."""
    store = MemoryStore()
    await put(store, enrolment())
    async with scheduler(store, SystemClock()) as made:
        timer = asyncio.create_task(made.timer.run())
        plan = schedule("* * * * * *", seconds=True, created_at=SystemClock().now())
        await put(store, plan)
        await eventually(lambda: len(made.run_mirror.items()) >= 2)
        timer.cancel()
        await asyncio.gather(timer, return_exceptions=True)
    runs = await all_runs(store)
    assert all(run.scheduled_for is not None for run in runs)
    lateness = [(run.created_at - (run.scheduled_for or START)).total_seconds() for run in runs]
    assert max(lateness) < 0.5


async def test_timer_after_restore_runs_later_ticks_only(store: Store, clock: ManualClock) -> None:
    await put(store, enrolment(overlap="queue"), schedule(catch_up="all"))
    known = Run(
        id=tick_run_id("crawler", NODE, START + timedelta(minutes=2)),
        pipeline="crawler",
        node=NODE,
        trigger="schedule",
        phase=RunPhase.SUCCEEDED,
        scheduled_for=START + timedelta(minutes=2),
        created_at=START,
    )  # as git has told it
    await run_records(store).create(known.id, known)
    restored = Restored(backup_at=START, restored_at=START + timedelta(minutes=3, seconds=30))
    await store.create(keys.restored(NODE), dump(restored))
    clock.turn(minutes=5)
    for _ in range(2):  # and once more after a restart that has forgotten its marks
        async with scheduler(store, clock) as made:
            await made.timer.load()
            await made.timer.record_due_ticks()
        phases = {ticks([run])[0]: run.phase.value for run in await all_runs(store)}
        assert phases == {1: "missed", 2: "succeeded", 3: "missed", 4: "queued", 5: "queued"}


async def test_backfill_refused_until_datasets_are_checked_after_restore(
    store: Store, clock: ManualClock
) -> None:
    plan = schedule()
    await put(store, enrolment(overlap="queue"), plan)
    restored = Restored(backup_at=START, restored_at=START + timedelta(minutes=3), open=["artefacts"])
    revision = await store.create(keys.restored(NODE), dump(restored))
    clock.turn(minutes=5)
    async with scheduler(store, clock) as made:
        await made.timer.load()
        await made.timer.record_due_ticks()
        asked = BackfillRequest(since=START + timedelta(minutes=1), until=START + timedelta(minutes=3))
        with pytest.raises(Conflict) as caught:
            await made.backfill(plan.id, asked)
        assert caught.value.code == "restore-open"
        later = BackfillRequest(since=START + timedelta(minutes=4))
        await made.backfill(plan.id, later)
        assert revision is not None
        done = restored.model_copy(update={"open": []})
        await store.replace(keys.restored(NODE), dump(done), revision)
        assert len((await made.backfill(plan.id, asked)).queued) == 3
