"""Schedules of one pipeline that meet in a tick: the tick has one run, and one of them gives it its outcome.

Of those that have not decided the tick yet, one that runs it goes before one for which it is missed, then the
one with the smaller id. So whoever comes first, and however often, the record is the same; the others find it
there, and their marks move on past it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from .due import Due, Tick
from .tick_queue import Plan

Decided = tuple[Plan, Tick]


class Meetings:
    """The outcomes at one moment `now`. `due` decides about a schedule, `siblings` names those beside it."""

    def __init__(self, due: Callable[[Plan], Due], siblings: Callable[[Plan], Iterable[Plan]]) -> None:
        self._due = due
        self._siblings = siblings
        self._ticks: dict[str, dict[datetime, Tick]] = {}

    def outcome(self, plan: Plan, tick: Tick) -> Decided:
        """Whose outcome the tick gets, and which."""
        met: list[Decided] = [(plan, tick)]
        for other in self._siblings(plan):
            found = self._of(other).get(tick.at)
            if found is not None:
                met.append((other, found))
        return min(met, key=_rank)

    def _of(self, plan: Plan) -> dict[datetime, Tick]:
        name = plan.schedule.id
        if name not in self._ticks:
            try:
                self._ticks[name] = {tick.at: tick for tick in self._due(plan).ticks}
            except Exception:  # noqa: BLE001 (it is set aside when its own turn comes, and decides nothing)
                self._ticks[name] = {}
        return self._ticks[name]


def _rank(decided: Decided) -> tuple[bool, str]:
    plan, tick = decided
    return tick.missed is not None, plan.schedule.id
