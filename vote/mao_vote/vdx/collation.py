"""Means that neither depend on the order of the values nor overflow.

Sums are exact until the last rounding (`fsum`), which is what makes them independent of the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum, sqrt

_LARGE = 1e150  # from here on sums and squares of several values may leave the range of floats
_SMALL = 1e-150  # and from here on squares do so at the other end


def mean(values: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """Σwx/Σw, or the plain mean without weights or when all of them are zero. Needs one value."""
    if weights is None or not any(weights):
        weights = [1.0] * len(values)
    size = _size(values)
    top = max(weights)
    parts = [each / top for each in weights]
    return size * (
        fsum(part * (value / size) for part, value in zip(parts, values, strict=True)) / fsum(parts)
    )


def spread(values: Sequence[float]) -> float:
    """The standard deviation of the values as they are (not of what they are a sample of)."""
    size = _size(values)
    small = [each / size for each in values]
    middle = mean(small)
    return size * sqrt(fsum((each - middle) ** 2 for each in small) / len(small))


def _size(values: Sequence[float]) -> float:
    """What the values are divided by meanwhile: 1 unless they are very large or small, as dividing rounds."""
    largest = max(abs(each) for each in values)
    return 1.0 if not largest or _SMALL <= largest <= _LARGE else largest


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two in the middle. Needs one value."""
    ranked, half = sorted(values), len(values) // 2
    return ranked[half] if len(values) % 2 else mean(ranked[half - 1 : half + 1])
