"""The runs that have not ended, by pipeline: who stands in whose way, and whom an end sets free."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import datetime

from mao_shared.models.run import Run
from mao_shared.reconcile import Mirror
from mao_shared.states import RUN_ENDED, RunPhase


def is_active(run: Run) -> bool:
    """Which runs the scheduler's mirror keeps."""
    return run.phase not in RUN_ENDED


def may_be_active(phase: object) -> bool:
    """Whether a run may still be at work whose record cannot be read but for its phase.

    A record without any phase is damaged: its pipeline goes on without it.
    """
    return isinstance(phase, str) and phase not in RUN_ENDED and phase != RunPhase.QUEUED


class ActiveRuns:
    """An index over the mirror of active runs. `on_freed` gets the id of the run whose turn may have come.

    A look at one run does not go through those that have begun: many of a pipeline may wait for rounds.
    """

    def __init__(self, mirror: Mirror[Run]) -> None:
        self._mirror = mirror
        self._places: dict[str, tuple[str, RunPhase]] = {}  # run → its pipeline and phase
        self._ids: defaultdict[tuple[str, RunPhase], set[str]] = defaultdict(set)
        self.on_freed: Callable[[str], None] = lambda _: None
        mirror.subscribe(self._changed)

    def blockers(self, run: Run, holder: str | None) -> list[Run]:
        """The run that has the pipeline's turn, and those that have waited longer; first the one to wait for.

        A reproduction neither waits nor is waited for.
        """
        if run.reproduces is not None:
            return []
        at_work = self._mirror.get(holder) if holder else None
        found = [other for other in self._of(run.pipeline, RunPhase.QUEUED) if _turn(other) < _turn(run)]
        if at_work is not None and at_work.record.phase is RunPhase.RUNNING:
            return [at_work.record, *found]
        if found:
            first = min(found, key=_turn)
            found.remove(first)
            found.insert(0, first)
        return found

    def next_in_line(self, pipeline: str) -> str | None:
        """Id of the run that is to start next."""
        first = min(self._of(pipeline, RunPhase.QUEUED), key=_turn, default=None)
        return None if first is None else first.id

    def last_started(self, pipeline: str) -> str | None:
        """Id of the running one that began last: whom the turn names, where its record does not tell."""
        running = self._of(pipeline, RunPhase.RUNNING)
        last = max(running, key=lambda run: (run.started_at or run.created_at, run.id), default=None)
        return None if last is None else last.id

    def running(self, pipeline: str) -> int:
        """How many runs of a pipeline are running, those that wait for rounds among them."""
        return len(self._ids.get((pipeline, RunPhase.RUNNING), ()))

    def _of(self, pipeline: str, phase: RunPhase) -> list[Run]:
        stored = (self._mirror.get(name) for name in self._ids.get((pipeline, phase), ()))
        return [each.record for each in stored if each is not None]

    def count(self, phase: RunPhase) -> int:
        """How many runs are in an active phase."""
        return sum(stored.record.phase is phase for _, stored in self._mirror.items())

    def _changed(self, name: str) -> None:
        stored = self._mirror.get(name)
        if stored is not None and stored.record.reproduces is not None:
            return  # holds nothing that another run could want
        before = self._places.pop(name, None)
        if before is not None:
            self._ids[before].discard(name)
            if not self._ids[before]:
                del self._ids[before]
        if stored is not None:
            place = self._places[name] = (stored.record.pipeline, stored.record.phase)
            self._ids[place].add(name)
        elif before is not None and (following := self.next_in_line(before[0])) is not None:
            self.on_freed(following)


def _turn(run: Run) -> tuple[datetime, str]:
    return run.created_at, run.id
