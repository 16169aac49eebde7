"""The store on etcd: aetcd's generated gRPC stubs over one channel per endpoint.

aetcd's client is not used: its ranges cannot combine revision and limit, and its watches end when the server
stops (docs/decisions/0001-aetcd.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Any

import grpc
from aetcd import rpc

from mao_shared import keys
from mao_shared.errors import Compacted, StoreUnavailable, Unavailable
from mao_shared.logs import get_logger

from .endpoints import CALL_TIMEOUT, TlsFiles
from .etcd_auth import Access, range_end
from .etcd_channel import Caller, Endpoint, Observe, RevisionOrLeaseGone, ignore_call, is_lease_gone
from .protocol import (
    UNDECODABLE,
    Batch,
    Check,
    Delete,
    Entry,
    Event,
    Page,
    Put,
    StoreHealth,
    Write,
    check_limits,
    read_cursor,
    write_cursor,
)

IDENTITY_CHECK_PERIOD = 10.0  # seconds


class IdentityGuard:
    """Checks for all watches of a store that etcd still accepts the caller, by one small read per period."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._due = time.monotonic() + IDENTITY_CHECK_PERIOD

    async def next_response(self, call: Any, prefix: str) -> Any:
        """Return the watch's next response; raises Unauthorized or Forbidden once access is lost."""
        reading = asyncio.ensure_future(call.read())
        try:
            while not (await asyncio.wait({reading}, timeout=IDENTITY_CHECK_PERIOD))[0]:
                await self.check(prefix)
            await self.check(prefix)
            return reading.result()
        finally:
            reading.cancel()

    async def check(self, prefix: str) -> None:
        """Raise Unauthorized or Forbidden if access is lost; calls etcd at most once per period."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + IDENTITY_CHECK_PERIOD
        # Serializable: answered by the member alone, without its peers.
        request = rpc.RangeRequest(
            key=prefix.encode(), range_end=range_end(prefix), serializable=True, keys_only=True, limit=1
        )
        read = self._caller.read(
            lambda e: e.kv.Range(request, timeout=self._caller.deadline), Access("read", prefix, prefix=True)
        )
        try:
            with contextlib.suppress(Unavailable):  # the watch reports outages itself
                await read
        except Exception:
            self._due = now  # the other watches check as well
            raise


log = get_logger(__name__)
DEFRAGMENT_TIMEOUT = 60.0  # seconds
WATCH_PAUSE = 0.1  # seconds before a broken watch connects again; doubled up to WATCH_MAX_PAUSE
WATCH_MAX_PAUSE = 1.0
_NEED_LEADER = (
    ("hasleader", "true"),
)  # a member cut off from its cluster ends the watch, not just falls silent


class EtcdStore:
    """A store on etcd, see `protocol.py`. Create it inside a running event loop.

    Args:
        endpoints: `host:port[,host:port…]`; if one does not answer, the next is tried.
        deadline: seconds for one call.
        tls: the client certificate, for an etcd with TLS. The files are read once.
        observe: called with `read` or `write` and the seconds of each call, watches excepted.
    """

    def __init__(
        self,
        endpoints: str,
        *,
        deadline: float = CALL_TIMEOUT,
        tls: TlsFiles | None = None,
        observe: Observe = ignore_call,
    ) -> None:
        self._caller = Caller(endpoints, deadline=deadline, tls=tls, observe=observe)
        self._guard = None if tls is None else IdentityGuard(self._caller)
        self._limit = {"timeout": deadline}

    async def get(self, key: str) -> Entry | None:
        request = rpc.RangeRequest(key=key.encode())
        response = await self._caller.read(lambda e: e.kv.Range(request, **self._limit), Access("read", key))
        return _entry(response.kvs[0]) if response.kvs else None

    async def list(
        self, prefix: str, *, limit: int | None = None, cursor: str | None = None, newest_first: bool = False
    ) -> Page:
        revision, last = (0, None) if cursor is None else read_cursor(cursor, prefix)
        request = _range(prefix, last, newest_first)
        request.revision = revision
        request.limit = limit or 0
        try:
            response = await self._caller.read(
                lambda e: e.kv.Range(request, **self._limit), Access("read", prefix, prefix=True)
            )
        except RevisionOrLeaseGone:
            raise Compacted(revision) from None
        entries = [_entry(kv) for kv in response.kvs if _is_text(kv.key)]
        revision = revision or response.header.revision
        if not response.more or not response.kvs:
            return Page(entries, revision, None)
        last_key = response.kvs[-1].key.decode(errors=UNDECODABLE)
        return Page(entries, revision, write_cursor(revision, prefix, last_key))

    async def create(self, key: str, value: bytes, *, lease: int | None = None) -> int | None:
        return await self.transact([Check(key, 0)], [Put(key, value, lease)])

    async def replace(self, key: str, value: bytes, revision: int, *, lease: int | None = None) -> int | None:
        return await self.transact([Check(key, revision)], [Put(key, value, lease)])

    async def delete(self, key: str, revision: int | None = None) -> bool:
        if revision is not None:
            return revision > 0 and await self.transact([Check(key, revision)], [Delete(key)]) is not None
        request = rpc.DeleteRangeRequest(key=key.encode())
        response = await self._caller.write(
            lambda e: e.kv.DeleteRange(request, **self._limit), Access("write", key)
        )
        return bool(response.deleted)

    async def transact(self, checks: Sequence[Check], writes: Sequence[Write]) -> int | None:
        check_limits(checks, writes)
        request = rpc.TxnRequest(
            compare=[_compare(check) for check in checks], success=[_operation(write) for write in writes]
        )
        accesses = [Access("read", check.key) for check in checks]
        accesses += [Access("write", write.key) for write in writes]
        response = await self._caller.write(lambda e: e.kv.Txn(request, **self._limit), *accesses)
        return response.header.revision if response.succeeded else None

    async def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Batch, None]:
        """Yield batches of changes, see the protocol.

        Progress notifications are not requested: they would only avoid a relist when the prefix was idle, the
        connection broke and etcd compacted meanwhile.
        """
        tries = 0  # consecutive attempts without a response
        while True:
            endpoint = self._caller.current
            try:
                async with contextlib.aclosing(self._watch_once(endpoint, prefix, after)) as responses:
                    async for batch in responses:
                        tries = 0
                        if batch:
                            after = batch[-1].revision
                            yield batch
            except _WatchBroken as broken:
                access = Access("read", prefix, prefix=True)
                if refused := await self._caller.refusal(endpoint, str(broken), [access]):
                    raise refused from broken
                if tries == 0:  # the first time, not at every attempt
                    log.warning("store.watch_broken", prefix=prefix, after=after, reason=str(broken))
            self._caller.leave(endpoint)
            tries += 1
            await asyncio.sleep(min(WATCH_PAUSE * 2 ** min(tries - 1, 10), WATCH_MAX_PAUSE))

    async def _watch_once(self, endpoint: Endpoint, prefix: str, after: int) -> AsyncGenerator[Batch, None]:
        """Yield batches after `after` from one stream; empty ones show that the server answers.

        The watch starts at `after` itself and drops known changes: many versions of etcd lose a deletion at
        exactly the compacted revision if a watch starts there (etcd issues 18089, 19179).
        """
        # Not fragmented: each response contains whole revisions, so the watch can resume after its last one.
        create = rpc.WatchCreateRequest(
            key=prefix.encode(), range_end=range_end(prefix), start_revision=max(after, 1)
        )
        call = endpoint.watch.Watch(metadata=_NEED_LEADER)
        try:
            await call.write(rpc.WatchRequest(create_request=create))
            guard = self._guard
            read = call.read if guard is None else partial(guard.next_response, call, prefix)
            while (response := await read()) is not grpc.aio.EOF:
                if response.compact_revision:
                    raise Compacted(response.compact_revision)
                if response.canceled:
                    raise _WatchBroken(response.cancel_reason)
                if response.created and response.header.revision < after:  # the store was reset
                    raise Compacted(after)
                events = (event for event in response.events if _is_text(event.kv.key))
                yield [_event(event) for event in events if event.kv.mod_revision > after]
        except grpc.aio.AioRpcError as error:
            raise _WatchBroken(error.details()) from error
        except asyncio.InvalidStateError as error:  # the stream ended between two calls
            raise _WatchBroken(str(error)) from error
        finally:
            call.cancel()
        raise _WatchBroken("end of stream")

    async def grant(self, ttl: int) -> int:
        request = rpc.LeaseGrantRequest(TTL=ttl)
        response = await self._caller.write(lambda e: e.lease.LeaseGrant(request, **self._limit))
        return int(response.ID)

    async def keep_alive(self, lease: int) -> bool:
        if self._guard is not None:  # etcd renews leases even for removed users
            await self._guard.check(f"{keys.ROOT}/")
        return bool(await self._caller.read(lambda e: self._keep_alive_once(e, lease)))

    async def _keep_alive_once(self, endpoint: Endpoint, lease: int) -> bool:
        call = endpoint.lease.LeaseKeepAlive(metadata=_NEED_LEADER, **self._limit)
        try:
            await call.write(rpc.LeaseKeepAliveRequest(ID=lease))
            response = await call.read()
        finally:
            call.cancel()
        if response is grpc.aio.EOF:
            raise StoreUnavailable(f"etcd at {endpoint.address} ended a lease's renewal without an answer.")
        return bool(response.TTL > 0)

    async def revoke(self, lease: int) -> None:
        request = rpc.LeaseRevokeRequest(ID=lease)
        with contextlib.suppress(RevisionOrLeaseGone):
            await self._caller.write(
                lambda e: e.lease.LeaseRevoke(request, **self._limit), gone=is_lease_gone
            )

    async def ping(self) -> None:
        await self.get(f"{keys.ROOT}/health")  # readable for every member of a federation

    async def examine(self) -> StoreHealth:
        """Return the health reported by the current member; only `ping` shows whether it has quorum."""
        status = await self._caller.read(lambda e: e.maintenance.Status(rpc.StatusRequest(), **self._limit))
        errors = " ".join(status.errors)
        alarms = frozenset(word for word in ("NOSPACE", "CORRUPT") if word in errors)
        return StoreHealth(status.header.revision, status.dbSize, alarms, status.dbSizeInUse)

    async def defragment(self) -> None:
        request, limit = rpc.DefragmentRequest(), {"timeout": DEFRAGMENT_TIMEOUT}
        await self._caller.write(lambda e: e.maintenance.Defragment(request, **limit))

    async def close(self) -> None:
        await self._caller.close()


def _is_text(key: bytes) -> bool:
    """Return True for UTF-8, like all of MAO's keys; listings and watches omit other keys."""
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True


