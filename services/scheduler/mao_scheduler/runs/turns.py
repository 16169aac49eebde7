"""One run of a pipeline at a time: the active runs, and the stored turn that names the current one.

A run starts in the transaction that takes the turn. The turn names the run that was started last and is
free once that run has ended, so no run has to release it. The exception is a run whose step has to wait for
ground truth: it gives its turn up for good (`lifecycle.must_yield`) and continues beside the runs that start
after it. See docs/decisions/0028-who-has-the-turn.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from mao_shared.errors import RecordUnreadable
from mao_shared.models import Run
from mao_shared.models.run import Turn
from mao_shared.reconcile import Mirror
from mao_shared.states import RunPhase
from mao_shared.store import Check, Put, Records, dump
from mao_shared.store.unreadable import raw_field

from .lifecycle import is_active, may_be_active


class ActiveRuns:
    """An index over the mirror of active runs. `on_freed` is called with the run that may start next.

    Looking up one run does not iterate over the running ones: many of a pipeline may wait for rounds.
    """

    def __init__(self, mirror: Mirror[Run]) -> None:
        self._mirror = mirror
        self._places: dict[str, tuple[str, RunPhase]] = {}  # run → its pipeline and phase
        self._ids: defaultdict[tuple[str, RunPhase], set[str]] = defaultdict(set)
        self.on_freed: Callable[[str], None] = lambda _: None
        mirror.subscribe(self._changed)

    def blockers(self, run: Run, holder: str | None) -> list[Run]:
        """Return the run with the pipeline's turn and those queued earlier; the one to wait for comes first.

        A reproduction neither waits nor is waited for.
        """
        if run.reproduces is not None:
            return []
        at_work = self._mirror.get(holder) if holder else None
        earlier = [
            other
            for other in self._of(run.pipeline, RunPhase.QUEUED)
            if _queue_position(other) < _queue_position(run)
        ]
        if at_work is not None and at_work.record.phase is RunPhase.RUNNING:
            return [at_work.record, *earlier]
        if earlier:
            first = min(earlier, key=_queue_position)
            earlier.remove(first)
            earlier.insert(0, first)
        return earlier

    def next_in_line(self, pipeline: str) -> str | None:
        """Return the id of the queued run that starts next."""
        first = min(self._of(pipeline, RunPhase.QUEUED), key=_queue_position, default=None)
        return None if first is None else first.id

    def last_started(self, pipeline: str) -> str | None:
        """Return the id of the run that started last; it has the turn if the record cannot be read."""
        running = self._of(pipeline, RunPhase.RUNNING)
        last = max(running, key=lambda run: (run.started_at or run.created_at, run.id), default=None)
        return None if last is None else last.id

    def running(self, pipeline: str) -> int:
        """Return the number of running runs of a pipeline, including those that wait for rounds."""
        return len(self._ids.get((pipeline, RunPhase.RUNNING), ()))

    def _of(self, pipeline: str, phase: RunPhase) -> list[Run]:
        stored = (self._mirror.get(name) for name in self._ids.get((pipeline, phase), ()))
        return [run.record for run in stored if run is not None]

    def count(self, phase: RunPhase) -> int:
        """Return the number of runs in a phase."""
        return sum(stored.record.phase is phase for _, stored in self._mirror.items())

    def _changed(self, name: str) -> None:
        stored = self._mirror.get(name)
        if stored is not None and stored.record.reproduces is not None:
            return  # blocks no other run
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


def _queue_position(run: Run) -> tuple[datetime, str]:
    return run.created_at, run.id


NO_RUN = ""  # in a turn that was given back; older schedulers also treat it as free


@dataclass(frozen=True, slots=True)
class _StoredTurn:
    """The turn as stored; `turn` is None if it is missing or cannot be read."""

    turn: Turn | None
    revision: int

    def with_run(self, run: str) -> Turn:
        return Turn(run=run) if self.turn is None else self.turn.model_copy(update={"run": run})


class Turns:
    """The turns of a node's pipelines, cached; every write checks the revision that is cached."""

    def __init__(self, records: Records[Turn], runs: Mirror[Run]) -> None:
        self._records = records
        self._runs = runs
        self._cached: dict[str, _StoredTurn] = {}

    async def holder(self, pipeline: str) -> str | None:
        """Return the id of the run that has or last had the turn; None without a readable record."""
        if pipeline not in self._cached:
            await self._refresh(pipeline)
        known = self._cached.get(pipeline)
        return None if known is None or known.turn is None else known.turn.run

    async def start(self, run: Run, revision: int) -> int | None:
        """Write the started run if it is still at `revision` and its pipeline's turn is free.

        Returns the new revision, or None if the run has changed or the turn is taken.
        """
        if not self._may_be_free(run):
            return None
        written = await self._attempt(run, revision)
        if written is None and await self._refresh(run.pipeline) and self._may_be_free(run):
            written = await self._attempt(run, revision)
        return written

    def _may_be_free(self, run: Run) -> bool:
        """Return False if the holder of the turn is known to be active; the write checks the rest."""
        known = self._cached.get(run.pipeline)
        if known is None or known.turn is None:
            return True
        return known.turn.run == run.id or self._runs.get(known.turn.run) is None

    async def _attempt(self, run: Run, revision: int) -> int | None:
        known = self._cached.get(run.pipeline) or _StoredTurn(None, 0)
        turn = known.with_run(run.id)
        written = await self._records.store.transact(
            [self._check_run(run, revision), self._check_turn(run.pipeline, known)],
            [Put(self._runs.records.prefix + run.id, dump(run)), self._put(run.pipeline, turn)],
        )
        if written is not None:
            self._runs.note(run.id, run, written)
            self._cached[run.pipeline] = _StoredTurn(turn, written)
        return written

    async def give_back(self, run: Run) -> bool:
        """Free the turn of a run that has it; return whether that was written."""
        known = self._cached.get(run.pipeline) or _StoredTurn(None, 0)
        turn = known.with_run(NO_RUN)
        written = await self._records.store.transact(
            [self._check_turn(run.pipeline, known)], [self._put(run.pipeline, turn)]
        )
        if written is None:
            await self._refresh(run.pipeline)
            return False
        self._cached[run.pipeline] = _StoredTurn(turn, written)
        return True

    async def write_while_held(self, run: Run, revision: int) -> int | None:
        """Write a run if the turn is still the one that `holder` returned.

        Returns None if the run or the turn has changed: the decision may no longer hold.
        """
        known = self._cached.get(run.pipeline) or _StoredTurn(None, 0)
        written = await self._records.store.transact(
            [self._check_run(run, revision), self._check_turn(run.pipeline, known)],
            [Put(self._runs.records.prefix + run.id, dump(run))],
        )
        if written is None:
            await self._refresh(run.pipeline)
        return written

    def _check_run(self, run: Run, revision: int) -> Check:
        return Check(self._runs.records.prefix + run.id, revision)

    def _check_turn(self, pipeline: str, known: _StoredTurn) -> Check:
        return Check(self._records.prefix + pipeline, known.revision)

    def _put(self, pipeline: str, turn: Turn) -> Put:
        return Put(self._records.prefix + pipeline, dump(turn))

    async def _refresh(self, pipeline: str) -> bool:
        """Read the turn and return whether it may be free.

        It is cached only if its run is in the mirror or has ended: a run that the mirror has not seen yet
        must not look ended. A turn that cannot be read names no run and is overwritten.
        """
        entry = await self._records.store.get(self._records.prefix + pipeline)
        if entry is None:
            self._cached[pipeline] = _StoredTurn(None, 0)
            return True
        try:
            turn = self._records.parse(entry).record
        except RecordUnreadable:
            self._cached[pipeline] = _StoredTurn(None, entry.revision)
            return True
        if turn.run and self._runs.get(turn.run) is None and await self._is_active(turn.run):
            self._cached.pop(pipeline, None)
            return False
        self._cached[pipeline] = _StoredTurn(turn, entry.revision)
        return True

    async def _is_active(self, run: str) -> bool:
        """Return True if the run has not ended; if its record cannot be read, its phase decides."""
        entry = await self._runs.records.store.get(self._runs.records.prefix + run)
        if entry is None:
            return False
        try:
            return is_active(self._runs.records.parse(entry).record)
        except RecordUnreadable:
            return may_be_active(raw_field(entry.value, "phase"))
