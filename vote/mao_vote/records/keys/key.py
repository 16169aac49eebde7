"""Keys: which columns identify records, how their texts are compared, and how a record is found."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from mao_shared.models.round import Fold

from .folding import fold_columns

if TYPE_CHECKING:
    from polars import DataFrame

POSITION = "#"
"""Name of the key column if records are matched by their content and order in the file."""
_UNIQUENESS_SAMPLE = 10_000  # records that are checked before all are
_MAX_SHOWN = 100  # characters of a key in a message


@dataclass(frozen=True, slots=True)
class Key:
    """The `columns` by which records are matched (none: by content and order), and how they were chosen.

    `unsure`: why an inferred key may be wrong, in words; empty if it is not. `fold`: differences between
    texts that do not count. `nfc`: texts are compared in Unicode's normal form.
    """

    columns: tuple[str, ...]
    source: Literal["declared", "inferred", "position"]
    unsure: str = ""
    fold: tuple[Fold, ...] = ()
    nfc: bool = field(default=False, compare=False)

    @property
    def is_exact(self) -> bool:
        return not (self.fold or self.nfc)

    def texts(self, table: DataFrame) -> DataFrame:
        """Return the key columns with texts that are equal where they count as the same."""
        if self.is_exact and table.height:
            return table.select(self.columns)
        return fold_columns(table, self.columns, self.fold)


def has_key(table: DataFrame, key: Key) -> bool:
    """True if the key is filled and unique in a table; a table without records has every key."""
    if not table.height or not key.columns:
        return True
    if any(name not in table.columns for name in key.columns):
        return False
    head = key.texts(table.head(_UNIQUENESS_SAMPLE))
    if not _is_unique(head):
        return False
    return head.height == table.height or _is_unique(key.texts(table))


def _is_unique(texts: DataFrame) -> bool:
    return not any(texts.null_count().row(0)) and texts.n_unique() == texts.height


def lacks_key(tables: Sequence[DataFrame], key: Key) -> list[int]:
    """Return the indices of the tables in which the key is not everywhere filled and unique."""
    lacking: list[int] = []
    last_valid: DataFrame | None = None  # most versions have the same keys, which are then checked once
    for number, table in enumerate(tables):
        if last_valid is not None and all(
            name in table.columns and name in last_valid.columns and table[name].equals(last_valid[name])
            for name in key.columns
        ):
            continue
        if has_key(table, key):
            last_valid = table
        else:
            lacking.append(number)
    return lacking


def describe_fault(table: DataFrame, key: Key) -> str:
    """Say why a key does not identify the records of a table, with the first such record, and what to do."""
    import polars

    absent = [name for name in key.columns if name not in table.columns]
    if absent:
        return f"it has no column {absent[0]!r}, which the key names"
    texts, names = key.texts(table), ", ".join(key.columns)
    missing = texts.select(polars.any_horizontal(polars.all().is_null())).to_series().arg_true()
    if missing.len():
        return (
            f"the key {names} is missing in {_count(missing.len())}, first in record {missing[0] + 1}: "
            "fill it, or declare another key"
        )
    repeated = texts.select(~polars.struct(polars.all()).is_first_distinct()).to_series().arg_true()
    first = repeated[0]
    shown = ", ".join(repr(text[:_MAX_SHOWN]) for text in table.select(key.columns).row(first))
    folded = f" without {' and '.join(key.fold)}" if key.fold else ""
    repeats = f"{_count(repeated.len())} {'repeats' if repeated.len() == 1 else 'repeat'} an earlier one"
    return (
        f"the key {names} is not unique{folded}: {repeats}, first record {first + 1} ({shown}): remove the "
        "repetitions, or declare key columns that tell them apart"
    )


def _count(records: int) -> str:
    return "1 record" if records == 1 else f"{records} records"


def find_record(table: DataFrame, key: Key, values: Sequence[str]) -> dict[str, str | None] | None:
    """Return the first record of `find_records`, or None."""
    found = find_records(table, key, values)
    return found.row(0, named=True) if found.height else None


def find_records(table: DataFrame, key: Key, values: Sequence[str]) -> DataFrame:
    """Return the records whose key columns have the texts `values`, else those that count as the same.

    Without key columns `values` is the record's number, from 1. JSON strings may be given without quotes.
    """
    import polars

    if not key.columns:
        number = int(values[0]) if len(values) == 1 and re.fullmatch("[0-9]{1,18}", values[0]) else 0
        return table.slice(number - 1, 1) if 0 < number <= table.height else table.clear()
    if len(values) != len(key.columns) or any(name not in table.columns for name in key.columns):
        return table.clear()
    spellings = {name: [text, _json_quoted(text)] for name, text in zip(key.columns, values, strict=True)}
    typed = polars.DataFrame(spellings)
    for manner in (Key(key.columns, key.source), key):
        known, wanted = manner.texts(table), manner.texts(typed)
        is_it = [known[name].is_in(wanted[name].to_list()) for name in key.columns]
        found = table.filter(polars.all_horizontal(is_it))
        if found.height:
            return found
    return table.clear()


def same_text(observed: str, values: str) -> bool:
    """True if a cell has the text that a user typed, with or without JSON's quotes."""
    return observed in (values, _json_quoted(values))


def _json_quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
