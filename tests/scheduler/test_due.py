"""The outcomes of a schedule's ticks, as tables over policy and lateness, in virtual time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mao_scheduler.schedules.cron import parse_cron
from mao_scheduler.schedules.due import DueTicks, Tick, decide_ticks
from mao_shared.models import Schedule
from mao_shared.models.node import Restored

from .samples import START, schedule


def minutes(n: float) -> datetime:
    return START + timedelta(minutes=n)


def due(plan: Schedule, now: datetime, decided_until: datetime | None = None) -> DueTicks:
    return decide_ticks(plan, parse_cron(plan.cron, plan.timezone, seconds=plan.seconds), decided_until, now)


def outcomes(found: DueTicks) -> list[str]:
    """Format outcomes: `+3` run on time, `~3` caught up, otherwise the reason and the minute after START."""
    return [f"{_sign(tick)}{(tick.at - START).total_seconds() / 60:g}" for tick in found.ticks]


def _sign(tick: Tick) -> str:
    if tick.missed:
        return f"{tick.missed} "
    return "~" if tick.caught_up else "+"


@pytest.mark.parametrize(
    ("settings", "now", "decided_until", "expected"),
    [
        # nothing is due before the first tick, and a decided one is not decided again
        ({}, 0.99, None, []),
        ({}, 1, 1, []),
        # on time: up to and with the start deadline, which is 60 s
        ({}, 1, None, ["+1"]),
        ({}, 2, None, ["+1", "+2"]),
        ({"start_deadline": 30}, 1.5, None, ["+1"]),
        ({"start_deadline": 30}, 1.51, None, ["~1"]),
        # late ones: none, the latest, all
        ({"catch_up": "none"}, 5.5, None, ["late 1", "late 2", "late 3", "late 4", "+5"]),
        ({"catch_up": "none", "start_deadline": 10}, 3.5, None, ["late 1", "late 2", "late 3"]),
        ({"start_deadline": 10}, 3.5, None, ["coalesced 1", "coalesced 2", "~3"]),
        ({}, 4.5, None, ["coalesced 1", "coalesced 2", "coalesced 3", "+4"]),
        ({"catch_up": "all"}, 4.5, None, ["~1", "~2", "~3", "+4"]),
        # a clock that went back: nothing is due until it has come to where it was
        ({}, 3, 10, []),
        # ticks before the schedule was made are not its own
        ({"created_at": minutes(2)}, 3, 0, ["+3"]),
        # while paused: what was due before the pause, no more
        ({"paused": True, "paused_at": minutes(2.5)}, 60, None, ["coalesced 1", "~2"]),
        ({"paused": True, "paused_at": minutes(2.5)}, 60, 2, []),
        ({"paused": True}, 60, None, []),
        # resumed: what the pause took is missed and never caught up
        (
            {"paused_at": minutes(1.5), "resumed_at": minutes(3.5), "catch_up": "all"},
            5,
            None,
            ["~1", "paused 2", "paused 3", "+4", "+5"],
        ),
        (
            {"paused_at": minutes(1.5), "resumed_at": minutes(3.5), "start_deadline": 10},
            3.9,
            None,
            ["~1", "paused 2", "paused 3"],
        ),
    ],
)
def test_due_outcome_of_each_tick(
    settings: dict[str, Any], now: float, decided_until: float | None, expected: list[str]
) -> None:
    mark = None if decided_until is None else minutes(decided_until)
    found = due(schedule(**settings), minutes(now), mark)
    assert outcomes(found) == expected
    assert found.summary is None


def test_due_missed_tick_has_reason() -> None:
    (late,) = due(schedule(catch_up="none"), minutes(1 + 90 / 60)).ticks[:1]
    assert late.reason == "Too late by 90 s, and the start deadline is 60 s."
    (coalesced,) = due(schedule(), minutes(2 + 90 / 60)).ticks[:1]
    assert coalesced.reason == "Too late by 150 s; coalesced into the tick of 2026-11-24T07:03:00Z."


def test_due_long_backlog_keeps_newest_and_summarises_rest() -> None:
    found = due(schedule(max_catch_up=3, catch_up="all"), minutes(10.9))
    assert outcomes(found) == ["~8", "~9", "+10"]
    assert found.summary is not None
    assert found.summary.covers.since == minutes(1)
    assert found.summary.covers.until == minutes(7)
    assert found.summary.covers.count == 7
    assert found.summary.missed == "late"
    assert "7 ticks from 2026-11-24T07:01:00Z to 2026-11-24T07:07:00Z" in found.summary.reason


def test_due_year_long_pause_makes_records_and_summary() -> None:
    resumed = START + timedelta(days=365)
    found = due(schedule(paused_at=START, resumed_at=resumed), resumed)
    assert [tick.missed for tick in found.ticks] == ["paused"] * 100
    assert found.summary is not None
    assert found.summary.missed == "paused"
    assert found.summary.covers.count == 365 * 24 * 60 - 100


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["* * * * *", "*/7 * * * *", "0 */3 * * *", "30 2 * * *"]),
    st.sampled_from(["none", "latest", "all"]),
    st.integers(1, 20),
    st.lists(st.integers(1, 40_000), min_size=1, max_size=5),
)
def test_due_each_tick_has_one_outcome_at_any_polling(
    cron: str, catch_up: str, max_catch_up: int, gaps: list[int]
) -> None:
    plan = schedule(cron, timezone="Europe/Zurich", catch_up=catch_up, max_catch_up=max_catch_up)
    now, mark, recorded, covered = START, None, [], 0
    for gap in gaps:
        now += timedelta(seconds=gap)
        found = due(plan, now, mark)
        recorded += [tick.at for tick in found.ticks]
        covered += found.summary.covers.count if found.summary else 0
        mark = recorded[-1] if recorded else None
        assert len(found.ticks) <= max_catch_up
    every = list(parse_cron(cron, "Europe/Zurich").times(START, now))
    assert len(recorded) + covered == len(every)
    assert sorted(set(recorded)) == recorded
    assert set(recorded) <= set(every)


def after_restore(plan: Schedule, now: float, until: float, decided_until: float | None = None) -> DueTicks:
    """Decide the ticks of a node that was restored at minute `until` from a backup of minute 0."""
    restored = Restored(backup_at=START, restored_at=minutes(until))
    cron = parse_cron(plan.cron, plan.timezone, seconds=plan.seconds)
    mark = None if decided_until is None else minutes(decided_until)
    return decide_ticks(plan, cron, mark, minutes(now), restored)


@pytest.mark.parametrize("catch_up", ["none", "latest", "all"])
def test_due_ticks_before_restore_are_missed(catch_up: str) -> None:
    found = after_restore(schedule(catch_up=catch_up), 3.5, until=3)
    assert outcomes(found) == ["late 1", "late 2", "late 3"]
    assert all("backup of 2026-11-24T07:00:00Z" in (tick.reason or "") for tick in found.ticks)


def test_due_ticks_after_restore_are_caught_up() -> None:
    assert outcomes(after_restore(schedule(catch_up="all"), 5.5, until=2.5)) == [
        "late 1",
        "late 2",
        "~3",
        "~4",
        "+5",
    ]
    latest = after_restore(schedule(start_deadline=10), 5.5, until=2.5)
    assert outcomes(latest) == ["late 1", "late 2", "coalesced 3", "coalesced 4", "~5"]


def test_due_punctual_tick_before_restore_is_missed() -> None:
    assert outcomes(after_restore(schedule(), 1.2, until=1.1)) == ["late 1"]


def test_due_backlog_before_restore_is_summarised_with_reason() -> None:
    found = after_restore(schedule(max_catch_up=2), 10.5, until=10)
    assert outcomes(found) == ["late 9", "late 10"]
    assert found.summary is not None
    assert found.summary.covers.count == 8
    assert "restored from the backup" in found.summary.reason


def test_due_pause_before_restore_stays_paused() -> None:
    paused = schedule(paused_at=minutes(0.5), resumed_at=minutes(2.5))
    assert outcomes(after_restore(paused, 4.5, until=3.5)) == ["paused 1", "paused 2", "late 3", "+4"]
