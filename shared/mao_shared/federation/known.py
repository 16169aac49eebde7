"""Keeps the copies of the federation's records in step; one of a node's services does, the registry.

    list every prefix from the federation ─► write what differs ─► watch from the first listing's revision on
         ▲                                                                  │
         └── a gap, a switch, an outage of either store, somebody else's write to a copy ◄──┘

What comes twice that way is dropped by its revision. `Contact` says up to when the copies are true. What
others write must not fill this node's store: a record above `LARGEST`, and what is more than `MOST` under a
prefix, has no copy.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mao_shared import keys
from mao_shared.clock import Clock, SystemClock
from mao_shared.errors import Compacted, MaoError, Unavailable
from mao_shared.logs import Outage, get_logger
from mao_shared.models.federation import Contact
from mao_shared.store import Check, Delete, Entry, Put
from mao_shared.store.records import dump

from .copies import PREFIXES, is_copied, pack
from .switch import FederationStore

log = get_logger(__name__)

LISTED = (*PREFIXES, keys.federation(), keys.all_peers())
PAGE = 500
BATCH = 100  # copies written in one transaction
BATCH_BYTES = 500_000  # of their values, unless a single one is larger
LARGEST = 1_000_000  # bytes of a record that is copied
MOST = 64_000_000  # bytes of all copies under one of LISTED
OVERHEAD = 300  # bytes that a store needs for a record beside key and value
MAX_REASON = 2000  # characters
PAUSE = 0.5  # seconds between attempts while a store is away
CONTACT_EVERY = 30.0  # seconds between looks whether the federation still answers


@dataclass(frozen=True, slots=True)
class _Kept:
    """A copy: the record's revision there, the copy's here, and the bytes it takes."""

    there: int
    here: int
    size: int


class _Raced(Exception):
    """Somebody else has written a copy: what is known of the copies is wrong."""


class KnownCopy:
    """`run` goes on for as long as the service does; a node that is its own federation needs no copies.

    Args:
        every: seconds between two looks whether the federation still answers.
    """

    def __init__(
        self,
        store: FederationStore,
        *,
        every: float = CONTACT_EVERY,
        clock: Clock = SystemClock(),  # noqa: B008 (it has no state)
    ) -> None:
        self._store = store
        self._own = store.own
        self._copies = store.copies
        self._every = every
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._full = Outage()
        self._bytes: Counter[str] = Counter()  # prefix → of the copies under it
        self._following: str | None = None  # the federation whose changes are being taken in
        self._revision = 0  # of its store, up to which they are
        self._switched = asyncio.Event()
        self._news = asyncio.Event()
        store.on_switch(self._switched.set)
        store.on_switch(self._news.set)
        store.on_contact(self._news.set)

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._copy_for_ever())
            group.create_task(self._tell_for_ever())

    async def _copy_for_ever(self) -> None:
        outage = Outage()
        while True:
            self._switched.clear()
            try:
                await self._copy()
                outage.over()
                continue
            except (Compacted, _Raced):
                log.info("known.again", federation=self._store.name)
            except MaoError as error:
                if outage.is_news():
                    log.warning("known.not_copied", error=error.detail)
            except Exception:  # whatever others wrote: the service goes on, and copies anew
                if outage.is_news():
                    log.exception("known.not_copied")
            await asyncio.sleep(PAUSE)

    async def _copy(self) -> None:
        """Copies all and follows the changes. A node that is its own federation waits until it is not."""
        await self._load()
        if await self._store.alone():
            await self._forget()
            await self._switched.wait()
            return
        name = self._store.name
        contact, _ = await self._copies.read_contact()
        if contact is None or contact.federation != name:
            await self._forget()
        after = await self._copy_all()
        try:
            self._following, self._revision = name, after
            self._news.set()
            await self._follow(after)
        finally:
            self._following = None

    async def _load(self) -> None:
        self._kept.clear()
        self._bytes.clear()
        cursor = None
        while True:
            page = await self._own.list(self._copies.prefix, limit=PAGE, cursor=cursor)
            for entry in page.entries:
                copied = self._copies.unpack(entry)
                self._keep(copied, entry.revision)
            cursor = page.cursor
            if cursor is None:
                return

    async def _copy_all(self) -> int:
        """The revision from which on the changes are to be followed."""
        first = 0
        for prefix in LISTED:
            revision, there = await self._copy_prefix(prefix)
            first = first or revision
            gone = [
                key for key, known in self._kept.items() if key.startswith(prefix) and known.there <= revision
            ]
            await self._write([Delete(key) for key in gone if key not in there])
        return first

    async def _copy_prefix(self, prefix: str) -> tuple[int, set[str]]:
        there: set[str] = set()
        cursor = None
        while True:
            page = await self._store.list_there(prefix, limit=PAGE, cursor=cursor)
            entries = [entry for entry in page.entries if is_copied(entry.key)]
            there.update(entry.key for entry in entries)
            await self._write([entry for entry in entries if self._is_news(entry.key, entry.revision)])
            cursor = page.cursor
            if cursor is None:
                return page.revision, there

    async def _follow(self, after: int) -> None:
        async with contextlib.aclosing(self._store.watch(f"{keys.ROOT}/", after=after)) as watch:
            async for batch in watch:
                for event in batch:
                    if is_copied(event.key) and self._is_news(event.key, event.revision):
                        await self._write([event.entry or Delete(event.key)])
                self._revision = batch[-1].revision

    def _is_news(self, key: str, revision: int) -> bool:
        known = self._kept.get(key)
        return known is None or known.there < revision

    async def _write(self, changes: Sequence[Entry | Delete]) -> None:
        """Makes copies or removes them, a few in one transaction; raises _Raced."""
        for some in _batches(list(self._affordable(changes))):
            checks = [Check(self._key(each.key), self._revision_here(each.key)) for each in some]
            writes = [self._copy_of(each) for each in some]
            written = await self._own.transact(checks, writes)
            if written is None:
                raise _Raced
            for each in some:
                if isinstance(each, Delete):
                    self._drop(each.key)
                else:
                    self._keep(each, written)

    def _affordable(self, changes: Sequence[Entry | Delete]) -> Iterator[Entry | Delete]:
        """What there is room for; in place of what there is none for, the removal of its older copy."""
        planned: Counter[str] = Counter()
        for each in changes:
            if isinstance(each, Delete):
                yield each
                continue
            prefix, before = _listed(each.key), self._kept.get(each.key)
            more = _size(each) - (before.size if before else 0)
            if _size(each) <= LARGEST and self._bytes[prefix] + planned[prefix] + more <= MOST:
                planned[prefix] += more
                yield each
                continue
            if self._full.is_news():
                log.warning("known.no_room", key=each.key, bytes=_size(each), kept=self._bytes[prefix])
            if before:
                yield Delete(each.key)

    def _keep(self, entry: Entry, here: int) -> None:
        self._drop(entry.key)
        self._kept[entry.key] = _Kept(entry.revision, here, _size(entry))
        self._bytes[_listed(entry.key)] += _size(entry)

    def _drop(self, key: str) -> None:
        before = self._kept.pop(key, None)
        if before:
            self._bytes[_listed(key)] -= before.size

    def _revision_here(self, key: str) -> int:
        kept = self._kept.get(key)
        return kept.here if kept else 0

    def _key(self, key: str) -> str:
        return self._copies.prefix + key

    def _copy_of(self, change: Entry | Delete) -> Put | Delete:
        key = self._key(change.key)
        return Delete(key) if isinstance(change, Delete) else Put(key, pack(change))

    async def _forget(self) -> None:
        """The copies are of a federation that was left. The contact vouches for them, so it goes first."""
        await self._own.delete(keys.contact(self._store.node))
        await self._write([Delete(key) for key in self._kept])

    # The contact

    async def _tell_for_ever(self) -> None:
        """Looks now and then whether the federation answers, and writes down what became of that."""
        while True:
            self._news.clear()
            try:
                if not await self._store.alone():
                    await self._tell()
            except MaoError as error:
                log.debug("known.contact_not_written", error=error.detail)
            except Exception:
                log.exception("known.contact_not_written")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._news.wait()

    async def _tell(self) -> None:
        store = self._store
        name, asked = store.name, self._clock.now()
        with contextlib.suppress(Unavailable):
            await store.ping()
        before, revision = await self._copies.read_contact()
        told = Contact(
            federation=name,
            reachable=store.reachable,
            away_since=store.away_since,
            reason=store.reason[:MAX_REASON],
        )
        if self._following == name and store.reachable:
            told = told.model_copy(update={"as_of": asked, "revision": self._revision})
        elif before is not None and before.federation == name:
            told = told.model_copy(update={"as_of": before.as_of, "revision": before.revision})
        if store.name == name:  # else it has switched meanwhile, and this is called again
            key = keys.contact(store.node)
            await self._own.transact([Check(key, revision)], [Put(key, dump(told))])


def _size(entry: Entry) -> int:
    return len(entry.key) + len(entry.value) + OVERHEAD


def _listed(key: str) -> str:
    return next((prefix for prefix in LISTED if key.startswith(prefix)), "")


def _batches(changes: Sequence[Entry | Delete]) -> Iterator[list[Entry | Delete]]:
    """So many at a time as one transaction takes."""
    some: list[Entry | Delete] = []
    size = 0
    for change in changes:
        added = len(change.value) if isinstance(change, Entry) else 0
        if some and (len(some) == BATCH or size + added > BATCH_BYTES):
            yield some
            some, size = [], 0
        some.append(change)
        size += added
    if some:
        yield some
