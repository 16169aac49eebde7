"""The members of the federation's etcd: their health, whether they may change, their removal.

Pure: whether the members of the federation's etcd may change; a refusal says why, and the next step.

The members of the federation's etcd as they are now.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mao_shared.errors import Conflict, MaoError, StoreUnavailable, StoreUnknown, Unavailable
from mao_shared.logs import get_logger
from mao_shared.store import Store

from .context import FederationContext, FederationRecords

if TYPE_CHECKING:
    from mao_shared.store.etcd_admin import Admin, EtcdMember, Health

MAX_VOTERS = 7  # etcd's own advice; more only make every write slower


@dataclass(frozen=True, slots=True)
class EtcdMemberState:
    """A member of etcd: the node that runs it, whether it votes, and whether it answers now."""

    node: str
    votes: bool
    healthy: bool


def quorum(voters: int) -> int:
    return voters // 2 + 1


def check_removal(seats: Sequence[EtcdMemberState], node: str) -> None:
    """Raises Conflict (`last-core`, `quorum-at-risk`) when etcd would stand still without `node`."""
    going = next((seat for seat in seats if seat.node == node), None)
    if going is None or not going.votes:
        return
    rest = [seat for seat in seats if seat.votes and seat.node != node]
    if not rest:
        raise Conflict(
            f"The node {node!r} is the last core node: without it the federation has no store.",
            code="last-core",
            next="Promote another node first: maoctl federation promote NODE.",
        )
    healthy = sum(seat.healthy for seat in rest)
    if healthy < quorum(len(rest)):
        raise Conflict(
            f"Without {node!r} there are {len(rest)} voting members, of which {healthy} answer"
            f" and {quorum(len(rest))} are needed; these do not answer: {_unhealthy_names(rest)}.",
            code="quorum-at-risk",
            next=_restart_step(rest),
        )


def check_addition(seats: Sequence[EtcdMemberState], node: str) -> None:
    """Raises Conflict when `node` cannot begin as a learner now: `quorum-at-risk`, `promotion-under-way`,
    `too-many-cores`."""
    voters = [seat for seat in seats if seat.votes]
    healthy = sum(seat.healthy for seat in voters)
    if healthy < quorum(len(voters)):
        raise Conflict(
            f"{healthy} of {len(voters)} voting members answer and {quorum(len(voters))} are needed to admit"
            f" {node!r}; these do not answer: {_unhealthy_names(voters)}.",
            code="quorum-at-risk",
            next=_restart_step(voters),
        )
    learner = next((seat.node for seat in seats if not seat.votes and seat.node != node), None)
    if learner is not None:
        raise Conflict(
            f"The node {learner!r} is being promoted; etcd takes one new member at a time.",
            code="promotion-under-way",
            next=f"Wait for it, or give it up: maoctl federation demote {learner}.",
        )
    if len(voters) >= MAX_VOTERS:
        raise Conflict(
            f"There are {len(voters)} core nodes already.",
            code="too-many-cores",
            next="Demote another one first: maoctl federation demote NODE.",
        )


def advice(voters: int) -> str | None:
    """What to tell a person about this number of core nodes; None when there is nothing to say."""
    if voters == 1:
        return "One core node: when it is down, nothing shared can change. Promote two more."
    if voters % 2 == 0:
        return f"{voters} core nodes bear no more failures than {voters - 1}. Promote one more or demote one."
    return None


def _unhealthy_names(seats: Sequence[EtcdMemberState]) -> str:
    return ", ".join(seat.node for seat in seats if not seat.healthy) or "none"


def _restart_step(seats: Sequence[EtcdMemberState]) -> str:
    silent = next((seat.node for seat in seats if not seat.healthy), "NODE")
    return (
        f"Start {silent} again; if it is gone for good, take it off first: maoctl federation remove {silent}."
    )


log = get_logger(__name__)

TRIES, AGAIN = 15, 0.7  # seconds between them


@dataclass(frozen=True, slots=True)
class ObservedMember:
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
    def seat(self) -> EtcdMemberState:
        return EtcdMemberState(self.node, votes=not self.member.learner, healthy=self.healthy)


async def observe_members(store: Store, admin: Admin) -> list[ObservedMember]:
    """Asks all members at once."""
    members = await admin.members()
    nodes = {each.record.member_id: each.record.node for each in await FederationRecords(store).cores.all()}
    answers = await asyncio.gather(*(admin.health(_endpoint(each)) for each in members if each.client_urls))
    health = {answer.endpoint: answer for answer in answers}
    return [
        ObservedMember(
            each,
            each.name or nodes.get(each.id, each.id),
            health.get(_endpoint(each)),
        )
        for each in members
    ]


def _endpoint(member: EtcdMember) -> str:
    return member.client_urls[0].removeprefix("https://") if member.client_urls else ""


async def member_states(store: Store, admin: Admin) -> list[EtcdMemberState]:
    return [sight.seat for sight in await observe_members(store, admin)]


@asynccontextmanager
async def at_leader(site: FederationContext, sights: list[ObservedMember]) -> AsyncIterator[Admin]:
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


async def remove_etcd_member(site: FederationContext, store: Store, admin: Admin, node: str) -> None:
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


async def _remove_once(site: FederationContext, store: Store, admin: Admin, node: str) -> None:
    sights = await observe_members(store, admin)
    going = next((sight for sight in sights if sight.node == node), None)
    if going is not None:
        await _hand_over(site, sights, going)
        await admin.remove(going.member.id)


async def _hand_over(site: FederationContext, sights: list[ObservedMember], going: ObservedMember) -> None:
    heir = next((each for each in sights if each is not going and each.seat.votes and each.healthy), None)
    if going.leads and heir is not None:
        async with at_leader(site, sights) as leader:
            await leader.move_leader(heir.member.id)
