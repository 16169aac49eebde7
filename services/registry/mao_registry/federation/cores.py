"""The work of core nodes: signing certificate requests, and promoting and demoting nodes.

All core nodes do this concurrently without coordination: actions are idempotent, and an identity is replaced
only at the revision that was read, so that one of them wins.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import TYPE_CHECKING, Literal

from mao_registry.records.stores import delete_key, unknown_as_lost, wait_for_record
from mao_shared import keys
from mao_shared.errors import Conflict, InvalidInput, NotFound, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models import CertificateRequest, CoreMember, Demotion, Identity
from mao_shared.models.federation import Role
from mao_shared.store import Store, Stored

from . import pki
from .access import etcd_role_names, invitation_role, invitation_user, member_grants, member_role
from .context import FederationContext, FederationRecords, check_core
from .etcd_members import check_addition, check_removal, observe_members, remove_etcd_member
from .etcd_versions import EtcdVersions

if TYPE_CHECKING:
    from mao_shared.store.etcd_admin import Admin

log = get_logger(__name__)
PROMOTE_TIMEOUT = 90.0  # seconds for the node to start etcd and catch up
DEMOTE_TIMEOUT = 60.0  # seconds for another core node to remove this one from etcd

Action = Literal["sign", "complete-join", "remove", "demote", "grant-core"]
"""
sign: sign the node's certificate request
complete-join: delete the invitation, since the node uses its own certificate
remove: delete the records of a node that is leaving or was removed
demote: remove a client from etcd
grant-core: give a node that is to join etcd the rights of a core node
"""


def request_digest(request: str) -> str:
    """Return the digest with which an identity refers to the request for its certificate."""
    return hashlib.sha256(request.encode()).hexdigest()


def decide_action(
    identity: Identity | None, request: CertificateRequest | None, *, present: bool, listed: bool
) -> Action | None:
    """Return what a core node has to do for a node; None for nothing. Pure.

    Args:
        present: the node has a member record.
        listed: the node is recorded as a member of etcd.
    """
    if identity is None:
        return None
    if identity.state == "removed":
        return "remove" if request is not None or present or listed else None
    if request is not None and request.leaving:
        return "remove"
    if request is not None and request_digest(request.request) != identity.request:
        return "sign"
    if identity.state == "invited":
        return "complete-join" if identity.certificate is not None and present else None
    if listed != (identity.role == "core"):
        return "demote" if listed else "grant-core"
    return None


async def sign_request(
    context: FederationContext,
    store: Store,
    admin: Admin,
    stored: Stored[Identity],
    request: CertificateRequest,
) -> None:
    """Create the node's user and sign its request; delete a request that cannot be signed."""
    identity = stored.record
    records = FederationRecords(store)
    authority = await records.authority()
    try:
        certificate = pki.sign(authority, request.request, identity.user, (), pki.LIFETIME, now=context.now)
    except InvalidInput as error:
        log.warning("federation.request_refused", node=identity.node, error=error.detail)
        await delete_key(store, keys.certificate_request(identity.node))
        return
    await admin.ensure_role(member_role(identity.node), member_grants(identity.node))
    await admin.ensure_user(identity.user, etcd_role_names(identity))
    signed = identity.model_copy(
        update={
            "request": request_digest(request.request),
            "certificate": certificate,
            "expires_at": pki.facts(certificate).not_after,
        }
    )
    await unknown_as_lost(records.identities.replace(identity.node, signed, stored.revision))
    log.info("federation.signed", node=identity.node, user=identity.user)


async def complete_join(context: FederationContext, store: Store, admin: Admin, identity: Identity) -> None:
    """Delete the invitation of a node that uses its own certificate, and mark the node as joined."""
    await admin.delete_user(invitation_user(identity.user))
    await admin.delete_role(invitation_role(identity.node))

    def joined(current: Identity | None) -> Identity | None:
        if current is None or current.user != identity.user or current.state != "invited":
            return None
        return current.model_copy(update={"state": "joined", "joined_at": context.now})

    await FederationRecords(store).identities.create_or_update(identity.node, joined)
    log.info("federation.node_joined", node=identity.node)


async def demote_node(context: FederationContext, store: Store, admin: Admin, identity: Identity) -> None:
    """Make another core node a client. Raises Conflict if etcd would lose its quorum without it.

    A node cannot demote itself, since it loses the necessary rights on the way.
    """
    check_removal(await observe_members(store, admin), identity.node)
    await admin.ensure_role(member_role(identity.node), member_grants(identity.node))
    await admin.set_roles(identity.user, [member_role(identity.node)])
    await remove_etcd_member(context, store, admin, identity.node)
    await delete_key(store, keys.core(identity.node))
    log.info("federation.demoted", node=identity.node)


