"""Measures on samples how many versions share the values of a candidate key, and whether they change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polars import DataFrame, Series

_SAMPLE_SIZE = 1000  # records of a version that are searched in the others
_MIN_SHARED_FRACTION = 0.5  # the fraction of them that must be found
_WHOLE = 1000
_ROW, _AT, _VERSION, _PLACE = "\0row", "\0at", "\0version", "\0place"  # `load` lets no NUL through


def is_majority(votes: Sequence[int], selected: Sequence[bool]) -> bool:
    """True if the selected have more than half of the votes."""
    return 2 * sum(vote for vote, counts in zip(votes, selected, strict=True) if counts) > sum(votes)


@dataclass(frozen=True, slots=True)
class Sharing:
    """How far versions share keys.

    Of `total` votes, `shared` have at least half of their keys in most versions, `met` in at least one other.
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
    distinct, counts = _distinct(keys, votes)
    total = sum(counts)
    if len(distinct) < 2:
        return Sharing(total, total, total, _WHOLE * total, is_same=True)
    shared = met = found = 0
    supporters = _supporters(distinct, counts)
    for support, own in zip(supporters, counts, strict=True):
        in_most, in_others = int((2 * support > total).sum()), int((support > own).sum())
        found += own * in_most * _WHOLE // support.len()
        shared += own * (in_most >= _MIN_SHARED_FRACTION * support.len())
        met += own * (in_others >= _MIN_SHARED_FRACTION * support.len())
    return Sharing(shared, met, total, found)


def _distinct(keys: Sequence[DataFrame], votes: Sequence[int]) -> tuple[list[DataFrame], list[int]]:
    """Return equal keys only once, as searching a million is slow, and the sums of their votes."""
    distinct: list[DataFrame] = []
    counts: list[int] = []
    for found, vote in zip(keys, votes, strict=True):
        if not found.height:
            continue
        index = next((index for index, known in enumerate(distinct) if known.equals(found)), None)
        if index is None:
            distinct.append(found)
            counts.append(vote)
        else:
            counts[index] += vote
    return distinct, counts


def _sample(keys: DataFrame) -> DataFrame:
    return keys.with_row_index(_ROW).gather_every(max(keys.height // _SAMPLE_SIZE, 1))


def _supporters(distinct: Sequence[DataFrame], counts: Sequence[int]) -> list[Series]:
    """Return for each version the votes for each key of its sample."""
    import polars

    samples = [_sample(keys) for keys in distinct]
    support = count_votes(polars.concat(samples).drop(_ROW), distinct, counts)
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


def varies_in_place(
    tables: Sequence[DataFrame], keys: Sequence[DataFrame], votes: Sequence[int], most: float
) -> bool:
    """True if versions with at least half of the votes have other values in records that correspond.

    A record corresponds to one of another version that stands between the same neighbours and has a value
    that most versions have, or to the only one that is equal in all other columns.

    Args:
        keys: the values of the candidate in each version.
        most: the fraction of a version's records in which they may differ.
    """
    distinct, counts = _distinct(keys, votes)
    if len(distinct) < 2:
        return False
    places = [next(at for at, frame in enumerate(keys) if frame is known) for known in distinct]
    varying = 0
    for index, support in enumerate(_supporters(distinct, counts)):
        odd = _sample(distinct[index]).filter(2 * support <= sum(counts))
        if not odd.height:
            continue
        other = 1 if index == 0 else 0
        changed = _replaced(odd, distinct[index], distinct[other], distinct, counts) | _same_otherwise(
            odd, tables[places[index]], tables[places[other]]
        )
        varying += counts[index] * (int(changed.sum()) > most * support.len())
    return 2 * varying >= sum(counts)


def _replaced(
    odd: DataFrame, keys: DataFrame, other: DataFrame, distinct: Sequence[DataFrame], counts: Sequence[int]
) -> Series:
    """True for records in whose place the other version has a value that most have and this one has not."""
    import polars

    row = odd[_ROW].cast(polars.Int64)
    before, after = (_rows_in(keys, other, row + step) for step in (-1, 1))
    at = polars.select(polars.when(after - before == 2).then(before + 1)).to_series()
    there = other[at.fill_null(0).cast(polars.UInt32)]
    in_most = 2 * count_votes(there, distinct, counts) > sum(counts)
    is_here = count_votes(there, [keys], [1]) > 0
    return at.is_not_null() & in_most & ~is_here


def _rows_in(keys: DataFrame, other: DataFrame, rows: Series) -> Series:
    """Return the row in the other version of each of these rows' keys; just outside for rows just outside."""
    import polars

    inside = rows.is_between(0, keys.height - 1)
    searched = keys[rows.clip(0, keys.height - 1).cast(polars.UInt32)]
    known = other.with_row_index(_AT).join(searched, on=keys.columns, how="semi")
    at = searched.join(known, on=keys.columns, how="left", maintain_order="left")[_AT].cast(polars.Int64)
    outside = polars.when(rows < 0).then(-1).otherwise(other.height)
    return polars.select(polars.when(inside).then(at).otherwise(outside)).to_series()


def _same_otherwise(odd: DataFrame, table: DataFrame, other: DataFrame) -> Series:
    """True for records that equal one of the other version in all other columns, if these tell them apart."""
    import polars

    names = [name for name in table.columns if name in other.columns and name not in odd.columns]
    nothing = polars.repeat(value=False, n=odd.height, eager=True)
    if not names or any(part.select(names).n_unique() < part.height for part in (table, other)):
        return nothing
    searched = table.select(names)[odd[_ROW]].with_row_index(_PLACE)
    found = searched.join(other.select(names), on=names, how="semi", nulls_equal=True)[_PLACE]
    return searched[_PLACE].is_in(found.implode())
