"""Which columns identify records; records found, and tables compared, by them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

from .load import NotRecords

if TYPE_CHECKING:
    from polars import DataFrame, Expr

POSITION = "#"
"""Name of the key column when records are matched by their place in the file."""
_KEY_LIKE_NAMES = ("id", "key", "name", "path", "uuid", "url", "uri")
_MAX_PAIRED = 8  # columns from the left that are tried in pairs
_SAMPLED = 1000  # records of a table that are looked up in the others
_MIN_SHARED = 0.5  # the share of them that must be there
_SAMPLE_PLACE = "\0place"  # `load` lets no NUL through
_TRIED = 10_000  # records that rule a column out before all are looked at
_KEY_PLACE, _OLD_PLACE, _NEW_PLACE = "\0place", "\0before", "\0after"  # `load` lets no NUL through
_AFTER = "\0new:"


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
    names = filled[0].columns if filled else []
    common = [name for name in names if all(name in each.columns for each in filled)]
    for columns in _candidates(common):
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
        if not _is_majority(votes, [number not in bad for number in range(len(tables))]):
            raise NotRecords(f"in most versions {next(iter(bad.values()))}")
        return Key(tuple(declared), "declared"), bad
    names = dict.fromkeys(name for table in tables for name in table.columns)
    common = [name for name in names if _is_majority(votes, [name in table.columns for table in tables])]
    for columns in _candidates(common):
        bad = _failures(tables, columns)
        good = [number for number in range(len(tables)) if number not in bad]
        if _is_majority(votes, [number in good for number in range(len(tables))]) and _match_tables(
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


def _is_majority(votes: Sequence[int], which: Sequence[bool]) -> bool:
    return 2 * sum(vote for vote, counts in zip(votes, which, strict=True) if counts) > sum(votes)


def _match_tables(tables: Sequence[DataFrame], votes: Sequence[int], columns: Sequence[str]) -> bool:
    """Whether of most tables half of a sample of the keys is in most of them. Empty tables have no say."""
    filled: list[tuple[DataFrame, int]] = []
    for table, vote in zip(tables, votes, strict=True):
        if table.height:
            _add(filled, table.select(columns), vote)
    return not filled or _is_majority(
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
    sample = table.gather_every(max(table.height // _SAMPLED, 1)).with_row_index(_SAMPLE_PLACE)
    behind = polars.zeros(sample.height, dtype=polars.Int64, eager=True)
    for other, vote in tables:
        found = sample.join(other, on=list(columns), how="semi")[_SAMPLE_PLACE]
        behind = behind.scatter(found, behind.gather(found) + vote)
    return int((2 * behind > total).sum()) >= _MIN_SHARED * sample.height


def _candidates(common: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for name in sorted(common, key=_name_rank):
        yield (name,)
    yield from combinations(common[:_MAX_PAIRED], 2)


def _name_rank(name: str) -> int:
    """Sorts telling names before others; the sort keeps the columns' order otherwise."""
    lower = name.lower()
    if lower in _KEY_LIKE_NAMES:
        return _KEY_LIKE_NAMES.index(lower)
    return len(_KEY_LIKE_NAMES) if lower.endswith(("_id", "-id")) else len(_KEY_LIKE_NAMES) + 1


def _unique(table: DataFrame, columns: Sequence[str]) -> bool:
    chosen = table.select(columns)
    if any(chosen.null_count().row(0)):
        return False
    head = chosen.head(_TRIED)
    return head.n_unique() == head.height and (
        head.height == chosen.height or chosen.n_unique() == chosen.height
    )


def find_record(table: DataFrame, key: Key, wanted: Sequence[str]) -> dict[str, str | None] | None:
    """The record whose key columns hold the texts `wanted` (of position: its number from 1); None for none.

    A text may be written as the table has it, or without JSON's quotes.
    """
    import polars

    if not key.columns:
        number = int(wanted[0]) if len(wanted) == 1 and re.fullmatch("[0-9]{1,18}", wanted[0]) else 0
        return table.row(number - 1, named=True) if 0 < number <= table.height else None
    if len(wanted) != len(key.columns) or any(name not in table.columns for name in key.columns):
        return None
    spellings = (
        (polars.col(name), {text, _json_quoted(text)}) for name, text in zip(key.columns, wanted, strict=True)
    )
    found = table.filter(*(column.is_in(sorted(texts)) for column, texts in spellings))
    return found.row(0, named=True) if found.height else None


def same_text(observed: str, wanted: str) -> bool:
    """Whether a cell is what a person typed, with or without JSON's quotes."""
    return observed in (wanted, _json_quoted(wanted))


def _json_quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class RowChange:
    """One record. `fields`: name → (before, after) of what differs; None: no such record or field."""

    change: Literal["added", "removed", "changed"]
    key: dict[str, str]
    fields: dict[str, tuple[str | None, str | None]]


@dataclass(frozen=True, slots=True)
class TableDiff:
    """Counts are of all records; `rows` holds the first of those that differ, in the files' order."""

    key: Key
    columns_added: list[str]
    columns_removed: list[str]
    added: int
    removed: int
    changed: int
    same: int
    rows: list[RowChange]


def compare(before: DataFrame, after: DataFrame, key: Key, limit: int = 100) -> TableDiff:
    """What differs. Needs memory for the joined tables; at most `limit` rows become Python objects."""
    import polars

    columns = list(key.columns) or [_KEY_PLACE]
    old, new = _prepared(before, key, _OLD_PLACE), _prepared(after, key, _NEW_PLACE)
    fields = [name for name in dict.fromkeys([*before.columns, *after.columns]) if name not in columns]
    old, new = _with_columns(old, fields), _with_columns(new, fields)
    new = new.rename({name: _AFTER + name for name in fields})
    joined = old.join(new, on=columns, how="full", coalesce=True)
    removed, added = polars.col(_NEW_PLACE).is_null(), polars.col(_OLD_PLACE).is_null()
    changed = ~removed & ~added & _differs(fields)
    counts = joined.select(added.sum().alias("a"), removed.sum().alias("r"), changed.sum().alias("c")).row(0)
    place = polars.coalesce(_NEW_PLACE, _OLD_PLACE)
    shown = joined.filter(added | removed | changed).sort(place, _OLD_PLACE).head(limit)
    return TableDiff(
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
    return numbered.with_columns(polars.col(place).cast(polars.String).alias(_KEY_PLACE))


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
    if row[_OLD_PLACE] is None or row[_NEW_PLACE] is None:
        change = "added" if row[_OLD_PLACE] is None else "removed"
    pairs = {name: (row[name], row[_AFTER + name]) for name in fields}
    differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    return RowChange(
        change, {POSITION if name == _KEY_PLACE else name: row[name] for name in columns}, differing
    )
