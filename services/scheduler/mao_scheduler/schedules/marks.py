"""What is known of past ticks: up to when they are decided, forgotten, or in doubt after a restore.

`TickMarks` are kept in memory and written behind the run records, in batches. A mark that lags costs
nothing: the ticks after it are decided again and their records found. A mark must never be ahead of its
records, so it is set only once these are written. A stored mark that cannot be read is left in place; at
every start the schedule continues from what its runs prove, until the mark can be read again or is removed.

`TickHistory` says how far back the runs of a pipeline are known. Versions without a history take runs that
were moved there for removed. For a downgrade to such a version, moved runs are recorded as removed
(`Forgotten`), so that it queues none of these ticks again; `Remembered` records for this version which of
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
from mao_shared.models.node import Restored
from mao_shared.models.run import Run
from mao_shared.models.schedule import Forgotten, Remembered, TickMark
from mao_shared.reconcile import Guard, in_halves
from mao_shared.store import Check, Put, Records, Store, Stored
from mao_shared.store.records import dump

MARKS_PER_TRANSACTION = 64
RUNS_PAGE = 500


@dataclass(slots=True)
class _Mark:
    decided_until: datetime
    revision: int  # 0: not stored yet
    stored: TickMark | None = None  # with the fields that only a newer version knows


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
        """Reads all marks; call it once before anything else."""
        cursor = None
        while True:
            page = await self.records.store.list(self.records.prefix, limit=1000, cursor=cursor)
            for entry in page.entries:
                name = entry.key.removeprefix(self.records.prefix)
                try:
                    stored = self.records.parse(entry)
                except RecordUnreadable:
                    self.unreadable.add(name)
                    continue
                self._marks[name] = _mark(stored.record, stored.revision)
            cursor = page.cursor
            if cursor is None:
                return

    async def work_out(
        self, runs: Records[Run], forgotten: Records[Forgotten], pipelines: Mapping[str, str]
    ) -> None:
        """Sets the marks that cannot be read as far as is certain: too far back costs nothing.

        `pipelines`: schedule → pipeline. `forgotten` tells as well up to when runs have become history.
        Raises Unavailable.
        """
        wanted = self.unreadable & pipelines.keys()
        if not wanted:
            return
        found = certainly_decided(await _all_runs(runs), wanted)
        for name in wanted:
            stored = await forgotten.find(pipelines[name])
            known = [found.get(name), stored.record.until if stored is not None else None]
            if moments := [each for each in known if each is not None]:
                self._marks[name] = _Mark(max(moments), 0)

    def get(self, schedule_id: str) -> datetime | None:
        """Up to when the schedule's ticks have records, as far as is known here."""
        mark = self._marks.get(schedule_id)
        return None if mark is None else mark.decided_until

    def set(self, schedule_id: str, decided_until: datetime) -> None:
        """Moves a mark on in memory; `save` writes it."""
        mark = self._marks.setdefault(schedule_id, _Mark(decided_until, 0))
        mark.decided_until = max(mark.decided_until, decided_until)
        self._unsaved.add(schedule_id)
        self.changed.set()

    def forget(self, schedule_id: str) -> None:
        """For a schedule that is gone: its mark went with it."""
        self._marks.pop(schedule_id, None)
        self._unsaved.discard(schedule_id)
        self.unreadable.discard(schedule_id)
        self._guard.worked(schedule_id)

    async def set_with(
        self, schedule_id: str, decided_until: datetime, absent: Sequence[Check], put: Put
    ) -> bool:
        """Moves a mark on together with a record that must be absent; False (and a fresh mark) if beaten."""
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
        """Writes what has changed. Raises Unavailable: then it is still to be saved."""
        self.changed.clear()
        for name in sorted(self._unsaved & self.unreadable):
            await self._refresh(name)
        names = sorted(self._unsaved - self.unreadable)
        for at in range(0, len(names), MARKS_PER_TRANSACTION):
            _, failed = await in_halves(names[at : at + MARKS_PER_TRANSACTION], self._save_some)
            for name, error in failed:  # it lags, which costs nothing, and is tried with the next change
                self._guard.failed(name, error)

    async def _save_some(self, names: Sequence[str]) -> None:
        if not await self._save(names):
            for name in names:
                await self._save_one(name)
        for name in names:
            self._guard.worked(name)

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

    async def _save_one(self, name: str) -> None:
        if not await self._save([name]):
            await self._refresh(name)
            await self._save([name])

    async def _refresh(self, name: str) -> None:
        """Takes over what another scheduler (or an earlier self) has stored."""
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
        self._marks[name] = found = _mark(stored.record, stored.revision)
        if mark is not None:
            found.decided_until = max(found.decided_until, mark.decided_until)

    def _put(self, name: str, decided_until: datetime) -> Put:
        mark = self._marks.get(name)
        before = mark.stored if mark is not None else None
        moved = {"decided_until": decided_until}
        record = before.model_copy(update=moved) if before is not None else TickMark(**moved)
        return Put(self.records.prefix + name, dump(record))


