"""Connections to etcd's members, rules for retries, and translation of etcd's errors.

Where one gRPC status covers several conditions, they are distinguished by etcd's message.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import grpc
from aetcd import rpc
from aetcd.rpc import rpc_pb2_grpc
from grpc import StatusCode

from mao_shared.errors import Conflict, FederationUnavailable, MaoError, StoreUnavailable, StoreUnknown

from .endpoints import TlsFiles, parse_endpoints
from .etcd_auth import (
    Access,
    Kind,
    Permission,
    forbidden,
    identity_refused,
    is_certificate_refused,
    is_denied,
    is_no_user,
    is_not_accepted,
    is_outdated,
    user_unknown,
)
from .protocol import cursor_invalid, lease_ended

_NEVER_SENT = (
    "failed to connect to all addresses",
    "dns resolution failed",
    "name resolution",
    "rpc not supported for learner",  # a learner rejects it without forwarding
)
_UNHEALTHY = "etcdserver: unhealthy cluster"  # refuses membership changes that could lose quorum
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
_REFUSALS = frozenset(
    {
        StatusCode.FAILED_PRECONDITION,
        StatusCode.NOT_FOUND,
        StatusCode.ALREADY_EXISTS,
        StatusCode.INVALID_ARGUMENT,
    }
)
_LEASE_GONE = "requested lease not found"
_TORN = {"Internal error from Core": "the connection broke off"}  # gRPC's message in some versions
_COMPACTED = "required revision has been compacted"
_FUTURE = "required revision is a future revision"


def never_sent(code: StatusCode, details: str) -> bool:
    """Return True if the request has certainly not been sent."""
    return code is StatusCode.UNAVAILABLE and any(text in details.lower() for text in _NEVER_SENT)


def is_outage(code: StatusCode, details: str) -> bool:
    """Return True if another endpoint may answer."""
    return code in (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED) or details in _TORN


def is_compacted(details: str) -> bool:
    return _COMPACTED in details


def is_future(details: str) -> bool:
    return _FUTURE in details


def is_lease_gone(details: str) -> bool:
    return _LEASE_GONE in details


def translate(
    code: StatusCode, details: str, *, endpoint: str, write: bool, shared: bool = False
) -> MaoError:
    """Return the exception for a failed call; a write is unknown unless it certainly was not applied.

    `shared`: a federation's etcd, not the one in this node's settings.
    """
    if is_lease_gone(details):
        return lease_ended()
    if code is StatusCode.RESOURCE_EXHAUSTED:
        return _refused(details, endpoint)
    if _UNTRUSTED in details:
        return StoreUnavailable(
            f"The server at {endpoint} has no certificate from the federation's authority for that address.",
            code="store-not-trusted",
            next="Compare the federation's endpoints with 'maoctl federation list'; another program may "
            "listen there, or the federation was created again.",
        )
    if _UNHEALTHY in details:
        return StoreUnavailable(
            f"etcd at {endpoint} refuses membership changes until all members are connected for 5 s.",
            code="etcd-unhealthy",
            next="Find the member that is down with 'maoctl federation show'; try again when all are back.",
        )
    if code in _REFUSALS:
        return Conflict(f"etcd at {endpoint} refused: {details}.", code="etcd-refused")
    if write and not never_sent(code, details):
        return StoreUnknown(
            f"etcd at {endpoint} did not confirm a write ({_reason(code, details)}); "
            "it may have been applied or not.",
            next="Read the record again before repeating the command.",
        )
    if shared:
        return StoreUnavailable(
            f"etcd at {endpoint} does not answer ({_reason(code, details)}).",
            code=FEDERATION_AWAY,
            next="Check that its core nodes are running ('maoctl federation list' there) and that this "
            "machine can reach that port; then try again.",
        )
    return StoreUnavailable(
        f"etcd at {endpoint} does not answer ({_reason(code, details)}).",
        next="Start etcd or correct MAO_ETCD_ENDPOINTS; 'maoctl doctor' shows more.",
    )


FEDERATION_AWAY = FederationUnavailable.default_code


def _refused(details: str, endpoint: str) -> StoreUnavailable:
    if "database space exceeded" in details:
        return StoreUnavailable(
            f"etcd at {endpoint} is full and accepts no writes ({details}).",
            code="store-full",
            next="Free space with 'etcdctl compact', 'etcdctl defrag' and 'etcdctl alarm disarm', "
            "or start etcd with a larger --quota-backend-bytes.",
        )
    return StoreUnavailable(
        f"etcd at {endpoint} is overloaded ({details}); nothing was written.",
        code="store-overloaded",
        next="Try again in a moment; if it persists, check etcd's disk latency.",
    )


def _reason(code: StatusCode, details: str) -> str:
    if never_sent(code, details):
        return "no connection"
    if code is StatusCode.DEADLINE_EXCEEDED:
        return "timed out"
    if details in _TORN:
        return _TORN[details]
    return f"{code.name.lower().replace('_', ' ')}: {details}" if details else code.name.lower()


OUTDATED_TRIES = 20  # while users change; each change can fail one attempt
OUTDATED_PAUSE = 0.02  # seconds
CHANNEL_OPTIONS = (
    # Reconnect within a second of the server's recovery, instead of a back-off of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),  # effectively the timeout of one connection attempt
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),  # a recreated container has a new address
    # Detect a silent peer during an idle watch; etcd rejects pings more often than every 5 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # default: a minute, regardless of the line above
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", -1),  # the default of 4 MB is too small for a page of large records
    ("grpc.enable_http_proxy", 0),
)
KINDS: dict[int, Kind] = {0: "read", 1: "write", 2: "readwrite"}


class Endpoint:
    """One etcd member: its channel and the stubs on it."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None) -> None:
        self.address = address
        if credentials is None:
            self.channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        else:
            self.channel = grpc.aio.secure_channel(address, credentials, options=CHANNEL_OPTIONS)
        self.kv: Any = rpc_pb2_grpc.KVStub(self.channel)
        self.lease: Any = rpc_pb2_grpc.LeaseStub(self.channel)
        self.watch: Any = rpc_pb2_grpc.WatchStub(self.channel)
        self.auth: Any = rpc_pb2_grpc.AuthStub(self.channel)
        self.cluster: Any = rpc_pb2_grpc.ClusterStub(self.channel)
        self.maintenance: Any = rpc_pb2_grpc.MaintenanceStub(self.channel)


