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
    """An index over the mirror of active runs. `on_freed` gets the id of the run whose turn has come."""

    def __init__(self, mirror: Mirror[Run]) -> None:
        self._mirror = mirror
        self._pipelines: dict[str, str] = {}
        self._ids: defaultdict[str, set[str]] = defaultdict(set)
        self.on_freed: Callable[[str], None] = lambda _: None
        mirror.subscribe(self._changed)

    def blockers(self, run: Run) -> list[Run]:
        """Runs of the same pipeline that are running or have waited longer; first the one to wait for.

        A reproduction neither waits nor is waited for.
        """
        if run.reproduces is not None:
            return []
        found = [
            other
            for other in self._of(run.pipeline)
            if other.id != run.id and (other.phase is RunPhase.RUNNING or _turn(other) < _turn(run))
        ]
        if found:
            first = min(found, key=lambda other: (other.phase is not RunPhase.RUNNING, _turn(other)))
            found.remove(first)
            found.insert(0, first)
        return found

    def _of(self, pipeline: str) -> list[Run]:
        stored = (self._mirror.get(name) for name in self._ids.get(pipeline, ()))
        return [each.record for each in stored if each is not None]

    def count(self, phase: RunPhase) -> int:
        """How many runs are in an active phase."""
        return sum(stored.record.phase is phase for _, stored in self._mirror.items())

    def _changed(self, name: str) -> None:
        stored = self._mirror.get(name)
        if stored is not None and stored.record.reproduces is not None:
            return  # holds nothing that another run could want
        if stored is not None:
            self._pipelines[name] = stored.record.pipeline
            self._ids[stored.record.pipeline].add(name)
            return
        pipeline = self._pipelines.pop(name, None)
        if pipeline is None:
            return
        self._ids[pipeline].discard(name)
        left = self._of(pipeline)
        if left:
            self.on_freed(min(left, key=_turn).id)
        else:
            del self._ids[pipeline]


def _turn(run: Run) -> tuple[datetime, str]:
    return run.created_at, run.id
