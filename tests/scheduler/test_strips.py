"""Strips of the last ticks: what a run says of its tick, and what is read when."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from mao_scheduler.runs.strips import PipelineTicks, Tick, strip_of, tick_of
from mao_shared import keys
from mao_shared.models import Run, TickStrip
from mao_shared.models.federation import KEPT_EXCEPTIONS, MAX_TICKS
from mao_shared.models.run import CoveredTicks
from mao_shared.runs.records import LiveRun, RunRecords
from mao_shared.states import RunPhase
from mao_shared.store import Records
from mao_shared.store.memory import MemoryStore
from tests.support.waiting import eventually_answers

from .harness import put, run_records
from .samples import NODE, START, ManualClock, enrolment, run, schedule
from .test_publishing import publishing_scheduler

LATE = timedelta(seconds=300)
MINUTE = timedelta(minutes=1)


def ticked(number: int, phase: RunPhase = RunPhase.SUCCEEDED, **changes: Any) -> Run:
    at = START - timedelta(days=1) + number * MINUTE
    fields = {"scheduled_for": at, "started_at": at, "finished_at": at + MINUTE, "trigger": "schedule"}
    return run(f"{at:%Y%m%dT%H%M%SZ}-crawler-{number:08x}", phase=phase, **{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "letter"),
    [
        ({}, "s"),
        ({"started_at": START - timedelta(days=1) + timedelta(seconds=301)}, "L"),
        ({"started_at": START - timedelta(days=1) + timedelta(hours=1), "trigger": "retry"}, "s"),
        ({"phase": RunPhase.FAILED}, "f"),
        ({"phase": RunPhase.LOST}, "l"),
        ({"phase": RunPhase.MISSED}, "m"),
        ({"phase": RunPhase.CANCELLED}, "x"),
        ({"phase": RunPhase.RUNNING, "finished_at": None}, "r"),
        ({"phase": RunPhase.QUEUED, "started_at": None, "finished_at": None}, "w"),
        ({"trigger": "manual", "scheduled_for": None}, "s"),
    ],
)
def test_tick_of_letter(changes: dict[str, Any], letter: str) -> None:
    found = tick_of(ticked(0).model_copy(update=changes), LATE)
    assert found is not None
    assert found.letter == letter
    assert found.at == START - timedelta(days=1)


def test_tick_of_reproduction_is_none() -> None:
    assert tick_of(ticked(0).model_copy(update={"trigger": "reproduce"}), LATE) is None


def test_pipeline_ticks_retry_replaces_and_covered_ticks_count() -> None:
    ticks = PipelineTicks()
    at = START
    assert ticks.put(Tick(at, "a", "f"))
    assert not ticks.put(Tick(at, "a", "f"))
    assert ticks.put(Tick(at, "b", "s"))
    assert not ticks.put(Tick(at, "a", "f")), "an older run of the same tick"
    assert ticks.put(Tick(at + MINUTE, "c", "m", 5))
    assert "".join(tick.letter for tick in ticks.newest()) == "smmmmm"
    assert ticks.put(Tick(at + 2 * MINUTE, "d", "m", 1000))
    assert len(ticks.newest()) == MAX_TICKS
    for number in range(3 * MAX_TICKS):
        ticks.put(Tick(at + (number + 3) * MINUTE, f"e{number:05}", "s"))
    assert len(ticks) <= 2 * MAX_TICKS
    assert "".join(tick.letter for tick in ticks.newest()) == "s" * MAX_TICKS


def test_strip_of_names_the_newest_exceptions() -> None:
    ticks = [Tick(START - n * MINUTE, f"r{n}", "f" if n % 2 else "s") for n in range(200)][::-1]
    strip = strip_of(NODE, "crawler", ticks, START)
    assert len(strip.exceptions) == KEPT_EXCEPTIONS
    assert strip.exceptions[-1].run == "r1"
    assert strip.marks[strip.exceptions[-1].at] == "f"
    assert strip.recent == 200
    assert strip_of(NODE, "crawler", ticks, START + timedelta(days=1)).recent == 0
    assert strip_of(NODE, "crawler", [], START).first is None


async def moved(records: RunRecords, *runs: Run) -> None:
    """Put runs into the history."""
    for each in runs:
        await records.create(each.id, each)
        entry = await records.store.get(records.prefix + each.id)
        assert entry is not None
        assert await records.move([LiveRun(entry, each)]) == 1


async def test_strips_read_history_live_runs_and_changes(clock: ManualClock) -> None:
    own = MemoryStore()
    await put(own, enrolment(), schedule("* * * * *"))
    records = RunRecords(own, NODE)
    covered = CoveredTicks(since=START - timedelta(days=2), until=START - timedelta(days=1), count=2)
    await moved(
        records,
        ticked(0, RunPhase.MISSED, covers=covered, started_at=None),
        ticked(1),
        ticked(2, started_at=START),
        ticked(3, RunPhase.FAILED),
    )
    live = ticked(4, RunPhase.RUNNING, finished_at=None)
    await records.create(live.id, live)
    async with publishing_scheduler(own, own, clock) as made:
        await made.run_mirror.synced.wait()
        (strip,) = await made.strips.all()
        assert strip.marks == "mmsLfr"
        assert (strip.node, strip.pipeline, strip.last and strip.last.id) == (NODE, "crawler", live.id)
        assert [exception.run for exception in strip.exceptions][-2:] == [ticked(3).id, live.id]
        assert strip.next_tick is not None
        assert strip.schedules == ["* * * * * UTC"]
        stored = await records.get(live.id)
        assert stored is not None
        await records.replace(live.id, ticked(4), stored.revision)
        retry = ticked(3, trigger="retry").model_copy(update={"id": f"{ticked(3).id}9"})
        await records.create(retry.id, retry)

        async def is_current() -> bool:
            return (await made.strips.one("crawler")).marks == "mmsLss"

        await eventually_answers(is_current)


async def test_strips_say_which_schedules_are_paused(clock: ManualClock) -> None:
    own = MemoryStore()
    paused = schedule("0 4 * * *").model_copy(update={"id": "crawler-2", "paused": True, "paused_at": START})
    await put(own, enrolment(), schedule("* * * * *"), paused)
    async with publishing_scheduler(own, own, clock) as made:
        await made.run_mirror.synced.wait()
        strip = await made.strips.one("crawler")
    assert sorted(strip.schedules) == ["* * * * * UTC", "0 4 * * * UTC (paused)"]
    assert not strip.paused


async def test_strips_are_published_to_the_federation(clock: ManualClock) -> None:
    own, federation = MemoryStore(), MemoryStore()
    await put(own, enrolment(), schedule("0 * * * *"))
    ended = ticked(0)
    await run_records(own).create(ended.id, ended)
    async with publishing_scheduler(own, federation, clock) as made:
        await made.publisher.publish()
        published = Records(federation, keys.peer_ticks_prefix(NODE), TickStrip)
        stored = await published.get("crawler")
        assert stored is not None
        assert (stored.record.marks, stored.record.node) == ("s", NODE)
        assert stored.record.last is not None
        assert stored.record.last.snapshots == {}
