"""The command `federation join`.

    1 checks      check etcd's version and the names in both registries, before anything is written
    2 request     request a certificate as the invitation's user; the key never leaves the node
    3 certificate wait until a core node has signed it and created the user
    4 files       write the authority's certificate, and this node's certificate and key
    5 records     add this node's records to the federation, and the node to its datasets
    6 link        write it: all services of this node switch to the federation's store
    7 clean-up    delete the invitation

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
from .context import FederationContext, FederationRecords, in_federation
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
SIGN_TIMEOUT = 60.0  # seconds for a core node to sign


class JoinCommand:
    """`federation join`."""

    def __init__(self, context: FederationContext, versions: EtcdVersions) -> None:
        self.context = context
        self.versions = versions
        self.published: list[str] = []  # records that the last join added to the federation, as `tool NAME`

    async def join(self, text: str, *, allow_unsafe: bool = False) -> Link:
        """Join a federation and return the link to it. Idempotent.

        Raises InvalidInput for an invalid token, Conflict (`names-clash`, `in-federation`,
        `federation-is-set`, `etcd-unsafe` unless `allow_unsafe`), Unavailable (`not-signed`) if no core node
        answers the request.
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
            link, ca = stored.record, self.context.files.read(self.context.files.ca)
            same_name = link.federation == token.federation
            if not same_name or not ca or pki.facts(ca).fingerprint != token.fingerprint:
                raise in_federation(link.federation)
            self.context.files.remove_drafts()
            return link
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
        except UserUnknown as error:  # deleted when the node had joined, or by a later invitation
            raise InvalidInput(
                "This invitation has been used or withdrawn.",
                code="token-used",
                next=f"Ask a core node for a new one: maoctl federation invite {self.context.node}",
            ) from error
        own, node = self.context.own, self.context.node
        async with self.context.connect(token.endpoints) as store:
            await add_registry(own, store, node, info.name, self.context.clock)
            await copy_own_records(own, store, node)
            await renumber_enrolments(own, store, own, node)
            voters = await FederationRecords(store).voters()
            link = await self.context.write_link(
                Link(
                    federation=info.name,
                    id=info.id,
                    node=node,
                    user=identity.user,
                    endpoints=[core.client for core in voters] or token.endpoints,
                    joined_at=self.context.now,
                )
            )
        self.context.files.remove_drafts()
        log.info("federation.joined", federation=info.name, id=info.id, user=identity.user)
        return link

    async def _check_federation(self, store: Store, token: InvitationToken) -> FederationInfo:
        """Return the federation's record. Raises Conflict (`federation-differs`) if it is another one."""
        info = await FederationRecords(store).info()
        if pki.facts(info.ca).fingerprint != token.fingerprint:
            raise Conflict(
                f"The store at {', '.join(token.endpoints)} belongs to another federation, {info.name!r}.",
                code="federation-differs",
                next=f"Ask for a new one: 'maoctl federation invite {self.context.node}' on a core node.",
            )
        return info

    async def _check_names(self, store: Store, federation: str) -> None:
        """Raise Conflict (`names-clash`) if records of this node clash with the federation's."""
        own = Repositories(self.context.node, self.context.own, self.context.own)
        contents, federation_contents = await read_contents(own.own), await read_contents(store)
        enrolled = {stored.record.pipeline for stored in await own.enrolments.all()}
        jobs = [stored.record for stored in await own.schedules.all()]
        clashes = find_clashes(contents, federation_contents)
        refuse_clashes(clashes, federation, removal_commands(clashes, contents, enrolled, jobs))
        self.published = find_new_records(contents, federation_contents)

    async def _obtain_certificate(self, store: Store, token: InvitationToken) -> Identity:
        """Request a certificate and wait for it, unless it exists. Raises Unavailable (`not-signed`)."""
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


def pending_request(context: FederationContext, user: str) -> PendingRequest:
    """Return the pending key and certificate request of this user; create them if missing."""
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
    """Wait, without a timeout, until the request is signed; return the node's identity."""
    answered = request_digest(request)
    identity = await wait_for_record(
        FederationRecords(store).identities,
        node,
        lambda current: current is not None and current.request == answered,
    )
    assert identity is not None  # noqa: S101 (the condition that was waited for)
    return identity
