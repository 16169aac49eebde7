"""How the values that have a part in a vote become one: mean, the value nearest to it, or the most agreed on.

Nothing here depends on the order of the voters. Ties go to the heavier, then to what is nearer to the median,
then to what is nearer to zero, then to the lower value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import fsum

from mao_shared.models.vote import Collation

from .agreement import agrees
from .means import mean, median


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
    """The heaviest value of two voters at least, else the middle of the heaviest group within `error`.

    Where no two agree it is the lower median: always a value that somebody gave.
    """
    middle = median([each.value for each in votes])
    total = _by_value(votes)
    voters = {value: sum(1 for each in votes if each.value == value) for value in total}
    shared = [value for value in total if voters[value] > 1]
    if shared:
        return min(shared, key=lambda value: (-total[value], *_central(value, middle)))
    windows = _windows(sorted(votes, key=lambda each: each.value), error)
    return _lower_median(max(windows, key=_heaviest(middle)) if windows else votes)


def _windows(ranked: Votes, error: float) -> list[Votes]:
    """Each run of two or more neighbours whose ends agree both ways; those within others do not harm."""
    ends = [(low, high) for low in range(len(ranked)) for high in range(low + 1, len(ranked))]
    return [
        ranked[low : high + 1] for low, high in ends if _mutual(ranked[low].value, ranked[high].value, error)
    ]


def _mutual(one: float, other: float, error: float) -> bool:
    return agrees(one, other, error) and agrees(other, one, error)


def _heaviest(middle: float) -> Callable[[Votes], tuple[float, ...]]:
    def key(window: Votes) -> tuple[float, ...]:
        centre = mean([each.value for each in window])
        return (fsum(each.weight for each in window), *(-each for each in _central(centre, middle)))

    return key


def _lower_median(votes: Votes) -> float:
    """The value at which half of the weight is reached from below."""
    ranked = sorted(votes, key=lambda each: each.value)
    half = fsum(each.weight for each in ranked) / 2
    reached = 0.0
    for each in ranked:
        reached += each.weight
        if reached >= half:
            return each.value
    return ranked[-1].value
