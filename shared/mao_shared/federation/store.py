"""The federation's current store: the node's own, or the etcd that its link names.

own store ──(link created: joined)──► the federation's etcd ──(link deleted: left)──► own store

A switch ends all watches with `StoreSwitched` (a `Compacted`), so that mirrors list again. Revisions are not
comparable between stores: a guarded write by a task that last read from the other store is a lost race.

While the federation's etcd does not answer, reads of replicated keys are answered from the replica and marked
as stale; all other calls raise `FederationUnavailable` at once, until a probe succeeds. Calls raise
`NodeRemoved` once etcd has reported that the user is unknown, until it accepts the node again; a missing
answer is no proof of removal.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from typing import TypeVar
from weakref import WeakKeyDictionary

from mao_shared import request_context
from mao_shared.clock import Clock, SystemClock
from mao_shared.errors import (
    FederationUnavailable,
    NodeRemoved,
    StoreSwitched,
    StoreUnavailable,
    StoreUnknown,
    Unauthorized,
    Unavailable,
    UserUnknown,
)
from mao_shared.logs import get_logger
from mao_shared.models.federation import Link
from mao_shared.reconcile import Backoff, every
from mao_shared.settings import ServiceSettings
from mao_shared.store import Batch, Check, Delete, Entry, Page, Put, Store, Write, open_store

from .binding import (
    UNREACHABLE,
    StoreBinding,
    federation_unreachable,
    node_removed,
    read_cursor,
    until_ended,
    write_cursor,
)
from .replica import Replica, is_replicated
from .resolver import BindingOpener, BindingResolver, FederationFiles, Opener

log = get_logger(__name__)
T = TypeVar("T")
PROBE_BACKOFF = Backoff(0.1, 2.0)  # between probes of a federation that does not answer
READ_TIMEOUT = 1.0  # seconds that a read waits for the federation before the replica answers


class FederationStore:
    """A `Store`. Its `run` must run in the background, to follow the link and probe after outages.

    Args:
        own: the node's store; the caller closes it.
        fixed: the federation's store while there is no link; default: `own`.
        endpoints: the same as an address, for `opener`.
        opener: called like `open_store`: (endpoints, *, deadline, tls).
    """

    def __init__(
        self,
        own: Store,
        node: str,
        files: FederationFiles,
        *,
        fixed: Store | None = None,
        endpoints: str | None = None,
        opener: Opener = open_store,
        clock: Clock = SystemClock(),  # noqa: B008 (it has no state)
    ) -> None:
        self.own = own
        self.node = node
        self.files = files
        self.fixed = fixed
        self.replica = Replica(own, node)
        self.as_of: datetime | None = None
        self.away_since: datetime | None = None
        self._fault: FederationUnavailable | None = None  # why it is unreachable
        self._resolver = BindingResolver(
            own, node, BindingOpener(own, files, fixed, endpoints, opener), self._binding_changed
        )
        self._clock = clock
        self._away = asyncio.Event()
        self._probes = 0  # consecutive failed probes
        self._on_switch: list[Callable[[], None]] = []
        self._on_contact: list[Callable[[], None]] = []
        self._readers: WeakKeyDictionary[asyncio.Task[object], str] = WeakKeyDictionary()

    # State of the federation

    @property
    def is_own(self) -> bool:
        """True if one transaction can also write the node's records. Valid after the first call."""
        return self._resolver.now is not None and self._resolver.now.is_own

    @property
    def link(self) -> Link | None:
        """The federation that this node has joined, or None; None before the first call as well."""
        return None if self._resolver.now is None else self._resolver.now.link

    @property
    def name(self) -> str:
        """Identifier of the federation: `Link.id`, the configured address, or `` for the own store."""
        return "" if self._resolver.now is None else self._resolver.now.name

    @property
    def reachable(self) -> bool:
        """True if the last call was answered; otherwise `away_since`, `reason` and `next` say more."""
        return not self._away.is_set()

    @property
    def reason(self) -> str:
        return "" if self._fault is None else self._fault.detail.removeprefix(UNREACHABLE)

    @property
    def next(self) -> str:
        """The next step for the operator during an outage."""
        return "" if self._fault is None else self._fault.next or ""

    @property
    def removed(self) -> bool:
        """True if the federation's etcd has reported that this node was removed."""
        return isinstance(self._fault, NodeRemoved)

    def on_switch(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each switch to another store, where leased keys must be written again."""
        self._on_switch.append(callback)

    def on_contact(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the federation becomes unreachable or reachable."""
        self._on_contact.append(callback)

    async def alone(self) -> bool:
        """Return `is_own` after reading the link; raises outages of the own store."""
        return (await self._resolver.current()).is_own

    async def list_live(
        self,
        prefix: str,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        newest_first: bool = False,
        copied: bool = False,
    ) -> Page:
        """Like `list`, but never from copies. `copied`: wait only briefly, since copies can answer too."""
        binding = await self._resolver.current()
        inner = read_cursor(cursor, binding.name)
        page = await self._read(
            lambda store: store.list(prefix, limit=limit, cursor=inner, newest_first=newest_first),
            copied=copied,
        )
        return Page(page.entries, page.revision, write_cursor(page.cursor, binding.name))

    # The store's contract

    async def get(self, key: str) -> Entry | None:
        try:
            return await self._read(lambda store: store.get(key), copied=is_replicated(key))
        except FederationUnavailable as error:
            await self._replica_revision(key, error)
            return await self.replica.get(key)

    async def list(
        self, prefix: str, *, limit: int | None = None, cursor: str | None = None, newest_first: bool = False
    ) -> Page:
        outage = self._refusal()
        try:
            return await self.list_live(
                prefix, limit=limit, cursor=cursor, newest_first=newest_first, copied=is_replicated(prefix)
            )
        except FederationUnavailable as error:
            outage = error
        except StoreSwitched:  # the cursor may be from a listing of the copies
            if self.reachable:
                raise
        revision = await self._replica_revision(prefix, outage)
        inner = read_cursor(cursor, REPLICA_CURSOR)
        page = await self.replica.list(prefix, limit=limit, cursor=inner, newest_first=newest_first)
        return Page(page.entries, revision, write_cursor(page.cursor, REPLICA_CURSOR))

    async def create(self, key: str, value: bytes, *, lease: int | None = None) -> int | None:
        return await self.transact([Check(key, 0)], [Put(key, value, lease)])

    async def replace(self, key: str, value: bytes, revision: int, *, lease: int | None = None) -> int | None:
        return await self.transact([Check(key, revision)], [Put(key, value, lease)])

    async def delete(self, key: str, revision: int | None = None) -> bool:
        if revision is not None:
            return revision > 0 and await self.transact([Check(key, revision)], [Delete(key)]) is not None
        return await self._ask(await self._resolver.current(), lambda store: store.delete(key))

    async def transact(self, checks: Sequence[Check], writes: Sequence[Write]) -> int | None:
        binding = await self._resolver.current()
        if checks and self._read_from_another(binding):
            return None
        return await self._ask(binding, lambda store: store.transact(checks, writes))

    async def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Batch, None]:
        """See `Store.watch`; also raises StoreSwitched, and FederationUnavailable if access is refused."""
        binding = await self._resolver.current()
        if self._read_from_another(binding):
            raise StoreSwitched
        while True:
            with self._noting_outage(binding), binding.used() as store:
                watch = until_ended(store.watch(prefix, after=after), binding.ended)
                async with contextlib.aclosing(watch):
                    async for batch in watch:
                        after = batch[-1].revision
                        yield batch
            before, binding = binding, await self._resolver.current()
            if binding.name != before.name:
                raise StoreSwitched

    async def grant(self, ttl: int) -> int:
        return await self._ask(await self._resolver.current(), lambda store: store.grant(ttl))

    async def keep_alive(self, lease: int) -> bool:
        return await self._ask(await self._resolver.current(), lambda store: store.keep_alive(lease))

    async def revoke(self, lease: int) -> None:
        await self._ask(await self._resolver.current(), lambda store: store.revoke(lease))

    async def ping(self) -> None:
        await self._ask(await self._resolver.current(), lambda store: store.ping())

    async def close(self) -> None:
        """Close the stores that were opened here; calls in progress finish first."""
        await self._resolver.close()

    # Calls

    async def _read(self, call: Callable[[Store], Awaitable[T]], *, copied: bool) -> T:
        binding = await self._resolver.current()
        task = asyncio.current_task()
        if task is not None:
            self._readers[task] = binding.name
        if binding.is_own or not copied:
            return await self._ask(binding, call)
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                return await self._ask(binding, call)
        except TimeoutError:
            late = federation_unreachable(f"no answer within {READ_TIMEOUT:g} s.")
            self._mark_away(binding, late)
            raise (self._refusal() if self.removed else late) from None

    def _read_from_another(self, binding: StoreBinding) -> bool:
        """Return True if this task last read from another store; only once, since the caller reads again."""
        task = asyncio.current_task()
        last_read = binding.name if task is None else self._readers.pop(task, binding.name)
        return last_read != binding.name

    async def _ask(self, binding: StoreBinding, call: Callable[[Store], Awaitable[T]]) -> T:
        """Make a call, or raise at once while the federation is known to be unreachable."""
        if binding.is_own:
            with binding.used() as store:
                return await call(store)
        if self._away.is_set():
            raise self._refusal()
        return await self._try(binding, call)

    async def _try(self, binding: StoreBinding, call: Callable[[Store], Awaitable[T]]) -> T:
        with self._noting_outage(binding), binding.used() as store:
            answer = await call(store)
        if binding is self._resolver.now:
            self.as_of = self._clock.now()
            if self._away.is_set():
                self._clear_fault()
                log.info("federation.back")
                _call_all(self._on_contact)
        return answer

    @contextlib.contextmanager
    def _noting_outage(self, binding: StoreBinding) -> Iterator[None]:
        """Mark the federation as unreachable if the block raises an outage or a refusal."""
        try:
            yield
        except (StoreUnavailable, StoreUnknown, Unauthorized) as error:
            if binding.is_own or error.code in _ANSWERS:
                raise
            if isinstance(error, FederationUnavailable):
                fault = error
            elif isinstance(error, UserUnknown):
                fault = node_removed(binding.link.federation if binding.link else binding.name)
            else:
                next_step = error.next if isinstance(error, Unauthorized) else None
                fault = federation_unreachable(error.detail, next_step)
            self._mark_away(binding, fault)
            if isinstance(error, StoreUnknown | FederationUnavailable):
                raise
            raise fault from error

    async def _replica_revision(self, key: str, error: FederationUnavailable) -> int:
        """Return the federation's revision that the copies reflect; raises `error` without copies."""
        contact = await self.replica.contact(self.name) if is_replicated(key) else None
        if contact is None or contact.as_of is None:
            raise error
        request_context.note_stale(
            contact.as_of, removed_from=self.link.federation if self.link and self.removed else ""
        )
        return contact.revision

    def _mark_away(self, binding: StoreBinding, fault: FederationUnavailable) -> None:
        if binding is not self._resolver.now:
            return
        was_removed = self.removed
        if not was_removed or isinstance(fault, NodeRemoved):
            self._fault = fault
        if not self._away.is_set():
            self.away_since = self._clock.now()
            self._away.set()
            log.warning("federation.away", as_of=self.as_of, error=fault.detail)
            _call_all(self._on_contact)
        elif self.removed and not was_removed:
            log.warning("federation.away", as_of=self.as_of, error=fault.detail)
            _call_all(self._on_contact)

    def _refusal(self) -> FederationUnavailable:
        """Return a new exception, since raising the same one again would extend its traceback."""
        fault = self._fault or federation_unreachable("")
        return type(fault)(fault.detail, next=fault.next)

    def _clear_fault(self) -> None:
        self._away.clear()
        self._probes = 0
        self.away_since, self._fault = None, None

    # Background work

    async def run(self) -> None:
        """Follow the link and probe an unreachable federation, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._resolver.follow())
            group.create_task(every(0.0, self._probe, name="federation-probe"))

    def _binding_changed(self, before: StoreBinding, binding: StoreBinding) -> None:
        """Handle a switch to another binding."""
        self._clear_fault()
        if before.name != binding.name:
            self.as_of = None
            _call_all(self._on_switch)

    async def _probe(self) -> float:
        """Wait for an outage and probe the federation; return the seconds until the next probe."""
        await self._away.wait()
        self._resolver.reopen(await self._resolver.current())
        try:
            await self._try(await self._resolver.current(), lambda store: store.ping())
        except Unavailable as error:
            log.debug("federation.still_away", error=error.detail)
            self._probes += 1
            return PROBE_BACKOFF.pause(self._probes)
        return 0.0


REPLICA_CURSOR = "copies"  # marks cursors of listings from the replica
_ANSWERS = frozenset({"lease-ended", "store-full", "store-overloaded"})
"""Codes of errors from a store that answers but refuses the call."""


def _call_all(callbacks: Sequence[Callable[[], None]]) -> None:
    for callback in callbacks:
        try:
            callback()
        except Exception:  # it must not stop the other callbacks
            log.exception("federation.callback_failed")


def federation_store(settings: ServiceSettings, own: Store, *, given: Store | None = None) -> FederationStore:
    """Return the configured federation store; `given` replaces MAO_FEDERATION_ENDPOINTS in tests."""
    files = FederationFiles(settings.federation_files())
    endpoints = None if given is not None else settings.federation_endpoints
    return FederationStore(own, settings.node, files, fixed=given, endpoints=endpoints)
