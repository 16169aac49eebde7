"""Retention removes old run records, and keeps those that undecided ticks need."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

from mao_scheduler.runs.retention import (
    RetentionPolicy,
    RunRetention,
    expired_runs,
    undecided_since,
)
from mao_scheduler.schedules.marks import TickHistory
from mao_shared import keys
from mao_shared.models import Run, Schedule, TickMark
from mao_shared.models.schedule import Forgotten, Remembered
from mao_shared.runs.records import IndexedRun, RunRecords
from mao_shared.states import RunPhase
from mao_shared.store import Records, Store, dump

from .harness import all_runs
from .samples import NODE, START, ManualClock, run, schedule

NOW = START + timedelta(days=100)


def ended(
    name: str,
    days_ago: float,
    *,
    pipeline: str = "crawler",
    missed: bool = False,
    tick: datetime | None = None,
) -> IndexedRun:
    return IndexedRun(
        id=name,
        pipeline=pipeline,
        phase=RunPhase.MISSED if missed else RunPhase.SUCCEEDED,
        revision=1,
        trigger="schedule",
        schedule=None,
        scheduled_for=tick,
        finished_at=NOW - timedelta(days=days_ago),
        covers=None,
    )


def chosen(runs: list[IndexedRun], policy: RetentionPolicy, undecided: datetime | None = None) -> set[str]:
    since = {"crawler": undecided} if undecided else {}
    return {run.id for run in expired_runs(runs, since, policy, NOW)}


def test_expired_runs_by_count_with_missed_counted_apart() -> None:
    runs = [ended(f"r{n}", n) for n in range(5)]
    runs += [ended(f"m{n}", n, missed=True) for n in range(3)]
    runs += [ended(f"o{n}", n, pipeline="other") for n in range(2)]
    assert chosen(runs, RetentionPolicy(2, timedelta(days=90))) == {"r2", "r3", "r4", "m2"}


def test_expired_runs_by_age() -> None:
    runs = [ended("young", 89), ended("old", 91)]
    assert chosen(runs, RetentionPolicy(100, timedelta(days=90))) == {"old"}


def test_expired_runs_keep_records_of_undecided_ticks() -> None:
    runs = [ended("before", 95, tick=START), ended("after", 95, tick=START + timedelta(minutes=2))]
    runs.append(ended("elsewhere", 95, tick=START + timedelta(minutes=2), pipeline="other"))
    policy = RetentionPolicy(100, timedelta(days=90))
    assert chosen(runs, policy, START + timedelta(minutes=1)) == {"before", "elsewhere"}
    assert chosen(runs, policy) == {"before", "after", "elsewhere"}


def test_undecided_since_considers_lagging_schedules() -> None:
    hour, now = timedelta(hours=1), START + timedelta(hours=10)
    hourly, daily = schedule("0 * * * *", id="hourly"), schedule("@daily", id="daily")
    decided = {"hourly": now}
    assert undecided_since([hourly, daily], decided, now) == {}  # the daily one has no tick yet
    assert undecided_since([hourly, daily], decided, now + hour) == {"crawler": now}
    assert undecided_since([hourly], {}, now) == {"crawler": START}
    paused = schedule("0 * * * *", id="paused", paused=True, paused_at=START + 2 * hour)
    assert undecided_since([paused], {"paused": START + 2 * hour}, now) == {}
    assert undecided_since([paused], {"paused": START + hour}, now) == {"crawler": START + hour}
    assert undecided_since([schedule(timezone="Mars/Base")], {}, now) == {"crawler": START}


def retention_of(store: Store, clock: ManualClock, keep_runs: int = 10) -> RunRetention:
    quiet = asyncio.Event()
    quiet.set()
    return RunRetention(
        RunRecords(store, NODE),
        Records(store, keys.schedules_prefix(NODE), Schedule),
        Records(store, keys.ticks_prefix(NODE), TickMark),
        memory_of(store),
        RetentionPolicy(keep_runs, timedelta(days=90)),
        600,
        clock,
        quiet,
    )


def memory_of(store: Store) -> TickHistory:
    return TickHistory(
        Records(store, keys.forgotten_prefix(NODE), Forgotten),
        Records(store, keys.remembered_prefix(NODE), Remembered),
    )


def run_of(name: str, tick: datetime, phase: RunPhase) -> Run:
    fields: dict[str, Any] = {
        "phase": phase,
        "finished_at": tick,
        "scheduled_for": tick,
        "schedule": "crawler-1",
    }
    return run(name, trigger="schedule", **fields)


async def test_retention_removes_ended_runs_only(store: Store, clock: ManualClock) -> None:
    records = Records(store, keys.runs_prefix(NODE), Run)
    for number in range(150):
        name, tick = f"r{number:03}", START + timedelta(minutes=number)
        await records.create(name, run_of(name, tick, RunPhase.MISSED))
    await records.create("active", run("active", phase=RunPhase.RUNNING))
    await store.create(keys.schedule(NODE, "crawler-1"), dump(schedule()))
    decided = TickMark(decided_until=START + timedelta(minutes=99))
    await store.create(keys.tick(NODE, "crawler-1"), dump(decided))
    clock.turn(hours=10)
    retention = retention_of(store, clock)
    assert await retention.sweep() == 100
    left = await all_runs(store)
    assert [r.id for r in left] == ["active", *(f"r{n:03}" for n in range(100, 150))]
    assert await retention.sweep() == 0


async def test_retention_records_removed_ticks_first(store: Store, clock: ManualClock) -> None:
    records = Records(store, keys.runs_prefix(NODE), Run)
    forgotten = Records(store, keys.forgotten_prefix(NODE), Forgotten)
    for number in range(12):
        tick = START + timedelta(minutes=number)
        phase = RunPhase.SUCCEEDED if number < 11 else RunPhase.FAILED
        name = f"r{number:02}"
        await records.create(name, run_of(name, tick, phase))
    assert await retention_of(store, clock).sweep() == 2
    noted = await forgotten.get("crawler")
    assert noted is not None
    assert noted.record.until >= START + timedelta(minutes=1)  # further for the sake of older versions
    assert await memory_of(store).forgotten("crawler") == START + timedelta(minutes=1)
    assert await retention_of(store, clock).sweep() == 0
    assert await forgotten.get("crawler") == noted
