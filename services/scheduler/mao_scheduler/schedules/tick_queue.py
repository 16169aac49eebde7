"""A heap with the next tick of every schedule, and the outcome of ticks that schedules of a pipeline share.

A shared tick has one run, and one of the schedules decides its outcome: of those that have not decided the
tick yet, one that runs it takes precedence over one that misses it, then the smaller id. The record is
therefore the same whichever schedule comes first; the others find it and move their marks past it.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from mao_shared.models import Schedule
from mao_shared.reconcile import Guard, Mirror

from .cron import Cron
from .due import DueTicks, Tick, decidable_until, schedule_cron, undecided_after
from .marks import TickMarks
from .new_runs import PreparedTick


@dataclass(slots=True, eq=False)
class ScheduleEntry:
    """A schedule with its next undecided tick; `next` is None while it has none (paused or failing)."""

    schedule: Schedule
    cron: Cron
    next: datetime | None = None
    prepared: PreparedTick | None = None


class TickQueue:
    """The schedules of a node by their next tick. `changed` is set when `apply_changes` has work to do.

    A schedule that fails according to `guard` has no next tick until its delay is over.
    """

    def __init__(self, schedules: Mirror[Schedule], marks: TickMarks, guard: Guard) -> None:
        self.changed = asyncio.Event()
        self._schedules = schedules
        self._marks = marks
        self._guard = guard
        self._entries: dict[str, ScheduleEntry] = {}
        self._by_pipeline: defaultdict[str, set[str]] = defaultdict(set)  # pipeline → schedules
        self._held: set[str] = set()
        self._unusable: set[str] = set()
        self._heap: list[tuple[datetime, str]] = []
        self._stale: set[str] = set()
        schedules.subscribe(self._note_change)

    def next_due(self) -> datetime | None:
        """Return the time of the next tick; it may be of a removed schedule, which does no harm."""
        return self._heap[0][0] if self._heap else None

    def apply_changes(self) -> None:
        """Update the entries of schedules that were added, changed or removed."""
        for name in self._stale | {name for name in self._unusable if not self._guard.waits(name)}:
            stored = self._schedules.get(name)
            before = self._entries.pop(name, None)
            if before is not None:
                self._by_pipeline[before.schedule.pipeline].discard(name)
            self._unusable.discard(name)
            if stored is None:
                self._marks.forget(name)
                self._guard.succeeded(name)
                continue
            with self._guard.item(name):  # fails for example if this machine does not know the zone
                entry = ScheduleEntry(stored.record, schedule_cron(stored.record))
                self._entries[entry.schedule.id] = entry
                self._by_pipeline[entry.schedule.pipeline].add(entry.schedule.id)
                self.requeue(entry)
            if name not in self._entries:
                self._unusable.add(name)
        self._stale.clear()
        for name in [held_name for held_name in self._held if not self._guard.waits(held_name)]:
            self._held.discard(name)
            held = self._entries.get(name)
            if held is not None:
                self.requeue(held)

    def siblings(self, entry: ScheduleEntry) -> list[ScheduleEntry]:
        """Return the other schedules of the same pipeline."""
        names = self._by_pipeline[entry.schedule.pipeline]
        return [self._entries[name] for name in names if name != entry.schedule.id]

    def pop_due(self, now: datetime, limit: int) -> list[ScheduleEntry]:
        """Remove up to `limit` due entries from the heap; pass each of them to `requeue` afterwards."""
        due: dict[str, ScheduleEntry] = {}
        while self._heap and self._heap[0][0] <= now and len(due) < limit:
            moment, name = heapq.heappop(self._heap)
            entry = self._entries.get(name)
            if entry is not None and entry.next == moment:  # otherwise the heap's item is outdated
                due[name] = entry
        return list(due.values())

    def requeue(self, entry: ScheduleEntry) -> None:
        """Queue the next tick after the mark; later if the schedule is failing."""
        name = entry.schedule.id
        if self._entries.get(name) is not entry:
            return
        if self._guard.waits(name):
            entry.next = None
            self._held.add(name)
            return
        after = undecided_after(entry.schedule, self._marks.get(name))
        known = entry.prepared
        entry.next = known.following if known and known.tick == after else entry.cron.next(after)
        if entry.schedule.paused and entry.next and entry.next > decidable_until(entry.schedule, entry.next):
            entry.next = None
        if entry.next is not None:
            heapq.heappush(self._heap, (entry.next, name))

    def unprepared(self, until: datetime) -> Iterator[ScheduleEntry]:
        """Yield the entries whose next tick is not later than `until` and not prepared."""
        for moment, name in self._heap:
            entry = self._entries.get(name)
            if moment > until or entry is None or entry.next != moment:
                continue
            if entry.prepared is None or entry.prepared.tick != moment:
                yield entry

    def _note_change(self, name: str) -> None:
        self._stale.add(name)
        self.changed.set()


EntryTick = tuple[ScheduleEntry, Tick]


class SharedTicks:
    """The outcomes of shared ticks, cached.

    `due` decides the ticks of a schedule; `siblings` lists the other schedules of its pipeline.
    """

    def __init__(
        self,
        due: Callable[[ScheduleEntry], DueTicks],
        siblings: Callable[[ScheduleEntry], Iterable[ScheduleEntry]],
    ) -> None:
        self._due = due
        self._siblings = siblings
        self._ticks: dict[str, dict[datetime, Tick]] = {}

    def outcome(self, entry: ScheduleEntry, tick: Tick) -> EntryTick:
        """Return the schedule that decides the tick, and its outcome."""
        candidates: list[EntryTick] = [(entry, tick)]
        for other in self._siblings(entry):
            same = self._of(other).get(tick.at)
            if same is not None:
                candidates.append((other, same))
        return min(candidates, key=lambda pair: (pair[1].missed is not None, pair[0].schedule.id))

    def _of(self, entry: ScheduleEntry) -> dict[datetime, Tick]:
        name = entry.schedule.id
        if name not in self._ticks:
            try:
                self._ticks[name] = {tick.at: tick for tick in self._due(entry).ticks}
            except Exception:  # noqa: BLE001 (it is set aside when its own ticks are decided)
                self._ticks[name] = {}
        return self._ticks[name]
