"""Measures on samples how many versions share the values of a candidate key.

Nothing here depends on the order of rows: a sample is chosen by the texts of the keys, so that versions have
the same keys in it as far as they share them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polars import DataFrame, Series

_SAMPLE_SIZE = 1000  # records of a version that are searched in the others
_MIN_SHARED_FRACTION = 0.5  # the fraction of them that must be found
_WHOLE = 1000
_MIX, _MASK = 2654435761, 2**32 - 1  # Knuth's multiplicative hashing
_TAIL = 8  # hexadecimal digits of the end of a text that choose it
_PLACE, _TEXT, _RANK = "\0place", "\0text", "\0rank"  # `load` lets no NUL through


def is_majority(votes: Sequence[int], selected: Sequence[bool]) -> bool:
    """True if the selected have more than half of the votes."""
    return 2 * sum(vote for vote, counts in zip(votes, selected, strict=True) if counts) > sum(votes)


@dataclass(frozen=True, slots=True)
class Sharing:
    """How far versions share keys.

    Of `total` votes, `shared` have at least half of their keys in most versions, `met` at one other node.
    `found`: the part of all keys that is in most versions, in thousandths of a vote. `is_same`: all versions
    have the same keys.
    """

    shared: int
    met: int
    total: int
    found: int
    is_same: bool = False


def measure_sharing(keys: Sequence[DataFrame], votes: Sequence[int]) -> Sharing:
    """Return how far versions share keys, by a sample of each. Versions without records do not count."""
    distinct, counts = distinct_keys(keys, votes)
    total = sum(counts)
    if len(distinct) < 2:
        return Sharing(total, total, total, _WHOLE * total, is_same=True)
    shared = met = found = 0
    is_same = all(frame.height == distinct[0].height for frame in distinct)
    supporters = _supporters(distinct, counts)
    for support, own in zip(supporters, counts, strict=True):
        in_most, in_others = int((2 * support > total).sum()), int((support > 1).sum())
        found += own * in_most * _WHOLE // support.len()
        is_same = is_same and bool((support == total).all())
        shared += own * (in_most >= _MIN_SHARED_FRACTION * support.len())
        met += own * (in_others >= _MIN_SHARED_FRACTION * support.len())
    return Sharing(shared, met, total, found, is_same)


def distinct_keys(keys: Sequence[DataFrame], votes: Sequence[int]) -> tuple[list[DataFrame], list[int]]:
    """Return equal keys, in any order, only once, since searching a million is slow; and their votes."""
    distinct: list[DataFrame] = []
    counts: list[int] = []
    for found, vote in zip(keys, votes, strict=True):
        if not found.height:
            continue
        index = next((index for index, known in enumerate(distinct) if _are_same(known, found)), None)
        if index is None:
            distinct.append(found)
            counts.append(vote)
        else:
            counts[index] += vote
    return distinct, counts


def group_alike(tables: Sequence[DataFrame]) -> list[list[int]]:
    """Return the numbers of tables in groups of those that have the same rows, in any order."""
    groups: list[list[int]] = []
    for number, table in enumerate(tables):
        group = next((group for group in groups if _have_same_rows(tables[group[0]], table)), None)
        if group is None:
            groups.append([number])
        else:
            group.append(number)
    return groups


def _have_same_rows(one: DataFrame, other: DataFrame) -> bool:
    if one.height != other.height or one.columns != other.columns:
        return False
    for (
        name
    ) in one.columns:  # most tables that differ do so in few columns, and are told apart without sorting
        if not one[name].equals(other[name]) and one[name].hash().sum() != other[name].hash().sum():
            return False
    return one.equals(other) or one.sort(one.columns).equals(other.sort(one.columns))


def _are_same(one: DataFrame, other: DataFrame) -> bool:
    """Return whether two versions have the same keys, in any order."""
    if one.height != other.height:
        return False
    names = one.columns
    return one.equals(other) or not (
        one.join(other, on=names, how="anti").height or other.join(one, on=names, how="anti").height
    )


def sample_keys(keys: DataFrame) -> DataFrame:
    """Return all keys, or about 1000 of many that their texts choose."""
    import polars

    if keys.height < 2 * _SAMPLE_SIZE:
        return keys
    end = polars.col(_TEXT).str.encode("hex").str.tail(_TAIL).str.to_integer(base=16, strict=False)
    mixed = (end.fill_null(0).cast(polars.UInt64) * _MIX) & _MASK
    text = polars.concat_str(polars.all(), separator="\0").alias(_TEXT)
    ranked = keys.with_columns(text).with_columns(mixed.alias(_RANK))
    return ranked.bottom_k(_SAMPLE_SIZE, by=[_RANK, _TEXT]).drop(_TEXT, _RANK)


def _supporters(distinct: Sequence[DataFrame], counts: Sequence[int]) -> list[Series]:
    """Return for each version the votes for each key of its sample."""
    import polars

    samples = [sample_keys(keys) for keys in distinct]
    support = count_votes(polars.concat(samples), distinct, counts)
    ends = polars.Series([sample.height for sample in samples]).cum_sum().to_list()
    return [support[end - sample.height : end] for sample, end in zip(samples, ends, strict=True)]


def count_votes(searched: DataFrame, distinct: Sequence[DataFrame], counts: Sequence[int]) -> Series:
    """Return how many votes have each of the searched keys."""
    import polars

    names = searched.columns
    numbered = searched.with_row_index(_PLACE)
    support = polars.zeros(searched.height, dtype=polars.Int64, eager=True)
    for keys, vote in zip(distinct, counts, strict=True):
        known = keys.join(searched, on=names, how="semi")
        found = numbered.join(known, on=names, how="semi")[_PLACE]
        support = support.scatter(found, support.gather(found) + vote)
    return support
