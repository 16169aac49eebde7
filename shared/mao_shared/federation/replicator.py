"""Keep the replica in step with the federation; runs in the node's registry only.

    list every prefix from the federation ─► write what differs ─► watch from the first listing's revision on
         ▲                                                                  │
         └── a gap, a switch, an outage of either store, another writer of a copy ◄──┘

Changes that arrive twice are dropped by their revision. `Contact` holds the revision up to which the copies
are complete. Other nodes must not be able to fill this node's store: records that are too large, or exceed
the quota of a prefix, are not copied, and the budget decides when the others are written.
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
BATCH_BYTES = 500_000  # total size of their values, unless a single one is larger
MAX_REASON = 2000  # characters
HELD_CHECK_PERIOD = 1.0  # seconds between checks of the held changes
CONTACT_PERIOD = 30.0  # seconds between probes of the federation


@dataclass(frozen=True, slots=True)
class _Copied:
    """A copy: the revisions of the original and of the copy, and its size in bytes."""

    revision: int
    copy_revision: int
    size: int


class _Restart(Exception):
    """List everything again: another process has written a copy, or there is room for skipped changes."""


class Replicator:
    """Copies the federation's records while `run` runs; idle on a node without a federation.

    Args:
        every: seconds between two probes of the federation.
        seconds: a monotonic clock.
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
        self._copies: dict[str, _Copied] = {}
        self._full, self._paused = Outage(), Outage()
        self._bytes: Counter[str] = Counter()  # size of the copies by quota prefix
        self._following: str | None = None  # the federation that is being watched
        self._copied_until: int | None = None  # revision of the last complete listing
        self._revision = 0  # of the federation's store, up to which changes are applied
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
        """Copy everything; at the next call, follow the changes until there is a gap.

        Without a federation, wait until the node has joined one.
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
        self._copies.clear()
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
            revision, listed = await self._copy_prefix(prefix)
            first = first or revision
            stale = [
                key
                for key, copy in self._copies.items()
                if key.startswith(prefix) and copy.revision <= revision
            ]
            await self._write([Delete(key) for key in stale if key not in listed])
        return first

    async def _copy_prefix(self, prefix: str) -> tuple[int, set[str]]:
        listed: set[str] = set()
        revision = 0
        async for page in pages(lambda cursor: self._store.list_live(prefix, limit=PAGE, cursor=cursor)):
            revision = page.revision
            entries = [entry for entry in page.entries if is_replicated(entry.key)]
            listed.update(entry.key for entry in entries)
            news = [entry for entry in entries if self._is_newer(entry.key, entry.revision)]
            await self._write(news, at_once=True)
        return revision, listed

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
        copy = self._copies.get(key)
        return max(copy.revision if copy else 0, self._budget.held_revision(key)) < revision

    async def _write(self, changes: Sequence[Entry | Delete], *, at_once: bool = False) -> None:
        """Write or delete copies in batches, as far as the budget allows; raises _Restart."""
        for batch in _batches(list(self._timely(self._affordable(changes), at_once=at_once))):
            checks, writes = [], []
            for change in batch:
                key, copy = self._replica.prefix + change.key, self._copies.get(change.key)
                checks.append(Check(key, copy.copy_revision if copy else 0))
                writes.append(Delete(key) if isinstance(change, Delete) else Put(key, pack_copy(change)))
            written = await self._own.transact(checks, writes)
            if written is None:
                raise _Restart
            for change in batch:
                if isinstance(change, Delete):
                    self._drop(change.key)
                else:
                    self._keep(change, written)

    def _affordable(self, changes: Sequence[Entry | Delete]) -> Iterator[Entry | Delete]:
        """Yield the changes that fit the quota; for the others, a deletion of the outdated copy."""
        planned: Counter[str] = Counter()
        for change in changes:
            if isinstance(change, Delete):
                yield change
                continue
            before = self._copies.get(change.key)
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
        """Yield the changes that may be written now; others are held, or skipped until the next listing."""
        now = self._seconds()
        for change in changes:
            if isinstance(change, Delete):
                self._budget.drop(change.key)
                if change.key in self._copies:
                    yield change
            elif self._budget.admit(change, now, at_once=at_once):
                yield change
            elif not self._budget.held_revision(change.key) and self._paused.is_news():
                log.warning("replica.paused", key=change.key, bytes=copy_size(change))

    def _keep(self, entry: Entry, copy_revision: int) -> None:
        self._drop(entry.key)
        self._copies[entry.key] = _Copied(entry.revision, copy_revision, copy_size(entry))
        self._bytes.update({name: copy_size(entry) for name, _ in quota_prefixes(entry.key)})

    def _drop(self, key: str) -> None:
        before = self._copies.pop(key, None)
        if before:
            self._bytes.subtract({name: before.size for name, _ in quota_prefixes(key)})

    async def _forget(self) -> None:
        """Delete the copies of a federation that was left; first the contact, which makes them valid."""
        await self._own.delete(keys.contact(self._store.node))
        await self._write([Delete(key) for key in self._copies])
        self._budget = ReplicationBudget()

    # The contact

    async def _report_contact(self) -> None:
        """Check whether the federation answers and write the result as `Contact`."""
        store = self._store
        if await store.alone():
            return
        name, asked_at, now = store.name, self._clock.now(), self._seconds()
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
            contact = contact.model_copy(
                update={"as_of": asked_at - timedelta(seconds=ago), "revision": upto}
            )
        elif before is not None and before.federation == name:
            contact = contact.model_copy(update={"as_of": before.as_of, "revision": before.revision})
        if store.name == name:  # otherwise it has switched meanwhile, and this is called again
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
