"""Schedules of one pipeline that share a tick create one run, the same on every replay."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest

from mao_scheduler.runs.commands import RunFilter
from mao_scheduler.schedules.cron import parse_cron
from mao_scheduler.schedules.due import decide_ticks
from mao_shared import keys
from mao_shared.errors import InvalidInput, StoreUnavailable
from mao_shared.models import Run, Schedule, tick_run_id
from mao_shared.models.schedule import BackfillRequest
from mao_shared.states import RunPhase
from mao_shared.store.memory import MemoryStore
from tests.support.waiting import eventually

from .doubles import StoreThatDiesAfter
from .harness import all_runs, knows, mark, put, scheduler
from .samples import NODE, START, ManualClock, enrolment, schedule

EVERY_MINUTE = "* * * * *"


def named(name: str, cron: str = EVERY_MINUTE, pipeline: str = "crawler", **changes: Any) -> Schedule:
    return schedule(cron, pipeline, id=f"{pipeline}-{name}", **changes)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


@pytest.mark.parametrize("order", ["ab", "ba"])
@pytest.mark.parametrize(
    ("one", "other", "minutes"),
    [
        ({"cron": "* * * * *"}, {"cron": "*/1 * * * *"}, 5),
        ({"cron": "*/15 * * * *"}, {"cron": "0 * * * *"}, 61),
        ({"cron": "0 8 * * *"}, {"cron": "0 9 * * *", "timezone": "Europe/Zurich"}, 61),
        ({"cron": "30 * * * * *", "seconds": True}, {"cron": "*/10 * * * * *", "seconds": True}, 1),
    ],
)
async def test_shared_tick_has_one_run_and_moves_both_marks(
    store: MemoryStore,
    clock: ManualClock,
    one: dict[str, Any],
    other: dict[str, Any],
    minutes: int,
    order: str,
) -> None:
    plans = [named("a", **one), named("b", **other)]
    await put(store, enrolment(overlap="queue"), *(plans if order == "ab" else reversed(plans)))
    async with scheduler(store, clock) as made:
        await knows(made, *plans)
        while clock.now() < at(minutes):
            clock.turn(seconds=10)
            await made.timer.prepare_ticks()
            await made.timer.record_due_ticks()
        await made.timer.save()
    due = [set(_ticks(plan, clock.now())) for plan in plans]
    runs = await all_runs(store)
    assert [run.id for run in runs] == sorted(tick_run_id("crawler", NODE, tick) for tick in due[0] | due[1])
    for run in runs:
        assert run.phase is RunPhase.QUEUED
        assert run.schedule == ("crawler-a" if run.scheduled_for in due[0] else "crawler-b")
    for plan, ticks in zip(plans, due, strict=True):
        stored = await mark(store, plan.id)
        assert stored is not None
        assert stored.decided_until == max(ticks)


def _ticks(plan: Schedule, until: datetime) -> list[datetime]:
    return list(parse_cron(plan.cron, plan.timezone, seconds=plan.seconds).times(plan.created_at, until))


@pytest.mark.parametrize(
    ("a", "b", "schedule_id"),
    [
        ({"paused": True, "paused_at": START}, {}, "crawler-b"),
        ({}, {"paused": True, "paused_at": START}, "crawler-a"),
        ({"catch_up": "none"}, {"catch_up": "all"}, "crawler-b"),
        ({"catch_up": "all"}, {"catch_up": "none"}, "crawler-a"),
        ({"start_deadline": 1.0, "catch_up": "none"}, {"start_deadline": 9000.0}, "crawler-b"),
        ({"paused_at": START, "resumed_at": at(60)}, {"catch_up": "all"}, "crawler-b"),
    ],
)
async def test_shared_tick_run_takes_precedence_over_missed(
    store: MemoryStore, clock: ManualClock, a: dict[str, Any], b: dict[str, Any], schedule_id: str
) -> None:
    await put(store, enrolment(), named("a", "0 * * * *", **a), named("b", "0 8 * * *", **b))
    clock.turn(hours=1, minutes=30)
    async with scheduler(store, clock) as made:
        await made.timer.record_due_ticks()
    (run,) = [r for r in await all_runs(store) if r.scheduled_for == at(60)]
    assert (run.phase, run.schedule) == (RunPhase.QUEUED, schedule_id)


async def test_shared_tick_missed_by_both_has_one_record(store: MemoryStore, clock: ManualClock) -> None:
    plans = [named(name, catch_up="none") for name in "ab"]
    await put(store, enrolment(), *plans)
    clock.turn(minutes=30)
    async with scheduler(store, clock) as made:
        await made.timer.record_due_ticks()
    runs = await all_runs(store)
    assert len({run.id for run in runs}) == len(runs) == 30
    assert Counter(run.phase for run in runs) == {RunPhase.QUEUED: 2, RunPhase.MISSED: 28}


async def test_shared_tick_is_listed_for_both_jobs(store: MemoryStore, clock: ManualClock) -> None:
    plans = [named("a"), named("b", "*/2 * * * *"), named("c", "1-59/2 * * * *")]
    await put(store, enrolment(overlap="queue"), *plans)
    async with scheduler(store, clock) as made:
        await knows(made, *plans)
        for _ in range(4):
            clock.turn(minutes=1)
            await made.timer.record_due_ticks()
        for plan, expected in zip(plans, (4, 2, 2), strict=True):
            found = await made.runs.list(50, None, RunFilter(schedule=plan.id, ticks=plan))
            assert len(found.items) == expected
            job = (await made.jobs.show(plan.id)).record
            assert job.next is not None
            assert job.next > clock.now()
            assert job.last is not None
            assert job.last.run in {run.id for run in found.items}
        result = await made.backfill("crawler-b", BackfillRequest(since=at(0.5)))
        assert (result.queued, result.present) == ([], 2)
        await made.jobs.remove("crawler-a", None)
        await eventually(lambda: made.schedules.get("crawler-a") is None)
        clock.turn(minutes=2)
        await made.timer.record_due_ticks()
    assert [run.schedule for run in await all_runs(store)][-2:] == ["crawler-c", "crawler-b"]


CRONS = [
    "* * * * *",
    "*/1 * * * *",
    "*/2 * * * *",
    "*/3 * * * *",
    "0 * * * *",
    "*/15 * * * *",
    "0,30 8-20 * * *",
]
ZONES = ["UTC", "Europe/Zurich", "Australia/Lord_Howe", "Asia/Kathmandu"]


def _drawn(chance: random.Random) -> list[Schedule]:
    return [
        named(
            f"s{number}",
            chance.choice(CRONS),
            created_at=START - timedelta(days=31),
            timezone=chance.choice(ZONES),
            catch_up=chance.choice(["none", "latest", "all"]),
            start_deadline=chance.choice([1.0, 60.0, 600.0]),
            max_catch_up=chance.choice([1, 10, 100]),
        )
        for number in range(chance.randint(2, 5))
    ]


@pytest.mark.parametrize("seed", range(6))
async def test_shared_ticks_survive_kills_at_any_write(seed: int) -> None:
    """Across a change to winter time, with a process that is killed at any write and sometimes down."""
    chance, store = random.Random(seed), MemoryStore()
    clock = ManualClock(datetime.fromisoformat("2026-10-24T20:00:00+00:00"))
    began = clock.now()
    plans = [plan.model_copy(update={"created_at": began}) for plan in _drawn(chance)]
    plans.append(named("alone", EVERY_MINUTE, "other", created_at=began))
    await put(store, enrolment(overlap="queue"), enrolment("other", overlap="queue"), *plans)
    while clock.now() < began + timedelta(minutes=500):
        mortal = StoreThatDiesAfter(store, chance.randint(0, 40))
        async with scheduler(mortal, clock) as made:
            await knows(made, *plans)
            try:
                for _ in range(chance.randint(1, 60)):
                    clock.turn(seconds=chance.choice([20, 60, 60, 60, 61, 300]))
                    await made.timer.prepare_ticks()
                    await made.timer.record_due_ticks()
                    if chance.random() < 0.3:
                        await made.timer.save()
            except StoreUnavailable:
                clock.turn(minutes=chance.choice([0, 0, 1, 30]))
            assert made.conditions.current() == []
    async with scheduler(store, clock) as made:
        await knows(made, *plans)
        await made.timer.record_due_ticks()
        before = await all_runs(store)
        await made.timer.record_due_ticks()
        assert await all_runs(store) == before
    for pipeline in ("crawler", "other"):
        _check_outcomes(
            [run for run in before if run.pipeline == pipeline],
            [plan for plan in plans if plan.pipeline == pipeline],
            clock.now(),
        )


def _check_outcomes(runs: list[Run], plans: list[Schedule], now: datetime) -> None:
    """Check that every tick of every schedule has one record or is covered by a summary."""
    own = [run for run in runs if run.covers is None]
    summaries = [run for run in runs if run.covers is not None]
    by_tick = Counter(run.scheduled_for for run in own)
    assert set(by_tick.values()) == {1}
    due = {plan.id: _ticks(plan, now) for plan in plans}
    for run in own:
        assert run.scheduled_for in due[run.schedule or ""]
    for name, ticks in due.items():
        spans = [run.covers for run in summaries if run.schedule == name and run.covers is not None]
        for tick in ticks:
            times = sum(span.since <= tick <= span.until for span in spans)
            assert times <= 1
            assert times or by_tick[tick] == 1, (name, tick)


class StoreThatRefuses(MemoryStore):
    """A store that refuses every transaction that writes a key with `word` in it."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word: str | None = word

    async def transact(self, checks: Any, writes: Any) -> int | None:
        if self.word is not None and any(self.word in write.key for write in writes):
            raise InvalidInput("The record is too large.", code="record-too-large")
        return await super().transact(checks, writes)


