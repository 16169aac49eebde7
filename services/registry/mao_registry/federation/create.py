"""Creating a federation.

    1 draft       name, id and both authorities, in one file: whoever repeats this makes the same federation
    2 files       certificates of this node as client, server and member; etcd's configuration
    3 etcd        the supervisor starts it; waited for, and asked its version
    4 users       etcd's `root`, this node's user, then authentication is switched on
    5 records     authority, the federation, this node's identity and seat; the registry, as it is here
    6 link        from here on every service of this node works with the federation's store
    7 clean-up    the draft, with the authority's keys

Until 6 the node works with its own store and nobody sees a difference; what is written to its registry
meanwhile is copied as well.
"""

from __future__ import annotations

import asyncio
import secrets

from mao_registry.records.writes import put_value, update_record
from mao_shared import keys
from mao_shared.errors import Conflict, MaoError, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models import CoreMember, FederationInfo, Identity, Link
from mao_shared.store import Store
from mao_shared.store.records import dump

from . import pki
from .access import ROOT, user_of
from .context import LINK, EtcdAddress, FederationContext, FederationRecords
from .etcd_versions import EtcdVersions
from .files import AuthorityPem, FederationDraft, authority_of
from .own_member import delete_own_member, write_config, write_member_identity
from .pki import issue
from .registry_merge import copy_own_records, copy_registry, registry_entries, renumber_enrolments

log = get_logger(__name__)
START_TIMEOUT = 60.0  # that etcd may take to start
POLL_PERIOD = 0.2  # seconds
MAX_COPIES = 20  # of the registry, at most, while others go on writing to it


