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

_LARGE = 1e150  # from here on sums and squares of several values may leave the range of floats
_SMALL = 1e-150  # and from here on squares do so at the other end


def mean(values: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """Return Σwx/Σw, or the plain mean if there are no weights or all are zero. Needs one value."""
    if weights is None or not any(weights):
        weights = [1.0] * len(values)
    size = _size(values)
    top = max(weights)
    parts = [each / top for each in weights]
    return size * (
        fsum(part * (value / size) for part, value in zip(parts, values, strict=True)) / fsum(parts)
    )


def standard_deviation(values: Sequence[float]) -> float:
    """Return the population standard deviation."""
    size = _size(values)
    small = [each / size for each in values]
    middle = mean(small)
    return size * sqrt(fsum((each - middle) ** 2 for each in small) / len(small))


def _size(values: Sequence[float]) -> float:
    """Return a divisor against overflow: 1 unless the values are very large or small, as division rounds."""
    largest = max(abs(each) for each in values)
    return 1.0 if not largest or _SMALL <= largest <= _LARGE else largest


def median(values: Sequence[float]) -> float:
    """Return the middle value, or the mean of the two in the middle. Needs one value."""
    ranked, half = sorted(values), len(values) // 2
    return ranked[half] if len(values) % 2 else mean(ranked[half - 1 : half + 1])


def agrees(value: float, reference: float, error: float) -> bool:
    """True if `value` is within the fraction `error` of `reference`; only zero agrees with zero."""
    bounds = (1 - error) * reference, (1 + error) * reference
    return min(bounds) <= value <= max(bounds)


def soft_agreement(value: float, reference: float, error: float, scaling: float) -> float:
    """Return 1 within `error`, decreasing linearly to 0 at `scaling` times `error`."""
    distance, near = abs(value - reference), error * abs(reference)
    if distance <= near:
        return 1.0
    far = scaling * near
    if distance >= far:
        return 0.0
    return min(scaling / (scaling - 1) * (1 - distance / far), 1.0)


def agree_with_most(values: Sequence[float], error: float) -> list[bool]:
    """Return for each value whether it agrees with at least half of the others as reference."""
    return [
        2 * sum(agrees(value, other, error) for at, other in enumerate(values) if at != place)
        >= len(values) - 1
        for place, value in enumerate(values)
    ]


def soft_shares(values: Sequence[float], error: float, scaling: float) -> list[float]:
    """Return for each value its mean soft agreement with the others; 1 for a single value."""
    others = len(values) - 1
    if not others:
        return [1.0]
    return [
        sum(
            soft_agreement(value, each, error, scaling) for other, each in enumerate(values) if other != place
        )
        / others
        for place, value in enumerate(values)
    ]


def excluded(values: Sequence[float], exclusion: Exclusion, threshold: float) -> frozenset[int]:
    """Return the indices of the excluded values; never all of them."""
    if exclusion == "NONE" or not values:
        return frozenset()
    middle = median(values)
    distances = [abs(each - middle) for each in values]
    if exclusion == "OUTSIDE_SIGMA":
        limit = threshold * standard_deviation(values)
        out = frozenset(place for place, distance in enumerate(distances) if distance > limit)
        return out if len(out) < len(values) else frozenset()
    out = frozenset()
    for furthest in sorted({distance for distance in distances if distance}, reverse=True):
        # values at the same distance are excluded together, as their order is arbitrary
        more = out | {place for place, distance in enumerate(distances) if distance == furthest}
        if len(more) > int(threshold) or len(more) == len(distances):
            break
        out = more
    return out


@dataclass(frozen=True, slots=True)
class WeightedValue:
    """A value and the weight of its voter."""

    value: float
    weight: float = 1.0


WeightedValues = Sequence[WeightedValue]


@dataclass(frozen=True, slots=True)
class Collated:
    """The result of a collation. `centre`: the value by which voters are judged; for MEAN_NEAREST_NEIGHBOR
    the mean.
    """

    output: float
    centre: float


def collate(votes: WeightedValues, collation: Collation, error: float) -> Collated:
    """Collate at least one vote; votes without weight are ignored unless none has weight."""
    weighty = [vote for vote in votes if vote.weight > 0] or [WeightedValue(vote.value) for vote in votes]
    if collation == "AGREEMENT":
        agreed = _most_agreed(weighty, error)
        return Collated(agreed, agreed)
    centre = mean([each.value for each in weighty], [each.weight for each in weighty])
    if collation == "MEAN":
        return Collated(centre, centre)
    total, middle = _by_value(weighty), median([each.value for each in weighty])
    nearest = min(total, key=lambda value: (abs(value - centre), -total[value], *_central(value, middle)))
    return Collated(nearest, centre)


def bootstrapped(votes: WeightedValues, error: float) -> list[WeightedValue]:
    """Return the largest group of values near to one another.

    Groups are formed greedily, as in VDX: a value joins the first group whose mean it agrees with. VDX takes
    the values in the order of the input. Here they are taken from the median outwards, so that the voters'
    order does not matter, and the most central of equally large groups wins.
    """
    middle = median([each.value for each in votes])
    groups: list[list[WeightedValue]] = []
    for vote in sorted(votes, key=lambda each: (*_central(each.value, middle), each.weight)):
        fitting = (each for each in groups if agrees(vote.value, mean([one.value for one in each]), error))
        group = next(fitting, None)
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
    for each in votes:
        weights.setdefault(each.value + 0.0, []).append(each.weight)
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
    shared = [value for value in total if sum(1 for each in votes if each.value == value) > 1]
    most = max((total[value] for value in shared), default=0.0)
    heaviest = [value for value in shared if total[value] == most]
    return heaviest[0] if len(heaviest) == 1 else _midpoint(sorted(total), total)


def _closest_group(total: Mapping[float, float], half: float, error: float) -> list[float]:
    """Return the closest group of mutually agreeing values with more than half of the weight, and the values
    that agree with its lowest or highest. Empty if there is no such group.
    """
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
    """True if the values differ by at most the fraction `error` of the larger absolute value."""
    return abs(one - other) <= error * max(abs(one), abs(other))


def _midpoint(ranked: Sequence[float], total: Mapping[float, float]) -> float:
    """Return the value at which half of the weight is reached."""
    half = fsum(total[value] for value in ranked) / 2
    reached = accumulate(total[value] for value in ranked)
    return next((value for value, weight in zip(ranked, reached, strict=True) if weight >= half), ranked[-1])
