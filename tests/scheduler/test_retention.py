"""Which run records may go, and that the marks' need of them is respected."""

from __future__ import annotations

from datetime import datetime, timedelta

from mao_scheduler.retention import EndedRun, Policy, Retention, choose
from mao_shared import keys
from mao_shared.models.run import Run
from mao_shared.models.schedule import TickMark
from mao_shared.states import RunPhase
from mao_shared.store import Records, Store
from mao_shared.store.records import dump

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
) -> EndedRun:
    return EndedRun(
        name=name,
        revision=1,
        pipeline=pipeline,
        missed=missed,
        finished_at=NOW - timedelta(days=days_ago),
        scheduled_for=tick,
        schedule="s" if tick else None,
    )


def chosen(runs: list[EndedRun], policy: Policy, mark: datetime | None = None) -> set[str]:
    decided = {"s": mark} if mark else {}
    return {each.name for each in choose(runs, decided, frozenset({"s"}), policy, NOW)}


def test_by_count_a_pipeline_newest_kept_and_missed_ones_apart() -> None:
    runs = [ended(f"r{n}", n) for n in range(5)]
    runs += [ended(f"m{n}", n, missed=True) for n in range(3)]
    runs += [ended(f"o{n}", n, pipeline="other") for n in range(2)]
    assert chosen(runs, Policy(2, timedelta(days=90))) == {"r2", "r3", "r4", "m2"}


def test_by_age() -> None:
    runs = [ended("young", 89), ended("old", 91)]
    assert chosen(runs, Policy(100, timedelta(days=90))) == {"old"}


def test_a_ticks_record_outlives_the_need_of_its_mark() -> None:
    runs = [ended("before", 95, tick=START), ended("after", 95, tick=START + timedelta(minutes=2))]
    policy = Policy(100, timedelta(days=90))
    assert chosen(runs, policy, START + timedelta(minutes=1)) == {"before"}
    assert chosen(runs, policy) == set()
    assert {each.name for each in choose(runs, {}, frozenset(), policy, NOW)} == {"before", "after"}


async def test_a_sweep_removes_ended_runs_only(store: Store, clock: ManualClock) -> None:
    records = Records(store, keys.runs_prefix(NODE), Run)
    for number in range(150):
        name, tick = f"r{number:03}", START + timedelta(minutes=number)
        ended_run = run(
            name, phase=RunPhase.MISSED, finished_at=tick, scheduled_for=tick, schedule="crawler-1"
        )
        await records.create(name, ended_run)
    await records.create("active", run("active", phase=RunPhase.RUNNING))
    await store.create(keys.schedule(NODE, "crawler-1"), dump(schedule()))
    decided = TickMark(decided_until=START + timedelta(minutes=99))
    await store.create(keys.tick(NODE, "crawler-1"), dump(decided))
    ticks = Records(store, keys.ticks_prefix(NODE), TickMark)
    policy = Policy(10, timedelta(days=90))
    retention = Retention(records, ticks, keys.schedules_prefix(NODE), policy, 600, clock)
    assert await retention.sweep() == 100
    left = await all_runs(store)
    assert [each.id for each in left] == ["active", *(f"r{n:03}" for n in range(100, 150))]
    assert await retention.sweep() == 0
