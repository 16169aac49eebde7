"""Which columns tell records apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from .load import NotRecords

if TYPE_CHECKING:
    from polars import DataFrame

POSITION = "#"
"""Name of the key column when records are matched by their place in the file."""
_TELLING = ("id", "key", "name", "path", "uuid", "url", "uri")
_MAX_PAIRED = 8  # columns from the left that are tried in pairs
_SAMPLED = 1000  # records of a table that are looked up in the others
_MEETING = 0.5  # the share of them that must be there
_PLACE = "\0place"  # `load` lets no NUL through
_TRIED = 10_000  # records that rule a column out before all are looked at


@dataclass(frozen=True, slots=True)
class Key:
    """`columns` is empty when records are matched by position."""

    columns: tuple[str, ...]
    source: Literal["declared", "inferred", "position"]


def choose_key(tables: Sequence[DataFrame], declared: Sequence[str] | None = None) -> Key:
    """The key that holds in all the tables.

    Declared columns must be there and be unique: raises NotRecords otherwise. Without them the first that is
    unique everywhere is taken: a column with a telling name (`id`, `*_id`, `name` …), any column from the
    left, a pair of the leftmost; else position.
    """
    if declared:
        _check(tables, declared)
        return Key(tuple(declared), "declared")
    filled = [table for table in tables if table.height]
    for columns in _candidates(_common(filled)):
        if all(_unique(table, columns) for table in filled):
            return Key(columns, "inferred")
    return Key((), "position")


def vote_key(
    tables: Sequence[DataFrame], votes: Sequence[int], declared: Sequence[str] = ()
) -> tuple[Key, dict[int, str]]:
    """The key that holds in most of the tables, each with so many votes; and why it does not in the others.

    Declared columns that hold in no majority raise NotRecords. An inferred key also has to find its records
    again: of most tables half of the records at least must be in most of them, whatever the others hold.
    """
    if declared:
        bad = _failures(tables, declared)
        if not _most(votes, [number not in bad for number in range(len(tables))]):
            raise NotRecords(f"in most versions {next(iter(bad.values()))}")
        return Key(tuple(declared), "declared"), bad
    names = dict.fromkeys(name for table in tables for name in table.columns)
    common = [name for name in names if _most(votes, [name in table.columns for table in tables])]
    for columns in _candidates(common):
        bad = _failures(tables, columns)
        good = [number for number in range(len(tables)) if number not in bad]
        if _most(votes, [number in good for number in range(len(tables))]) and _meet(
            [tables[number] for number in good], [votes[number] for number in good], columns
        ):
            return Key(columns, "inferred"), bad
    return Key((), "position"), {}


def has_key(table: DataFrame, key: Key) -> bool:
    return not key.columns or not _failures([table], key.columns)


def _check(tables: Sequence[DataFrame], columns: Sequence[str]) -> None:
    for table in tables:
        absent = [name for name in columns if name not in table.columns]
        if absent and table.height:
            raise NotRecords(f"it has no column {absent[0]!r}, which the key names")
        if table.height and not _unique(table, columns):
            raise NotRecords(f"the key {', '.join(columns)} is not unique or not everywhere filled")


def _failures(tables: Sequence[DataFrame], columns: Sequence[str]) -> dict[int, str]:
    bad: dict[int, str] = {}
    sound: DataFrame | None = None  # most versions have the same keys, which need to be looked at once
    for number, table in enumerate(tables):
        if sound is not None and table.width and _same_keys(table, sound, columns):
            continue
        try:
            _check([table], columns)
            sound = table
        except NotRecords as why:
            bad[number] = str(why)
    return bad


def _same_keys(one: DataFrame, other: DataFrame, columns: Sequence[str]) -> bool:
    return all(
        name in one.columns and name in other.columns and one[name].equals(other[name]) for name in columns
    )


def _most(votes: Sequence[int], which: Sequence[bool]) -> bool:
    return 2 * sum(vote for vote, counts in zip(votes, which, strict=True) if counts) > sum(votes)


def _meet(tables: Sequence[DataFrame], votes: Sequence[int], columns: Sequence[str]) -> bool:
    """Whether of most tables half of a sample of the keys is in most of them. Empty tables have no say."""
    filled: list[tuple[DataFrame, int]] = []
    for table, vote in zip(tables, votes, strict=True):
        if table.height:
            _add(filled, table.select(columns), vote)
    return not filled or _most(
        [vote for _, vote in filled], [_is_shared(table, filled, columns) for table, _ in filled]
    )


def _add(keys: list[tuple[DataFrame, int]], table: DataFrame, vote: int) -> None:
    """Equal keys stand there once, with all their votes: looking up a million takes its time."""
    for number, (known, votes) in enumerate(keys):
        if known.equals(table):
            keys[number] = known, votes + vote
            return
    keys.append((table, vote))


def _is_shared(table: DataFrame, tables: Sequence[tuple[DataFrame, int]], columns: Sequence[str]) -> bool:
    import polars

    total = sum(vote for _, vote in tables)
    sample = table.gather_every(max(table.height // _SAMPLED, 1)).with_row_index(_PLACE)
    behind = polars.zeros(sample.height, dtype=polars.Int64, eager=True)
    for other, vote in tables:
        found = sample.join(other, on=list(columns), how="semi")[_PLACE]
        behind = behind.scatter(found, behind.gather(found) + vote)
    return int((2 * behind > total).sum()) >= _MEETING * sample.height


def _common(tables: Sequence[DataFrame]) -> list[str]:
    if not tables:
        return []
    return [name for name in tables[0].columns if all(name in each.columns for each in tables)]


def _candidates(common: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for name in sorted(common, key=_telling):
        yield (name,)
    yield from combinations(common[:_MAX_PAIRED], 2)


def _telling(name: str) -> int:
    """Sorts telling names before others; the sort keeps the columns' order otherwise."""
    lower = name.lower()
    if lower in _TELLING:
        return _TELLING.index(lower)
    return len(_TELLING) if lower.endswith(("_id", "-id")) else len(_TELLING) + 1


def _unique(table: DataFrame, columns: Sequence[str]) -> bool:
    chosen = table.select(columns)
    if any(chosen.null_count().row(0)):
        return False
    head = chosen.head(_TRIED)
    return head.n_unique() == head.height and (
        head.height == chosen.height or chosen.n_unique() == chosen.height
    )