class CreateCommand:
    """`federation create`."""

    def __init__(self, site: FederationContext, versions: EtcdVersions) -> None:
        self.site = site
        self.versions = versions

    async def create(self, name: str, *, allow_unsafe: bool = False) -> Link:
        """The link to the new federation, or to the one of this name that this node has created before.

        Raises Conflict: `in-federation`, `founding-unfinished`, `federation-is-set`, `no-federation-address`,
        `etcd-unsafe` unless `allow_unsafe`.
        """
        self.site.check_free()
        if there := await self.site.link():
            return self._same(there.record, name)
        place = self._place()
        self.versions.check_own(allow_unsafe=allow_unsafe)
        draft = self._draft(name)
        user = user_of(self.site.node, 1)
        self._write_files(draft, place, user)
        self.site.tell_supervisor()
        await self._wait_for_etcd(place)
        await self._check_version(place, allow_unsafe=allow_unsafe)
        await self._make_users(place, user)
        async with self.site.joined(place.client) as store:
            await self._write_records(store, draft, place, user)
            copied = await self._copy(store)
            link = await self._link(draft, place, user)
            await self._copy_late(store, copied)
        self.site.folder.remove_drafts()
        log.info("federation.created", federation=name, id=draft.id, endpoint=place.client)
        return link

    def _same(self, link: Link, name: str) -> Link:
        if link.federation != name or link.role != "core":
            raise Conflict(
                f"This node is in the federation {link.federation!r} already.",
                code="in-federation",
                next="See it with 'maoctl federation show'; leave it first: maoctl federation leave.",
            )
        self.site.folder.remove_drafts()
        return link

    def _place(self) -> EtcdAddress:
        if self.site.place is None:
            raise Conflict(
                "A core node needs an address at which other nodes reach it.",
                code="no-federation-address",
                next="Set MAO_FEDERATION_ADDRESS to this host's name or address, start the node again, and"
                " repeat the command.",
            )
        return self.site.place

    def _draft(self, name: str) -> FederationDraft:
        folder = self.site.folder
        draft = folder.read_draft()
        if draft is None:
            number = secrets.token_hex(6)
            authority = pki.make_authority(f"MAO federation {number}", now=self.site.now)
            peers = pki.make_authority(f"MAO federation {number} etcd", now=self.site.now)
            draft = FederationDraft(
                name=name,
                id=number,
                created_at=self.site.now,
                authority=AuthorityPem(certificate=authority.certificate, key=authority.key),
                peers=AuthorityPem(certificate=peers.certificate, key=peers.key),
            )
            folder.save(folder.draft, draft.model_dump_json())
        if draft.name != name:
            raise Conflict(
                f"This node has begun to create the federation {draft.name!r} and has not finished.",
                code="founding-unfinished",
                next=f"Finish it with 'maoctl federation create {draft.name}', or drop it with"
                " 'maoctl federation leave --force'.",
            )
        return draft

    def _write_files(self, draft: FederationDraft, place: EtcdAddress, user: str) -> None:
        folder, now = self.site.folder, self.site.now
        authority = authority_of(draft.authority)
        there = folder.read(folder.identity)
        if not there or not pki.is_signed_by(there, authority.certificate):
            certificate, key = issue(authority, user, now)
            folder.write_identity(ca=authority.certificate, certificate=certificate, key=key)
        write_member_identity(folder, place, user, authority, authority_of(draft.peers), now)
        write_config(
            folder,
            self.site.node,
            place,
            life=draft.id,
            token=draft.id,
            cluster={self.site.node: place.peer_url},
            existing=False,
        )

    async def _wait_for_etcd(self, place: EtcdAddress) -> None:
        """Raises Unavailable (`federation-etcd-down`)."""
        error: MaoError | None = None
        try:
            async with asyncio.timeout(START_TIMEOUT), self.site.joined(place.client) as store:
                while True:
                    try:
                        return await store.ping()
                    except Unavailable as failed:
                        error = failed
                    await asyncio.sleep(POLL_PERIOD)
        except TimeoutError:
            raise Unavailable(
                f"The federation's etcd did not start at {place.client}"
                f" in {START_TIMEOUT:.0f} s{f': {error.detail}' if error else '.'}",
                code="federation-etcd-down",
                next="Look at what federation-etcd says in the node's log; is the port free, and is the"
                " address in MAO_FEDERATION_ADDRESS this host's? Then repeat the command.",
            ) from None

    async def _check_version(self, place: EtcdAddress, *, allow_unsafe: bool) -> None:
        """What really runs: Conflict (`etcd-unsafe`), and nothing of the founding is left then."""
        core = CoreMember(node=self.site.node, member_id="", client=place.client, peer=place.peer)
        try:
            await self.versions.check_members([core], allow_unsafe=allow_unsafe)
        except Conflict:
            delete_own_member(self.site)
            self.site.folder.remove_identity()
            self.site.folder.remove_drafts()
            raise

    async def _make_users(self, place: EtcdAddress, user: str) -> None:
        async with self.site.admin(place.client) as admin:
            await admin.ensure_role(ROOT, [])
            await admin.ensure_user(ROOT, [ROOT])
            await admin.ensure_user(user, [ROOT])
            await admin.enable_auth()

    async def _write_records(
        self, store: Store, draft: FederationDraft, place: EtcdAddress, user: str
    ) -> None:
        node, now = self.site.node, self.site.now
        await put_value(store, keys.authority(), dump(draft.authority))
        await put_value(store, keys.peer_authority(), dump(draft.peers))
        info = FederationInfo(
            name=draft.name,
            id=draft.id,
            created_at=draft.created_at,
            created_by=node,
            ca=draft.authority.certificate,
        )
        await put_value(store, keys.federation(), dump(info))
        certificate = self.site.folder.read(self.site.folder.identity) or ""
        identity = Identity(
            node=node,
            user=user,
            role="core",
            state="joined",
            invited_at=draft.created_at,
            joined_at=now,
            expires_at=pki.facts(certificate).not_after,
        )
        ledger = FederationRecords(store)
        await update_record(ledger.identities, node, lambda there: there or identity)
        async with self.site.admin(place.client) as admin:
            seat = next(each for each in await admin.members() if place.peer_url in each.peer_urls)
        core = CoreMember(node=node, member_id=seat.id, client=place.client, peer=place.peer)
        await update_record(ledger.cores, node, lambda _: core)

    async def _copy(self, store: Store) -> dict[str, int]:
        """Copies the registry until nothing was written to it meanwhile; key → revision of what it holds."""
        await copy_own_records(self.site.own, store, self.site.node)
        before: dict[str, int] = {}
        for _ in range(MAX_COPIES):
            now = await copy_registry(self.site.own, store)
            if now == before:
                break
            before = now
        await renumber_enrolments(self.site.own, store, self.site.own, self.site.node)
        return before

    async def _copy_late(self, store: Store, copied: dict[str, int]) -> None:
        """What was written to the own registry in the moment before the link."""
        for entry in await registry_entries(self.site.own):
            if copied.get(entry.key) != entry.revision:
                await put_value(store, entry.key, entry.value)

    async def _link(self, draft: FederationDraft, place: EtcdAddress, user: str) -> Link:
        link = Link(
            federation=draft.name,
            id=draft.id,
            node=self.site.node,
            user=user,
            endpoints=[place.client],
            role="core",
            joined_at=self.site.now,
        )
        stored = await update_record(self.site.links, LINK, lambda there: there or link)
        assert stored is not None  # noqa: S101 (`edit` was given a record)
        return stored.record
