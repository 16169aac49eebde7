"""Whether two numbers agree, relative to the one of them that is taken as the reference.

All of it holds alike for negative numbers, and tells numbers of different signs apart.
"""

from __future__ import annotations

from collections.abc import Sequence


def agrees(value: float, reference: float, error: float) -> bool:
    """Whether `value` lies within the part `error` of `reference`; nothing but zero agrees with zero."""
    bounds = (1 - error) * reference, (1 + error) * reference
    return min(bounds) <= value <= max(bounds)


def softly(value: float, reference: float, error: float, scaling: float) -> float:
    """1 within `error`, from there falling in a straight line to 0 at `scaling` times `error`."""
    distance, near = abs(value - reference), error * abs(reference)
    if distance <= near:
        return 1.0
    far = scaling * near
    if distance >= far:
        return 0.0
    return min(scaling / (scaling - 1) * (1 - distance / far), 1.0)


def with_most(values: Sequence[float], error: float) -> list[bool]:
    """For each value, whether at least half of the others are a reference that it agrees with."""
    return [2 * _others(values, place, error) >= len(values) - 1 for place in range(len(values))]


def _others(values: Sequence[float], place: int, error: float) -> int:
    value = values[place]
    return sum(agrees(value, each, error) for other, each in enumerate(values) if other != place)


def soft_shares(values: Sequence[float], error: float, scaling: float) -> list[float]:
    """For each value its mean soft agreement with the others; 1 for the only one there is."""
    others = len(values) - 1
    if not others:
        return [1.0]
    return [
        sum(softly(value, each, error, scaling) for other, each in enumerate(values) if other != place)
        / others
        for place, value in enumerate(values)
    ]
