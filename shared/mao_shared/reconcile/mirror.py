"""In-memory copy of the records under one prefix, by list and watch (an informer in client-go)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from mao_shared.errors import MaoError, RecordUnreadable, StoreSwitched
from mao_shared.logs import get_logger
from mao_shared.models.common import Record
from mao_shared.store import Batch, Entry, Records, Stored, Unreadable, pages

from .loops import STORE_BACKOFF, Backoff, Guard, every, follow

if TYPE_CHECKING:
    from mao_shared.conditions import Conditions

log = get_logger(__name__)
R = TypeVar("R", bound=Record)
LIST_PAGE = 500
RELIST_BACKOFF = Backoff(1.0, 30.0)  # after failures other than outages of the store
RECHECK_PERIOD = 15.0  # seconds


class Mirror(Generic[R]):
    """The records under one prefix that satisfy `keep`, as last seen, by their key without the prefix.

    Subscribers are called with the name of every changed record, kept or not; after a listing (at the start
    and after a gap), only with those that are kept or no longer kept. `synced` is set while the mirror
    reflects a state of the store: not before the first listing, nor during the first listing of another
    store.

    `unreadable`: names of records that cannot be read. Their last readable version is kept, unless
    `drop_unreadable` is set. An exception from a subscriber does not affect the others.
    """

    def __init__(
        self,
        records: Records[R],
        keep: Callable[[R], bool] = lambda _: True,
        *,
        away: Backoff = STORE_BACKOFF,
        drop_unreadable: bool = False,
        conditions: Conditions | None = None,
    ) -> None:
        self.records = records
        self.keep = keep
        self.synced = asyncio.Event()
        self.unreadable: set[str] = set()
        self._name_of_loop = f"mirror of {records.prefix}"
        self._conditions = conditions
        self._guard = Guard(self._name_of_loop, conditions)
        self._away = away
        self._drop_unreadable = drop_unreadable
        self._kept: dict[str, Stored[R]] = {}
        self._subscribers: list[Callable[[str], None]] = []
        self._seen = 0  # all changes up to this revision are applied
        self._ahead: dict[str, int] = {}  # by name: revision of an own write after `_seen`

    def get(self, name: str) -> Stored[R] | None:
        return self._kept.get(name)

    def _name(self, key: str) -> str:
        return key.removeprefix(self.records.prefix)

    def items(self) -> list[tuple[str, Stored[R]]]:
        return list(self._kept.items())

    def is_set_aside(self, name: str) -> bool:
        """Return True if the stored record is unreadable, so that its last readable version is used."""
        return name in self.unreadable and not self._drop_unreadable

    def subscribe(self, callback: Callable[[str], None]) -> None:
        self._subscribers.append(callback)

    def note(self, name: str, record: R, revision: int) -> None:
        """Apply an own write at once, without waiting for the watch.

        A write at or before the mirror's revision is ignored: the record may have changed since.
        """
        if revision > max(self._seen, self._ahead.get(name, 0)):
            self._ahead[name] = revision
            self._put(name, Stored(record, revision))

    async def run(self) -> None:
        """Keep the mirror up to date until cancelled; list again after every gap."""
        await follow(
            self.records.store,
            self.records.prefix,
            self._take,
            start=self._list,
            on_gap=self._gap,
            name=self._name_of_loop,
            conditions=self._conditions,
            away=self._away,
            failing=RELIST_BACKOFF,
        )

    def _gap(self, error: MaoError) -> None:
        if isinstance(error, StoreSwitched):
            self._forget("mirror.store_switched")
        else:
            log.info("mirror.relist", prefix=self.records.prefix, seen=self._seen)

    async def _list(self) -> int:
        names: set[str] = set()
        store, revision = self.records.store, 0
        async for page in pages(
            lambda cursor: store.list(self.records.prefix, limit=LIST_PAGE, cursor=cursor)
        ):
            revision = page.revision
            if revision < self._seen:
                self._forget("mirror.store_set_back")
            for entry in page.entries:
                name = self._name(entry.key)
                names.add(name)
                known = self._kept.get(name)
                if self._is_ahead(name, revision) or (known and known.revision == entry.revision):
                    continue
                stored = self._parse(entry)
                if stored is None:
                    self._set_aside(name)
                elif known or self.keep(stored.record):
                    self._put(name, stored)
        for name in (self._kept.keys() | self.unreadable) - names:
            if not self._is_ahead(name, revision):
                self._drop(name)
        self._seen = revision
        self._ahead = {name: known for name, known in self._ahead.items() if known > self._seen}
        self.synced.set()
        return revision

    def _forget(self, why: str) -> None:
        """Drop everything, since the store was replaced or reset and its revisions are not comparable."""
        log.warning(why, prefix=self.records.prefix, seen=self._seen)
        self._seen = 0
        self.synced.clear()
        self._ahead.clear()
        for name in self._kept.keys() | self.unreadable:
            self._drop(name)

    def _take(self, batch: Batch) -> None:
        for event in batch:
            self._seen = max(self._seen, event.revision)
            name = self._name(event.key)
            if self._is_ahead(name, event.revision):
                continue
            stored = None if event.entry is None else self._parse(event.entry)
            if stored is not None:
                self._put(name, stored)
            elif event.entry is None:
                self._drop(name)
            else:
                self._set_aside(name)

    def _is_ahead(self, name: str, revision: int) -> bool:
        """Return True if an own write of the record has this or a newer revision."""
        if self._ahead.get(name, 0) >= revision:
            return True
        self._ahead.pop(name, None)
        return False

    def _parse(self, entry: Entry) -> Stored[R] | None:
        """Return the record; None if it is damaged or of another version."""
        try:
            return self.records.parse(entry)
        except RecordUnreadable:
            return None

    def _put(self, name: str, stored: Stored[R]) -> None:
        self.unreadable.discard(name)
        if self.keep(stored.record):
            self._kept[name] = stored
        else:
            self._kept.pop(name, None)
        self._notify(name)

    def _set_aside(self, name: str) -> None:
        """Mark a record as unreadable; subscribers are called only if its last version is dropped."""
        self.unreadable.add(name)
        if self._drop_unreadable and self._kept.pop(name, None) is not None:
            self._notify(name)

    def _drop(self, name: str) -> None:
        if name in self.unreadable:
            self.unreadable.discard(name)
            self.records.note_absent(self.records.prefix + name)
        self._kept.pop(name, None)
        self._notify(name)

    def _notify(self, name: str) -> None:
        for callback in self._subscribers:
            try:
                callback(name)
            except Exception as error:  # noqa: BLE001 (must not affect other records)
                self._guard.failed(name, error)
                return
        if self._guard.is_failing(name):
            self._guard.succeeded(name)


async def recheck_unreadable(unreadable: Unreadable) -> None:
    """Recheck the unreadable records periodically until cancelled."""
    await every(
        RECHECK_PERIOD,
        unreadable.check,
        name="unreadable-records",
        initial_delay=RECHECK_PERIOD,
        conditions=unreadable.conditions,
    )
