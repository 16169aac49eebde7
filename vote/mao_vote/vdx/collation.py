"""VDX on numbers: means, agreement, exclusion, and collation of the remaining values into one.

No result depends on the order of the voters: sums are exact until the last rounding (`fsum`), and ties are
broken by weight, then by distance to the median, then by distance to zero, then by the lower value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import fsum, sqrt

from mao_shared.models.round import Collation, Exclusion

_LARGE = 1e150  # sums and squares of larger values may exceed the range of floats
_SMALL = 1e-150  # squares of smaller values may underflow


def mean(values: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """Return Σwx/Σw, or the plain mean if there are no weights or all are zero. Requires a value."""
    if weights is None or not any(weights):
        weights = [1.0] * len(values)
    size = _size(values)
    top = max(weights)
    parts = [weight / top for weight in weights]
    return size * (
        fsum(part * (value / size) for part, value in zip(parts, values, strict=True)) / fsum(parts)
    )


def standard_deviation(values: Sequence[float]) -> float:
    """Return the population standard deviation."""
    size = _size(values)
    scaled = [value / size for value in values]
    middle = mean(scaled)
    return size * sqrt(fsum((value - middle) ** 2 for value in scaled) / len(scaled))


def _size(values: Sequence[float]) -> float:
    """Return a divisor that prevents overflow, or 1, since division rounds, for ordinary values."""
    largest = max(abs(value) for value in values)
    return 1.0 if not largest or _SMALL <= largest <= _LARGE else largest


def median(values: Sequence[float]) -> float:
    """Return the middle value, or the mean of the two in the middle. Requires a value."""
    ranked, half = sorted(values), len(values) // 2
    return ranked[half] if len(values) % 2 else mean(ranked[half - 1 : half + 1])


def agrees_with_reference(value: float, reference: float, error: float) -> bool:
    """True if `value` is within the fraction `error` of `reference`; only zero agrees with zero."""
    bounds = (1 - error) * reference, (1 + error) * reference
    return min(bounds) <= value <= max(bounds)


def soft_agreement(value: float, reference: float, error: float, scaling: float) -> float:
    """Return 1 within `error`, decreasing linearly to 0 at `scaling` times `error`."""
    distance, tolerance = abs(value - reference), error * abs(reference)
    if distance <= tolerance:
        return 1.0
    far = scaling * tolerance
    if distance >= far:
        return 0.0
    return min(scaling / (scaling - 1) * (1 - distance / far), 1.0)


def agree_with_most(values: Sequence[float], error: float) -> list[bool]:
    """Return for each value whether it agrees with at least half of the others as reference."""
    return [
        2
        * sum(
            agrees_with_reference(value, other, error)
            for index, other in enumerate(values)
            if index != position
        )
        >= len(values) - 1
        for position, value in enumerate(values)
    ]


def soft_shares(values: Sequence[float], error: float, scaling: float) -> list[float]:
    """Return for each value its mean soft agreement with the others; 1 for a single value."""
    others = len(values) - 1
    if not others:
        return [1.0]
    return [
        sum(
            soft_agreement(value, other, error, scaling)
            for index, other in enumerate(values)
            if index != position
        )
        / others
        for position, value in enumerate(values)
    ]


def excluded(values: Sequence[float], exclusion: Exclusion, threshold: float) -> frozenset[int]:
    """Return the indices of the excluded values; never all of them."""
    if exclusion == "NONE" or not values:
        return frozenset()
    middle = median(values)
    distances = [abs(value - middle) for value in values]
    if exclusion == "OUTSIDE_SIGMA":
        limit = threshold * standard_deviation(values)
        outliers = frozenset(position for position, distance in enumerate(distances) if distance > limit)
        return outliers if len(outliers) < len(values) else frozenset()
    outliers = frozenset()
    for furthest in sorted({distance for distance in distances if distance}, reverse=True):
        # values at the same distance are excluded together, as their order is arbitrary
        more = outliers | {position for position, distance in enumerate(distances) if distance == furthest}
        if len(more) > int(threshold) or len(more) == len(distances):
            break
        outliers = more
    return outliers


@dataclass(frozen=True, slots=True)
class WeightedValue:
    """A value and the weight of its voter."""

    value: float
    weight: float = 1.0


WeightedValues = Sequence[WeightedValue]


@dataclass(frozen=True, slots=True)
class Collated:
    """The result of a collation. Voters are judged by `centre`; for MEAN_NEAREST_NEIGHBOR it is the mean."""

    output: float
    centre: float


def collate(votes: WeightedValues, collation: Collation, error: float) -> Collated:
    """Collate at least one vote; votes without weight are ignored unless none has weight."""
    weighted = [vote for vote in votes if vote.weight > 0] or [WeightedValue(vote.value) for vote in votes]
    if collation == "AGREEMENT":
        agreed = _most_agreed(weighted, error)
        return Collated(agreed, agreed)
    centre = mean([vote.value for vote in weighted], [vote.weight for vote in weighted])
    if collation == "MEAN":
        return Collated(centre, centre)
    total, middle = _by_value(weighted), median([vote.value for vote in weighted])
    nearest = min(total, key=lambda value: (abs(value - centre), -total[value], *_central(value, middle)))
    return Collated(nearest, centre)


def bootstrapped(votes: WeightedValues, error: float) -> list[WeightedValue]:
    """Return the largest group of values near to one another.

    Groups are formed greedily, as in VDX: a value joins the first group whose mean it agrees with. VDX takes
    the values in the order of the input. Here they are taken from the median outwards, so that the voters'
    order does not matter, and the most central of equally large groups wins.
    """
    middle = median([vote.value for vote in votes])
    groups: list[list[WeightedValue]] = []
    for vote in sorted(votes, key=lambda vote: (*_central(vote.value, middle), vote.weight)):
        means = ((group, mean([member.value for member in group])) for group in groups)
        group = next(
            (group for group, centre in means if agrees_with_reference(vote.value, centre, error)), None
        )
        if group is None:
            groups.append([vote])
        else:
            group.append(vote)
    return max(groups, key=len)


def _central(value: float, middle: float) -> tuple[float, float, float]:
    """Return a sort key by distance from the middle."""
    return abs(value - middle), abs(value), value


def _by_value(votes: WeightedValues) -> dict[float, float]:
    """Return the total weight of each value; -0.0 counts as 0.0."""
    weights: dict[float, list[float]] = {}
    for vote in votes:
        weights.setdefault(vote.value + 0.0, []).append(vote.weight)
    return {value: fsum(parts) for value, parts in weights.items()}


def _most_agreed(votes: WeightedValues, error: float) -> float:
    """Vote on numbers as by default, but by weight instead of by count. The result is always a given value.

    It is the value with more than half of the weight; else the heaviest value of the closest group with more
    than half, and of those that agree with its ends; else the heaviest value with at least two votes; else,
    or if tied, the lower median.
    """
    total = _by_value(votes)
    half = fsum(total.values()) / 2
    winners = [value for value, weight in total.items() if weight > half]
    if winners:
        return winners[0]
    group = _closest_group(total, half, error)
    if group:
        middle = _midpoint(sorted(group, key=lambda value: (abs(value), value)), total)
        return min(group, key=lambda value: (-total[value], *_central(value, middle)))
    shared = [value for value in total if sum(1 for vote in votes if vote.value == value) > 1]
    most = max((total[value] for value in shared), default=0.0)
    heaviest = [value for value in shared if total[value] == most]
    return heaviest[0] if len(heaviest) == 1 else _midpoint(sorted(total), total)


def _closest_group(total: Mapping[float, float], half: float, error: float) -> list[float]:
    """Return the closest group of mutually agreeing values with more than half of the weight.

    It includes values that agree with its lowest or highest one. Empty if there is no such group.
    """
    groups = []
    for low in total:
        members = [value for value in total if value >= low and _agree_mutually(low, value, error)]
        weight = fsum(total[value] for value in members)
        if weight > half:
            groups.append((-weight, max(members) - low, abs(low), low, max(members)))
    if not groups:
        return []
    *_, low, high = min(groups)
    return [
        value
        for value in total
        if low <= value <= high or _agree_mutually(value, low, error) or _agree_mutually(value, high, error)
    ]


def _agree_mutually(one: float, other: float, error: float) -> bool:
    """True if the values differ by at most the fraction `error` of the larger absolute value."""
    return abs(one - other) <= error * max(abs(one), abs(other))


def _midpoint(ranked: Sequence[float], total: Mapping[float, float]) -> float:
    """Return the value at which half of the weight is reached."""
    half = fsum(total[value] for value in ranked) / 2
    reached = accumulate(total[value] for value in ranked)
    return next((value for value, weight in zip(ranked, reached, strict=True) if weight >= half), ranked[-1])
