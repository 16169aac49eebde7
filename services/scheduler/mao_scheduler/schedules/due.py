"""Decides which ticks of a schedule are due, and which are run, missed or coalesced (pure).

Every tick in (mark, now] gets exactly one outcome; docs/decisions/0004-ticks.md gives the rules and reasons.
Other reasons to miss a tick are found when its run is created (`not-enrolled`: new_runs.py) or started
(`overlap`: runs/lifecycle.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from mao_shared.errors import InvalidInput
from mao_shared.models import Schedule
from mao_shared.models.node import Restored, unknown_since
from mao_shared.models.run import CoveredTicks, MissedWhy

from .cron import Cron, parse_cron

_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Tick:
    """The outcome of one tick: run (`missed` is None), or missed with a reason.

    `caught_up`: the tick is run although it is late.
    """

    at: datetime
    missed: MissedWhy | None = None
    reason: str | None = None
    caught_up: bool = False


@dataclass(frozen=True, slots=True)
class BacklogSummary:
    """The older part of a long backlog, recorded as one run."""

    covers: CoveredTicks
    missed: MissedWhy
    reason: str


@dataclass(frozen=True, slots=True)
class DueTicks:
    """The outcomes of due ticks, in ascending order; all are later than those that `summary` covers."""

    ticks: list[Tick]
    summary: BacklogSummary | None = None


def schedule_cron(schedule: Schedule) -> Cron:
    """Parse the schedule's cron string. Raises InvalidInput if this machine does not know its zone."""
    return parse_cron(schedule.cron, schedule.timezone, seconds=schedule.seconds)


def next_tick(
    schedules: Iterable[Schedule], decided_until: Callable[[str], datetime | None], now: datetime
) -> datetime | None:
    """Return the first undecided tick; it is in the past while the timer lags.

    `decided_until`: id of a schedule → its mark.
    """
    ticks = []
    for schedule in schedules:
        if schedule.paused:
            continue
        try:
            ticks.append(schedule_cron(schedule).next(decided_until(schedule.id) or now))
        except InvalidInput:  # a zone unknown to this machine; the job shows the error
            continue
    return min((tick for tick in ticks if tick is not None), default=None)


def is_tick(schedule: Schedule, moment: datetime) -> bool:
    """Return True if the schedule has a tick at `moment`; False if this machine does not know its zone."""
    try:
        return schedule_cron(schedule).next(moment - _SECOND) == moment
    except InvalidInput:
        return False


def undecided_after(schedule: Schedule, decided_until: datetime | None) -> datetime:
    """Return the time after which the schedule's ticks are undecided."""
    return schedule.created_at if decided_until is None else max(decided_until, schedule.created_at)


def decidable_until(schedule: Schedule, now: datetime) -> datetime:
    """Return the time up to which ticks can be decided; later ones wait until the schedule is resumed."""
    if not schedule.paused:
        return now
    return min(now, schedule.paused_at or schedule.created_at)


def decide_ticks(
    schedule: Schedule,
    cron: Cron,
    decided_until: datetime | None,
    now: datetime,
    restored: Restored | None = None,
) -> DueTicks:
    """Decide every undecided tick. `restored` is the last restore of this node from a backup."""
    start, end = undecided_after(schedule, decided_until), decidable_until(schedule, now)
    moments = cron.newest(start, end, schedule.max_catch_up + 1)
    summary = None
    if len(moments) > schedule.max_catch_up:
        summary = _summarise(schedule, cron, start, moments.pop(0), now, restored)
    known = [tick for tick in moments if not _in_pause(schedule, tick) and not _is_unknown(tick, restored)]
    newest = known[-1] if known else None
    return DueTicks([_outcome(schedule, moment, newest, now, restored) for moment in moments], summary)


def _outcome(
    schedule: Schedule, tick: datetime, newest: datetime | None, now: datetime, restored: Restored | None
) -> Tick:
    if _in_pause(schedule, tick):
        return Tick(tick, "paused", "The schedule was paused.")
    if restored is not None and _is_unknown(tick, restored):
        return Tick(tick, "late", f"{unknown_since(restored.backup_at)}.")
    late = (now - tick).total_seconds()
    if late <= schedule.start_deadline:
        return Tick(tick)
    if schedule.catch_up == "all" or (schedule.catch_up == "latest" and tick == newest):
        return Tick(tick, caught_up=True)
    if schedule.catch_up == "latest" and newest is not None:
        return Tick(
            tick, "coalesced", f"Too late by {late:.0f} s; coalesced into the tick of {_time(newest)}."
        )
    return Tick(tick, "late", _too_late(schedule, late))


def _summarise(
    schedule: Schedule,
    cron: Cron,
    start: datetime,
    last: datetime,
    now: datetime,
    restored: Restored | None,
) -> BacklogSummary:
    """Return one record for the ticks after `start` up to and including `last`."""
    covers = CoveredTicks(since=cron.next(start) or last, until=last, count=cron.count(start, last))
    paused = _in_pause(schedule, last)
    why = "the schedule was paused" if paused else _too_late(schedule, (now - last).total_seconds())
    if restored is not None and _is_unknown(last, restored) and not paused:
        why = f"{unknown_since(restored.backup_at)}; those that are in its datasets have records of their own"
    reason = (
        f"{covers.count} ticks from {_time(covers.since)} to {_time(last)} are recorded as one: {why} "
        f"(more than max_catch_up = {schedule.max_catch_up} ticks were due)."
    )
    return BacklogSummary(covers, "paused" if paused else "late", reason)


def _in_pause(schedule: Schedule, tick: datetime) -> bool:
    began, ended = schedule.paused_at, schedule.resumed_at
    return began is not None and ended is not None and began < tick <= ended


def _is_unknown(tick: datetime, restored: Restored | None) -> bool:
    """Return True if the node may have run the tick before it was restored."""
    return restored is not None and tick <= restored.restored_at


def _too_late(schedule: Schedule, late: float) -> str:
    return f"Too late by {late:.0f} s, and the start deadline is {schedule.start_deadline:.0f} s."


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
