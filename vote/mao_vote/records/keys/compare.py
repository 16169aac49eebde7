"""Compares two tables by key: which records were added, removed or changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .key import POSITION, Key
from .lines import line_frame, match_lines

if TYPE_CHECKING:
    from polars import DataFrame

_OLD_PLACE, _NEW_PLACE = "\0before", "\0after"  # `load` lets no NUL through
_MATCH, _AFTER = "\0match:", "\0new:"


@dataclass(frozen=True, slots=True)
class RowChange:
    """A changed record. `fields` has the differing values (before, after), None if there is none."""

    change: Literal["added", "removed", "changed"]
    key: dict[str, str]
    fields: dict[str, tuple[str | None, str | None]]


@dataclass(frozen=True, slots=True)
class TableDiff:
    """The difference of two tables. Counts cover all records; `rows` has the first differing ones."""

    key: Key
    columns_added: list[str]
    columns_removed: list[str]
    added: int
    removed: int
    changed: int
    same: int
    rows: list[RowChange]


def compare(before: DataFrame, after: DataFrame, key: Key, limit: int = 100) -> TableDiff:
    """Compare two tables by key; return at most `limit` rows. The joined tables are held in memory."""
    import polars

    old, new = _with_match(before, after, key)
    by = [_MATCH + name for name in key.columns or [POSITION]]
    fields = list(dict.fromkeys([*before.columns, *after.columns]))
    if key.is_exact:
        fields = [name for name in fields if name not in key.columns]
    known = list(dict.fromkeys([*fields, *key.columns]))
    old, new = _with_columns(old, known), _with_columns(new, known)
    new = new.rename({name: _AFTER + name for name in known})
    joined = old.join(new, on=by, how="full", coalesce=True)
    removed, added = polars.col(_NEW_PLACE).is_null(), polars.col(_OLD_PLACE).is_null()
    differing = [polars.col(name).ne_missing(polars.col(_AFTER + name)) for name in fields]
    changed = ~removed & ~added & polars.any_horizontal(*differing, False)
    counts = joined.select(added.sum().alias("a"), removed.sum().alias("r"), changed.sum().alias("c")).row(0)
    place = polars.coalesce(_NEW_PLACE, _OLD_PLACE)
    changes = joined.filter(added | removed | changed).sort(place, _OLD_PLACE).head(limit)
    rows = []
    for row in changes.iter_rows(named=True):
        change: Literal["added", "removed", "changed"] = "changed"
        if row[_OLD_PLACE] is None or row[_NEW_PLACE] is None:
            change = "added" if row[_OLD_PLACE] is None else "removed"
        pairs = {name: (row[name], row[_AFTER + name]) for name in fields}
        differing_fields = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        spelling = "" if row[_NEW_PLACE] is None else _AFTER
        number = str(row[_NEW_PLACE] or row[_OLD_PLACE])
        record_key = {name: row[spelling + name] for name in key.columns} or {POSITION: number}
        rows.append(RowChange(change, record_key, differing_fields))
    return TableDiff(
        key,
        [name for name in after.columns if name not in before.columns],
        [name for name in before.columns if name not in after.columns],
        added=counts[0],
        removed=counts[1],
        changed=counts[2],
        same=joined.height - sum(counts),
        rows=rows,
    )


def _with_match(before: DataFrame, after: DataFrame, key: Key) -> tuple[DataFrame, DataFrame]:
    """Add columns of the records' positions, from 1, and of the texts by which they are matched."""
    import polars

    old, new = (
        table.with_row_index(place, offset=1).cast({place: polars.Int64})
        for table, place in ((before, _OLD_PLACE), (after, _NEW_PLACE))
    )
    if not key.columns:
        names = list(dict.fromkeys([*before.columns, *after.columns]))
        number = match_lines(line_frame(before, names), line_frame(after, names)) + 1
        unmatched = polars.coalesce(polars.lit(number), -polars.col(_NEW_PLACE))  # no number of an old record
        return (
            old.with_columns(polars.col(_OLD_PLACE).alias(_MATCH + POSITION)),
            new.with_columns(unmatched.alias(_MATCH + POSITION)),
        )
    sides = ((old, key.texts(before)), (new, key.texts(after)))
    matched = [
        side.with_columns(texts[name].alias(_MATCH + name) for name in key.columns) for side, texts in sides
    ]
    return matched[0], matched[1]


def _with_columns(table: DataFrame, names: Sequence[str]) -> DataFrame:
    import polars

    absent = [name for name in names if name not in table.columns]
    return table.with_columns(polars.lit(None, polars.String).alias(name) for name in absent)
