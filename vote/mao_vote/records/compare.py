"""Two tables matched by key, compared field by field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .keys import POSITION, Key

if TYPE_CHECKING:
    from polars import DataFrame, Expr

_PLACE, _PLACE_BEFORE, _PLACE_AFTER = "\0place", "\0before", "\0after"  # `load` lets no NUL through
_AFTER = "\0new:"


@dataclass(frozen=True, slots=True)
class RowChange:
    """One record. `fields`: name → (before, after) of what differs; None: no such record or field."""

    change: Literal["added", "removed", "changed"]
    key: dict[str, str]
    fields: dict[str, tuple[str | None, str | None]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Counts are of all records; `rows` holds the first of those that differ, in the files' order."""

    key: Key
    columns_added: list[str]
    columns_removed: list[str]
    added: int
    removed: int
    changed: int
    same: int
    rows: list[RowChange]


def compare(before: DataFrame, after: DataFrame, key: Key, limit: int = 100) -> Comparison:
    """What differs. Needs memory for the joined tables; at most `limit` rows become Python objects."""
    import polars

    columns = list(key.columns) or [_PLACE]
    old, new = _prepared(before, key, _PLACE_BEFORE), _prepared(after, key, _PLACE_AFTER)
    fields = [name for name in dict.fromkeys([*before.columns, *after.columns]) if name not in columns]
    old, new = _with_columns(old, fields), _with_columns(new, fields)
    new = new.rename({name: _AFTER + name for name in fields})
    joined = old.join(new, on=columns, how="full", coalesce=True)
    removed, added = polars.col(_PLACE_AFTER).is_null(), polars.col(_PLACE_BEFORE).is_null()
    changed = ~removed & ~added & _differs(fields)
    counts = joined.select(added.sum().alias("a"), removed.sum().alias("r"), changed.sum().alias("c")).row(0)
    place = polars.coalesce(_PLACE_AFTER, _PLACE_BEFORE)
    shown = joined.filter(added | removed | changed).sort(place, _PLACE_BEFORE).head(limit)
    return Comparison(
        key,
        [name for name in after.columns if name not in before.columns],
        [name for name in before.columns if name not in after.columns],
        added=counts[0],
        removed=counts[1],
        changed=counts[2],
        same=joined.height - sum(counts),
        rows=[_row(each, columns, fields) for each in shown.iter_rows(named=True)],
    )


def _prepared(table: DataFrame, key: Key, place: str) -> DataFrame:
    """With the records' places, and those as the key where there is no other."""
    import polars

    numbered = table.with_row_index(place, offset=1).cast({place: polars.Int64})
    if key.columns:
        return _with_columns(numbered, key.columns)
    return numbered.with_columns(polars.col(place).cast(polars.String).alias(_PLACE))


def _with_columns(table: DataFrame, names: Sequence[str]) -> DataFrame:
    import polars

    absent = [name for name in names if name not in table.columns]
    return table.with_columns(polars.lit(None, polars.String).alias(name) for name in absent)


def _differs(fields: Sequence[str]) -> Expr:
    import polars

    pairs = [polars.col(name).ne_missing(polars.col(_AFTER + name)) for name in fields]
    return polars.any_horizontal(pairs) if pairs else polars.lit(value=False)


def _row(row: dict[str, Any], columns: Sequence[str], fields: Sequence[str]) -> RowChange:
    change: Literal["added", "removed", "changed"] = "changed"
    if row[_PLACE_BEFORE] is None or row[_PLACE_AFTER] is None:
        change = "added" if row[_PLACE_BEFORE] is None else "removed"
    pairs = {name: (row[name], row[_AFTER + name]) for name in fields}
    differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    return RowChange(change, {POSITION if name == _PLACE else name: row[name] for name in columns}, differing)
