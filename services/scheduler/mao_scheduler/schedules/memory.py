"""How far back the runs of a pipeline are known: what a backfill may ask for.

Versions that know of no history take runs that were moved there for removed. Somebody may go back to one, so
what was moved is noted for it as removed (`Forgotten`): it then queues no tick again that this one has run.
`Remembered` says for this version which of that is true.
"""

from __future__ import annotations

from datetime import UTC, datetime

from mao_shared.models.schedule import Forgotten, Remembered
from mao_shared.store import Check, Put, Records, Stored
from mao_shared.store.records import dump

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class TickMemory:
    """Written before the runs are moved or removed: too much said only refuses a backfill."""

    def __init__(self, forgotten: Records[Forgotten], remembered: Records[Remembered]) -> None:
        self._forgotten = forgotten
        self._remembered = remembered

    async def forgotten(self, pipeline: str) -> datetime | None:
        """Up to which tick it cannot be told what was run."""
        return what_is_gone(await self._forgotten.get(pipeline), await self._remembered.get(pipeline))

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
            new = _moved_on(said, known, moved, gone)
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


def what_is_gone(said: Stored[Forgotten] | None, known: Stored[Remembered] | None) -> datetime | None:
    """Pure. What `Forgotten` says beyond what was moved is an older version's word, and true."""
    if said is None:
        return None if known is None else known.record.forgotten_until
    if known is None or said.record.until > known.record.moved_until:
        return said.record.until
    return known.record.forgotten_until


def _moved_on(
    said: Stored[Forgotten] | None, known: Stored[Remembered] | None, moved: datetime, gone: datetime | None
) -> Remembered:
    before = what_is_gone(said, known)
    until = max((each for each in (before, gone) if each is not None), default=None)
    changes = {
        "moved_until": max(moved, known.record.moved_until if known else _NEVER, before or _NEVER),
        "forgotten_until": until,
    }
    return known.record.model_copy(update=changes) if known else Remembered(**changes)
