"""The members of the federation's etcd: health, checks before adding and removing, removal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import stamina

from mao_shared.errors import Conflict, StoreUnavailable, StoreUnknown, Unavailable
from mao_shared.store import Store

from .context import FederationContext, FederationRecords

if TYPE_CHECKING:
    from mao_shared.store.etcd_admin import Admin

MAX_VOTERS = 7  # recommended by etcd; more members only make writes slower
REMOVAL_ATTEMPTS = 15
REMOVAL_RETRY = 0.7  # seconds between attempts


@dataclass(frozen=True, slots=True)
class EtcdMemberState:
    """A member of etcd: the node that runs it, whether it votes, and whether it answers now."""

    node: str
    votes: bool
    healthy: bool


@dataclass(frozen=True, slots=True)
class ObservedMember(EtcdMemberState):
    """A member with its id in etcd and its `host:port` for clients (empty if it has never started)."""

    id: str
    endpoint: str
    leads: bool


def quorum(voters: int) -> int:
    return voters // 2 + 1


def check_removal(members: Sequence[EtcdMemberState], node: str) -> None:
    """Raise Conflict (`last-core`, `quorum-at-risk`) if etcd would lose its quorum without `node`. Pure."""
    leaving = next((member for member in members if member.node == node), None)
    if leaving is None or not leaving.votes:
        return
    rest = [member for member in members if member.votes and member.node != node]
    if not rest:
        raise Conflict(
            f"The node {node!r} is the last core node: without it the federation has no store.",
            code="last-core",
            next="Promote another node first: maoctl federation promote NODE",
        )
    healthy = sum(member.healthy for member in rest)
    if healthy < quorum(len(rest)):
        raise Conflict(
            f"Without {node!r} there are {len(rest)} voting members, of which {healthy} answer"
            f" and {quorum(len(rest))} are needed; these do not answer: {_unhealthy_names(rest)}.",
            code="quorum-at-risk",
            next=_restart_step(rest),
        )


def check_addition(members: Sequence[EtcdMemberState], node: str) -> None:
    """Raise Conflict if `node` cannot be added as a learner now. Pure.

    Codes: `quorum-at-risk`, `promotion-under-way`, `too-many-cores`.
    """
    voters = [member for member in members if member.votes]
    healthy = sum(member.healthy for member in voters)
    if healthy < quorum(len(voters)):
        raise Conflict(
            f"{healthy} of {len(voters)} voting members answer and {quorum(len(voters))} are needed to admit"
            f" {node!r}; these do not answer: {_unhealthy_names(voters)}.",
            code="quorum-at-risk",
            next=_restart_step(voters),
        )
    learner = next((member.node for member in members if not member.votes and member.node != node), None)
    if learner is not None:
        raise Conflict(
            f"The node {learner!r} is being promoted; etcd takes one new member at a time.",
            code="promotion-under-way",
            next=f"Wait for it, or cancel it: maoctl federation demote {learner}",
        )
    if len(voters) >= MAX_VOTERS:
        raise Conflict(
            f"There are {len(voters)} core nodes already.",
            code="too-many-cores",
            next="Demote another one first: maoctl federation demote NODE",
        )


def advice(voters: int) -> str | None:
    """Return advice about this number of core nodes; None if it is fine."""
    if voters == 1:
        return "One core node: when it is down, nothing shared can change. Promote two more."
    if voters % 2 == 0:
        return f"{voters} core nodes tolerate no more failures than {voters - 1}. Promote or demote one."
    return None


def _unhealthy_names(members: Sequence[EtcdMemberState]) -> str:
    return ", ".join(member.node for member in members if not member.healthy) or "none"


def _restart_step(members: Sequence[EtcdMemberState]) -> str:
    unhealthy = next((member.node for member in members if not member.healthy), "NODE")
    return (
        f"Start {unhealthy} again; if it is gone for good, remove it first: "
        f"maoctl federation remove {unhealthy}."
    )


async def observe_members(store: Store, admin: Admin) -> list[ObservedMember]:
    """Query the health of all members concurrently; one that has never started has no endpoint."""
    members = await admin.members()
    cores = await FederationRecords(store).cores.all()
    nodes = {core.record.member_id: core.record.node for core in cores}
    endpoints = [
        member.client_urls[0].removeprefix("https://") if member.client_urls else "" for member in members
    ]
    answers = await asyncio.gather(*(admin.health(endpoint) for endpoint in endpoints if endpoint))
    answered = {health.endpoint: health for health in answers if health.reachable}
    observed = []
    for member, endpoint in zip(members, endpoints, strict=True):
        health = answered.get(endpoint)
        observed.append(
            ObservedMember(
                node=member.name or nodes.get(member.id, member.id),
                votes=not member.learner,
                healthy=health is not None and health.has_leader,
                id=member.id,
                endpoint=endpoint,
                leads=health is not None and health.leader,
            )
        )
    return observed


@asynccontextmanager
async def at_leader(context: FederationContext, members: list[ObservedMember]) -> AsyncIterator[Admin]:
    """Connect to the leader. Raises Unavailable (`no-leader`) if none is known."""
    leader = next((member for member in members if member.leads), None)
    if leader is None:
        raise Unavailable(
            "The federation's etcd has no leader at the moment.",
            code="no-leader",
            next="Try again in a few seconds; 'maoctl federation list' shows which members answer.",
        )
    async with context.connect_admin([leader.endpoint]) as admin:
        yield admin


async def remove_etcd_member(context: FederationContext, store: Store, admin: Admin, node: str) -> None:
    """Remove the node's member from etcd; do nothing if it has none.

    If it is the leader, leadership is transferred first, so that the others do not wait for an election.
    Refusals are retried: another core node may be doing the same, and etcd removes no member in the first
    seconds after one was added. Raises the last refusal.
    """
    attempts = stamina.retry_context(
        on=(Conflict, StoreUnavailable, StoreUnknown),
        attempts=REMOVAL_ATTEMPTS,
        timeout=None,
        wait_initial=REMOVAL_RETRY,
        wait_max=REMOVAL_RETRY,
        wait_jitter=0,
    )
    async for attempt in attempts:
        with attempt:
            members = await observe_members(store, admin)
            leaving = next((member for member in members if member.node == node), None)
            if leaving is None:
                return
            others = (member for member in members if member is not leaving)
            successor = next((member for member in others if member.votes and member.healthy), None)
            if leaving.leads and successor is not None:
                async with at_leader(context, members) as leader:
                    await leader.move_leader(successor.id)
            await admin.remove(leaving.id)
