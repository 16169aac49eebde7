"""What core nodes do for the federation: sign requests, promote, demote and remove nodes.

Pure: what a core node does about one node of the federation, by what it reads of it.

What core nodes do for the others: sign their requests, see them in, strike them off.

Every core node does this for all; they do not agree on who does it, since each act may be repeated, and the
identity, which is replaced only in the form it was read, tells who was first.

Who runs the federation's etcd, and who belongs to it at all: promote, demote, remove; on core nodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import TYPE_CHECKING, Literal

from mao_registry.records.rules import without_node
from mao_registry.records.writes import (
    delete_key,
    delete_prefix,
    unknown_as_lost,
    update_record,
    wait_for_record,
)
from mao_shared import keys
from mao_shared.errors import Conflict, InvalidInput, NotFound, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models import (
    CertificateRequest,
    CoreMember,
    Dataset,
    Demotion,
    Identity,
    Member,
)
from mao_shared.models.federation import Role
from mao_shared.store import Records, Store, Stored

from . import pki
from .access import invitation_role, invitation_user, member_grants, member_role, roles_of
from .context import (
    FederationContext,
    FederationRecords,
    check_core,
    read_authority,
    via_other_cores,
)
from .etcd_members import check_addition, check_removal, member_states, remove_etcd_member
from .etcd_versions import EtcdVersions
from .pki import LIFETIME

if TYPE_CHECKING:
    from mao_shared.store.etcd_admin import Admin

Action = Literal["sign", "finish", "strike", "unseat", "empower"]


"""
sign: answer its certificate request
finish: it has come with its own certificate, so that its invitation has done its work
strike: it leaves, or was removed and something of it is left
unseat: it is to be a client, and is a member of etcd still
empower: it is to be a member of etcd, and is none yet
"""


def request_digest(request: str) -> str:
    """How an identity names the request that its certificate answers."""
    return hashlib.sha256(request.encode()).hexdigest()


def decide_action(
    identity: Identity | None, request: CertificateRequest | None, *, present: bool, listed: bool
) -> Action | None:
    """None: nothing is to be done. `present`: it holds its presence; `listed`: it is a member of etcd."""
    if identity is None:
        return None
    if identity.state == "removed":
        return "strike" if request is not None or present or listed else None
    if request is not None and request.leaving:
        return "strike"
    if request is not None and request_digest(request.request) != identity.request:
        return "sign"
    if identity.state == "invited":
        return "finish" if identity.certificate is not None and present else None
    if listed != (identity.role == "core"):
        return "unseat" if listed else "empower"
    return None


log = get_logger(__name__)

REMOVED_TOPICS = (
    "parts",
    "endorsements",
    "runs",
    "asks",
    "answers",
)  # what it has said of rounds goes with them (mao_datamgmt/rounds/retention.py)


async def sign_request(
    site: FederationContext,
    store: Store,
    admin: Admin,
    identity: Stored[Identity],
    request: CertificateRequest,
) -> None:
    """Makes the node's user and answers its request; one that cannot be signed is deleted."""
    known = identity.record
    authority = await read_authority(store, keys.authority())
    try:
        certificate = pki.sign(authority, request.request, known.user, (), LIFETIME, now=site.now)
    except InvalidInput as error:
        log.warning("federation.request_refused", node=known.node, error=error.detail)
        await delete_key(store, keys.certificate_request(known.node))
        return
    await admin.ensure_role(member_role(known.node), member_grants(known.node))
    await admin.ensure_user(known.user, roles_of(known))
    signed = known.model_copy(
        update={
            "request": request_digest(request.request),
            "certificate": certificate,
            "expires_at": pki.facts(certificate).not_after,
        }
    )
    await unknown_as_lost(FederationRecords(store).identities.replace(known.node, signed, identity.revision))
    log.info("federation.signed", node=known.node, user=known.user)


