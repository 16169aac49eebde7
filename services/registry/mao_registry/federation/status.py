"""What this node sees of its federation, and why the federation does not answer.

What a node sees of its federation.

Why a command of the federation failed, in words that lead on: struck off, no majority, or just now.

The condition `quorum`: whether the federation's etcd answers this node, and if not, why.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from mao_shared import request_context
from mao_shared.conditions import Conditions
from mao_shared.errors import FederationUnavailable, MaoError, StoreUnavailable, UserUnknown
from mao_shared.federation import FederationStore
from mao_shared.federation.binding import node_removed
from mao_shared.models import CoreMember, FederationState, Identity, Link, Member, NodeState
from mao_shared.reconcile import every
from mao_shared.store import Store

from . import pki
from .context import FederationContext, FederationRecords
from .etcd_members import advice, quorum

if TYPE_CHECKING:
    from mao_shared.store.etcd_admin import Health


async def federation_state(site: FederationContext, store: Store) -> FederationState:
    """Raises NotFound (`no-federation`)."""
    link = await site.linked()
    ledger = FederationRecords(store)
    info = await ledger.info()
    cores = sorted(each.record.node for each in await ledger.cores.all() if not each.record.learner)
    certificate = site.folder.read(site.folder.identity)
    return FederationState(
        name=info.name,
        id=info.id,
        created_at=info.created_at,
        created_by=info.created_by,
        node=link.node,
        user=link.user,
        role=link.role,
        endpoints=link.endpoints,
        joined_at=link.joined_at,
        certificate_expires_at=pki.facts(certificate).not_after if certificate else None,
        fingerprint=pki.facts(info.ca).fingerprint,
        cores=cores,
        advice=advice(len(cores)),
    )


def after_removal(seen: FederationState) -> FederationState:
    """Pure: what a node was told last, once it was removed."""
    fault = node_removed(seen.name)
    return seen.model_copy(
        update={
            "role": "removed",
            "reachable": False,
            "cores": [core for core in seen.cores if core != seen.node],
            "advice": f"{fault.detail} Next: {fault.next}",
        }
    )


def nodes_after_removal(seen: list[NodeState], node: str) -> list[NodeState]:
    """Pure: the same of all nodes; `node` itself stays in sight, as one that was removed."""
    gone = {
        "state": "removed",
        "role": "client",
        "present": False,
        "seat": None,
        "healthy": None,
        "answers": None,
    }
    return [each.model_copy(update=gone) if each.node == node else each for each in seen]


async def node_states(site: FederationContext, store: Store) -> list[NodeState]:
    """All nodes that were not removed, by name; asks every member of etcd how it is."""
    link = await site.linked()
    ledger = FederationRecords(store)
    present = await ledger.members.by_name()
    cores = await ledger.cores.by_name()
    healthy = await _ask_cores(site, link, list(cores.values()))
    return [
        _state(
            each.record,
            present.get(each.record.node),
            cores.get(each.record.node),
            healthy.get(each.record.node),
        )
        for each in (await ledger.identities.page()).items
        if each.record.state != "removed"
    ]


async def _ask_cores(site: FederationContext, link: Link, cores: list[CoreMember]) -> dict[str, Health]:
    try:
        async with site.admin(",".join(link.endpoints)) as admin:
            answers = await asyncio.gather(*(admin.health(core.client) for core in cores))
    except MaoError:
        return {}
    return dict(zip((core.node for core in cores), answers, strict=True))


def _state(
    identity: Identity, member: Member | None, core: CoreMember | None, health: Health | None
) -> NodeState:
    seat = None if core is None else "learner" if core.learner else "voter"
    return NodeState.model_validate(
        {
            "node": identity.node,
            "state": identity.state,
            "present": member is not None,
            "role": identity.role,
            "seat": seat,
            "healthy": health is not None and health.reachable and health.has_leader if core else None,
            "answers": health is not None and health.reachable if core else None,
            "etcd": core.client if core else None,
            "version": member.version if member else None,
            "core_address": member.core_address if member else None,
            "invited_at": identity.invited_at,
            "joined_at": identity.joined_at,
            "expires_at": identity.expires_at,
        }
    )


AWAY = FederationUnavailable.default_code  # also of what the federation's etcd itself does not answer


@asynccontextmanager
async def outage_explained(site: FederationContext, federation: Store) -> AsyncIterator[None]:
    """Puts what etcd's silence or refusal means in place of it; `federation` may answer from copies."""
    try:
        yield
    except UserUnknown as error:
        if (stored := await site.link()) is None:
            raise
        raise node_removed(stored.record.federation) from error
    except StoreUnavailable as error:
        stored = await site.link()
        if error.code != AWAY or stored is None:
            raise
        raise await _explain(site, federation, stored.record, error) from error


async def _explain(site: FederationContext, federation: Store, link: Link, error: MaoError) -> MaoError:
    """`error` itself where no core nodes are known."""
    try:
        with request_context.track_staleness():  # the refusal does not rest on how old this is
            cores = await FederationRecords(federation).cores.by_name()
        voters = [core for core in cores.values() if not core.learner]
        async with site.admin(",".join(link.endpoints)) as admin:
            answers = await asyncio.gather(*(admin.health(each.client) for each in voters))
    except MaoError:
        return error
    if not voters:
        return error
    silent = [core for core, answer in zip(voters, answers, strict=True) if not answer.reachable]
    return describe_outage(link.federation, voters, silent, error.detail)


def describe_outage(
    federation: str, voters: Sequence[CoreMember], silent: Sequence[CoreMember], detail: str
) -> FederationUnavailable:
    """Pure. `silent`: those of the voters that do not answer."""
    who = _names(silent)
    verb = "does" if len(silent) == 1 else "do"
    if len(voters) - len(silent) < quorum(len(voters)):
        return FederationUnavailable(
            f"The federation {federation!r} has no majority: {who} {verb} not answer.",
            code="no-majority",
            next=f"Start {'it' if len(silent) == 1 else 'them'}; if gone for good, see 'Half of the core or"
            " more is gone for good' in docs/federation.md (maoctl federation leave --force, found it anew).",
        )
    return FederationUnavailable(
        f"The federation {federation!r} did not answer: {detail}"
        + (f" The core node{'s' if len(silent) > 1 else ''} {who} {verb} not answer." if silent else ""),
        next="Repeat the command in a few seconds; 'maoctl federation list' shows which core nodes answer.",
    )


def _names(cores: Sequence[CoreMember]) -> str:
    names = sorted(each.node for each in cores)
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


QUORUM_PERIOD = 30.0  # seconds between two looks; it only reads what the store's link has noticed


async def watch_quorum(federation: FederationStore, conditions: Conditions) -> None:
    """For ever. One that is away leaves the node ready: it collects, and answers from copies."""

    async def step() -> None:
        with suppress(MaoError):  # the node's own store is away, which says who the federation is
            await check_quorum(federation, conditions)

    await every(QUORUM_PERIOD, step, name="quorum-watch", conditions=conditions)


async def check_quorum(federation: FederationStore, conditions: Conditions) -> None:
    """One look. Raises MaoError while the node's own store does not answer."""
    if await federation.alone() or federation.away_since is None:
        conditions.clear("quorum")
        return
    conditions.report(
        "quorum",
        detail=federation.reason or "The federation's etcd does not answer.",
        next_step=federation.next or "See which core nodes are away: maoctl federation list",
    )
