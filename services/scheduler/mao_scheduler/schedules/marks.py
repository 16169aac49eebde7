"""Records of past ticks: how far they are decided, how far they are forgotten, and a node's restore.

`TickMarks` are kept in memory and written in batches after the run records. A mark that lags does no harm:
the ticks after it are decided again, and their records are found. A mark must never be ahead of its records,
so it is set only once these are written. A stored mark that cannot be read is left in place; at every start
the schedule continues from what its runs prove, until the mark can be read again or is removed.

`TickHistory` records how far back the runs of a pipeline are known. Versions without a history of runs treat
runs that were moved there as removed. For a downgrade to such a version, moved runs are recorded as removed
(`Forgotten`), so that it does not queue these ticks again; `Remembered` records for this version which of
them are only moved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.errors import Conflict, RecordUnreadable
from mao_shared.models import Run, TickMark
from mao_shared.models.node import Restored
from mao_shared.models.schedule import Forgotten, Remembered
from mao_shared.reconcile import Guard, in_halves
from mao_shared.store import Check, Put, Records, Store, Stored, dump, pages, retry_lost

MARKS_PER_TRANSACTION = 64
MARKS_PAGE = 1000
RUNS_PAGE = 500


@dataclass(slots=True)
class _Mark:
    decided_until: datetime
    revision: int  # 0: not stored yet
    stored: TickMark | None = None  # as stored, with the fields of newer versions


class TickMarks:
    """The tick marks of one node."""

    def __init__(self, records: Records[TickMark], conditions: Conditions | None = None) -> None:
        self.records = records
        self.changed = asyncio.Event()
        self.unreadable: set[str] = set()
        self._marks: dict[str, _Mark] = {}
        self._unsaved: set[str] = set()
        self._guard = Guard("marks", conditions)

    async def load(self) -> None:
        """Read all marks; call this once before anything else."""
        store, prefix = self.records.store, self.records.prefix
        async for page in pages(lambda cursor: store.list(prefix, limit=MARKS_PAGE, cursor=cursor)):
            for entry in page.entries:
                name = entry.key.removeprefix(prefix)
                try:
                    stored = self.records.parse(entry)
                except RecordUnreadable:
                    self.unreadable.add(name)
                    continue
                self._marks[name] = _Mark(stored.record.decided_until, stored.revision, stored.record)

    async def derive_unreadable(
        self, runs: Records[Run], forgotten: Records[Forgotten], pipelines: Mapping[str, str]
    ) -> None:
        """Derive marks that cannot be read from the runs; a mark too far back does no harm.

        `pipelines`: schedule → pipeline. `forgotten`: up to when runs are history. Raises Unavailable.
        """
        wanted = self.unreadable & pipelines.keys()
        if not wanted:
            return
        decided = certainly_decided([stored.record async for stored in runs.iterate(RUNS_PAGE)], wanted)
        for name in wanted:
            stored = await forgotten.find(pipelines[name])
            known = [decided.get(name), stored.record.until if stored is not None else None]
            if moments := [moment for moment in known if moment is not None]:
                self._marks[name] = _Mark(max(moments), 0)

    def get(self, schedule_id: str) -> datetime | None:
        """Return the time up to which the schedule's ticks are known to have records."""
        mark = self._marks.get(schedule_id)
        return None if mark is None else mark.decided_until

    def set(self, schedule_id: str, decided_until: datetime) -> None:
        """Advance a mark in memory; `save` writes it."""
        mark = self._marks.setdefault(schedule_id, _Mark(decided_until, 0))
        mark.decided_until = max(mark.decided_until, decided_until)
        self._unsaved.add(schedule_id)
        self.changed.set()

    def forget(self, schedule_id: str) -> None:
        """Forget a schedule that was removed together with its mark."""
        self._marks.pop(schedule_id, None)
        self._unsaved.discard(schedule_id)
        self.unreadable.discard(schedule_id)
        self._guard.succeeded(schedule_id)

    async def set_with(
        self, schedule_id: str, decided_until: datetime, absent: Sequence[Check], put: Put
    ) -> bool:
        """Advance a mark together with a record that must be absent; return False after a lost race."""
        mark = self._marks.get(schedule_id)
        checks, puts = [*absent], [put]
        if schedule_id not in self.unreadable:
            checks.append(Check(self.records.prefix + schedule_id, mark.revision if mark else 0))
            puts.append(self._put(schedule_id, decided_until))
        revision = await self.records.store.transact(checks, puts)
        if revision is None:
            await self._refresh(schedule_id)
            return False
        stored = mark.stored if mark else None
        self._marks[schedule_id] = _Mark(decided_until, revision, stored)
        self._unsaved.discard(schedule_id)
        return True

    async def save(self) -> None:
        """Write changed marks. Raises Unavailable; they then stay unsaved."""
        self.changed.clear()
        for name in sorted(self._unsaved & self.unreadable):
            await self._refresh(name)
        names = sorted(self._unsaved - self.unreadable)
        for at in range(0, len(names), MARKS_PER_TRANSACTION):
            _, failed = await in_halves(names[at : at + MARKS_PER_TRANSACTION], self._save_some)
            for name, error in failed:  # it lags, which is harmless, and is retried with the next change
                self._guard.failed(name, error)

    async def _save_some(self, names: Sequence[str]) -> None:
        if not await self._save(names):
            for name in names:
                if not await self._save([name]):
                    await self._refresh(name)
                    await self._save([name])
        for name in names:
            self._guard.succeeded(name)

    async def _save(self, names: Iterable[str]) -> bool:
        marks = {name: self._marks[name] for name in names if name in self._marks}
        written = {name: mark.decided_until for name, mark in marks.items()}
        checks = [Check(self.records.prefix + name, mark.revision) for name, mark in marks.items()]
        puts = [self._put(name, moment) for name, moment in written.items()]
        revision = await self.records.store.transact(checks, puts)
        if revision is None:
            return False
        for name, mark in marks.items():
            mark.revision = revision
            if mark.decided_until == written[name]:
                self._unsaved.discard(name)
        return True

    async def _refresh(self, name: str) -> None:
        """Read the mark that another scheduler or an earlier process has stored."""
        try:
            stored = await self.records.get(name)
        except RecordUnreadable:
            self.unreadable.add(name)
            return
        self.unreadable.discard(name)
        mark = self._marks.get(name)
        if stored is None:
            if mark is not None:
                mark.revision, mark.stored = 0, None
            return
        self._marks[name] = current = _Mark(stored.record.decided_until, stored.revision, stored.record)
        if mark is not None:
            current.decided_until = max(current.decided_until, mark.decided_until)

    def _put(self, name: str, decided_until: datetime) -> Put:
        mark = self._marks.get(name)
        before = mark.stored if mark is not None else None
        moved = {"decided_until": decided_until}
        record = before.model_copy(update=moved) if before is not None else TickMark(**moved)
        return Put(self.records.prefix + name, dump(record))