async def complete_join(site: FederationContext, store: Store, admin: Admin, identity: Identity) -> None:
    """The node has come with its own certificate: its invitation is worth nothing any more."""
    await admin.delete_user(invitation_user(identity.user))
    await admin.delete_role(invitation_role(identity.node))

    def joined(there: Identity | None) -> Identity | None:
        if there is None or there.user != identity.user or there.state != "invited":
            return None
        return there.model_copy(update={"state": "joined", "joined_at": site.now})

    await update_record(FederationRecords(store).identities, identity.node, joined)
    log.info("federation.node_joined", node=identity.node)


async def remove_node(site: FederationContext, store: Store, admin: Admin, identity: Identity) -> None:
    """Takes a node off: first its right to do anything, then what is left of it.

    Raises Conflict when etcd would stand still without it (`safety.check_may_go`); nothing was done then.
    """
    node = identity.node
    check_removal(await member_states(store, admin), node)

    def removed(there: Identity | None) -> Identity | None:
        if there is None or there.user != identity.user or there.state == "removed":
            return None
        changes = {"state": "removed", "role": "client", "removed_at": site.now}
        return there.model_copy(update=changes | {"certificate": None, "request": None, "expires_at": None})

    await update_record(FederationRecords(store).identities, node, removed)
    await admin.delete_user(identity.user)
    await admin.delete_user(invitation_user(identity.user))
    await admin.delete_role(member_role(node))
    await admin.delete_role(invitation_role(node))
    await remove_etcd_member(site, store, admin, node)
    await delete_key(store, keys.core(node))
    await delete_key(store, keys.member(node))
    await remove_from_datasets(store, node)
    for topic in REMOVED_TOPICS:
        await delete_prefix(store, f"{keys.peer_root(node)}{topic}/")
    await delete_key(store, keys.peer_node(node))
    await delete_key(store, keys.certificate_request(node))
    log.info("federation.node_removed", node=node, user=identity.user)


async def demote_node(site: FederationContext, store: Store, admin: Admin, identity: Identity) -> None:
    """Lets a core node be a client; raises Conflict when etcd would stand still without it.

    Not by the node itself: it could not finish after it has lost the right to.
    """
    check_removal(await member_states(store, admin), identity.node)
    await admin.ensure_role(member_role(identity.node), member_grants(identity.node))
    await admin.set_roles(identity.user, [member_role(identity.node)])
    await remove_etcd_member(site, store, admin, identity.node)
    await delete_key(store, keys.core(identity.node))
    log.info("federation.demoted", node=identity.node)


async def remove_from_datasets(store: Store, node: str) -> None:
    """No vote waits for the node any more."""
    datasets = Records(store, keys.registry_prefix("datasets"), Dataset)
    for name, dataset in (await datasets.by_name()).items():
        if node in dataset.nodes:
            await update_record(datasets, name, lambda now: now and without_node(now, node))


PROMOTE_TIMEOUT = 90.0  # that the node may take to start etcd and catch up


async def promote(
    site: FederationContext, versions: EtcdVersions, node: str, *, allow_unsafe: bool = False
) -> CoreMember:
    """The node's seat, with a vote. Nothing happens to who has one.

    Raises Conflict (`quorum-at-risk`, `promotion-under-way`, `too-many-cores`, `node-not-ready`, and
    `etcd-unsafe` unless `allow_unsafe`), and Unavailable (`promotion-unfinished`) when it goes on by itself.
    """
    link = await site.linked()
    endpoints = ",".join(link.endpoints)
    async with site.joined(endpoints) as store, site.admin(endpoints) as admin:
        await check_core(store, link, f"maoctl federation promote {node}")
        ledger = FederationRecords(store)
        seat = await ledger.cores.get(node)
        if seat is not None and not seat.record.learner:
            return seat.record
        await _identity(store, node)
        versions.check_candidate(await _check_ready(store, node), allow_unsafe=allow_unsafe)
        cores = (await ledger.cores.by_name()).values()
        await versions.check_members(cores, allow_unsafe=allow_unsafe)
        check_addition(await member_states(store, admin), node)
        identity = await _set_role(store, node, "core")
        await admin.set_roles(identity.user, roles_of(identity))
        return await _wait_for_vote(store, node)


