"""Rules to compare the vote with that need nothing but the values of a cell."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from statistics import median as middle

from .sets import Cell, Claims, Found, Observed


def plurality(claims: Claims) -> Found:
    """Return the most frequent value of each cell; of several, the least by code points."""
    return {cell: most_frequent(values) for cell, values in claims.items()}


def plurality_of_rows(part: Observed) -> Found:
    """Return the most frequent values of records that at least half of the nodes have.

    A node that lacks a record votes against it; `plurality` keeps whatever anyone has.
    """
    having: dict[str, set[str]] = {}
    for (record, _), values in part.claims.items():
        having.setdefault(record, set()).update(values)

    def is_kept(cell: Cell) -> bool:
        return 2 * len(having[cell[0]]) >= len(part.versions)

    return {cell: value for cell, value in plurality(part.claims).items() if is_kept(cell)}


def clear_plurality(claims: Claims) -> Found:
    """Return the most frequent value of each cell that has only one."""
    top = {cell: Counter(values.values()).most_common(2) for cell, values in claims.items()}
    return {cell: first[0] for cell, (first, *rest) in top.items() if not rest or rest[0][1] < first[1]}


def median(claims: Claims, words: Collection[str]) -> Found:
    """Return the median of each cell in which all values are numbers, or times of day; else plurality.

    `words`: fields that have no median.
    """
    return {
        cell: (None if cell[1] in words else middle_of(values)) or most_frequent(values)
        for cell, values in claims.items()
    }


def most_frequent(values: Mapping[str, str]) -> str:
    counts = Counter(values.values())
    return min(counts, key=lambda value: (-counts[value], value))


def middle_of(values: Mapping[str, str]) -> str | None:
    """Return the median of numbers or times of day; an observed text if it is one of them."""
    texts = list(values.values())
    if all(":" in text for text in texts):
        try:
            minutes = [int(text[:-3]) * 60 + int(text[-2:]) for text in texts]
        except ValueError:
            return None
        found = round(middle(minutes))
        return f"{found // 60:02}:{found % 60:02}"
    try:
        numbers = sorted((float(text), text) for text in texts)
    except ValueError:
        return None
    if not all(math.isfinite(number) for number, _ in numbers):
        return None
    low, high = numbers[(len(numbers) - 1) // 2], numbers[len(numbers) // 2]
    return low[1] if low[0] == high[0] else repr((low[0] + high[0]) / 2)
