"""The context of federation commands: this node's store, files and address, and the shared records."""

from __future__ import annotations

import ipaddress
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from mao_shared import keys
from mao_shared.clock import Clock
from mao_shared.errors import Conflict, Forbidden, NotFound
from mao_shared.models import CertificateRequest, CoreMember, FederationInfo, Identity, Link, Member
from mao_shared.store import Records, Store, Stored, Unreadable
from mao_shared.store.endpoints import TlsFiles

from . import pki
from .files import RegistryFiles

if TYPE_CHECKING:
    from mao_shared.store.etcd_admin import Admin

OpenStore = Callable[[str, TlsFiles], Store]
OpenAdmin = Callable[[str, TlsFiles], "Admin"]
LINK = "link"  # the only name among `FederationContext.links`


@dataclass(frozen=True, slots=True)
class EtcdAddress:
    """The address of a core node's etcd: other nodes reach it at `host`, it listens on `bind`."""

    host: str
    port: int
    peer_port: int
    bind: str | None = None

    @property
    def client(self) -> str:
        return f"{_bracketed(self.host)}:{self.port}"

    @property
    def peer(self) -> str:
        return f"{_bracketed(self.host)}:{self.peer_port}"

    @property
    def peer_url(self) -> str:
        return f"https://{self.peer}"

    def listen_host(self) -> str:
        """Return `bind` if set; otherwise loopback for a loopback `host`, and all interfaces for others."""
        if self.bind:
            return _bracketed(self.bind)
        try:
            loopback = ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            loopback = self.host == "localhost"
        if not loopback:
            return "0.0.0.0"  # noqa: S104 (clients need a certificate of the federation)
        return "127.0.0.1" if self.host == "localhost" else _bracketed(self.host)


@dataclass(frozen=True)
class FederationContext:
    """The dependencies of federation commands on this node.

    Args:
        own: the node's own store.
        address: where other nodes reach this node's etcd; without it the node never becomes a core node.
        notify_supervisor: makes the supervisor reload etcd's configuration.
        pinned: the settings name the federation's etcd, so that the node cannot create or join one.
    """

    node: str
    own: Store
    files: RegistryFiles
    address: EtcdAddress | None
    clock: Clock
    notify_supervisor: Callable[[], None]
    open_store: OpenStore
    open_admin: OpenAdmin
    pinned: bool = False
    unreadable: Unreadable = field(default_factory=Unreadable)

    @property
    def now(self) -> datetime:
        return self.clock.now()

    @property
    def links(self) -> Records[Link]:
        """The record of the link: at most one, named LINK."""
        return Records(self.own, keys.link(self.node).removesuffix(LINK), Link, self.unreadable)

    async def find_link(self) -> Stored[Link] | None:
        return await self.links.get(LINK)

    async def link(self) -> Link:
        """Return the link to the federation. Raises NotFound (`no-federation`)."""
        stored = await self.find_link()
        if stored is None:
            raise not_in_federation(self.node)
        return stored.record

    async def write_link(self, link: Link) -> Link:
        """Write the link unless there is one already; return the one that is stored."""
        stored = await self.links.create_or_update(LINK, lambda current: current or link)
        assert stored is not None  # noqa: S101 (the function never returns None)
        return stored.record

    def check_not_pinned(self) -> None:
        """Raise Conflict (`federation-is-set`) if the settings pin the federation's etcd."""
        if self.pinned:
            raise Conflict(
                "This node's federation is the plain etcd address in MAO_FEDERATION_ENDPOINTS.",
                code="federation-is-set",
                next="Unset MAO_FEDERATION_ENDPOINTS, restart the node, and repeat the command.",
            )

    @asynccontextmanager
    async def connect(self, endpoints: Iterable[str], tls: TlsFiles | None = None) -> AsyncIterator[Store]:
        """Connect to the federation's etcd, by default with this node's certificate."""
        store = self.open_store(",".join(endpoints), tls or self.files.tls())
        try:
            yield store
        finally:
            await store.close()

    @asynccontextmanager
    async def connect_admin(self, endpoints: Iterable[str]) -> AsyncIterator[Admin]:
        admin = self.open_admin(",".join(endpoints), self.files.tls())
        try:
            yield admin
        finally:
            await admin.close()

    @asynccontextmanager
    async def connect_both(self, endpoints: list[str]) -> AsyncIterator[tuple[Store, Admin]]:
        async with self.connect(endpoints) as store, self.connect_admin(endpoints) as admin:
            yield store, admin

    @asynccontextmanager
    async def connect_without(self, node: str, link: Link) -> AsyncIterator[tuple[Store, Admin]]:
        """Connect like `connect_both`, but not to the etcd member of `node`, which may be stopping."""
        async with self.connect(link.endpoints) as store:
            core = await FederationRecords(store).cores.get(node)
        others = [endpoint for endpoint in link.endpoints if core is None or endpoint != core.record.client]
        async with self.connect_both(others or link.endpoints) as connected:
            yield connected