async def _check_ready(store: Store, node: str) -> Member:
    member = await FederationRecords(store).members.get(node)
    if member is None or member.record.core_address is None:
        why = "is not present" if member is None else "does not say at which address others reach its etcd"
        raise Conflict(
            f"The node {node!r} {why}.",
            code="node-not-ready",
            next="Start it there with 'make node' or 'make up'; a core node needs MAO_FEDERATION_ADDRESS.",
        )
    return member.record


async def _wait_for_vote(store: Store, node: str) -> CoreMember:
    cores = FederationRecords(store).cores
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PROMOTE_TIMEOUT):
            voting = await wait_for_record(cores, node, lambda seat: seat is not None and not seat.learner)
            assert voting is not None  # noqa: S101 (that is what was waited for)
            return voting
    seat = await cores.get(node)
    state = "has not caught up yet" if seat else "has not started its etcd yet"
    raise Unavailable(
        f"The node {node!r} {state}, after {PROMOTE_TIMEOUT:.0f} s; it goes on by itself.",
        code="promotion-unfinished",
        next=f"Look at it with 'maoctl federation list' and at the log of {node}: are its ports open to the"
        f" other core nodes? Give it up with 'maoctl federation demote {node}'.",
    )


async def demote(site: FederationContext, node: str) -> Demotion:
    """Raises Conflict (`last-core`, `quorum-at-risk`). Nothing happens to who has no seat."""
    link = await site.linked()
    async with via_other_cores(site, link, node) as (store, admin):
        await check_core(store, link, f"maoctl federation demote {node}")
        before = await _identity(store, node)
        seats = await member_states(store, admin)
        check_removal(seats, node)
        was_core = before.role == "core" or any(seat.node == node for seat in seats)
        identity = await _set_role(store, node, "client")
        if node == link.node:
            await wait_until_demoted(store, node)
        else:
            await demote_node(site, store, admin, identity)
    return Demotion(node=node, was_core=was_core)


async def remove(site: FederationContext, node: str) -> None:
    """Its certificate is worth nothing from here on. Repeating it takes off what is left.

    Raises NotFound, Conflict (`node-is-this-one`, `last-core`, `quorum-at-risk`).
    """
    link = await site.linked()
    if node == link.node:
        raise Conflict(
            f"This is the node {node!r} itself.",
            code="node-is-this-one",
            next="Leave with 'maoctl federation leave', or remove it on another core node.",
        )
    async with via_other_cores(site, link, node) as (store, admin):
        await check_core(store, link, f"maoctl federation remove {node}")
        stored = await FederationRecords(store).identities.get(node)
        if stored is None:
            raise unknown_node(node)
        await remove_node(site, store, admin, stored.record)


async def _identity(store: Store, node: str) -> Identity:
    """Raises NotFound for a node that has not joined."""
    stored = await FederationRecords(store).identities.get(node)
    if stored is None or stored.record.state != "joined":
        raise unknown_node(node)
    return stored.record


async def _set_role(store: Store, node: str, role: Role) -> Identity:
    def change(there: Identity | None) -> Identity | None:
        joined = there is not None and there.state == "joined"
        return there.model_copy(update={"role": role}) if there and joined else None

    stored = await update_record(FederationRecords(store).identities, node, change)
    if stored is None or stored.record.state != "joined":
        raise unknown_node(node)
    return stored.record


def unknown_node(node: str) -> NotFound:
    return NotFound(
        f"No node {node!r} has joined this federation.",
        code="node-unknown",
        next="See who has with 'maoctl federation list'.",
    )


DEMOTE_TIMEOUT = 60.0  # that another core node may take to take this one off etcd


async def wait_until_demoted(store: Store, node: str) -> None:
    """Returns when another core node has taken `node` off etcd; raises Conflict (`not-unseated`)."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEMOTE_TIMEOUT):
            await wait_for_record(FederationRecords(store).cores, node, lambda seat: seat is None)
            return
    raise Conflict(
        f"No other core node has taken {node!r} off etcd in {DEMOTE_TIMEOUT:.0f} s.",
        code="not-unseated",
        next="See that another core node's registry runs ('maoctl doctor' there), and repeat the command.",
    )
