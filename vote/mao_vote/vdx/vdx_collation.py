"""How the values that have a part in a vote become one: mean, the value nearest to it, or the most agreed on.

Nothing here depends on the order of the voters. Ties go to the heavier, then to what is nearer to the median,
then to what is nearer to zero, then to the lower value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import fsum

from mao_shared.models.round import Collation

from .agreement import agrees
from .collation import mean, median


@dataclass(frozen=True, slots=True)
class Vote:
    """A value and the weight of who gave it."""

    value: float
    weight: float = 1.0


Votes = Sequence[Vote]


@dataclass(frozen=True, slots=True)
class Collated:
    """`centre`: what the voters are judged by; for a nearest neighbour the mean that it is near to."""

    output: float
    centre: float


def collate(votes: Votes, collation: Collation, error: float) -> Collated:
    """The outcome of one vote at least; votes without weight have no part unless none has weight."""
    weighty = [each for each in votes if each.weight > 0] or [Vote(each.value) for each in votes]
    if collation == "AGREEMENT":
        agreed = _most_agreed(weighty, error)
        return Collated(agreed, agreed)
    centre = mean([each.value for each in weighty], [each.weight for each in weighty])
    return Collated(centre if collation == "MEAN" else _nearest(centre, weighty), centre)


def bootstrapped(votes: Votes, error: float) -> list[Vote]:
    """The largest group of values near to one another.

    The groups are formed greedily, as VDX does it: a value joins the first group whose mean it agrees with.
    VDX takes the values as they come in. Here they are taken from the median outwards, so that the voters'
    order does not matter, and the most central of equally large groups wins.
    """
    middle = median([each.value for each in votes])
    groups: list[list[Vote]] = []
    for vote in sorted(votes, key=lambda each: (*_central(each.value, middle), each.weight)):
        fitting = (each for each in groups if agrees(vote.value, mean([one.value for one in each]), error))
        group = next(fitting, None)
        if group is None:
            groups.append([vote])
        else:
            group.append(vote)
    return max(groups, key=len)


def _central(value: float, middle: float) -> tuple[float, float, float]:
    """Sorts what is nearer to the middle first."""
    return abs(value - middle), abs(value), value


def _nearest(centre: float, votes: Votes) -> float:
    middle = median([each.value for each in votes])
    total = _by_value(votes)
    return min(total, key=lambda value: (abs(value - centre), -total[value], *_central(value, middle)))


def _by_value(votes: Votes) -> dict[float, float]:
    """The weight behind each value; -0.0 is 0.0."""
    weights: dict[float, list[float]] = {}
    for each in votes:
        weights.setdefault(each.value + 0.0, []).append(each.weight)
    return {value: fsum(parts) for value, parts in weights.items()}


def _most_agreed(votes: Votes, error: float) -> float:
    """The plain vote on numbers, by weight instead of by count: always a value that somebody gave.

    What has more than half of the weight; else out of the closest group that has it, and what agrees with its
    ends, the heaviest value; else the heaviest that two at least gave; else, or if tied, the lower median.
    """
    total = _by_value(votes)
    half = fsum(total.values()) / 2
    winners = [value for value, weight in total.items() if weight > half]
    if winners:
        return winners[0]
    group = _closest_group(total, half, error)
    if group:
        middle = _half_way(sorted(group, key=lambda value: (abs(value), value)), total)
        return min(group, key=lambda value: (-total[value], *_central(value, middle)))
    shared = [value for value in total if sum(1 for each in votes if each.value == value) > 1]
    most = max((total[value] for value in shared), default=0.0)
    heaviest = [value for value in shared if total[value] == most]
    return heaviest[0] if len(heaviest) == 1 else _half_way(sorted(total), total)


def _closest_group(total: Mapping[float, float], half: float, error: float) -> list[float]:
    """Values each of which agrees with each and that together weigh more than half; then who agrees with the
    lowest or the highest of them. Empty where there are none such."""
    groups = []
    for low in total:
        members = [value for value in total if value >= low and _mutual(low, value, error)]
        weight = fsum(total[value] for value in members)
        if weight > half:
            groups.append((-weight, max(members) - low, abs(low), low, max(members)))
    if not groups:
        return []
    *_, low, high = min(groups)
    return [
        value
        for value in total
        if low <= value <= high or _mutual(value, low, error) or _mutual(value, high, error)
    ]


def _mutual(one: float, other: float, error: float) -> bool:
    """Whether they differ by at most the part `error` of the larger one."""
    return abs(one - other) <= error * max(abs(one), abs(other))


def _half_way(ranked: Sequence[float], total: Mapping[float, float]) -> float:
    """The value at which half of the weight is reached."""
    half = fsum(total[value] for value in ranked) / 2
    reached = accumulate(total[value] for value in ranked)
    return next((value for value, weight in zip(ranked, reached, strict=True) if weight >= half), ranked[-1])
