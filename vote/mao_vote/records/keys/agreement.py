"""Tells by the rest of the records whether a candidate key identifies them, whatever the order of the rows.

Two signs speak against a candidate:

Its values *change*: many versions lack values that most have, and have others of their own instead. Records
that nodes merely do not see are missing without such a replacement: then nodes have different numbers of
records, and those that one has alone are as many as follows from the nodes' coverage (coverage.py). A record
that is otherwise equal to one of another version is a changed one too.

Its records do not *agree*: another candidate matches records that have more values in common. A number that
each node gives to its rows in order of their arrival matches rows that have nothing in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import TYPE_CHECKING

from .coverage import WHOLE, estimate_coverage
from .sharing import count_votes, distinct_keys, sample_keys

if TYPE_CHECKING:
    from polars import DataFrame, Series

_MIN_AGREEING = 0.5  # the fraction of matched values of each field that agree, if a key identifies records
_MAX_DEVIATIONS = 2
_KEY, _COUNT, _PLACE = "\0key", "\0count", "\0place"  # `load` lets no NUL through


@dataclass(frozen=True, slots=True)
class Agreement:
    """How much the records that a key matches have in common.

    `pairs`: of values of two versions that are equal, over all fields, with those of the key. `records`: of
    all versions together. `poor`: fields that differ in most of the matched records.
    """

    pairs: int
    records: int
    poor: tuple[str, ...]

    def exceeds(self, other: Agreement, *, or_equals: bool = False, by: int = 0) -> bool:
        """True if the records of this key have more in common than the other's, by so many thousandths."""
        own, others = self.pairs * other.records * 1000, other.pairs * self.records * (1000 + by)
        return own > others or (or_equals and own == others)

    def contradicts(self, names: Sequence[str]) -> bool:
        """True if one of these fields differs in most of the matched records."""
        return any(name in self.poor for name in names)


def measure_agreement(
    tables: Sequence[DataFrame], keys: Sequence[DataFrame], names: Sequence[str]
) -> Agreement:
    """Return how much the records of different versions that have the same key have in common.

    Args:
        keys: the values of the candidate in each version.
        names: the fields that count.
    """
    import polars

    chosen = polars.concat(_texts(sample_keys(frame)) for frame in keys).unique()
    fields = [name for name in names if name not in keys[0].columns]
    frames = []
    for table, frame in zip(tables, keys, strict=True):
        if table.height:
            absent = [
                polars.lit(None, polars.String).alias(name) for name in fields if name not in table.columns
            ]
            filled = table.with_columns(absent)
            frames.append(_with_key(filled, fields, frame).join(chosen, on=_KEY, how="semi"))
    if not frames:
        return Agreement(0, 0, ())
    records = polars.concat(frames)
    matched = _count_pairs(records, [_KEY])
    agreeing = {name: _count_pairs(records.drop_nulls(name), [_KEY, name]) for name in fields}
    both = {name: _count_pairs(records.drop_nulls(name), [_KEY]) for name in fields}
    poor = tuple(name for name in fields if agreeing[name] < _MIN_AGREEING * both[name])
    return Agreement(sum(agreeing.values()) + matched * len(keys[0].columns), records.height, poor)


def _texts(keys: DataFrame) -> DataFrame:
    import polars

    return keys.select(polars.concat_str(polars.all(), separator="\0").alias(_KEY))


def _with_key(table: DataFrame, names: Sequence[str], keys: DataFrame) -> DataFrame:
    """Return these columns, of which there may be none, with the key of each record."""
    return _texts(keys).hstack(table.select(names).get_columns())


