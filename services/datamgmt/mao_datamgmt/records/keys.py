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
    for columns in _candidates(filled):
        if all(_unique(table, columns) for table in filled):
            return Key(columns, "inferred")
    return Key((), "position")


def _check(tables: Sequence[DataFrame], columns: Sequence[str]) -> None:
    for table in tables:
        absent = [name for name in columns if name not in table.columns]
        if absent and table.height:
            raise NotRecords(f"it has no column {absent[0]!r}, which the key names")
        if table.height and not _unique(table, columns):
            raise NotRecords(f"the key {', '.join(columns)} is not unique or not everywhere filled")


def _candidates(tables: Sequence[DataFrame]) -> Iterator[tuple[str, ...]]:
    if not tables:
        return
    common = [name for name in tables[0].columns if all(name in each.columns for each in tables)]
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
