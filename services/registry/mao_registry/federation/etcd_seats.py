"""The members of the federation's etcd as they are now."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mao_shared.store import Store

from .safety import Seat
from .site import Ledger

if TYPE_CHECKING:
    from mao_shared.store.etcd_admin import Admin, EtcdMember


async def read_seats(store: Store, admin: Admin) -> list[Seat]:
    """Every member with its node, and whether it answers and knows a leader; asks all of them at once."""
    members = await admin.members()
    nodes = {each.record.member_id: each.record.node for each in await Ledger(store).cores.all()}
    healthy = await asyncio.gather(*(_is_healthy(admin, each) for each in members))
    return [
        Seat(each.name or nodes.get(each.id, each.id), votes=not each.learner, healthy=answers)
        for each, answers in zip(members, healthy, strict=True)
    ]


async def _is_healthy(admin: Admin, member: EtcdMember) -> bool:
    endpoints = [url.removeprefix("https://") for url in member.client_urls]
    if not endpoints:
        return False
    health = await admin.health(endpoints[0])
    return health.reachable and health.has_leader


async def remove_from_etcd(store: Store, admin: Admin, node: str) -> None:
    """Takes the node's member off etcd; nothing happens when it has none."""
    seat = await Ledger(store).cores.get(node)
    known = seat.record.member_id if seat else None
    for member in await admin.members():
        if member.name == node or member.id == known:
            await admin.remove(member.id)
