"""The store on etcd: aetcd's generated gRPC stubs over one channel an endpoint.

aetcd's own client is not used: its ranges have no revision and no limit together, and its watches end
with the server (docs/decisions/0001-aetcd.md).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

import grpc
from aetcd import rpc
from aetcd.rpc import rpc_pb2_grpc

from mao_shared.errors import Compacted, StoreUnavailable
from mao_shared.logs import get_logger

from .cursor import cursor_invalid, read_cursor, write_cursor
from .endpoints import parse_endpoints
from .etcd_errors import is_compacted, is_future, is_lease_gone, is_outage, never_sent, translate
from .limits import check_limits
from .protocol import Batch, Check, Delete, Entry, Event, Page, Put, Write

log = get_logger(__name__)

DEADLINE = 5.0  # seconds a call may take
WATCH_PAUSE = 0.1  # seconds before a broken watch connects again; doubled up to WATCH_MAX_PAUSE
WATCH_MAX_PAUSE = 1.0
_NEED_LEADER = (
    ("hasleader", "true"),
)  # a member cut off from its cluster ends the watch, not just falls silent

_CHANNEL_OPTIONS = (
    # Recovery within a second of the server's, instead of gRPC's back-off of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),  # in fact the limit for one attempt to connect
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),  # a recreated container has a new address
    # Notices a silent peer under an idle watch; etcd refuses pings more often than every 5 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # without it gRPC waits a minute, whatever the line above says
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", -1),  # the default of 4 MB is less than a page of large records
    ("grpc.enable_http_proxy", 0),
)


class _Endpoint:
    """One etcd member: its channel and the stubs on it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        self.kv: Any = rpc_pb2_grpc.KVStub(self.channel)
        self.lease: Any = rpc_pb2_grpc.LeaseStub(self.channel)
        self.watch: Any = rpc_pb2_grpc.WatchStub(self.channel)


class EtcdStore:
    """Keeps the contract of `protocol.py`; must be made inside a running event loop.

    Args:
        endpoints: `host:port[,host:port…]`; another one is tried when the one in use does not answer.
        deadline: seconds that one call may take.
    """

    def __init__(self, endpoints: str, *, deadline: float = DEADLINE) -> None:
        self._endpoints = [_Endpoint(address) for address in parse_endpoints(endpoints)]
        self._current = 0
        self._deadline = deadline

    async def get(self, key: str) -> Entry | None:
        response = await self._read(lambda e: e.kv.Range(rpc.RangeRequest(key=key.encode()), **self._limit))
        return _entry(response.kvs[0]) if response.kvs else None

    async def list(
        self, prefix: str, *, limit: int | None = None, cursor: str | None = None, newest_first: bool = False
    ) -> Page:
        revision, last = (0, None) if cursor is None else read_cursor(cursor, prefix)
        request = _range(prefix, last, newest_first)
        request.revision = revision
        request.limit = limit or 0
        try:
            response = await self._read(lambda e: e.kv.Range(request, **self._limit))
        except _Gone:
            raise Compacted(revision) from None
        entries = [_entry(kv) for kv in response.kvs]
        revision = revision or response.header.revision
        more = response.more and entries
        return Page(entries, revision, write_cursor(revision, prefix, entries[-1].key) if more else None)

    async def create(self, key: str, value: bytes, *, lease: int | None = None) -> int | None:
        return await self.transact([Check(key, 0)], [Put(key, value, lease)])

    async def replace(self, key: str, value: bytes, revision: int, *, lease: int | None = None) -> int | None:
        return await self.transact([Check(key, revision)], [Put(key, value, lease)])

    async def delete(self, key: str, revision: int | None = None) -> bool:
        if revision is not None:
            return revision > 0 and await self.transact([Check(key, revision)], [Delete(key)]) is not None
        request = rpc.DeleteRangeRequest(key=key.encode())
        response = await self._write(lambda e: e.kv.DeleteRange(request, **self._limit))
        return bool(response.deleted)

    async def transact(self, checks: Sequence[Check], writes: Sequence[Write]) -> int | None:
        check_limits(checks, writes)
        request = rpc.TxnRequest(
            compare=[_compare(check) for check in checks], success=[_operation(write) for write in writes]
        )
        response = await self._write(lambda e: e.kv.Txn(request, **self._limit))
        return response.header.revision if response.succeeded else None

    async def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Batch, None]:
        """See the protocol. No progress notifications are asked for: they would only spare a relist
        when a prefix was idle, the connection broke and etcd compacted meanwhile.
        """
        pause = WATCH_PAUSE
        while True:
            endpoint = self._endpoints[self._current]
            try:
                async with contextlib.aclosing(_watch_once(endpoint, prefix, after)) as responses:
                    async for batch in responses:
                        pause = WATCH_PAUSE
                        if batch:
                            after = batch[-1].revision
                            yield batch
            except _WatchBroken as broken:
                if pause == WATCH_PAUSE:  # the first time, not at every attempt
                    log.warning("store.watch_broken", prefix=prefix, after=after, reason=str(broken))
            self._leave(endpoint)
            await asyncio.sleep(pause)
            pause = min(2 * pause, WATCH_MAX_PAUSE)

    async def grant(self, ttl: int) -> int:
        request = rpc.LeaseGrantRequest(TTL=ttl)
        response = await self._write(lambda e: e.lease.LeaseGrant(request, **self._limit))
        return int(response.ID)

    async def keep_alive(self, lease: int) -> bool:
        return bool(await self._read(lambda e: self._keep_alive_once(e, lease)))

    async def _keep_alive_once(self, endpoint: _Endpoint, lease: int) -> bool:
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
        with contextlib.suppress(_Gone):
            await self._write(lambda e: e.lease.LeaseRevoke(request, **self._limit), gone=is_lease_gone)

    async def ping(self) -> None:
        await self.get("health")

    async def close(self) -> None:
        for endpoint in self._endpoints:
            await endpoint.channel.close()

    @property
    def _limit(self) -> dict[str, float]:
        return {"timeout": self._deadline}

    async def _read(self, call: Callable[[_Endpoint], Awaitable[Any]]) -> Any:
        return await self._call(call, write=False, gone=is_compacted)

    async def _write(
        self, call: Callable[[_Endpoint], Awaitable[Any]], gone: Callable[[str], bool] = lambda _: False
    ) -> Any:
        return await self._call(call, write=True, gone=gone)

    async def _call(
        self, call: Callable[[_Endpoint], Awaitable[Any]], *, write: bool, gone: Callable[[str], bool]
    ) -> Any:
        """Makes one call; tries the other endpoints as long as surely nothing was sent."""
        tries = len(self._endpoints)
        while True:
            endpoint = self._endpoints[self._current]
            tries -= 1
            try:
                return await call(endpoint)
            except grpc.aio.AioRpcError as error:
                code, details = error.code(), error.details() or ""
            if is_outage(code):
                self._leave(endpoint)
            if not (tries and never_sent(code, details)):
                break
        if gone(details):
            raise _Gone
        if is_future(details):
            raise cursor_invalid()
        raise translate(code, details, endpoint=endpoint.address, write=write)

    def _leave(self, endpoint: _Endpoint) -> None:
        """Lets the next call use another endpoint, unless somebody has seen to it already."""
        if endpoint is self._endpoints[self._current]:
            self._current = (self._current + 1) % len(self._endpoints)


