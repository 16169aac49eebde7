"""The members of the federation's etcd as they are now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mao_shared.errors import Conflict, MaoError, StoreUnavailable, StoreUnknown, Unavailable
from mao_shared.mao_shared_logs import get_logger
from mao_shared.store import Store

from .context import Ledger, Site
from .etcd_members import Seat

if TYPE_CHECKING:
    from mao_shared.store.etcd_admin import Admin, EtcdMember, Health


log = get_logger(__name__)
TRIES, AGAIN = 15, 0.7  # seconds between them


@dataclass(frozen=True, slots=True)
class Sight:
    """A member as etcd lists it, the node that runs it, and how it answers."""

    member: EtcdMember
    node: str
    health: Health | None  # None: it has never started

    @property
    def healthy(self) -> bool:
        return self.health is not None and self.health.reachable and self.health.has_leader

    @property
    def leads(self) -> bool:
        return self.health is not None and self.health.leader

    @property
    def seat(self) -> Seat:
        return Seat(self.node, votes=not self.member.learner, healthy=self.healthy)


async def look_at_members(store: Store, admin: Admin) -> list[Sight]:
    """Asks all members at once."""
    members = await admin.members()
    nodes = {each.record.member_id: each.record.node for each in await Ledger(store).cores.all()}
    answers = await asyncio.gather(*(admin.health(_endpoint(each)) for each in members if each.client_urls))
    health = {answer.endpoint: answer for answer in answers}
    return [
        Sight(
            each,
            each.name or nodes.get(each.id, each.id),
            health.get(_endpoint(each)),
        )
        for each in members
    ]


def _endpoint(member: EtcdMember) -> str:
    return member.client_urls[0].removeprefix("https://") if member.client_urls else ""


async def read_seats(store: Store, admin: Admin) -> list[Seat]:
    return [sight.seat for sight in await look_at_members(store, admin)]


@asynccontextmanager
async def at_leader(site: Site, sights: list[Sight]) -> AsyncIterator[Admin]:
    """Calls of the leader itself; raises Unavailable (`no-leader`) when none is in sight."""
    leader = next((sight for sight in sights if sight.leads), None)
    if leader is None:
        raise Unavailable(
            "The federation's etcd has no leader at the moment.",
            code="no-leader",
            next="Try again in a few seconds; 'maoctl federation list' shows which members answer.",
        )
    async with site.admin(_endpoint(leader.member)) as admin:
        yield admin


async def remove_from_etcd(site: Site, store: Store, admin: Admin, node: str) -> None:
    """Takes the node's member off etcd; nothing happens when it has none.

    A leader hands over first: removed as it leads, it might take with it that the others know of it. What is
    refused is tried again: other core nodes may be at the same, and etcd lets nobody go in the first seconds
    after somebody came. Raises the last refusal.
    """
    refused: MaoError | None = None
    for _ in range(TRIES):
        try:
            return await _remove_once(site, store, admin, node)
        except (Conflict, StoreUnavailable, StoreUnknown) as error:
            log.debug("federation.not_taken_off", node=node, error=error.detail)
            refused = error
        await asyncio.sleep(AGAIN)
    raise refused or AssertionError("tried at least once")


async def _remove_once(site: Site, store: Store, admin: Admin, node: str) -> None:
    sights = await look_at_members(store, admin)
    going = next((sight for sight in sights if sight.node == node), None)
    if going is not None:
        await _hand_over(site, sights, going)
        await admin.remove(going.member.id)


async def _hand_over(site: Site, sights: list[Sight], going: Sight) -> None:
    heir = next((each for each in sights if each is not going and each.seat.votes and each.healthy), None)
    if going.leads and heir is not None:
        async with at_leader(site, sights) as leader:
            await leader.move_leader(heir.member.id)