Call = Callable[[Endpoint], Awaitable[Any]]
Observe = Callable[[str, float], None]


def ignore_call(operation: str, seconds: float) -> None:
    """Observe nothing."""


class RevisionOrLeaseGone(Exception):
    """The requested revision or lease no longer exists."""


class Caller:
    """Makes calls to one of several members. Create it inside a running event loop.

    Args:
        endpoints: `host:port[,…]` or `unix:///path`; if one does not answer, the next is tried.
        deadline: seconds for one call.
        tls: the client certificate; None for an etcd without TLS.
        observe: called with `read` or `write` and the seconds of each call, whatever its outcome.
    """

    def __init__(
        self, endpoints: str, *, deadline: float, tls: TlsFiles | None, observe: Observe = ignore_call
    ) -> None:
        material = None if tls is None else tls.read()
        credentials = None
        if material is not None:
            credentials = grpc.ssl_channel_credentials(material.ca, material.key, material.certificate)
        self._material = material
        self.endpoints = [Endpoint(address, credentials) for address in parse_endpoints(endpoints)]
        self.deadline = deadline
        self._observe = observe
        self._current = 0

    @property
    def current(self) -> Endpoint:
        return self.endpoints[self._current]

    def leave(self, endpoint: Endpoint) -> None:
        """Switch to the next endpoint, unless another call has already."""
        if endpoint is self.current:
            self._current = (self._current + 1) % len(self.endpoints)

    async def close(self) -> None:
        for endpoint in self.endpoints:
            await endpoint.channel.close()

    async def read(self, call: Call, *accesses: Access) -> Any:
        return await self._timed(call, accesses, write=False, gone=is_compacted)

    async def write(
        self, call: Call, *accesses: Access, gone: Callable[[str], bool] = lambda _: False
    ) -> Any:
        return await self._timed(call, accesses, write=True, gone=gone)

    async def _timed(
        self, call: Call, accesses: Sequence[Access], *, write: bool, gone: Callable[[str], bool]
    ) -> Any:
        began = time.perf_counter()
        try:
            return await self._call(call, accesses, write=write, gone=gone)
        finally:
            self._observe("write" if write else "read", time.perf_counter() - began)

    async def _call(
        self, call: Call, accesses: Sequence[Access], *, write: bool, gone: Callable[[str], bool]
    ) -> Any:
        """Make one call; try the other endpoints while nothing was certainly sent."""
        tries, outdated = len(self.endpoints), OUTDATED_TRIES
        while True:
            endpoint = self.current
            try:
                return await call(endpoint)
            except grpc.aio.AioRpcError as error:
                code, details = error.code(), error.details() or ""
            if outdated and is_outdated(details):
                outdated -= 1
                await asyncio.sleep(OUTDATED_PAUSE)
                continue
            tries -= 1
            if is_outage(code, details):
                self.leave(endpoint)
            if not (tries and never_sent(code, details)):
                break
        if gone(details):
            raise RevisionOrLeaseGone
        if is_future(details):
            raise cursor_invalid()
        if refused := await self.refusal(endpoint, details, accesses):
            raise refused
        raise translate(
            code, details, endpoint=endpoint.address, write=write, shared=self._material is not None
        )

    async def refusal(self, endpoint: Endpoint, details: str, accesses: Sequence[Access]) -> MaoError | None:
        """Return the error if authentication or authorisation failed, otherwise None."""
        if is_certificate_refused(details):
            expires_at = None if self._material is None else self._material.expires_at
            if expires_at is not None and expires_at <= datetime.now(UTC):
                why = f"its certificate expired at {expires_at:%Y-%m-%d %H:%M} UTC"
            else:
                why = "its certificate is not one of the federation's authority, or not valid by etcd's clock"
            return identity_refused(self.user, why)
        if is_not_accepted(details):
            return identity_refused(self.user, details)
        if not is_denied(details) and not is_no_user(details):
            return None
        permissions: list[Permission] = []
        try:
            user = await endpoint.auth.UserGet(rpc.AuthUserGetRequest(name=self.user), timeout=self.deadline)
            for name in user.roles:
                request = rpc.AuthRoleGetRequest(role=name)
                role = await endpoint.auth.RoleGet(request, timeout=self.deadline)
                permissions += [
                    Permission(KINDS[granted.permType], granted.key, granted.range_end)
                    for granted in role.perm
                ]
        except grpc.aio.AioRpcError as error:
            if is_no_user(error.details() or ""):
                return user_unknown(self.user)
            permissions = []
        return forbidden(self.user, accesses, permissions) if is_denied(details) else None

    @property
    def user(self) -> str:
        """Name of the caller for error messages."""
        return "a caller without a certificate" if self._material is None else self._material.user
