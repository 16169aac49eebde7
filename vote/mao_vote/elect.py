"""One thing out of several that nodes name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping
from typing import TypeVar

from .election import Why

Thing = TypeVar("Thing", bound=Hashable)
_SCALE = 10**6


def fixed(weight: float) -> int:
    """A weight as a whole number: sums of those are equal in whatever order they are added up."""
    return round(weight * _SCALE)


def elect(
    ballots: Mapping[str, Thing], *, incumbent: Thing | None, weights: Mapping[str, float]
) -> tuple[Thing | None, Why]:
    """The thing that most nodes name: majority, plurality, else incumbent or weight among the tied.

    None with "undecided" where all of that leaves a tie. A node without a weight has 1.
    """
    votes: dict[Thing, int] = defaultdict(int)
    heavy: dict[Thing, int] = defaultdict(int)
    for node, thing in ballots.items():
        votes[thing] += 1
        heavy[thing] += fixed(weights.get(node, 1.0))
    most = max(votes.values())
    leaders = [thing for thing, count in votes.items() if count == most]
    if len(leaders) == 1:
        return leaders[0], "majority" if 2 * most > len(ballots) else "plurality"
    if incumbent in leaders:
        return incumbent, "incumbent"
    heaviest = max(heavy[thing] for thing in leaders)
    leaders = [thing for thing in leaders if heavy[thing] == heaviest]
    return (leaders[0], "weight") if len(leaders) == 1 else (None, "undecided")
