"""What a node sees of its federation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mao_shared.errors import MaoError
from mao_shared.federation.home import removed
from mao_shared.models import CoreMember, FederationState, Identity, Link, Member, NodeState
from mao_shared.store import Store

from . import pki
from .context import Ledger, Site
from .etcd_members import advice

if TYPE_CHECKING:
    from mao_shared.store.etcd_admin import Health


async def federation_state(site: Site, store: Store) -> FederationState:
    """Raises NotFound (`no-federation`)."""
    link = await site.linked()
    ledger = Ledger(store)
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


def without_us(seen: FederationState) -> FederationState:
    """Pure: what a node was told last, once it was removed."""
    fault = removed(seen.name)
    return seen.model_copy(
        update={
            "role": "removed",
            "reachable": False,
            "cores": [core for core in seen.cores if core != seen.node],
            "advice": f"{fault.detail} Next: {fault.next}",
        }
    )


def others_in(seen: list[NodeState], node: str) -> list[NodeState]:
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


async def node_states(site: Site, store: Store) -> list[NodeState]:
    """All nodes that were not removed, by name; asks every member of etcd how it is."""
    link = await site.linked()
    ledger = Ledger(store)
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


async def _ask_cores(site: Site, link: Link, cores: list[CoreMember]) -> dict[str, Health]:
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
