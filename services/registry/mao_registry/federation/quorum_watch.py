"""The condition `quorum`: whether the federation's etcd answers this node, and if not, why."""

from __future__ import annotations

from contextlib import suppress

from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.federation import FederationStore
from mao_shared.reconcile import every

EVERY = 30.0  # seconds between two looks; it only reads what the store's link has noticed


async def watch_quorum(federation: FederationStore, conditions: Conditions) -> None:
    """For ever. One that is away leaves the node ready: it collects, and answers from copies."""

    async def step() -> None:
        with suppress(MaoError):  # the node's own store is away, which says who the federation is
            await look(federation, conditions)

    await every(EVERY, step, name="quorum-watch", conditions=conditions)


async def look(federation: FederationStore, conditions: Conditions) -> None:
    """One look. Raises MaoError while the node's own store does not answer."""
    if await federation.alone() or federation.away_since is None:
        conditions.clear("quorum")
        return
    conditions.report(
        "quorum",
        detail=federation.reason or "The federation's etcd does not answer.",
        next_step=federation.next or "See which core nodes are away: maoctl federation list",
    )