async def promote(
    context: FederationContext, versions: EtcdVersions, node: str, *, allow_unsafe: bool = False
) -> CoreMember:
    """Make a node a core node, and wait until it is a voting member of etcd. Idempotent.

    Raises Conflict (`quorum-at-risk`, `promotion-under-way`, `too-many-cores`, `node-not-ready`, and
    `etcd-unsafe` unless `allow_unsafe`), and Unavailable (`promotion-unfinished`) if the promotion continues
    in the background.
    """
    link = await context.link()
    async with context.connect_both(link.endpoints) as (store, admin):
        await check_core(store, link, f"maoctl federation promote {node}")
        records = FederationRecords(store)
        core = await records.cores.get(node)
        if core is not None and not core.record.learner:
            return core.record
        await _joined_identity(store, node)
        member = await records.members.get(node)
        if member is None or member.record.core_address is None:
            why = (
                "is not present"
                if member is None
                else "has not set an address at which others reach its etcd"
            )
            raise Conflict(
                f"The node {node!r} {why}.",
                code="node-not-ready",
                next="Start it with MAO_FEDERATION_ADDRESS set ('make node' or 'make up' on its host).",
            )
        versions.check_candidate(member.record, allow_unsafe=allow_unsafe)
        await versions.check_members((await records.cores.by_name()).values(), allow_unsafe=allow_unsafe)
        check_addition(await observe_members(store, admin), node)
        identity = await _set_role(store, node, "core")
        await admin.set_roles(identity.user, etcd_role_names(identity))
        return await _wait_for_vote(store, node)


async def _wait_for_vote(store: Store, node: str) -> CoreMember:
    cores = FederationRecords(store).cores
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PROMOTE_TIMEOUT):
            voter = await wait_for_record(cores, node, lambda core: core is not None and not core.learner)
            assert voter is not None  # noqa: S101 (the condition that was waited for)
            return voter
    state = "has not caught up yet" if await cores.get(node) else "has not started its etcd yet"
    raise Unavailable(
        f"The node {node!r} {state}, after {PROMOTE_TIMEOUT:.0f} s; it continues in the background.",
        code="promotion-unfinished",
        next=f"See 'maoctl federation list' and the log of {node}: are its ports open to the other core"
        f" nodes? Cancel it with 'maoctl federation demote {node}'.",
    )


async def demote(context: FederationContext, node: str) -> Demotion:
    """Make a core node a client. Idempotent. Raises Conflict (`last-core`, `quorum-at-risk`)."""
    link = await context.link()
    async with context.connect_without(node, link) as (store, admin):
        await check_core(store, link, f"maoctl federation demote {node}")
        before = await _joined_identity(store, node)
        members = await observe_members(store, admin)
        check_removal(members, node)
        was_core = before.role == "core" or any(member.node == node for member in members)
        identity = await _set_role(store, node, "client")
        if node == link.node:
            await wait_until_demoted(store, node)
        else:
            await demote_node(context, store, admin, identity)
    return Demotion(node=node, was_core=was_core)


async def _joined_identity(store: Store, node: str) -> Identity:
    """Return the node's identity. Raises NotFound if it has not joined."""
    stored = await FederationRecords(store).identities.get(node)
    if stored is None or stored.record.state != "joined":
        raise not_joined(node)
    return stored.record


async def _set_role(store: Store, node: str, role: Role) -> Identity:
    """Change the node's role. Raises NotFound if it has not joined."""

    def change(current: Identity | None) -> Identity | None:
        if current is None or current.state != "joined":
            raise not_joined(node)
        return current.model_copy(update={"role": role})

    stored = await FederationRecords(store).identities.create_or_update(node, change)
    assert stored is not None  # noqa: S101 (`change` never returns None)
    return stored.record


def not_joined(node: str) -> NotFound:
    return NotFound(
        f"No node {node!r} has joined this federation.",
        code="node-unknown",
        next="See who has with 'maoctl federation list'.",
    )


async def wait_until_demoted(store: Store, node: str) -> None:
    """Wait until another core node has removed `node` from etcd. Raises Conflict (`not-unseated`)."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEMOTE_TIMEOUT):
            await wait_for_record(FederationRecords(store).cores, node, lambda core: core is None)
            return
    raise Conflict(
        f"No other core node has removed {node!r} from etcd within {DEMOTE_TIMEOUT:.0f} s.",
        code="not-unseated",
        next="Check that another core node's registry runs ('maoctl doctor' there), and repeat the command.",
    )