class _Gone(Exception):
    """The revision or lease asked for is not there any more."""


class _WatchBroken(Exception):
    """The stream of a watch ended; connect again."""


async def _watch_once(endpoint: _Endpoint, prefix: str, after: int) -> AsyncGenerator[Batch, None]:
    """Batches above `after` from one stream; empty ones tell that the server is there.

    The server is asked from `after` itself on and what is known is dropped: many versions of etcd lose a
    deletion at exactly the compacted revision when a watch begins there (etcd issues 18089, 19179).
    """
    call = endpoint.watch.Watch(metadata=_NEED_LEADER)
    try:
        await call.write(rpc.WatchRequest(create_request=_watch_request(prefix, after)))
        while (response := await call.read()) is not grpc.aio.EOF:
            _check_watch(response, after)
            yield [_event(event) for event in response.events if event.kv.mod_revision > after]
    except grpc.aio.AioRpcError as error:
        raise _WatchBroken(error.details()) from error
    except asyncio.InvalidStateError as error:  # the stream ended between two of our calls
        raise _WatchBroken(str(error)) from error
    finally:
        call.cancel()
    raise _WatchBroken("end of stream")


def _check_watch(response: Any, after: int) -> None:
    """Raises Compacted for a gap (a store that was set back is one as well), _WatchBroken to begin anew."""
    if response.compact_revision:
        raise Compacted(response.compact_revision)
    if response.canceled:
        raise _WatchBroken(response.cancel_reason)
    if response.created and response.header.revision < after:
        raise Compacted(after)


def _watch_request(prefix: str, after: int) -> Any:
    # Not fragmented: a response then holds whole revisions, so that its last one is where to resume.
    return rpc.WatchCreateRequest(
        key=prefix.encode(), range_end=_range_end(prefix), start_revision=max(after, 1)
    )


def _range(prefix: str, last: str | None, newest_first: bool) -> Any:
    """All keys under `prefix`, or those behind `last` in the direction of the listing."""
    start, end = prefix.encode(), _range_end(prefix)
    if not newest_first:
        return rpc.RangeRequest(key=start if last is None else last.encode() + b"\0", range_end=end)
    return rpc.RangeRequest(
        key=start,
        range_end=end if last is None else last.encode(),
        sort_order=rpc.RangeRequest.DESCEND,
        sort_target=rpc.RangeRequest.KEY,
    )


def _range_end(prefix: str) -> bytes:
    """The first key behind all that begin with `prefix` (which never ends in byte 255: it is UTF-8)."""
    raw = prefix.encode()
    return raw[:-1] + bytes([raw[-1] + 1]) if raw else b"\0"


def _compare(check: Check) -> Any:
    return rpc.Compare(
        result=rpc.Compare.EQUAL,
        target=rpc.Compare.MOD,
        key=check.key.encode(),
        mod_revision=check.revision,  # of an absent key: 0
    )


def _operation(write: Write) -> Any:
    if isinstance(write, Delete):
        return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=write.key.encode()))
    put = rpc.PutRequest(key=write.key.encode(), value=write.value, lease=write.lease or 0)
    return rpc.RequestOp(request_put=put)


def _entry(kv: Any) -> Entry:
    return Entry(kv.key.decode(), kv.value, kv.mod_revision)


def _event(event: Any) -> Event:
    entry = _entry(event.kv)
    deleted = event.type == event.DELETE
    return Event(entry.key, entry.revision, None if deleted else entry)
