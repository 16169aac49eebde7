"""The next tick of every schedule, in a heap; and schedules of one pipeline that share a tick.

A shared tick has one run, and one of the schedules decides its outcome: among those that have not decided the
tick yet, one that runs it comes before one that misses it, then the smaller id wins. The record is therefore
the same whichever schedule comes first; the others find it and move their marks past it.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from mao_shared.models.schedule import Schedule
from mao_shared.reconcile import Guard, Mirror

from .cron import Cron
from .due import DueTicks, Tick, cron_of, decidable_until, undecided_after
from .marks import TickMarks
from .new_runs import PreparedTick


@dataclass(slots=True, eq=False)
class ScheduleEntry:
    """A schedule with its next undecided tick; `next` is None while it has none (paused)."""

    schedule: Schedule
    cron: Cron
    next: datetime | None = None
    prepared: PreparedTick | None = None


class TickQueue:
    """All plans of a node. `changed` is set when a schedule has changed; `take_changes` then takes it up.

    A schedule that `guard` says is failing has no next tick until its pause is over.
    """

    def __init__(self, schedules: Mirror[Schedule], marks: TickMarks, guard: Guard) -> None:
        self.changed = asyncio.Event()
        self._schedules = schedules
        self._marks = marks
        self._guard = guard
        self._plans: dict[str, ScheduleEntry] = {}
        self._of: defaultdict[str, set[str]] = defaultdict(set)  # pipeline → schedules
        self._held: set[str] = set()
        self._unusable: set[str] = set()
        self._heap: list[tuple[datetime, str]] = []
        self._stale: set[str] = set()
        schedules.subscribe(self._note_change)

    def next_due(self) -> datetime | None:
        """The time of the next tick (or of a removed schedule's, which does no harm)."""
        return self._heap[0][0] if self._heap else None

    def take_changes(self) -> None:
        """Plans anew for every schedule that was added, changed or removed."""
        for name in self._stale | {each for each in self._unusable if not self._guard.waits(each)}:
            stored = self._schedules.get(name)
            self._remove(name)
            self._unusable.discard(name)
            if stored is None:
                self._marks.forget(name)
                self._guard.worked(name)
                continue
            with self._guard.item(name):  # say a zone that this machine no longer knows
                self._add(stored.record)
            if name not in self._plans:
                self._unusable.add(name)
        self._stale.clear()
        for name in [each for each in self._held if not self._guard.waits(each)]:
            self._held.discard(name)
            plan = self._plans.get(name)
            if plan is not None:
                self.put_back(plan)

    def siblings(self, plan: ScheduleEntry) -> list[ScheduleEntry]:
        """The other schedules of the same pipeline."""
        names = self._of[plan.schedule.pipeline]
        return [self._plans[name] for name in names if name != plan.schedule.id]

    def _remove(self, name: str) -> None:
        plan = self._plans.pop(name, None)
        if plan is not None:
            self._of[plan.schedule.pipeline].discard(name)

    def take_due(self, now: datetime, limit: int) -> list[ScheduleEntry]:
        """Takes up to `limit` plans that are due off the heap; each must be given back with `put_back`."""
        due: dict[str, ScheduleEntry] = {}
        while self._heap and self._heap[0][0] <= now and len(due) < limit:
            moment, name = heapq.heappop(self._heap)
            plan = self._plans.get(name)
            if plan is not None and plan.next == moment:  # else the entry is from an earlier plan
                due[name] = plan
        return list(due.values())

    def put_back(self, plan: ScheduleEntry) -> None:
        """Plans the next tick after the mark; later, if the schedule is failing."""
        name = plan.schedule.id
        if self._plans.get(name) is not plan:
            return
        if self._guard.waits(name):
            plan.next = None
            self._held.add(name)
            return
        plan.next = self._next_of(plan)
        if plan.next is not None:
            heapq.heappush(self._heap, (plan.next, plan.schedule.id))

    def unprepared(self, until: datetime) -> Iterator[ScheduleEntry]:
        """Plans whose next tick comes by `until` and is not prepared."""
        for moment, name in self._heap:
            plan = self._plans.get(name)
            if moment > until or plan is None or plan.next != moment:
                continue
            if plan.prepared is None or plan.prepared.tick != moment:
                yield plan

    def _next_of(self, plan: ScheduleEntry) -> datetime | None:
        after = undecided_after(plan.schedule, self._marks.get(plan.schedule.id))
        known = plan.prepared
        following = known.following if known and known.tick == after else plan.cron.next(after)
        if plan.schedule.paused and following and following > decidable_until(plan.schedule, following):
            return None
        return following

    def _note_change(self, name: str) -> None:
        self._stale.add(name)
        self.changed.set()

    def _add(self, schedule: Schedule) -> None:
        plan = ScheduleEntry(schedule, cron_of(schedule))
        self._plans[schedule.id] = plan
        self._of[schedule.pipeline].add(schedule.id)
        self.put_back(plan)


EntryTick = tuple[ScheduleEntry, Tick]


class SharedTicks:
    """The outcomes at one moment `now`. `due` decides about a schedule, `siblings` names those beside it."""

    def __init__(
        self,
        due: Callable[[ScheduleEntry], DueTicks],
        siblings: Callable[[ScheduleEntry], Iterable[ScheduleEntry]],
    ) -> None:
        self._due = due
        self._siblings = siblings
        self._ticks: dict[str, dict[datetime, Tick]] = {}

    def outcome(self, plan: ScheduleEntry, tick: Tick) -> EntryTick:
        """Whose outcome the tick gets, and which."""
        met: list[EntryTick] = [(plan, tick)]
        for other in self._siblings(plan):
            found = self._of(other).get(tick.at)
            if found is not None:
                met.append((other, found))
        return min(met, key=_rank)

    def _of(self, plan: ScheduleEntry) -> dict[datetime, Tick]:
        name = plan.schedule.id
        if name not in self._ticks:
            try:
                self._ticks[name] = {tick.at: tick for tick in self._due(plan).ticks}
            except Exception:  # noqa: BLE001 (it is set aside when its own turn comes, and decides nothing)
                self._ticks[name] = {}
        return self._ticks[name]


def _rank(decided: EntryTick) -> tuple[bool, str]:
    plan, tick = decided
    return tick.missed is not None, plan.schedule.id
