"""Joining a federation.

    1 compare     etcd's version and the names in both registries; a clash ends it before anything is written
    2 request     for a certificate, as the invitation's user; the key never leaves the node
    3 certificate a core node signs it and creates the user; wait for that
    4 files       authority, certificate and key
    5 records     this node's own become the federation's; it is added to the datasets it takes part in
    6 link        from here on every service of this node works with the federation's store
    7 clean-up    the invitation

A repeat with the same token continues where it stopped, with the same key and request.
"""

from __future__ import annotations

import asyncio

from mao_registry.records.stores import Repositories, wait_for_record
from mao_shared.errors import Conflict, InvalidInput, Unavailable, UserUnknown
from mao_shared.logs import get_logger
from mao_shared.models import CertificateRequest, FederationInfo, Identity, Link
from mao_shared.store import Store

from . import pki
from .access import InvitationToken, decode_token
from .context import LINK, FederationContext, FederationRecords
from .cores import request_digest
from .etcd_versions import EtcdVersions
from .files import PendingRequest
from .registry_merge import (
    add_registry,
    copy_own_records,
    find_clashes,
    find_new_records,
    read_contents,
    refuse_clashes,
    removal_commands,
    renumber_enrolments,
)

log = get_logger(__name__)
SIGN_TIMEOUT = 60.0  # seconds that a core node may take to sign


