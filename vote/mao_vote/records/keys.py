"""Chooses the key columns that identify records; finds records and compares tables by key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from .load import NotRecords

if TYPE_CHECKING:
    from polars import DataFrame

POSITION = "#"
"""Name of the key column if records are matched by their position in the file."""
_KEY_LIKE_NAMES = ("id", "key", "name", "path", "uuid", "url", "uri")
_MAX_PAIRED_COLUMNS = 8  # leftmost columns that are tried in pairs
_SAMPLE_SIZE = 1000  # records of a table that are searched in the others
_MIN_SHARED_FRACTION = 0.5  # the fraction of them that must be found
_SAMPLE_PLACE = "\0place"  # `load` lets no NUL through
_UNIQUENESS_SAMPLE = 10_000  # records that are checked before all are
_KEY_PLACE, _OLD_PLACE, _NEW_PLACE = "\0place", "\0before", "\0after"  # `load` lets no NUL through
_AFTER = "\0new:"


@dataclass(frozen=True, slots=True)
class Key:
    """The `columns` by which records are matched (none: by position), and how they were chosen."""

    columns: tuple[str, ...]
    source: Literal["declared", "inferred", "position"]


def choose_key(tables: Sequence[DataFrame], declared: Sequence[str] | None = None) -> Key:
    """Return a key that is unique in all tables.

    Without declared columns it is the first candidate that is unique in all of them: a column with a telling
    name (`id`, `*_id`, `name` …), any column from the left, a pair of the leftmost columns; else position.

    Raises NotRecords if a declared column is missing or the declared key is not unique.
    """
    if declared:
        _check_key(tables, declared)
        return Key(tuple(declared), "declared")
    filled = [table for table in tables if table.height]
    names = filled[0].columns if filled else []
    common = [name for name in names if all(name in table.columns for table in filled)]
    for columns in _candidates(common):
        if all(_is_unique(table, columns) for table in filled):
            return Key(columns, "inferred")
    return Key((), "position")


def vote_key(
    tables: Sequence[DataFrame], votes: Sequence[int], declared: Sequence[str] = ()
) -> tuple[Key, dict[int, str]]:
    """Return a key that is unique in most tables, and the reasons by index of tables in which it is not.

    `votes` has one count per table. For an inferred key, most tables must also share at least half of their
    records with most tables. Raises NotRecords if a declared key is not unique in a majority.
    """
    if declared:
        faults = _find_faults(tables, declared)
        if not _is_majority(votes, [number not in faults for number in range(len(tables))]):
            raise NotRecords(f"in most versions {next(iter(faults.values()))}")
        return Key(tuple(declared), "declared"), faults
    names = dict.fromkeys(name for table in tables for name in table.columns)
    common = [name for name in names if _is_majority(votes, [name in table.columns for table in tables])]
    for columns in _candidates(common):
        faults = _find_faults(tables, columns)
        usable = [number for number in range(len(tables)) if number not in faults]
        if _is_majority(votes, [number in usable for number in range(len(tables))]) and _tables_share_keys(
            [tables[number] for number in usable], [votes[number] for number in usable], columns
        ):
            return Key(columns, "inferred"), faults
    return Key((), "position"), {}


def has_key(table: DataFrame, key: Key) -> bool:
    return not key.columns or not _find_faults([table], key.columns)


def _check_key(tables: Sequence[DataFrame], columns: Sequence[str]) -> None:
    for table in tables:
        absent = [name for name in columns if name not in table.columns]
        if absent and table.height:
            raise NotRecords(f"it has no column {absent[0]!r}, which the key names")
        if table.height and not _is_unique(table, columns):
            raise NotRecords(f"the key {', '.join(columns)} is not unique or not everywhere filled")


def _find_faults(tables: Sequence[DataFrame], columns: Sequence[str]) -> dict[int, str]:
    faults: dict[int, str] = {}
    last_valid: DataFrame | None = None  # most versions have the same keys, which are then checked once
    for number, table in enumerate(tables):
        if last_valid is not None and all(
            name in table.columns and name in last_valid.columns and table[name].equals(last_valid[name])
            for name in columns
        ):
            continue
        try:
            _check_key([table], columns)
            last_valid = table
        except NotRecords as error:
            faults[number] = str(error)
    return faults


def _is_majority(votes: Sequence[int], selected: Sequence[bool]) -> bool:
    return 2 * sum(vote for vote, counts in zip(votes, selected, strict=True) if counts) > sum(votes)


def _tables_share_keys(tables: Sequence[DataFrame], votes: Sequence[int], columns: Sequence[str]) -> bool:
    """True if most tables share at least half of a sample of their keys with most tables.

    Empty tables do not count.
    """
    distinct: list[DataFrame] = []  # equal keys only once, as comparing a million is slow
    counts: list[int] = []
    for table, vote in zip(tables, votes, strict=True):
        if not table.height:
            continue
        keys = table.select(columns)
        index = next((index for index, known in enumerate(distinct) if known.equals(keys)), None)
        if index is None:
            distinct.append(keys)
            counts.append(vote)
        else:
            counts[index] += vote
    pairs = list(zip(distinct, counts, strict=True))
    return not pairs or _is_majority(counts, [_is_shared(keys, pairs, columns) for keys in distinct])


def _is_shared(table: DataFrame, tables: Sequence[tuple[DataFrame, int]], columns: Sequence[str]) -> bool:
    """True if half of a sample of a table's keys are in most tables, which come with their votes."""
    import polars

    total = sum(vote for _, vote in tables)
    sample = table.gather_every(max(table.height // _SAMPLE_SIZE, 1)).with_row_index(_SAMPLE_PLACE)
    supporters = polars.zeros(sample.height, dtype=polars.Int64, eager=True)
    for other, vote in tables:
        found = sample.join(other, on=list(columns), how="semi")[_SAMPLE_PLACE]
        supporters = supporters.scatter(found, supporters.gather(found) + vote)
    return int((2 * supporters > total).sum()) >= _MIN_SHARED_FRACTION * sample.height


def _candidates(common: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield possible keys: columns with a typical name, other columns from the left, then pairs."""
    names = {name: name.lower() for name in common}
    ranked = [
        *(name for values in _KEY_LIKE_NAMES for name in common if names[name] == values),
        *(name for name in common if names[name].endswith(("_id", "-id"))),
        *common,
    ]
    for name in dict.fromkeys(ranked):
        yield (name,)
    yield from combinations(common[:_MAX_PAIRED_COLUMNS], 2)


def _is_unique(table: DataFrame, columns: Sequence[str]) -> bool:
    chosen = table.select(columns)
    if any(chosen.null_count().row(0)):
        return False
    head = chosen.head(_UNIQUENESS_SAMPLE)
    return head.n_unique() == head.height and (
        head.height == chosen.height or chosen.n_unique() == chosen.height
    )


def find_record(table: DataFrame, key: Key, values: Sequence[str]) -> dict[str, str | None] | None:
    """Return the record whose key columns have the texts `values`, or None.

    Without key columns `values` is the record's number, from 1. JSON strings may be given without quotes.
    """
    import polars

    if not key.columns:
        number = int(values[0]) if len(values) == 1 and re.fullmatch("[0-9]{1,18}", values[0]) else 0
        return table.row(number - 1, named=True) if 0 < number <= table.height else None
    if len(values) != len(key.columns) or any(name not in table.columns for name in key.columns):
        return None
    spellings = (
        (polars.col(name), {text, _json_quoted(text)}) for name, text in zip(key.columns, values, strict=True)
    )
    found = table.filter(*(column.is_in(sorted(texts)) for column, texts in spellings))
    return found.row(0, named=True) if found.height else None


def same_text(observed: str, values: str) -> bool:
    """True if a cell has the text that a user typed, with or without JSON's quotes."""
    return observed in (values, _json_quoted(values))


def _json_quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


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

    columns = list(key.columns) or [_KEY_PLACE]
    old, new = _with_positions(before, key, _OLD_PLACE), _with_positions(after, key, _NEW_PLACE)
    fields = [name for name in dict.fromkeys([*before.columns, *after.columns]) if name not in columns]
    old, new = _with_columns(old, fields), _with_columns(new, fields)
    new = new.rename({name: _AFTER + name for name in fields})
    joined = old.join(new, on=columns, how="full", coalesce=True)
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
        record_key = {POSITION if name == _KEY_PLACE else name: row[name] for name in columns}
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


def _with_positions(table: DataFrame, key: Key, place: str) -> DataFrame:
    """Add a column of the records' positions, which are also the key if there is no other."""
    import polars

    numbered = table.with_row_index(place, offset=1).cast({place: polars.Int64})
    if key.columns:
        return _with_columns(numbered, key.columns)
    return numbered.with_columns(polars.col(place).cast(polars.String).alias(_KEY_PLACE))


def _with_columns(table: DataFrame, names: Sequence[str]) -> DataFrame:
    import polars

    absent = [name for name in names if name not in table.columns]
    return table.with_columns(polars.lit(None, polars.String).alias(name) for name in absent)
