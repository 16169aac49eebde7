"""The command `federation create`.

    1 draft       write name, id and both authorities to a file: a repeat creates the same federation
    2 files       write this node's certificates (client, server, peer) and etcd's configuration
    3 etcd        the supervisor starts it; wait until it answers, and check its version
    4 users       create etcd's `root` and this node's user, then enable authentication
    5 records     write the authority, the federation, this node's identity and etcd member; copy its registry
    6 link        write it: all services of this node switch to the federation's store
    7 clean-up    delete the draft, which contains the authority's keys

Until step 6 the node works with its own store. Registry records written to it meanwhile are copied as well.
"""

from __future__ import annotations

import secrets

import stamina

from mao_registry.records.stores import put_value
from mao_shared import keys
from mao_shared.errors import Conflict, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models import CoreMember, FederationInfo, Identity, Link
from mao_shared.store import Store
from mao_shared.store.records import dump

from . import pki
from .access import ROOT, etcd_user_name
from .context import EtcdAddress, FederationContext, FederationRecords, in_federation
from .etcd_versions import EtcdVersions
from .files import FederationDraft
from .own_member import delete_own_member, write_config, write_member_identity
from .registry_merge import copy_own_records, copy_registry, registry_entries, renumber_enrolments

log = get_logger(__name__)
START_TIMEOUT = 60.0  # seconds for etcd to start
POLL_PERIOD = 0.2  # seconds
MAX_COPIES = 20  # repeated copies of a registry that is being written to