def certainly_decided(runs: Iterable[Run], schedules: set[str]) -> dict[str, datetime]:
    """Return by schedule the time up to which its ticks certainly have an outcome (pure).

    This is the tick of its oldest record, since retention removes the oldest first, or the last tick that a
    summary covers.
    """
    oldest: dict[str, datetime] = {}
    covered: dict[str, datetime] = {}
    for run in runs:
        if run.schedule not in schedules or run.scheduled_for is None or run.trigger != "schedule":
            continue
        name, tick = run.schedule, run.scheduled_for
        if run.covers is not None:
            covered[name] = max(tick, covered.get(name, tick))
        else:
            oldest[name] = min(tick, oldest.get(name, tick))
    return {
        name: max(ticks[name] for ticks in (oldest, covered) if name in ticks) for name in oldest | covered
    }


_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class TickHistory:
    """The tick history of pipelines, written before runs are moved or removed.

    If the move or removal then fails, the only effect is that a backfill is refused.
    """

    def __init__(self, forgotten: Records[Forgotten], remembered: Records[Remembered]) -> None:
        self._forgotten = forgotten
        self._remembered = remembered

    async def forgotten(self, pipeline: str) -> datetime | None:
        """Return the tick up to which it is unknown what was run; None if all is known."""
        return forgotten_until(await self._forgotten.get(pipeline), await self._remembered.get(pipeline))

    async def note_moved(self, pipeline: str, until: datetime) -> None:
        """Record that ticks up to `until` become history. Raises RecordUnreadable."""
        await self._record(pipeline, moved=until, removed=None)

    async def note_removed(self, pipeline: str, until: datetime) -> None:
        """Record that the records of ticks up to `until` are removed. Raises RecordUnreadable."""
        await self._record(pipeline, moved=until, removed=until)

    async def _record(self, pipeline: str, *, moved: datetime, removed: datetime | None) -> None:
        """Write both records in one transaction, so that a later write of an older version is recognised."""

        async def attempt() -> bool | None:
            forgotten = await self._forgotten.get(pipeline)
            remembered = await self._remembered.get(pipeline)
            new = _advance(forgotten, remembered, moved, removed)
            old = forgotten.record if forgotten else Forgotten(until=new.moved_until)
            advanced = old.model_copy(update={"until": max(new.moved_until, old.until)})
            if remembered is not None and remembered.record == new and forgotten and old == advanced:
                return True
            checks, puts = [], []
            for records, stored, record in (
                (self._forgotten, forgotten, advanced),
                (self._remembered, remembered, new),
            ):
                checks.append(Check(records.prefix + pipeline, stored.revision if stored else 0))
                puts.append(Put(records.prefix + pipeline, dump(record)))
            return await self._remembered.store.transact(checks, puts) is not None or None

        await retry_lost(attempt, f"the tick history of {pipeline!r}")


