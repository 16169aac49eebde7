"""When each schedule ticks next: a heap over the schedules of a node, kept in step with their mirror."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from mao_shared.errors import InvalidInput
from mao_shared.logs import get_logger
from mao_shared.models.schedule import Schedule
from mao_shared.reconcile import Mirror

from .ahead import Prepared
from .cron import Cron
from .due import cron_of, first_undecided, horizon
from .marks import Marks

log = get_logger(__name__)


@dataclass(slots=True, eq=False)
class Plan:
    """A schedule with its next undecided tick; `next` is None while it has none (paused)."""

    schedule: Schedule
    cron: Cron
    next: datetime | None = None
    prepared: Prepared | None = None


class Plans:
    """All plans of a node. `changed` is set when a schedule has changed; `take_changes` then takes it up."""

    def __init__(self, schedules: Mirror[Schedule], marks: Marks) -> None:
        self.changed = asyncio.Event()
        self._schedules = schedules
        self._marks = marks
        self._plans: dict[str, Plan] = {}
        self._heap: list[tuple[datetime, str]] = []
        self._stale: set[str] = set()
        schedules.subscribe(self._note_change)

    def next_due(self) -> datetime | None:
        """The time of the next tick (or of a removed schedule's, which does no harm)."""
        return self._heap[0][0] if self._heap else None

    def take_changes(self) -> None:
        """Plans anew for every schedule that was added, changed or removed."""
        for name in self._stale:
            stored = self._schedules.get(name)
            if stored is None:
                self._plans.pop(name, None)
                self._marks.forget(name)
            else:
                self._add(stored.record)
        self._stale.clear()

    def take_due(self, now: datetime, limit: int) -> list[Plan]:
        """Takes up to `limit` plans that are due off the heap; each must be given back with `put_back`."""
        due: dict[str, Plan] = {}
        while self._heap and self._heap[0][0] <= now and len(due) < limit:
            moment, name = heapq.heappop(self._heap)
            plan = self._plans.get(name)
            if plan is not None and plan.next == moment:  # else the entry is from an earlier plan
                due[name] = plan
        return list(due.values())

    def put_back(self, plan: Plan) -> None:
        """Plans the next tick after the mark."""
        if self._plans.get(plan.schedule.id) is not plan:
            return
        plan.next = self._next_of(plan)
        if plan.next is not None:
            heapq.heappush(self._heap, (plan.next, plan.schedule.id))

    def unprepared(self, until: datetime) -> Iterator[Plan]:
        """Plans whose next tick comes by `until` and is not prepared."""
        for moment, name in self._heap:
            plan = self._plans.get(name)
            if moment > until or plan is None or plan.next != moment:
                continue
            if plan.prepared is None or plan.prepared.tick != moment:
                yield plan

    def _next_of(self, plan: Plan) -> datetime | None:
        after = first_undecided(plan.schedule, self._marks.get(plan.schedule.id))
        known = plan.prepared
        following = known.following if known and known.tick == after else plan.cron.next(after)
        if plan.schedule.paused and following and following > horizon(plan.schedule, following):
            return None
        return following

    def _note_change(self, name: str) -> None:
        self._stale.add(name)
        self.changed.set()

    def _add(self, schedule: Schedule) -> None:
        try:
            cron = cron_of(schedule)
        except InvalidInput as error:  # only a zone that this machine no longer knows
            log.error("timer.schedule_unusable", schedule=schedule.id, error=error.detail)
            return
        plan = self._plans[schedule.id] = Plan(schedule, cron)
        self.put_back(plan)