class CreateCommand:
    """`federation create`."""

    def __init__(self, context: FederationContext, versions: EtcdVersions) -> None:
        self.context = context
        self.versions = versions

    async def create(self, name: str, *, allow_unsafe: bool = False) -> Link:
        """Create a federation and return the link to it. Idempotent.

        Raises Conflict: `in-federation`, `founding-unfinished`, `federation-is-set`, `no-federation-address`,
        `etcd-unsafe` unless `allow_unsafe`; Unavailable (`federation-etcd-down`).
        """
        self.context.check_not_pinned()
        if stored := await self.context.find_link():
            link = stored.record
            if link.federation != name or link.role != "core":
                raise in_federation(link.federation)
            self.context.files.remove_drafts()
            return link
        address = self.context.address
        if address is None:
            raise Conflict(
                "A core node needs an address at which other nodes reach it.",
                code="no-federation-address",
                next="Set MAO_FEDERATION_ADDRESS to this host's name or address, restart the node, and"
                " repeat the command.",
            )
        self.versions.check_own(allow_unsafe=allow_unsafe)
        draft = self._make_draft(name)
        user = etcd_user_name(self.context.node, 1)
        self._write_files(draft, address, user)
        self.context.notify_supervisor()
        await self._wait_for_etcd(address)
        await self._check_version(address, allow_unsafe=allow_unsafe)
        async with self.context.connect_admin([address.client]) as admin:
            await admin.ensure_role(ROOT, [])
            await admin.ensure_user(ROOT, [ROOT])
            await admin.ensure_user(user, [ROOT])
            await admin.enable_auth()
        async with self.context.connect([address.client]) as store:
            await self._write_records(store, draft, address, user)
            copied = await self._copy_registry(store)
            link = await self.context.write_link(
                Link(
                    federation=name,
                    id=draft.id,
                    node=self.context.node,
                    user=user,
                    endpoints=[address.client],
                    role="core",
                    joined_at=self.context.now,
                )
            )
            for entry in await registry_entries(self.context.own):  # written just before the link
                if copied.get(entry.key) != entry.revision:
                    await put_value(store, entry.key, entry.value)
        self.context.files.remove_drafts()
        log.info("federation.created", federation=name, id=draft.id, endpoint=address.client)
        return link

    def _make_draft(self, name: str) -> FederationDraft:
        files, now = self.context.files, self.context.now
        draft = files.read_draft()
        if draft is None:
            number = secrets.token_hex(6)
            draft = FederationDraft(
                name=name,
                id=number,
                created_at=now,
                authority=pki.make_authority(f"MAO federation {number}", now=now),
                peers=pki.make_authority(f"MAO federation {number} etcd", now=now),
            )
            files.save(files.draft, draft.model_dump_json())
        if draft.name != name:
            raise Conflict(
                f"This node has started to create the federation {draft.name!r} and has not finished.",
                code="founding-unfinished",
                next=f"Finish it with 'maoctl federation create {draft.name}', or drop it with"
                " 'maoctl federation leave --force'.",
            )
        return draft

    def _write_files(self, draft: FederationDraft, address: EtcdAddress, user: str) -> None:
        files, now = self.context.files, self.context.now
        current = files.read(files.identity)
        if not current or not pki.is_signed_by(current, draft.authority.certificate):
            certificate, key = pki.issue(draft.authority, user, now)
            files.write_identity(ca=draft.authority.certificate, certificate=certificate, key=key)
        write_member_identity(files, address, user, draft.authority, draft.peers, now)
        write_config(
            files,
            self.context.node,
            address,
            data_id=draft.id,
            token=draft.id,
            cluster={self.context.node: address.peer_url},
            existing=False,
        )

    async def _wait_for_etcd(self, address: EtcdAddress) -> None:
        """Wait until etcd answers. Raises Unavailable (`federation-etcd-down`)."""
        attempts = stamina.retry_context(
            on=Unavailable, attempts=None, timeout=START_TIMEOUT, wait_initial=POLL_PERIOD, wait_max=1.0
        )
        try:
            async with self.context.connect([address.client]) as store:
                async for attempt in attempts:
                    with attempt:
                        await store.ping()
        except Unavailable as error:
            raise Unavailable(
                f"The federation's etcd did not start at {address.client}"
                f" within {START_TIMEOUT:.0f} s: {error.detail}",
                code="federation-etcd-down",
                next="See what federation-etcd writes to the node's log; is the port free, and is the"
                " address in MAO_FEDERATION_ADDRESS this host's? Then repeat the command.",
            ) from error

    async def _check_version(self, address: EtcdAddress, *, allow_unsafe: bool) -> None:
        """Raise Conflict (`etcd-unsafe`) for an unsafe version of the running etcd, and remove all files."""
        core = CoreMember(node=self.context.node, member_id="", client=address.client, peer=address.peer)
        try:
            await self.versions.check_members([core], allow_unsafe=allow_unsafe)
        except Conflict:
            delete_own_member(self.context)
            self.context.files.remove_identity()
            self.context.files.remove_drafts()
            raise

    async def _write_records(
        self, store: Store, draft: FederationDraft, address: EtcdAddress, user: str
    ) -> None:
        node, now = self.context.node, self.context.now
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
        certificate = self.context.files.read(self.context.files.identity) or ""
        identity = Identity(
            node=node,
            user=user,
            role="core",
            state="joined",
            invited_at=draft.created_at,
            joined_at=now,
            expires_at=pki.facts(certificate).not_after,
        )
        records = FederationRecords(store)
        await records.identities.create_or_update(node, lambda current: current or identity)
        async with self.context.connect_admin([address.client]) as admin:
            members = await admin.members()
        own = next(member for member in members if address.peer_url in member.peer_urls)
        core = CoreMember(node=node, member_id=own.id, client=address.client, peer=address.peer)
        await records.cores.create_or_update(node, lambda _: core)

    async def _copy_registry(self, store: Store) -> dict[str, int]:
        """Copy the registry until nothing was written to it meanwhile; return key → copied revision."""
        own, node = self.context.own, self.context.node
        await copy_own_records(own, store, node)
        copied: dict[str, int] = {}
        for _ in range(MAX_COPIES):
            previous, copied = copied, await copy_registry(own, store)
            if copied == previous:
                break
        await renumber_enrolments(own, store, own, node)
        return copied
