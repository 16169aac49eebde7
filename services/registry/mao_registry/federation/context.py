"""What federation commands work with: this node's stores, files and address; shared records.

What the commands of a federation work with: this node's stores, files and place, and shared records.
"""

from __future__ import annotations

import ipaddress
import os
import signal
from collections.abc import AsyncIterator, Callable
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
from .files import AuthorityPem, RegistryFiles, authority_of

if TYPE_CHECKING:
    from mao_shared.store.etcd_admin import Admin

OpenStore = Callable[[str, TlsFiles], Store]

OpenAdmin = Callable[[str, TlsFiles], "Admin"]


@dataclass(frozen=True, slots=True)
class EtcdAddress:
    """Where a core node's etcd listens: `address` is how other nodes reach it, `bind` what it listens on."""

    address: str
    port: int
    peer_port: int
    bind: str | None = None

    @property
    def client(self) -> str:
        return f"{_bracketed(self.address)}:{self.port}"

    @property
    def peer(self) -> str:
        return f"{_bracketed(self.address)}:{self.peer_port}"

    @property
    def peer_url(self) -> str:
        return f"https://{self.peer}"

    def listens_on(self) -> str:
        """All interfaces unless told otherwise; a node reached by a loopback address does not leave it."""
        if self.bind:
            return _bracketed(self.bind)
        try:
            loopback = ipaddress.ip_address(self.address).is_loopback
        except ValueError:
            loopback = self.address == "localhost"
        if not loopback:
            return "0.0.0.0"  # noqa: S104 (only certificates of the federation get in)
        return "127.0.0.1" if self.address == "localhost" else _bracketed(self.address)


@dataclass(frozen=True)
class FederationContext:
    """`place`: where this node's etcd would be reached by others; None: it never becomes a core node.

    `pinned`: the federation's store is a plain address from the settings, so there is nothing to join.
    """

    node: str
    own: Store
    folder: RegistryFiles
    place: EtcdAddress | None
    clock: Clock
    tell_supervisor: Callable[[], None]
    open_store: OpenStore
    open_admin: OpenAdmin
    pinned: bool = False
    unreadable: Unreadable = field(default_factory=Unreadable)

    @property
    def now(self) -> datetime:
        return self.clock.now()

    @property
    def links(self) -> Records[Link]:
        """Holds at most one record, of the name `link`."""
        return Records(self.own, keys.link(self.node).removesuffix(LINK), Link, self.unreadable)

    async def link(self) -> Stored[Link] | None:
        return await self.links.get(LINK)

    async def linked(self) -> Link:
        """Raises NotFound (`no-federation`)."""
        stored = await self.link()
        if stored is None:
            raise not_in_federation(self.node)
        return stored.record

    def check_free(self) -> None:
        """Raises Conflict (`federation-is-set`)."""
        if self.pinned:
            raise Conflict(
                "This node's federation is the plain etcd address in MAO_FEDERATION_ENDPOINTS.",
                code="federation-is-set",
                next="Unset MAO_FEDERATION_ENDPOINTS, start the node again, and repeat the command.",
            )

    @asynccontextmanager
    async def joined(self, endpoints: str, tls: TlsFiles | None = None) -> AsyncIterator[Store]:
        """A store on the federation's etcd, as this node unless `tls` names another identity."""
        store = self.open_store(endpoints, tls or self.folder.tls())
        try:
            yield store
        finally:
            await store.close()

    @asynccontextmanager
    async def admin(self, endpoints: str) -> AsyncIterator[Admin]:
        admin = self.open_admin(endpoints, self.folder.tls())
        try:
            yield admin
        finally:
            await admin.close()


@dataclass(frozen=True)
class FederationRecords:
    """The federation's records about itself."""

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

    async def info(self) -> FederationInfo:
        """Raises NotFound."""
        prefix, _, name = keys.federation().rpartition("/")
        stored = await Records(self.store, f"{prefix}/", FederationInfo).get(name)
        if stored is None:
            raise NotFound(
                "The federation's store does not say which federation it is of.",
                code="federation-unknown",
                next="Let the node that created it finish: maoctl federation create NAME, there.",
            )
        return stored.record


@asynccontextmanager
async def via_other_cores(
    site: FederationContext, link: Link, node: str
) -> AsyncIterator[tuple[Store, Admin]]:
    """Store and admin that do not go by way of the member of `node`, which may be about to end."""
    async with site.joined(",".join(link.endpoints)) as store:
        seat = await FederationRecords(store).cores.get(node)
    going = seat.record.client if seat else None
    endpoints = ",".join(each for each in link.endpoints if each != going) or ",".join(link.endpoints)
    async with site.joined(endpoints) as store, site.admin(endpoints) as admin:
        yield store, admin


async def check_core(store: Store, link: Link, command: str) -> None:
    """Raises Forbidden (`not-core`) that names the nodes where the command works."""
    cores = sorted(
        each.record.node for each in await FederationRecords(store).cores.all() if not each.record.learner
    )
    if link.node in cores:
        return
    raise Forbidden(
        f"Only core nodes may do this; in {link.federation!r} these are {', '.join(cores) or 'none now'}.",
        code="not-core",
        next=f"On one of them: {command}.",
    )


LINK = "link"


def not_in_federation(node: str) -> NotFound:
    return NotFound(
        f"The node {node!r} stands alone: it is in no federation.",
        code="no-federation",
        next="Create one with 'maoctl federation create NAME', or join one: maoctl federation join TOKEN.",
    )


def signal_supervisor() -> None:
    """Lets the native node look at etcd's configuration; elsewhere a loop in the container does."""
    pid = os.environ.get("MAO_SUPERVISOR", "")
    if pid.isdigit():
        os.kill(int(pid), signal.SIGUSR1)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


async def read_authority(store: Store, key: str) -> pki.Authority:
    """Raises Forbidden when this node is no core node, Conflict (`authority-missing`) when there is none."""
    entry = await store.get(key)
    if entry is None:
        raise Conflict(
            "The federation's store does not hold its authority's key.",
            code="authority-missing",
            next="Put its etcd back from its data or a snapshot: no node's backup has it. Or found it "
            "anew: 'maoctl federation leave --force' on each node, then docs/federation.md.",
        )
    return authority_of(AuthorityPem.model_validate_json(entry.value))