@pytest.mark.parametrize("others", [1, 5, 150])
async def test_timer_unwritable_record_does_not_stop_others(clock: ManualClock, others: int) -> None:
    store = StoreThatRefuses("never-there")
    names = [f"p{number:03}" for number in range(others)]
    plans = [named("1", pipeline=name) for name in ["bad", *names]]
    await put(store, *(enrolment(plan.pipeline, overlap="queue") for plan in plans), *plans)
    store.word = "-bad-"
    async with scheduler(store, clock) as made:
        await knows(made, *plans)
        for _ in range(3):
            clock.turn(minutes=1)
            await made.timer.prepare_ticks()
            await made.timer.record_due_ticks()
        runs = await all_runs(store)
        assert Counter(run.pipeline for run in runs) == dict.fromkeys(names, 3)
        assert [condition.subject for condition in made.conditions.current()] == ["schedules/bad-1"]
        store.word = None
        made.timer._guard._until.clear()  # its pause is over
        await made.timer.record_due_ticks()
        assert made.conditions.current() == []
    assert Counter(run.pipeline for run in await all_runs(store)) == dict.fromkeys(["bad", *names], 3)


async def test_timer_undecidable_schedule_does_not_stop_others(
    store: MemoryStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumbles(plan: Schedule, *rest: Any) -> Any:
        if plan.pipeline == "bad":
            raise OverflowError("date value out of range")
        return decide_ticks(plan, *rest)

    monkeypatch.setattr("mao_scheduler.schedules.timer.decide_ticks", stumbles)
    plans = [named("1", pipeline=name) for name in ("bad", "good")]
    await put(store, *(enrolment(plan.pipeline, overlap="queue") for plan in plans), *plans)
    async with scheduler(store, clock) as made:
        await knows(made, *plans)
        task = asyncio.create_task(made.timer.run())
        clock.turn(minutes=1)
        await eventually(lambda: len(made.run_mirror.items()) == 1)
        clock.turn(minutes=1)
        await eventually(lambda: len(made.run_mirror.items()) == 2)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert [condition.subject for condition in made.conditions.current()] == ["schedules/bad-1"]
    assert {run.pipeline for run in await all_runs(store)} == {"good"}


async def test_marks_unwritable_mark_does_not_stop_others(clock: ManualClock) -> None:
    store = StoreThatRefuses("never-there")
    plans = [named("1", pipeline=name) for name in ("bad", "good", "fine")]
    await put(store, *(enrolment(plan.pipeline, overlap="queue") for plan in plans), *plans)
    store.word = keys.tick(NODE, "bad-1")
    async with scheduler(store, clock) as made:
        await knows(made, *plans)
        clock.turn(minutes=1)
        await made.timer.record_due_ticks()
        await made.timer.save()
        assert [condition.subject for condition in made.conditions.current()] == ["marks/bad-1"]
    assert await mark(store, "bad-1") is None
    for name in ("good-1", "fine-1"):
        assert await mark(store, name) is not None
