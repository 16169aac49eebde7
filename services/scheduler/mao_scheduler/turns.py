"""One run of a pipeline at a time, whoever starts it: a run starts in the transaction that takes the turn.

The turn names the run that was started last. It is free when that run has ended, so nobody gives it back.
"""

from __future__ import annotations

from mao_shared.errors import RecordUnreadable
from mao_shared.models.run import Run, Turn
from mao_shared.reconcile import Mirror
from mao_shared.store import Check, Put, Records, Stored
from mao_shared.store.records import dump
from mao_shared.store.unreadable import raw_field

from .active import is_active, may_be_active


class Turns:
    """The turns of a node's pipelines. What is remembered of them spares reads; every write checks it."""

    def __init__(self, records: Records[Turn], runs: Mirror[Run]) -> None:
        self._records = records
        self._runs = runs
        self._known: dict[str, Stored[Turn]] = {}

    async def start(self, run: Run, revision: int) -> int | None:
        """Writes the started run if it is still at `revision` and its pipeline's turn is free.

        The new revision, or None when the run has changed or the turn is taken.
        """
        if not self._may_be_free(run):
            return None
        written = await self._attempt(run, revision)
        if written is None and await self._learn(run.pipeline) and self._may_be_free(run):
            written = await self._attempt(run, revision)
        return written

    def _may_be_free(self, run: Run) -> bool:
        """Whether the run that has the turn is not seen to be active; the write finds out what is unknown."""
        known = self._known.get(run.pipeline)
        return known is None or known.record.run == run.id or self._runs.get(known.record.run) is None

    async def _attempt(self, run: Run, revision: int) -> int | None:
        known = self._known.get(run.pipeline)
        run_key, turn_key = self._runs.records.prefix + run.id, self._records.prefix + run.pipeline
        turn = Turn(run=run.id) if known is None else known.record.model_copy(update={"run": run.id})
        written = await self._records.store.transact(
            [Check(run_key, revision), Check(turn_key, known.revision if known else 0)],
            [Put(run_key, dump(run)), Put(turn_key, dump(turn))],
        )
        if written is not None:
            self._runs.note(run.id, run, written)
            self._known[run.pipeline] = Stored(turn, written)
        return written

    async def _learn(self, pipeline: str) -> bool:
        """Reads the turn; whether it may be free.

        It is remembered only if its run is in the mirror or has ended: a run that the mirror has not seen
        yet must not look like one that has ended. A turn that cannot be read names nobody, and is written
        anew: it says nothing that the runs do not say.
        """
        entry = await self._records.store.get(self._records.prefix + pipeline)
        if entry is None:
            self._known.pop(pipeline, None)
            return True
        try:
            stored = self._records.parse(entry)
        except RecordUnreadable:
            stored = Stored(Turn(run=""), entry.revision)
        holder = stored.record.run
        if holder and self._runs.get(holder) is None and await self._is_active(holder):
            self._known.pop(pipeline, None)
            return False
        self._known[pipeline] = stored
        return True

    async def _is_active(self, run: str) -> bool:
        """Of one that cannot be read only its phase counts, as far as there is one to be seen."""
        entry = await self._runs.records.store.get(self._runs.records.prefix + run)
        if entry is None:
            return False
        try:
            return is_active(self._runs.records.parse(entry).record)
        except RecordUnreadable:
            return may_be_active(raw_field(entry.value, "phase"))
