"""Chooses the key columns that identify records; finds records and compares tables by key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from mao_vote.records import Key, NotRecords

if TYPE_CHECKING:
    from polars import DataFrame

_KEY_LIKE_NAMES = ("id", "key", "name", "path", "uuid", "url", "uri")
_MAX_PAIRED_COLUMNS = 8  # leftmost columns that are tried in pairs
_SAMPLE_SIZE = 1000  # records of a table that are searched in the others
_MIN_SHARED_FRACTION = 0.5  # the fraction of them that must be found
_SAMPLE_PLACE = "\0place"  # `load` lets no NUL through
_UNIQUENESS_SAMPLE = 10_000  # records that are checked before all are


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