def _mark(record: TickMark, revision: int) -> _Mark:
    return _Mark(record.decided_until, revision, record)


async def _all_runs(runs: Records[Run]) -> list[Run]:
    found: list[Run] = []
    cursor = None
    while True:
        page = await runs.page(RUNS_PAGE, cursor)
        found += [stored.record for stored in page.items]
        cursor = page.cursor
        if cursor is None:
            return found


def certainly_decided(runs: Iterable[Run], schedules: set[str]) -> dict[str, datetime]:
    """By schedule, up to when its ticks surely have an outcome: pure.

    That is its oldest record, since retention takes the oldest first; or what one record for many covers.
    """
    found: dict[str, datetime] = {}
    covered: dict[str, datetime] = {}
    for run in runs:
        if run.schedule not in schedules or run.scheduled_for is None or run.trigger != "schedule":
            continue
        name, tick = run.schedule, run.scheduled_for
        if run.covers is not None:
            covered[name] = max(tick, covered.get(name, tick))
        else:
            found[name] = min(tick, found.get(name, tick))
    return {name: max(each[name] for each in (found, covered) if name in each) for name in found | covered}


_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class TickHistory:
    """Written before the runs are moved or removed: too much said only refuses a backfill."""

    def __init__(self, forgotten: Records[Forgotten], remembered: Records[Remembered]) -> None:
        self._forgotten = forgotten
        self._remembered = remembered

    async def forgotten(self, pipeline: str) -> datetime | None:
        """Up to which tick it cannot be told what was run."""
        return forgotten_until(await self._forgotten.get(pipeline), await self._remembered.get(pipeline))

    async def note_moved(self, pipeline: str, until: datetime) -> None:
        """Ticks up to `until` become history. Raises RecordUnreadable where that cannot be noted."""
        await self._note(pipeline, moved=until, gone=None)

    async def note_removed(self, pipeline: str, until: datetime) -> None:
        """The records of ticks up to `until` are removed."""
        await self._note(pipeline, moved=until, gone=until)

    async def _note(self, pipeline: str, *, moved: datetime, gone: datetime | None) -> None:
        """In one transaction, so that what an older version notes later can be told from this."""
        while True:
            said = await self._forgotten.get(pipeline)
            known = await self._remembered.get(pipeline)
            new = _advance(said, known, moved, gone)
            until = max(new.moved_until, said.record.until) if said else new.moved_until
            if known is not None and known.record == new and said is not None and said.record.until == until:
                return
            told = said.record.model_copy(update={"until": until}) if said else Forgotten(until=until)
            keys = [records.prefix + pipeline for records in (self._forgotten, self._remembered)]
            revisions = [each.revision if each else 0 for each in (said, known)]
            checks = [Check(key, revision) for key, revision in zip(keys, revisions, strict=True)]
            puts = [Put(keys[0], dump(told)), Put(keys[1], dump(new))]
            if await self._remembered.store.transact(checks, puts) is not None:
                return


def forgotten_until(said: Stored[Forgotten] | None, known: Stored[Remembered] | None) -> datetime | None:
    """Pure. What `Forgotten` says beyond what was moved is an older version's word, and true."""
    if said is None:
        return None if known is None else known.record.forgotten_until
    if known is None or said.record.until > known.record.moved_until:
        return said.record.until
    return known.record.forgotten_until


def _advance(
    said: Stored[Forgotten] | None, known: Stored[Remembered] | None, moved: datetime, gone: datetime | None
) -> Remembered:
    before = forgotten_until(said, known)
    until = max((each for each in (before, gone) if each is not None), default=None)
    changes = {
        "moved_until": max(moved, known.record.moved_until if known else _NEVER, before or _NEVER),
        "forgotten_until": until,
    }
    return known.record.model_copy(update=changes) if known else Remembered(**changes)


class RestoreStatus:
    """Reads the record that a restore has left in the node's store."""

    def __init__(self, store: Store, node: str) -> None:
        self._records = Records(store, keys.restored(node), Restored)

    async def read(self) -> Restored | None:
        """Of the last restore; None on a node that never was restored."""
        stored = await self._records.get("")
        return None if stored is None else stored.record

    async def require_looked_up(self, since: datetime) -> None:
        """Raises Conflict (`restore-open`) for a time of which not all datasets have said what was run."""
        restored = await self.read()
        if restored is not None and restored.open and since <= restored.restored_at:
            raise Conflict(
                "This node was restored from a backup, and what was run after that is not looked up yet in "
                f"{', '.join(restored.open[:5])}.",
                code="restore-open",
                next="Let the dataset's remote answer (maoctl doctor tells), and try again.",
            )
