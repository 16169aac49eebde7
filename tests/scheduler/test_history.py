"""Settled runs become history; still no tick is run twice, and no run is missing or listed twice."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from mao_scheduler.runs.commands import RunFilter
from mao_scheduler.scheduler import Scheduler
from mao_shared import keys
from mao_shared.errors import InvalidInput, MaoError, StoreUnavailable
from mao_shared.models import Run, StepRun, TickMark, tick_run_id
from mao_shared.models.schedule import BackfillRequest, Forgotten
from mao_shared.runs.listing import list_newest
from mao_shared.runs.records import MOVED_AT_ONCE, RunRecords
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store import Put, Records, Store, dump
from tests.support.stores import UnknownOutcomeStore

from .doubles import StoreThatDiesAfter
from .harness import all_runs, put, scheduler
from .samples import NODE, START, ManualClock, enrolment, run, schedule, step
from .test_retention import memory_of, retention_of

HOUR = timedelta(hours=1)
SETTLED = [RunPhase.SUCCEEDED, RunPhase.FAILED, RunPhase.CANCELLED, RunPhase.LOST, RunPhase.MISSED]


def tick(number: int) -> datetime:
    return START + number * timedelta(minutes=1)


def ended(number: int, phase: RunPhase = RunPhase.SUCCEEDED, **changes: Any) -> Run:
    fields: dict[str, Any] = {
        "trigger": "schedule",
        "phase": phase,
        "schedule": "crawler-1",
        "scheduled_for": tick(number),
        "created_at": tick(number),
        "finished_at": tick(number),
        "steps": 0 if phase is RunPhase.MISSED else 1,
        "missed": "late" if phase is RunPhase.MISSED else None,
    }
    return run(tick_run_id("crawler", NODE, tick(number)), **(fields | changes))


async def store_all(store: Store, *runs: Run) -> None:
    for run_ in runs:
        assert await store.create(keys.run(NODE, run_.id), dump(run_))


async def decided(store: Store, until: datetime) -> None:
    await store.create(keys.tick(NODE, "crawler-1"), dump(TickMark(decided_until=until)))


async def history(store: Store) -> list[str]:
    entries = (await store.list(keys.past_runs_prefix(NODE))).entries
    return sorted(RunRecords(store, NODE).name(entry.key) for entry in entries)


async def everything(store: Store) -> list[Run]:
    found = await list_newest(RunRecords(store, NODE), 500)
    return [stored.record for stored in found.items]


async def test_history_takes_settled_runs_only(store: Store, clock: ManualClock) -> None:
    await put(store, schedule())
    await decided(store, tick(50))
    gone = [ended(number, phase) for number, phase in enumerate(SETTLED)]
    unpushed = StepRun(spec=step(), phase=StepPhase.SUCCEEDED, snapshot="c0", pushed=False)
    stays = [
        ended(10, RunPhase.RUNNING, finished_at=None),
        ended(11, RunPhase.QUEUED, finished_at=None),
        ended(12).model_copy(update={"steps": [unpushed]}),
        ended(51),  # its tick may still be decided
        ended(13, finished_at=START + HOUR - timedelta(minutes=9)),
    ]
    await store_all(store, *gone, *stays)
    clock.turn(hours=1)
    assert await retention_of(store, clock).sweep() == 0
    assert await history(store) == [run.id for run in gone]
    assert sorted(run.id for run in await all_runs(store)) == sorted(run.id for run in stays)
    assert await everything(store) == sorted([*gone, *stays], key=lambda run: run.id, reverse=True)


@pytest.mark.parametrize("count", [MOVED_AT_ONCE, 3 * MOVED_AT_ONCE + 1])
async def test_history_moves_runs_of_older_version(store: Store, clock: ManualClock, count: int) -> None:
    runs = [ended(number) for number in range(count)]
    await store_all(store, *runs)
    await store.create(keys.run(NODE, "odd"), b'{"id": "odd"')
    clock.turn(hours=9)
    retention = retention_of(store, clock, keep_runs=1000)
    await retention.sweep()
    assert await history(store) == [run.id for run in runs]
    assert (await store.list(keys.runs_prefix(NODE))).entries[0].key == keys.run(NODE, "odd")
    assert await everything(store) == runs[::-1]


@pytest.mark.parametrize("writes", range(5))
async def test_history_killed_after_any_write_keeps_each_run_once(
    store: Store, clock: ManualClock, writes: int
) -> None:
    runs = [ended(number) for number in range(2 * MOVED_AT_ONCE)]
    await store_all(store, *runs)
    clock.turn(hours=9)
    try:
        await retention_of(StoreThatDiesAfter(store, writes), clock, keep_runs=60).sweep()
    except StoreUnavailable:
        assert await everything(store) == runs[::-1]
    assert await retention_of(store, clock, keep_runs=60).sweep() in (0, 4)
    assert await everything(store) == runs[:3:-1]


@pytest.mark.parametrize("applies", [True, False])
async def test_history_move_with_unknown_outcome_is_checked_again(clock: ManualClock, applies: bool) -> None:
    store = UnknownOutcomeStore(applies=applies)
    runs = [ended(number) for number in range(3)]
    await store_all(store, *runs)
    clock.turn(hours=9)
    await memory_of(store).note_moved("crawler", tick(2))
    store.unsure = 1
    with pytest.raises(MaoError, match="got lost"):
        await retention_of(store, clock).sweep()
    await retention_of(store, clock).sweep()
    assert await history(store) == [run.id for run in runs]
    assert await everything(store) == runs[::-1]


async def test_history_of_one_tick_does_not_block_other_pipelines(store: Store, clock: ManualClock) -> None:
    """Write some runs as another scheduler would that was killed before it saved its marks."""
    names = [f"p{number}" for number in range(4)]
    for name in names:
        await put(store, enrolment(pipeline=name), schedule(id=f"{name}-1", pipeline=name))
    there = [tick_run_id(name, NODE, tick(1)) for name in names[1:3]]
    await store_all(
        store,
        *(ended(1, pipeline=n).model_copy(update={"id": i}) for n, i in zip(names[1:3], there, strict=True)),
    )
    records = RunRecords(store, NODE)
    assert await records.move((await records.live_page(9, None))[0]) == 2
    clock.turn(minutes=1)
    async with scheduler(store, clock) as made:
        await made.timer.record_due_ticks()
    assert await history(store) == sorted(there)
    new = [tick_run_id(name, NODE, tick(1)) for name in (names[0], names[3])]
    assert [run.id for run in await all_runs(store)] == sorted(new)


async def settled_scheduler(store: Store, clock: ManualClock, made: Scheduler) -> None:
    """Run ten ticks, move them to the history and store the marks."""
    clock.turn(minutes=10)
    await made.timer.record_due_ticks()
    await made.timer.save()
    for stored in await made.runs._records.all():
        done = stored.record.model_copy(update={"phase": RunPhase.SUCCEEDED, "finished_at": clock.now()})
        if stored.record.phase is RunPhase.QUEUED:
            await made.runs._records.replace(done.id, done, stored.revision)
    clock.turn(minutes=11)
    await made.retention.sweep()
    clock.turn(minutes=-11)


@pytest.mark.parametrize("catch_up", ["latest", "all"])
async def test_history_tick_is_not_run_again(store: Store, clock: ManualClock, catch_up: str) -> None:
    """A clock that was set back and a scheduler that has lost its marks run no tick again."""
    plan = schedule(catch_up=catch_up)
    await put(store, enrolment(overlap="queue"), plan)
    async with scheduler(store, clock) as made:
        await settled_scheduler(store, clock, made)
    before = await everything(store)
    assert len(await history(store)) == 10
    await store.delete(keys.tick(NODE, plan.id))
    clock.turn(minutes=-4)
    async with scheduler(store, clock) as made:
        await made.timer.record_due_ticks()
        clock.turn(minutes=4)
        await made.timer.record_due_ticks()
    assert await all_runs(store) == []
    assert await everything(store) == before


async def test_history_summary_is_not_made_again(store: Store, clock: ManualClock) -> None:
    plan = schedule(max_catch_up=2, start_deadline=30)
    await put(store, enrolment(), plan)
    async with scheduler(store, clock) as made:
        await settled_scheduler(store, clock, made)
    assert [run.covers.count for run in await everything(store) if run.covers] == [8]
    await store.delete(keys.tick(NODE, plan.id))
    async with scheduler(store, clock) as made:
        await made.timer.record_due_ticks()
        await made.timer.record_due_ticks()
    assert await all_runs(store) == []
    assert [run.covers.count for run in await everything(store) if run.covers] == [8]


async def test_history_backfill_queues_missed_runs_only(store: Store, clock: ManualClock) -> None:
    await put(store, enrolment(overlap="queue"), schedule(start_deadline=30))
    async with scheduler(store, clock) as made:
        await settled_scheduler(store, clock, made)
        phases = {run.scheduled_for: run.phase for run in await everything(store)}
        assert phases[tick(9)] is RunPhase.MISSED
        assert phases[tick(10)] is RunPhase.SUCCEEDED
        asked = BackfillRequest(since=tick(8), until=tick(10))
        result = await made.backfill("crawler-1", asked)
        assert result.queued == [tick_run_id("crawler", NODE, tick(number)) for number in (8, 9)]
        assert result.present == 1
        assert sorted(run.id for run in await all_runs(store)) == result.queued
        assert (await made.backfill("crawler-1", asked)).queued == []
    found = {run.scheduled_for: run for run in await everything(store)}
    assert len(found) == 10
    assert (found[tick(8)].phase, found[tick(8)].missed) == (RunPhase.QUEUED, None)
    assert len(found[tick(8)].steps) == 1


async def test_history_older_version_sees_moved_runs_as_removed(store: Store, clock: ManualClock) -> None:
    """It queues no tick up to `Forgotten`, and none up to the mark."""
    await store_all(store, *(ended(number) for number in range(10)))
    clock.turn(hours=1)
    await retention_of(store, clock).sweep()
    told = await Records(store, keys.forgotten_prefix(NODE), Forgotten).get("crawler")
    assert told is not None
    assert told.record.until == tick(9)
    assert await memory_of(store).forgotten("crawler") is None


@pytest.mark.parametrize("trigger", ["manual", "retry", "reproduce"])
async def test_history_manual_run_for_future_time_is_no_tick(
    store: Store, clock: ManualClock, trigger: str
) -> None:
    """Otherwise a mark that cannot be read would be derived too far ahead, and ticks would be lost."""
    await put(store, enrolment(), schedule())
    ahead = tick(600_000)
    by_hand = ended(3, trigger=trigger, scheduled_for=ahead).model_copy(update={"id": "20260101T000000Z-x-1"})
    await decided(store, tick(10))
    await store_all(store, ended(9), ended(10), by_hand)
    clock.turn(hours=1)
    await retention_of(store, clock).sweep()
    assert by_hand.id in await history(store)
    told = await Records(store, keys.forgotten_prefix(NODE), Forgotten).get("crawler")
    assert told is not None
    assert told.record.until == tick(10)
    await store.transact([], [Put(keys.tick(NODE, "crawler-1"), b"{")])
    async with scheduler(store, clock) as made:
        await made.timer.record_due_ticks()
    found = {run.scheduled_for for run in await everything(store) if run.trigger == "schedule"}
    assert found == {tick(number) for number in range(9, 61)}


async def test_history_removed_runs_are_forgotten(store: Store, clock: ManualClock) -> None:
    await put(store, enrolment(overlap="queue"), schedule())
    await decided(store, tick(20))
    await store_all(store, *(ended(number) for number in range(1, 16)))
    clock.turn(hours=1)
    assert await retention_of(store, clock).sweep() == 5
    assert await memory_of(store).forgotten("crawler") == tick(5)
    async with scheduler(store, clock) as made:
        with pytest.raises(InvalidInput, match="07:05:00Z have been removed"):
            await made.backfill("crawler-1", BackfillRequest(since=tick(5), until=tick(15)))
        found = await made.backfill("crawler-1", BackfillRequest(since=tick(6), until=tick(15)))
        assert (found.queued, found.present) == ([], 10)


@pytest.mark.parametrize(
    ("moved", "said", "gone"),
    [
        (None, None, None),
        (None, 5, 5),  # written by a version without a history
        (7, 7, None),
        (7, 9, 9),  # such a version was back for a while and has removed runs
    ],
)
async def test_forgotten_until_by_version(
    store: Store, moved: int | None, said: int | None, gone: int | None
) -> None:
    memory, forgotten = memory_of(store), Records(store, keys.forgotten_prefix(NODE), Forgotten)
    if moved is not None:
        await memory.note_moved("crawler", tick(moved))
    if said is not None:
        stored = await forgotten.get("crawler")
        record = Forgotten(until=tick(said))
        if stored is None:
            await forgotten.create("crawler", record)
        else:
            await forgotten.replace("crawler", record, stored.revision)
    expected = None if gone is None else tick(gone)
    assert await memory.forgotten("crawler") == expected
    await memory.note_moved("crawler", tick(30))
    assert await memory.forgotten("crawler") == expected
    await memory.note_removed("crawler", tick(20))
    assert await memory.forgotten("crawler") == tick(20)
    await memory.note_removed("crawler", tick(3))
    assert await memory.forgotten("crawler") == tick(20)


async def test_list_runs_filters_find_history(store: Store, clock: ManualClock) -> None:
    """The run of a tick that two jobs share names one of them, and is listed for both."""
    hourly = schedule("0 * * * *", id="crawler-2")
    await put(store, enrolment(), schedule(), hourly)
    await store.create(keys.tick(NODE, "crawler-2"), dump(TickMark(decided_until=tick(200))))
    await decided(store, tick(200))
    by_hand = run("20261124T075930Z-crawler-0000000f", phase=RunPhase.SUCCEEDED, finished_at=START)
    other = ended(61, schedule="crawler-2")
    runs = [*(ended(number) for number in (58, 59, 60)), by_hand, other]
    await store_all(store, *runs)
    clock.turn(hours=3)
    await retention_of(store, clock).sweep()
    assert await all_runs(store) == []
    async with scheduler(store, clock) as made:

        async def listed(**wanted: Any) -> list[str]:
            return [run.id for run in (await made.runs.list(50, None, RunFilter(**wanted))).items]

        newest_first = sorted((r.id for r in runs), reverse=True)
        assert await listed() == newest_first
        assert await listed(schedule="crawler-2", ticks=hourly) == [other.id, ended(60).id]
        assert await listed(schedule="crawler-2") == [other.id]
        assert await listed(trigger="manual") == [by_hand.id]
        assert await listed(trigger="manual", phase=RunPhase.FAILED) == []
        assert await listed(since=tick(59), until=tick(60)) == [ended(60).id, by_hand.id, ended(59).id]
        assert await listed(since=tick(60), trigger="schedule") == [other.id, ended(60).id]