def _count_pairs(records: DataFrame, by: Sequence[str]) -> int:
    """Return how many pairs of records are equal in these columns."""
    import polars

    count = polars.col(_COUNT).cast(polars.Int64)
    counted = records.group_by(by).len(_COUNT).select((count * (count - 1) // 2).sum())
    return int(counted.item() or 0)


def has_changing_values(
    tables: Sequence[DataFrame],
    keys: Sequence[DataFrame],
    votes: Sequence[int],
    most: float,
    rest: Sequence[str] | None,
) -> bool:
    """True if versions with at least half of the votes have changed values in place of others.

    Args:
        keys: the values of the candidate in each version.
        most: the fraction of a version's values that may be changed.
        rest: fields in which a changed record equals one that the version lacks; None if there are no such.
    """
    import polars

    distinct, counts = distinct_keys(keys, votes)
    if len(distinct) < 2:
        return False
    total = sum(counts)
    samples = [sample_keys(frame) for frame in distinct]
    searched = polars.concat(samples).unique()
    presence = [(count_votes(searched, [frame], [1]) > 0).cast(polars.Int64) for frame in distinct]
    support = count_votes(searched, distinct, counts)
    is_odd = 2 * support <= total
    if not is_odd.any():
        return False
    heights = [frame.height for frame in distinct]
    same = [
        sum(count for count, other in zip(counts, heights, strict=True) if other == height)
        for height in heights
    ]
    is_complete = 2 * max(same) > total  # most see equally many records, and so very likely all
    alone = _count_alone(presence, support, counts, is_complete=is_complete)
    places = [next(at for at, frame in enumerate(keys) if frame is known) for known in distinct]
    used = [tables[place] for place in places]
    odd = [searched.filter(is_odd & (has > 0)) for has in presence]
    others = _equal_otherwise(used, distinct, odd)
    varying = 0
    for number, has in enumerate(presence):
        lost = int((~is_odd & (has == 0)).sum())
        if is_complete:  # records of which no value is at most nodes
            lost = max(lost, int(has.sum()) - int((~is_odd).sum()))
        replaced = min(lost, alone[number])
        if replaced > 0 and rest is not None:
            replaced = min(replaced, _count_replacing(used, distinct, number, odd[number], rest))
        changed = max(replaced, others[number])
        varying += counts[number] * (changed > most * int(has.sum()))
    return 2 * varying >= total


def _count_alone(
    presence: Sequence[Series], support: Series, counts: Sequence[int], *, is_complete: bool
) -> list[float]:
    """Return how many values each version has alone, beyond what coverage and chance explain.

    Args:
        is_complete: nodes see all records, so that coverage explains nothing.
    """
    found = [float(((support == 1) & (has > 0)).sum()) for has in presence]
    if is_complete:
        return found
    nodes = [number for number, count in enumerate(counts) for _ in range(count)]
    coverage = estimate_coverage([presence[number] for number in nodes])
    for number, has in enumerate(presence):
        missed = prod(WHOLE - share for node, share in enumerate(coverage) if node != nodes.index(number))
        seen, met = WHOLE ** (len(nodes) - 1) - missed, int(((support > 1) & (has > 0)).sum())
        expected = met * missed / seen if seen else found[number]
        found[number] -= expected + _MAX_DEVIATIONS * sqrt(expected)
    return found


def _count_replacing(
    tables: Sequence[DataFrame], keys: Sequence[DataFrame], number: int, odd: DataFrame, rest: Sequence[str]
) -> int:
    """Return how many odd records of a version have the rest of a record of another version that it lacks."""
    import polars

    own = _texts(keys[number])
    names = [name for name in rest if all(name in table.columns for table in tables)]
    searched = _with_key(tables[number], names, keys[number]).join(_texts(odd), on=_KEY, how="semi")
    lacked = polars.concat(
        _with_key(table, names, frame).join(own, on=_KEY, how="anti").select(names)
        for at, (table, frame) in enumerate(zip(tables, keys, strict=True))
        if at != number
    )
    if not names:
        return 0
    return searched.join(lacked.unique(), on=names, how="semi", nulls_equal=True).height


def _equal_otherwise(
    tables: Sequence[DataFrame], keys: Sequence[DataFrame], odd: Sequence[DataFrame]
) -> list[int]:
    """Return how many odd records of each version equal one with another key in all other columns.

    Versions in which the other columns do not tell the records apart do not count.
    """
    import polars

    columns = keys[0].columns
    names = [
        name
        for name in tables[0].columns
        if name not in columns and all(name in table.columns for table in tables)
    ]
    count = [0] * len(tables)
    usable = [
        number
        for number, table in enumerate(tables)
        if names and table.select(names).n_unique() == table.height
    ]
    if len(usable) < 2:
        return count
    full = {number: _with_key(tables[number], names, keys[number]) for number in usable}
    searched = {number: full[number].join(_texts(odd[number]), on=_KEY, how="semi") for number in usable}
    rests = polars.concat(searched.values()).select(names).unique()
    known = polars.concat(
        frame.join(rests, on=names, how="semi", nulls_equal=True) for frame in full.values()
    ).unique()
    several = (
        known.group_by(names).agg(polars.col(_KEY).n_unique().alias(_COUNT)).filter(polars.col(_COUNT) > 1)
    )
    for number, frame in searched.items():
        count[number] = frame.join(several, on=names, how="semi", nulls_equal=True).height
    return count
