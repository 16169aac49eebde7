"""The state of the federation and its nodes, and explanations of outages."""

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
from mao_shared.models import CoreMember, FederationState, Link, NodeState
from mao_shared.reconcile import every
from mao_shared.store import Store

from . import pki
from .context import FederationContext, FederationRecords
from .etcd_members import advice, quorum

if TYPE_CHECKING:
    from mao_shared.store.etcd_admin import MemberHealth

UNAVAILABLE_CODE = FederationUnavailable.default_code
QUORUM_PERIOD = 30.0  # seconds; a check only reads what the connection has noticed


async def federation_state(context: FederationContext, store: Store) -> FederationState:
    """Return the federation's state. Raises NotFound (`no-federation`)."""
    link = await context.link()
    records = FederationRecords(store)
    info = await records.info()
    cores = [core.node for core in await records.voters()]
    certificate = context.files.read(context.files.identity)
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


def after_removal(state: FederationState) -> FederationState:
    """Return the last known state as it is for a node that was removed. Pure."""
    error = node_removed(state.name)
    return state.model_copy(
        update={
            "role": "removed",
            "reachable": False,
            "cores": [core for core in state.cores if core != state.node],
            "advice": f"{error.detail} Next: {error.next}",
        }
    )


async def node_states(context: FederationContext, store: Store) -> list[NodeState]:
    """Return the nodes that were not removed, by name; queries the health of every etcd member."""
    link = await context.link()
    records = FederationRecords(store)
    present = await records.members.by_name()
    cores = await records.cores.by_name()
    health = await _ask_cores(context, link, list(cores.values()))
    states = []
    for identity in [stored.record for stored in (await records.identities.page()).items]:
        if identity.state == "removed":
            continue
        member, core = present.get(identity.node), cores.get(identity.node)
        reported = health.get(identity.node)
        answers = reported is not None and reported.reachable
        states.append(
            NodeState(
                node=identity.node,
                state=identity.state,
                present=member is not None,
                role=identity.role,
                seat=None if core is None else "learner" if core.learner else "voter",
                healthy=(answers and reported is not None and reported.has_leader) if core else None,
                answers=answers if core else None,
                etcd=core.client if core else None,
                version=member.version if member else None,
                core_address=member.core_address if member else None,
                invited_at=identity.invited_at,
                joined_at=identity.joined_at,
                expires_at=identity.expires_at,
            )
        )
    return states


def nodes_after_removal(states: list[NodeState], node: str) -> list[NodeState]:
    """Return the last known states with `node` as removed. Pure."""
    update = {
        "state": "removed",
        "role": "client",
        "present": False,
        "seat": None,
        "healthy": None,
        "answers": None,
    }
    return [state.model_copy(update=update) if state.node == node else state for state in states]


async def _ask_cores(
    context: FederationContext, link: Link, cores: Sequence[CoreMember]
) -> dict[str, MemberHealth]:
    """Query the health of core nodes; return it by node, empty if etcd does not answer."""
    try:
        async with context.connect_admin(link.endpoints) as admin:
            answers = await asyncio.gather(*(admin.health(core.client) for core in cores))
    except MaoError:
        return {}
    return {core.node: health for core, health in zip(cores, answers, strict=True)}


@asynccontextmanager
async def outage_explained(context: FederationContext, federation: Store) -> AsyncIterator[None]:
    """Replace etcd's errors in the block by ones that explain the outage. `federation` may be a replica."""
    try:
        yield
    except UserUnknown as error:
        if (stored := await context.find_link()) is None:
            raise
        raise node_removed(stored.record.federation) from error
    except StoreUnavailable as error:
        stored = await context.find_link()
        if error.code != UNAVAILABLE_CODE or stored is None:
            raise
        raise await _explain(context, federation, stored.record, error) from error


async def _explain(context: FederationContext, federation: Store, link: Link, error: MaoError) -> MaoError:
    """Return an error that explains the outage; `error` itself if no core nodes are known."""
    try:
        with request_context.track_staleness():  # the explanation must not mark the response as stale
            voters = await FederationRecords(federation).voters()
    except MaoError:
        return error
    health = await _ask_cores(context, link, voters)
    if not health:
        return error
    silent = [core for core in voters if not health[core.node].reachable]
    return describe_outage(link.federation, voters, silent, error.detail)


def describe_outage(
    federation: str, voters: Sequence[CoreMember], silent: Sequence[CoreMember], detail: str
) -> FederationUnavailable:
    """Return the error for an outage. `silent`: the voters that do not answer. Pure."""
    names = sorted(core.node for core in silent)
    who = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    verb = "does" if len(silent) == 1 else "do"
    if len(voters) - len(silent) < quorum(len(voters)):
        return FederationUnavailable(
            f"The federation {federation!r} has no majority: {who} {verb} not answer.",
            code="no-majority",
            next=f"Start {'it' if len(silent) == 1 else 'them'}; if gone for good, see 'Half of the core or"
            " more is gone for good' in docs/federation.md (maoctl federation leave --force, create again).",
        )
    return FederationUnavailable(
        f"The federation {federation!r} did not answer: {detail}"
        + (f" The core node{'s' if len(silent) > 1 else ''} {who} {verb} not answer." if silent else ""),
        next="Repeat the command in a few seconds; 'maoctl federation list' shows which core nodes answer.",
    )


async def watch_quorum(federation: FederationStore, conditions: Conditions) -> None:
    """Update the condition `quorum` until cancelled; the node stays ready without a quorum."""

    async def step() -> None:
        with suppress(MaoError):  # the node's own store does not answer
            await check_quorum(federation, conditions)

    await every(QUORUM_PERIOD, step, name="quorum-watch", conditions=conditions)


async def check_quorum(federation: FederationStore, conditions: Conditions) -> None:
    """Report or clear the condition. Raises MaoError while the node's own store does not answer."""
    if await federation.alone() or federation.away_since is None:
        conditions.clear("quorum")
        return
    conditions.report(
        "quorum",
        detail=federation.reason or "The federation's etcd does not answer.",
        next_step=federation.next or "See which core nodes are away: maoctl federation list",
    )
