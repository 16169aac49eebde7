"""Which values have no part in a vote, for being too far from the median."""

from __future__ import annotations

from collections.abc import Sequence

from mao_shared.models.round import Exclusion

from .collation import median, spread


def excluded(values: Sequence[float], exclusion: Exclusion, threshold: float) -> frozenset[int]:
    """The places of the values left out; never all of them."""
    if exclusion == "NONE" or not values:
        return frozenset()
    middle = median(values)
    distances = [abs(each - middle) for each in values]
    if exclusion == "FURTHEST":
        return _furthest(distances, int(threshold))
    limit = threshold * spread(values)
    out = frozenset(place for place, distance in enumerate(distances) if distance > limit)
    return out if len(out) < len(values) else frozenset()


def _furthest(distances: Sequence[float], most: int) -> frozenset[int]:
    """At most so many. Those equally far go together or stay together, as their order is chance."""
    out: frozenset[int] = frozenset()
    for distance in sorted({each for each in distances if each}, reverse=True):
        more = out | {place for place, each in enumerate(distances) if each == distance}
        if len(more) > most or len(more) == len(distances):
            break
        out = more
    return out
