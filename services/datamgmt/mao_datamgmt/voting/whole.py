"""Deciding one value that can only be taken whole: whether a file is there, its kind, its content. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from math import fsum
from typing import Generic, Literal, TypeVar

Value = TypeVar("Value", bound=Hashable)
Why = Literal["unanimous", "majority", "plurality", "incumbent", "weight", "undecided"]


@dataclass(frozen=True, slots=True)
class Choice(Generic[Value]):
    """`value` is None when it stays undecided."""

    value: Value | None
    why: Why


def choose(
    votes: Mapping[str, Value], incumbent: Value | None, weights: Mapping[str, float]
) -> Choice[Value]:
    """What most of the voters say; among the tied the incumbent, then the heavier side, else nothing.

    The order of the voters plays no part. A voter without a weight has weight 1.
    """
    counts = Counter(votes.values())
    most = max(counts.values())
    leading = [value for value, count in counts.items() if count == most]
    if len(leading) == 1:
        why: Why = "unanimous" if most == len(votes) else "majority" if 2 * most > len(votes) else "plurality"
        return Choice(leading[0], why)
    if incumbent is not None and incumbent in leading:
        return Choice(incumbent, "incumbent")
    weight = {value: _weight(votes, value, weights) for value in leading}
    heaviest = [value for value in leading if weight[value] == max(weight.values())]
    return Choice(heaviest[0], "weight") if len(heaviest) == 1 else Choice(None, "undecided")


def _weight(votes: Mapping[str, Value], value: Value, weights: Mapping[str, float]) -> float:
    """Summed exactly, so that the order of the voters changes nothing."""
    return fsum(weights.get(voter, 1.0) for voter, vote in votes.items() if vote == value)
