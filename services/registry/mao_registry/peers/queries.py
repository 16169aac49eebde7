"""Pure: which nodes are late with a pipeline, from what each says of its own runs.

A node's own `next_tick` is the measure of what it owes: nobody can make another late by inventing ticks, and
nodes with different schedules do not wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from mao_shared.models import PeerRuns, RunBrief, format_time
from mao_shared.states import RUN_ENDED, RunPhase

GRACE = timedelta(minutes=2)


def lateness(told: PeerRuns, others: Iterable[PeerRuns], now: datetime) -> str | None:
    """Why the node counts as late, in words; None when it does not."""
    finished = _finished(others, now)
    for tick, node in finished:
        if _owes(told, tick):
            return f"the tick {format_time(tick)}, which {node} has finished"
    if told.next_tick is not None and now - told.next_tick > GRACE:
        return f"the tick {format_time(told.next_tick)} has no run"
    return None


def _finished(others: Iterable[PeerRuns], now: datetime) -> list[tuple[datetime, str]]:
    """Ticks that are over with a node that has finished them, the newest first."""
    done = {
        brief.scheduled_for: told.node
        for told in others
        for brief in told.runs
        if brief.phase is RunPhase.SUCCEEDED and brief.scheduled_for and brief.scheduled_for <= now
    }
    return sorted(done.items(), reverse=True)


def _owes(told: PeerRuns, tick: datetime) -> bool:
    own = _run_of(told, tick)
    if own is not None:
        return own.phase not in RUN_ENDED
    return told.next_tick is not None and told.next_tick <= tick


def _run_of(told: PeerRuns, tick: datetime) -> RunBrief | None:
    return next((brief for brief in told.runs if brief.scheduled_for == tick), None)