class _WatchBroken(Exception):
    """The stream of a watch ended; connect again."""


def _range(prefix: str, last: str | None, newest_first: bool) -> Any:
    """Return the range of all keys under `prefix`, or of those after `last` in the listing's order."""
    start, end = prefix.encode(), range_end(prefix)
    if not newest_first:
        after = start if last is None else last.encode(errors=UNDECODABLE) + b"\0"
        return rpc.RangeRequest(key=after, range_end=end)
    return rpc.RangeRequest(
        key=start,
        range_end=end if last is None else last.encode(errors=UNDECODABLE),
        sort_order=rpc.RangeRequest.DESCEND,
        sort_target=rpc.RangeRequest.KEY,
    )


def _compare(check: Check) -> Any:
    return rpc.Compare(
        result=rpc.Compare.EQUAL,
        target=rpc.Compare.MOD,
        key=check.key.encode(),
        range_end=b"" if check.until is None else check.until.encode(),
        mod_revision=check.revision,  # of an absent key: 0
    )


def _operation(write: Write) -> Any:
    if isinstance(write, Delete):
        return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=write.key.encode()))
    put = rpc.PutRequest(key=write.key.encode(), value=write.value, lease=write.lease or 0)
    return rpc.RequestOp(request_put=put)


def _entry(kv: Any) -> Entry:
    return Entry(kv.key.decode(), kv.value, kv.mod_revision, bool(kv.lease))


def _event(event: Any) -> Event:
    entry = _entry(event.kv)
    deleted = event.type == event.DELETE
    return Event(entry.key, entry.revision, None if deleted else entry)
