"""Keeps the replica in step with the federation; one service of a node does, the registry.

    list every prefix from the federation ─► write what differs ─► watch from the first listing's revision on
         ▲                                                                  │
         └── a gap, a switch, an outage of either store, another writer of a copy ◄──┘

What comes twice that way is dropped by its revision. `Contact` says up to when the copies are true. What
others write must not fill this node's store: what is too large, or more than may lie under a prefix, has no
copy, and the budget says when the rest is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from mao_shared import keys
from mao_shared.clock import Clock, SystemClock
from mao_shared.conditions import Conditions
from mao_shared.errors import Compacted, MaoError, Unavailable
from mao_shared.logs import Outage, get_logger
from mao_shared.models.federation import Contact
from mao_shared.reconcile import STORE_BACKOFF, every
from mao_shared.store import Batch, Check, Delete, Entry, Put, dump, pages

from .binding import with_idle_batches
from .replica import (
    LISTED,
    UNKNOWN,
    ReplicationBudget,
    copy_size,
    is_replicated,
    is_too_large,
    pack_copy,
    quota_prefixes,
)
from .store import FederationStore

log = get_logger(__name__)
PAGE = 500
BATCH = 100  # copies written in one transaction
BATCH_BYTES = 500_000  # of their values, unless a single one is larger
MAX_REASON = 2000  # characters
HELD_CHECK_PERIOD = 1.0  # seconds between looks at what is held
CONTACT_PERIOD = 30.0  # seconds between looks whether the federation still answers


@dataclass(frozen=True, slots=True)
class _Copied:
    """A copy: the record's revision there, the copy's here, and the bytes it takes."""

    there: int
    here: int
    size: int


class _Restart(Exception):
    """Another process has written a copy, or there is room for what was left out: list all again."""


class Replicator:
    """`run` runs as long as the service; a node that is its own federation needs no replica.

    Args:
        every: seconds between two looks whether the federation still answers.
        seconds: a clock that is never set back.
    """

    def __init__(
        self,
        store: FederationStore,
        *,
        every: float = CONTACT_PERIOD,
        clock: Clock = SystemClock(),  # noqa: B008 (it has no state)
        seconds: Callable[[], float] = time.monotonic,
        conditions: Conditions | None = None,
    ) -> None:
        self._conditions = conditions
        self._store = store
        self._own = store.own
        self._replica = store.replica
        self._every = every
        self._clock = clock
        self._seconds = seconds
        self._budget = ReplicationBudget()
        self._kept: dict[str, _Copied] = {}
        self._full, self._paused = Outage(), Outage()
        self._bytes: Counter[str] = Counter()  # account → of the copies that count there
        self._following: str | None = None  # the federation whose changes are being taken in
        self._copied_until: int | None = None  # revision of the listing that is to be followed
        self._revision = 0  # of its store, up to which they are
        self._switched = asyncio.Event()
        self._news = asyncio.Event()
        store.on_switch(self._switched.set)
        store.on_switch(self._news.set)
        store.on_contact(self._news.set)

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(
                every(
                    0.0,
                    self._copy,
                    name="replica/copies",
                    conditions=self._conditions,
                    away=STORE_BACKOFF,
                    outages=MaoError,
                )
            )
            group.create_task(
                every(
                    self._every,
                    self._report_contact,
                    name="replica/contact",
                    wake=self._news,
                    conditions=self._conditions,
                    outages=MaoError,
                )
            )

    async def _copy(self) -> float:
        """Copy everything, then at the next call follow the changes until there is a gap.

        A node that is its own federation waits until it has joined another one.
        """
        self._switched.clear()
        try:
            if self._copied_until is not None:
                after, self._copied_until = self._copied_until, None
                await self._follow(after)
                return 0.0
            await self._load()
            if await self._store.alone():
                await self._forget()
                await self._switched.wait()
                return 0.0
            name = self._store.name
            contact, _ = await self._replica.read_contact()
            if contact is None or contact.federation != name:
                await self._forget()
            self._copied_until = await self._copy_all()
            self._following, self._revision = name, self._copied_until
            self._news.set()
        except (Compacted, _Restart):
            log.info("replica.restarted", federation=self._store.name)
            return STORE_BACKOFF.initial
        return 0.0

    async def _load(self) -> None:
        self._kept.clear()
        self._bytes.clear()
        async for page in pages(
            lambda cursor: self._own.list(self._replica.prefix, limit=PAGE, cursor=cursor)
        ):
            for entry in page.entries:
                copied = self._replica.unpack(entry)
                self._keep(copied, entry.revision)

    async def _copy_all(self) -> int:
        """Copy all prefixes; return the revision from which to follow the changes."""
        self._budget.begin_listing()
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
        revision = 0
        async for page in pages(lambda cursor: self._store.list_live(prefix, limit=PAGE, cursor=cursor)):
            revision = page.revision
            entries = [entry for entry in page.entries if is_replicated(entry.key)]
            there.update(entry.key for entry in entries)
            news = [entry for entry in entries if self._is_newer(entry.key, entry.revision)]
            await self._write(news, at_once=True)
        return revision, there

    async def _follow(self, after: int) -> None:
        watch = self._store.watch(f"{keys.ROOT}/", after=after)
        turns = with_idle_batches(watch, lambda: HELD_CHECK_PERIOD if self._budget.is_waiting else None)
        try:
            async with contextlib.aclosing(turns):
                async for batch in turns:
                    await self._take(batch)
                    away = not self._store.reachable
                    await self._write(self._budget.due(self._seconds(), at_once=away), at_once=away)
                    if self._budget.wants_listing(self._seconds()):
                        raise _Restart
        finally:
            self._following = None

    async def _take(self, batch: Batch) -> None:
        for event in batch:
            if is_replicated(event.key) and self._is_newer(event.key, event.revision):
                await self._write([event.entry or Delete(event.key)])
        if batch:
            self._revision = batch[-1].revision

    def _is_newer(self, key: str, revision: int) -> bool:
        known = self._kept.get(key)
        return max(known.there if known else 0, self._budget.held_revision(key)) < revision

    async def _write(self, changes: Sequence[Entry | Delete], *, at_once: bool = False) -> None:
        """Write or delete copies in batches, as far as the budget allows; raises _Restart."""
        for some in _batches(list(self._timely(self._affordable(changes), at_once=at_once))):
            checks, writes = [], []
            for change in some:
                key, known = self._replica.prefix + change.key, self._kept.get(change.key)
                checks.append(Check(key, known.here if known else 0))
                writes.append(Delete(key) if isinstance(change, Delete) else Put(key, pack_copy(change)))
            written = await self._own.transact(checks, writes)
            if written is None:
                raise _Restart
            for change in some:
                if isinstance(change, Delete):
                    self._drop(change.key)
                else:
                    self._keep(change, written)

    def _affordable(self, changes: Sequence[Entry | Delete]) -> Iterator[Entry | Delete]:
        """Yield the changes that fit the quota; for the others, the deletion of the older copy."""
        planned: Counter[str] = Counter()
        for change in changes:
            if isinstance(change, Delete):
                yield change
                continue
            before = self._kept.get(change.key)
            more = copy_size(change) - (before.size if before else 0)
            accounts = list(quota_prefixes(change.key))
            room = all(self._bytes[name] + planned[name] + more <= most for name, most in accounts)
            if room and not is_too_large(change):
                planned.update({name: more for name, _ in accounts})
                yield change
                continue
            if self._full.is_news():
                log.warning("replica.no_room", key=change.key, bytes=copy_size(change))
            yield Delete(change.key)

    def _timely(self, changes: Iterator[Entry | Delete], *, at_once: bool) -> Iterator[Entry | Delete]:
        """Yield the changes that may be written now; the rest is held, or left for the next listing."""
        now = self._seconds()
        for change in changes:
            if isinstance(change, Delete):
                self._budget.drop(change.key)
                if change.key in self._kept:
                    yield change
            elif self._budget.admit(change, now, at_once=at_once):
                yield change
            elif not self._budget.held_revision(change.key) and self._paused.is_news():
                log.warning("replica.paused", key=change.key, bytes=copy_size(change))

    def _keep(self, entry: Entry, here: int) -> None:
        self._drop(entry.key)
        self._kept[entry.key] = _Copied(entry.revision, here, copy_size(entry))
        self._bytes.update({name: copy_size(entry) for name, _ in quota_prefixes(entry.key)})

    def _drop(self, key: str) -> None:
        before = self._kept.pop(key, None)
        if before:
            self._bytes.subtract({name: before.size for name, _ in quota_prefixes(key)})

    async def _forget(self) -> None:
        """Delete the copies of a federation that was left, after the contact, which vouches for them."""
        await self._own.delete(keys.contact(self._store.node))
        await self._write([Delete(key) for key in self._kept])
        self._budget = ReplicationBudget()

    # The contact

    async def _report_contact(self) -> None:
        """Check whether the federation answers and write the result as `Contact`."""
        store = self._store
        if await store.alone():
            return
        name, asked, now = store.name, self._clock.now(), self._seconds()
        with contextlib.suppress(Unavailable):
            await store.ping()
        before, revision = await self._replica.read_contact()
        contact = Contact(
            federation=name,
            reachable=store.reachable,
            away_since=store.away_since,
            reason=store.reason[:MAX_REASON],
            next=store.next[:MAX_REASON],
            removed=store.removed,
        )
        lacking = self._budget.lacking
        if self._following == name and store.reachable and (lacking is None or lacking.since != UNKNOWN):
            ago = max(0.0, now - lacking.since) if lacking else 0.0
            upto = min(self._revision, lacking.revision - 1) if lacking else self._revision
            contact = contact.model_copy(update={"as_of": asked - timedelta(seconds=ago), "revision": upto})
        elif before is not None and before.federation == name:
            contact = contact.model_copy(update={"as_of": before.as_of, "revision": before.revision})
        if store.name == name:  # else it has switched meanwhile, and this is called again
            key = keys.contact(store.node)
            await self._own.transact([Check(key, revision)], [Put(key, dump(contact))])


def _batches(changes: Sequence[Entry | Delete]) -> Iterator[list[Entry | Delete]]:
    """Split changes into batches that fit one transaction."""
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
