"""Joining a federation.

    1 compare     etcd's version, names of both registries; a clash ends it here, before anything is written
    2 request     for a certificate, under the invitation's identity; the key never leaves the node
    3 certificate a core node signs it and makes the user; waited for
    4 files       authority, certificate and key
    5 records     this node's own become the federation's; it is added to the datasets it takes part in
    6 link        from here on every service of this node works with the federation's store
    7 clean-up    the invitation

Repeating it with the same token goes on where it was: the key and the request stay the same.
"""

from __future__ import annotations

import asyncio

from mao_registry.records.repositories import Repositories
from mao_registry.records.writes import update_record, wait_for_record
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
SIGN_TIMEOUT = 60.0  # that a core node may take to sign


class JoinCommand:
    """`federation join`."""

    def __init__(self, site: FederationContext, versions: EtcdVersions) -> None:
        self.site = site
        self.versions = versions
        self.published: list[str] = []  # by the join that was made last

    async def join(self, text: str, *, allow_unsafe: bool = False) -> Link:
        """The link to the federation, or to the one that was joined with this token before.

        Raises InvalidInput for a token that is no good, Conflict (`names-clash`, `in-federation`,
        `federation-is-set`, `etcd-unsafe` unless `allow_unsafe`), Unavailable (`not-signed`) while no core
        node answers the request.
        """
        self.site.check_free()
        token = decode_token(text, now=self.site.now)
        self._check_node(token)
        if there := await self.site.link():
            return self._same(there.record, token)
        self._check_no_draft()
        invitation = self.site.folder.invitation()
        invitation.write_identity(ca=token.ca, certificate=token.certificate, key=token.key)
        endpoints = ",".join(token.endpoints)
        try:
            async with self.site.joined(endpoints, invitation.tls()) as store:
                info = await self._federation(store, token)
                cores = (await FederationRecords(store).cores.by_name()).values()
                await self.versions.check_members(cores, tls=invitation.tls(), allow_unsafe=allow_unsafe)
                await self._compare(store, info.name)
                identity = await self._certificate(store, token)
        except UserUnknown as error:
            raise self._used() from error
        async with self.site.joined(endpoints) as store:
            await add_registry(self.site.own, store, self.site.node, info.name, self.site.clock)
            await copy_own_records(self.site.own, store, self.site.node)
            await renumber_enrolments(self.site.own, store, self.site.own, self.site.node)
            link = await self._link(store, info, identity, token)
        self.site.folder.remove_drafts()
        log.info("federation.joined", federation=info.name, id=info.id, user=identity.user)
        return link

    def _check_node(self, token: InvitationToken) -> None:
        if token.node != self.site.node:
            raise InvalidInput(
                f"The invitation is for the node {token.node!r}; this one is {self.site.node!r}.",
                code="token-other-node",
                next=f"Ask for one of your own: 'maoctl federation invite {self.site.node}' on a core node.",
            )

    async def _compare(self, store: Store, name: str) -> None:
        """Raises Conflict (`names-clash`) before anything is written."""
        own = Repositories(self.site.node, self.site.own, self.site.own)
        ours, theirs = await read_contents(self.site.own), await read_contents(store)
        enrolled = {each.record.pipeline for each in await own.enrolments.all()}
        jobs = [each.record for each in await own.schedules.all()]
        clashes = find_clashes(ours, theirs)
        refuse_clashes(clashes, name, removal_commands(clashes, ours, enrolled, jobs))
        self.published = find_new_records(ours, theirs)

    def _used(self) -> InvalidInput:
        """Its user is gone from etcd: with the node that came by it, or with a later invitation."""
        return InvalidInput(
            "This invitation was used or withdrawn.",
            code="token-used",
            next=f"Ask a core node for a new one: maoctl federation invite {self.site.node}",
        )

    def _same(self, link: Link, token: InvitationToken) -> Link:
        ours = self.site.folder.read(self.site.folder.ca)
        if (
            link.federation != token.federation
            or not ours
            or pki.facts(ours).fingerprint != token.fingerprint
        ):
            raise Conflict(
                f"This node is in the federation {link.federation!r} already.",
                code="in-federation",
                next="See it with 'maoctl federation show'; leave it first: maoctl federation leave.",
            )
        self.site.folder.remove_drafts()
        return link

    def _check_no_draft(self) -> None:
        if draft := self.site.folder.read_draft():
            raise Conflict(
                f"This node has begun to create the federation {draft.name!r} and has not finished.",
                code="founding-unfinished",
                next="Drop it with 'maoctl federation leave --force', then join.",
            )

    async def _federation(self, store: Store, token: InvitationToken) -> FederationInfo:
        """Raises Conflict when the store is another federation's than the token says."""
        info = await FederationRecords(store).info()
        if pki.facts(info.ca).fingerprint != token.fingerprint:
            raise Conflict(
                f"The store at {', '.join(token.endpoints)} belongs to another federation {info.name!r}.",
                code="federation-differs",
                next=f"Ask for a new invitation: 'maoctl federation invite {self.site.node}' on a core node.",
            )
        return info

    async def _certificate(self, store: Store, token: InvitationToken) -> Identity:
        user = token.user.removesuffix("-join")
        folder = self.site.folder
        there = folder.read(folder.identity)
        if there and pki.is_signed_by(there, token.ca) and pki.facts(there).user == user:
            return await self._identity(store)
        pending = pending_request(self.site, user)
        await submit_request(self.site, store, pending)
        identity = await self._wait_for(store, pending.request)
        folder.write_identity(ca=token.ca, certificate=identity.certificate or "", key=pending.key)
        return identity

    async def _identity(self, store: Store) -> Identity:
        stored = await FederationRecords(store).identities.get(self.site.node)
        if stored is None:
            raise InvalidInput("The federation does not know this node.", code="token-invalid")
        return stored.record

    async def _wait_for(self, store: Store, request: str) -> Identity:
        """The identity whose certificate answers the request."""
        try:
            async with asyncio.timeout(SIGN_TIMEOUT):
                return await wait_for_identity(store, self.site.node, request)
        except TimeoutError:
            raise Unavailable(
                f"No core node has signed this node's certificate in {SIGN_TIMEOUT:.0f} s.",
                code="not-signed",
                next="See that a core node's registry runs ('maoctl doctor' there), and repeat the command.",
            ) from None

    async def _link(
        self, store: Store, info: FederationInfo, identity: Identity, token: InvitationToken
    ) -> Link:
        cores = [
            each.record for each in await FederationRecords(store).cores.all() if not each.record.learner
        ]
        link = Link(
            federation=info.name,
            id=info.id,
            node=self.site.node,
            user=identity.user,
            endpoints=[core.client for core in cores] or token.endpoints,
            joined_at=self.site.now,
        )
        stored = await update_record(self.site.links, LINK, lambda there: there or link)
        assert stored is not None  # noqa: S101 (`edit` was given a record)
        return stored.record


def pending_request(site: FederationContext, user: str) -> PendingRequest:
    """The key and request that wait for their certificate; made now when there are none for this user."""
    pending = site.folder.read_pending()
    if pending is None or pki.read_request(pending.request).user != user:
        key = pki.make_key()
        pending = PendingRequest(key=key, request=pki.make_request(key, user))
        site.folder.save(site.folder.pending, pending.model_dump_json())
    return pending


async def submit_request(site: FederationContext, store: Store, pending: PendingRequest) -> None:
    """Lays the request before the core nodes."""

    def asked(before: CertificateRequest | None) -> CertificateRequest:
        if before is not None and before.request == pending.request:
            return before
        return CertificateRequest(node=site.node, request=pending.request, requested_at=site.now)

    await update_record(FederationRecords(store).requests, site.node, asked)


async def wait_for_identity(store: Store, node: str, request: str) -> Identity:
    """For ever, until the node's identity answers the request."""
    answered = request_digest(request)
    identity = await wait_for_record(
        FederationRecords(store).identities, node, lambda now: now is not None and now.request == answered
    )
    assert identity is not None  # noqa: S101 (that is what was waited for)
    return identity