def forgotten_until(
    forgotten: Stored[Forgotten] | None, remembered: Stored[Remembered] | None
) -> datetime | None:
    """Return the tick up to which it is unknown what was run (pure).

    Where `Forgotten` is later than the moved runs, an older version wrote it, and it is correct.
    """
    if forgotten is None:
        return None if remembered is None else remembered.record.forgotten_until
    if remembered is None or forgotten.record.until > remembered.record.moved_until:
        return forgotten.record.until
    return remembered.record.forgotten_until


def _advance(
    forgotten: Stored[Forgotten] | None,
    remembered: Stored[Remembered] | None,
    moved: datetime,
    removed: datetime | None,
) -> Remembered:
    before = forgotten_until(forgotten, remembered)
    until = max((moment for moment in (before, removed) if moment is not None), default=None)
    moved_before = remembered.record.moved_until if remembered else _NEVER
    changes = {"moved_until": max(moved, moved_before, before or _NEVER), "forgotten_until": until}
    return remembered.record.model_copy(update=changes) if remembered else Remembered(**changes)


class RestoreStatus:
    """Reads the record that a restore leaves in the node's store."""

    def __init__(self, store: Store, node: str) -> None:
        self._records = Records(store, keys.restored(node), Restored)

    async def read(self) -> Restored | None:
        """Return the last restore; None if the node was never restored."""
        stored = await self._records.get("")
        return None if stored is None else stored.record

    async def require_checked(self, since: datetime) -> None:
        """Raise Conflict (`restore-open`) if datasets were not checked for runs since then."""
        restored = await self.read()
        if restored is not None and restored.open and since <= restored.restored_at:
            raise Conflict(
                "This node was restored from a backup, and these datasets were not checked for later runs: "
                f"{', '.join(restored.open[:5])}.",
                code="restore-open",
                next="Make the remote of the dataset reachable (see maoctl doctor), then try again.",
            )
