"""Who runs the federation's etcd, and who belongs to it at all: promote, demote, remove; on core nodes."""

from __future__ import annotations

import asyncio
import contextlib

from mao_registry.records.federation_writes import edit
from mao_registry.records.waiting import wait_until
from mao_shared.errors import Conflict, NotFound, Unavailable
from mao_shared.models import CoreMember, Demotion, Identity, Member
from mao_shared.models.federation import Role
from mao_shared.store import Store

from .access import roles_of
from .context import Ledger, Site, at_the_others, check_core
from .etcd_members import check_may_come, check_may_go
from .etcd_seats import read_seats
from .etcd_versions import EtcdVersions
from .leave import wait_until_unseated
from .signing import strike, unseat

PROMOTE_SECONDS = 90.0  # that the node may take to start etcd and catch up


async def promote(site: Site, versions: EtcdVersions, node: str, *, allow_unsafe: bool = False) -> CoreMember:
    """The node's seat, with a vote. Nothing happens to who has one.

    Raises Conflict (`quorum-at-risk`, `promotion-under-way`, `too-many-cores`, `node-not-ready`, and
    `etcd-unsafe` unless `allow_unsafe`), and Unavailable (`promotion-unfinished`) when it goes on by itself.
    """
    link = await site.linked()
    endpoints = ",".join(link.endpoints)
    async with site.joined(endpoints) as store, site.admin(endpoints) as admin:
        await check_core(store, link, f"maoctl federation promote {node}")
        ledger = Ledger(store)
        seat = await ledger.cores.get(node)
        if seat is not None and not seat.record.learner:
            return seat.record
        await _identity(store, node)
        versions.check_candidate(await _check_ready(store, node), allow_unsafe=allow_unsafe)
        cores = (await ledger.cores.by_name()).values()
        await versions.check_members(cores, allow_unsafe=allow_unsafe)
        check_may_come(await read_seats(store, admin), node)
        identity = await _set_role(store, node, "core")
        await admin.set_roles(identity.user, roles_of(identity))
        return await _wait_for_vote(store, node)


async def _check_ready(store: Store, node: str) -> Member:
    member = await Ledger(store).members.get(node)
    if member is None or member.record.core_address is None:
        why = "is not present" if member is None else "does not say at which address others reach its etcd"
        raise Conflict(
            f"The node {node!r} {why}.",
            code="node-not-ready",
            next="Start it there with 'make node' or 'make up'; a core node needs MAO_FEDERATION_ADDRESS.",
        )
    return member.record


async def _wait_for_vote(store: Store, node: str) -> CoreMember:
    cores = Ledger(store).cores
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PROMOTE_SECONDS):
            voting = await wait_until(cores, node, lambda seat: seat is not None and not seat.learner)
            assert voting is not None  # noqa: S101 (that is what was waited for)
            return voting
    seat = await cores.get(node)
    state = "has not caught up yet" if seat else "has not started its etcd yet"
    raise Unavailable(
        f"The node {node!r} {state}, after {PROMOTE_SECONDS:.0f} s; it goes on by itself.",
        code="promotion-unfinished",
        next=f"Look at it with 'maoctl federation list' and at the log of {node}: are its ports open to the"
        f" other core nodes? Give it up with 'maoctl federation demote {node}'.",
    )


async def demote(site: Site, node: str) -> Demotion:
    """Raises Conflict (`last-core`, `quorum-at-risk`). Nothing happens to who has no seat."""
    link = await site.linked()
    async with at_the_others(site, link, node) as (store, admin):
        await check_core(store, link, f"maoctl federation demote {node}")
        before = await _identity(store, node)
        seats = await read_seats(store, admin)
        check_may_go(seats, node)
        was_core = before.role == "core" or any(seat.node == node for seat in seats)
        identity = await _set_role(store, node, "client")
        if node == link.node:
            await wait_until_unseated(store, node)
        else:
            await unseat(site, store, admin, identity)
    return Demotion(node=node, was_core=was_core)


async def remove(site: Site, node: str) -> None:
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
    async with at_the_others(site, link, node) as (store, admin):
        await check_core(store, link, f"maoctl federation remove {node}")
        stored = await Ledger(store).identities.get(node)
        if stored is None:
            raise unknown_node(node)
        await strike(site, store, admin, stored.record)


async def _identity(store: Store, node: str) -> Identity:
    """Raises NotFound for a node that has not joined."""
    stored = await Ledger(store).identities.get(node)
    if stored is None or stored.record.state != "joined":
        raise unknown_node(node)
    return stored.record


async def _set_role(store: Store, node: str, role: Role) -> Identity:
    def change(there: Identity | None) -> Identity | None:
        joined = there is not None and there.state == "joined"
        return there.model_copy(update={"role": role}) if there and joined else None

    stored = await edit(Ledger(store).identities, node, change)
    if stored is None or stored.record.state != "joined":
        raise unknown_node(node)
    return stored.record


def unknown_node(node: str) -> NotFound:
    return NotFound(
        f"No node {node!r} has joined this federation.",
        code="node-unknown",
        next="See who has with 'maoctl federation list'.",
    )