class JoinCommand:
    """`federation join`."""

    def __init__(self, context: FederationContext, versions: EtcdVersions) -> None:
        self.context = context
        self.versions = versions
        self.published: list[str] = []  # the new records of the last join, as `tool NAME`

    async def join(self, text: str, *, allow_unsafe: bool = False) -> Link:
        """Join a federation; returns the link to it, also if this token was used before.

        Raises InvalidInput for an invalid token, Conflict (`names-clash`, `in-federation`,
        `federation-is-set`, `etcd-unsafe` unless `allow_unsafe`), Unavailable (`not-signed`) while no core
        node answers the request.
        """
        self.context.check_not_pinned()
        token = decode_token(text, now=self.context.now)
        if token.node != self.context.node:
            raise InvalidInput(
                f"The invitation is for the node {token.node!r}; this one is {self.context.node!r}.",
                code="token-other-node",
                next=f"Ask for one for this node: 'maoctl federation invite {self.context.node}' on a core"
                " node.",
            )
        if stored := await self.context.find_link():
            return self._check_same(stored.record, token)
        if draft := self.context.files.read_draft():
            raise Conflict(
                f"This node has started to create the federation {draft.name!r} and has not finished.",
                code="founding-unfinished",
                next="Drop it with 'maoctl federation leave --force', then join.",
            )
        invitation = self.context.files.invitation()
        invitation.write_identity(ca=token.ca, certificate=token.certificate, key=token.key)
        try:
            async with self.context.connect(token.endpoints, invitation.tls()) as store:
                info = await self._check_federation(store, token)
                cores = (await FederationRecords(store).cores.by_name()).values()
                await self.versions.check_members(cores, tls=invitation.tls(), allow_unsafe=allow_unsafe)
                await self._check_names(store, info.name)
                identity = await self._obtain_certificate(store, token)
        except UserUnknown as error:  # deleted once the node had joined, or with a later invitation
            raise InvalidInput(
                "This invitation was used or withdrawn.",
                code="token-used",
                next=f"Ask a core node for a new one: maoctl federation invite {self.context.node}",
            ) from error
        own, node = self.context.own, self.context.node
        async with self.context.connect(token.endpoints) as store:
            await add_registry(own, store, node, info.name, self.context.clock)
            await copy_own_records(own, store, node)
            await renumber_enrolments(own, store, own, node)
            link = await self._write_link(store, info, identity, token)
        self.context.files.remove_drafts()
        log.info("federation.joined", federation=info.name, id=info.id, user=identity.user)
        return link

    def _check_same(self, link: Link, token: InvitationToken) -> Link:
        ca = self.context.files.read(self.context.files.ca)
        if link.federation != token.federation or not ca or pki.facts(ca).fingerprint != token.fingerprint:
            raise Conflict(
                f"This node is already in the federation {link.federation!r}.",
                code="in-federation",
                next="See it with 'maoctl federation show'; leave it first: maoctl federation leave.",
            )
        self.context.files.remove_drafts()
        return link

    async def _check_federation(self, store: Store, token: InvitationToken) -> FederationInfo:
        """Raise Conflict (`federation-differs`) if the store belongs to another federation."""
        info = await FederationRecords(store).info()
        if pki.facts(info.ca).fingerprint != token.fingerprint:
            raise Conflict(
                f"The store at {', '.join(token.endpoints)} belongs to another federation {info.name!r}.",
                code="federation-differs",
                next=f"Ask for a new one: 'maoctl federation invite {self.context.node}' on a core node.",
            )
        return info

    async def _check_names(self, store: Store, federation: str) -> None:
        """Raise Conflict (`names-clash`) before anything is written."""
        own = Repositories(self.context.node, self.context.own, self.context.own)
        contents, federation_contents = await read_contents(own.own), await read_contents(store)
        enrolled = {stored.record.pipeline for stored in await own.enrolments.all()}
        jobs = [stored.record for stored in await own.schedules.all()]
        clashes = find_clashes(contents, federation_contents)
        refuse_clashes(clashes, federation, removal_commands(clashes, contents, enrolled, jobs))
        self.published = find_new_records(contents, federation_contents)

    async def _obtain_certificate(self, store: Store, token: InvitationToken) -> Identity:
        """Request a certificate and wait for it, unless there is one. Raises Unavailable (`not-signed`)."""
        files, node = self.context.files, self.context.node
        user = token.user.removesuffix("-join")
        current = files.read(files.identity)
        if current and pki.is_signed_by(current, token.ca) and pki.facts(current).user == user:
            stored = await FederationRecords(store).identities.get(node)
            if stored is None:
                raise InvalidInput("The federation does not know this node.", code="token-invalid")
            return stored.record
        pending = pending_request(self.context, user)
        await submit_request(self.context, store, pending)
        try:
            async with asyncio.timeout(SIGN_TIMEOUT):
                identity = await wait_for_identity(store, node, pending.request)
        except TimeoutError:
            raise Unavailable(
                f"No core node has signed this node's certificate within {SIGN_TIMEOUT:.0f} s.",
                code="not-signed",
                next="Check that a core node's registry runs ('maoctl doctor' there), and try again.",
            ) from None
        files.write_identity(ca=token.ca, certificate=identity.certificate or "", key=pending.key)
        return identity

    async def _write_link(
        self, store: Store, info: FederationInfo, identity: Identity, token: InvitationToken
    ) -> Link:
        voters = await FederationRecords(store).voters()
        link = Link(
            federation=info.name,
            id=info.id,
            node=self.context.node,
            user=identity.user,
            endpoints=[core.client for core in voters] or token.endpoints,
            joined_at=self.context.now,
        )
        stored = await self.context.links.create_or_update(LINK, lambda current: current or link)
        assert stored is not None  # noqa: S101 (it was given a record)
        return stored.record


def pending_request(context: FederationContext, user: str) -> PendingRequest:
    """Return the key and request that wait for their certificate; created if missing for this user."""
    pending = context.files.read_pending()
    if pending is None or pki.read_request(pending.request).user != user:
        key = pki.make_key()
        pending = PendingRequest(key=key, request=pki.make_request(key, user))
        context.files.save(context.files.pending, pending.model_dump_json())
    return pending


async def submit_request(context: FederationContext, store: Store, pending: PendingRequest) -> None:
    """Submit the request to the core nodes. Idempotent."""

    def submitted(current: CertificateRequest | None) -> CertificateRequest:
        if current is not None and current.request == pending.request:
            return current
        return CertificateRequest(node=context.node, request=pending.request, requested_at=context.now)

    await FederationRecords(store).requests.create_or_update(context.node, submitted)


async def wait_for_identity(store: Store, node: str, request: str) -> Identity:
    """Wait without a limit until the node's certificate answers the request; returns its identity."""
    answered = request_digest(request)
    identity = await wait_for_record(
        FederationRecords(store).identities,
        node,
        lambda current: current is not None and current.request == answered,
    )
    assert identity is not None  # noqa: S101 (that is what was waited for)
    return identity
