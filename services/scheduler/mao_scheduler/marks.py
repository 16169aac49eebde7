"""How far each schedule's ticks are decided: kept in memory, written behind in batches.

A mark that lags costs nothing: the ticks after it are decided again and their records found to be there.
A mark must never be ahead of its records, so it is set only when these are written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from mao_shared.models.schedule import TickMark
from mao_shared.store import Check, Put, Records
from mao_shared.store.records import dump

BATCH = 64


@dataclass(slots=True)
class _Mark:
    decided_until: datetime
    revision: int  # 0: not stored yet


class Marks:
    """The tick marks of one node."""

    def __init__(self, records: Records[TickMark]) -> None:
        self.records = records
        self.changed = asyncio.Event()
        self._marks: dict[str, _Mark] = {}
        self._unsaved: set[str] = set()

    async def load(self) -> None:
        """Reads all marks; call it once before anything else."""
        cursor = None
        while True:
            page = await self.records.store.list(self.records.prefix, limit=1000, cursor=cursor)
            for entry in page.entries:
                stored = self.records.parse(entry)
                name = entry.key.removeprefix(self.records.prefix)
                self._marks[name] = _Mark(stored.record.decided_until, stored.revision)
            cursor = page.cursor
            if cursor is None:
                return

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

    async def set_with(self, schedule_id: str, decided_until: datetime, check: Check, put: Put) -> bool:
        """Moves a mark on together with a record that must be absent; False (and a fresh mark) if beaten."""
        mark = self._marks.get(schedule_id)
        moved = self._put(schedule_id, decided_until)
        checks = [check, Check(self.records.prefix + schedule_id, mark.revision if mark else 0)]
        revision = await self.records.store.transact(checks, [put, moved])
        if revision is None:
            await self._refresh(schedule_id)
            return False
        self._marks[schedule_id] = _Mark(decided_until, revision)
        self._unsaved.discard(schedule_id)
        return True

    async def save(self) -> None:
        """Writes what has changed. Raises Unavailable: then it is still to be saved."""
        self.changed.clear()
        names = sorted(self._unsaved)
        for at in range(0, len(names), BATCH):
            batch = names[at : at + BATCH]
            if not await self._save(batch):
                for name in batch:
                    await self._save_one(name)

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
        stored = await self.records.get(name)
        mark = self._marks.get(name)
        if stored is None:
            if mark is not None:
                mark.revision = 0
            return
        decided = stored.record.decided_until
        self._marks[name] = _Mark(max(decided, mark.decided_until) if mark else decided, stored.revision)

    def _put(self, name: str, decided_until: datetime) -> Put:
        return Put(self.records.prefix + name, dump(TickMark(decided_until=decided_until)))
