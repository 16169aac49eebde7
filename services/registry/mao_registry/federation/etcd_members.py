"""Pure: whether the members of the federation's etcd may change; a refusal says why, and the next step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mao_shared.errors import Conflict

MOST_VOTERS = 7  # etcd's own advice; more only make every write slower


@dataclass(frozen=True, slots=True)
class Seat:
    """A member of etcd: the node that runs it, whether it votes, and whether it answers now."""

    node: str
    votes: bool
    healthy: bool


def quorum(voters: int) -> int:
    return voters // 2 + 1


def check_may_go(seats: Sequence[Seat], node: str) -> None:
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
            f" and {quorum(len(rest))} are needed; these do not answer: {_silent(rest)}.",
            code="quorum-at-risk",
            next=_mend(rest),
        )


def check_may_come(seats: Sequence[Seat], node: str) -> None:
    """Raises Conflict when `node` cannot begin as a learner now: `quorum-at-risk`, `promotion-under-way`,
    `too-many-cores`."""
    voters = [seat for seat in seats if seat.votes]
    healthy = sum(seat.healthy for seat in voters)
    if healthy < quorum(len(voters)):
        raise Conflict(
            f"{healthy} of {len(voters)} voting members answer and {quorum(len(voters))} are needed to admit"
            f" {node!r}; these do not answer: {_silent(voters)}.",
            code="quorum-at-risk",
            next=_mend(voters),
        )
    learner = next((seat.node for seat in seats if not seat.votes and seat.node != node), None)
    if learner is not None:
        raise Conflict(
            f"The node {learner!r} is being promoted; etcd takes one new member at a time.",
            code="promotion-under-way",
            next=f"Wait for it, or give it up: maoctl federation demote {learner}.",
        )
    if len(voters) >= MOST_VOTERS:
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


def _silent(seats: Sequence[Seat]) -> str:
    return ", ".join(seat.node for seat in seats if not seat.healthy) or "none"


def _mend(seats: Sequence[Seat]) -> str:
    silent = next((seat.node for seat in seats if not seat.healthy), "NODE")
    return (
        f"Start {silent} again; if it is gone for good, take it off first: maoctl federation remove {silent}."
    )