@dataclass(frozen=True)
class FederationRecords:
    """The federation's records about itself and its members."""

    store: Store

    @property
    def identities(self) -> Records[Identity]:
        return Records(self.store, keys.identities_prefix(), Identity)

    @property
    def cores(self) -> Records[CoreMember]:
        return Records(self.store, keys.cores_prefix(), CoreMember)

    @property
    def requests(self) -> Records[CertificateRequest]:
        return Records(self.store, keys.certificate_requests_prefix(), CertificateRequest)

    @property
    def members(self) -> Records[Member]:
        return Records(self.store, keys.members_prefix(), Member)

    async def voters(self) -> list[CoreMember]:
        """Return the core nodes whose etcd member has a vote, sorted by name."""
        cores = (await self.cores.by_name()).values()
        return sorted((core for core in cores if not core.learner), key=lambda core: core.node)

    async def info(self) -> FederationInfo:
        """Return the federation's name and id. Raises NotFound (`federation-unknown`)."""
        prefix, _, name = keys.federation().rpartition("/")
        stored = await Records(self.store, f"{prefix}/", FederationInfo).get(name)
        if stored is None:
            raise NotFound(
                "The federation's store does not record which federation it belongs to.",
                code="federation-unknown",
                next="On the node that created it, complete the command: maoctl federation create NAME",
            )
        return stored.record

    async def authority(self) -> pki.Authority:
        """Return the authority for clients and servers. Raises like `_authority`."""
        return await self._authority(keys.authority())

    async def peer_authority(self) -> pki.Authority:
        """Return the authority for the peer connections of etcd's members. Raises like `_authority`."""
        return await self._authority(keys.peer_authority())

    async def _authority(self, key: str) -> pki.Authority:
        """Read an authority. Raises Forbidden unless this is a core node, Conflict (`authority-missing`)."""
        entry = await self.store.get(key)
        if entry is None:
            raise Conflict(
                "The federation's store does not hold its authority's key.",
                code="authority-missing",
                next="Restore its etcd from its data or a snapshot: no node's backup has it. Or create it "
                "again: 'maoctl federation leave --force' on each node, then docs/federation.md.",
            )
        return pki.Authority.model_validate_json(entry.value)


async def check_core(store: Store, link: Link, command: str) -> None:
    """Raise Forbidden (`not-core`) with the names of the core nodes unless this node is one."""
    cores = [core.node for core in await FederationRecords(store).voters()]
    if link.node in cores:
        return
    raise Forbidden(
        f"Only core nodes may do this; in {link.federation!r} these are {', '.join(cores) or 'none now'}.",
        code="not-core",
        next=f"On one of them: {command}.",
    )


def in_federation(name: str) -> Conflict:
    return Conflict(
        f"This node is already in the federation {name!r}.",
        code="in-federation",
        next="See it with 'maoctl federation show'; leave it first: maoctl federation leave",
    )


def not_in_federation(node: str) -> NotFound:
    return NotFound(
        f"The node {node!r} is in no federation.",
        code="no-federation",
        next="Create one with 'maoctl federation create NAME', or join one: maoctl federation join TOKEN",
    )


def signal_supervisor() -> None:
    """Make the supervisor of a native node reload etcd's configuration; in a container, a loop does."""
    pid = os.environ.get("MAO_SUPERVISOR", "")
    if pid.isdigit():
        os.kill(int(pid), signal.SIGUSR1)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
