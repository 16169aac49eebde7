"""One record of a table, found by its key."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .keys import Key

if TYPE_CHECKING:
    from polars import DataFrame


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
        (polars.col(name), {text, _quoted(text)}) for name, text in zip(key.columns, wanted, strict=True)
    )
    found = table.filter(*(column.is_in(sorted(texts)) for column, texts in spellings))
    return found.row(0, named=True) if found.height else None


def same_text(observed: str, wanted: str) -> bool:
    """Whether a cell is what a person typed, with or without JSON's quotes."""
    return observed in (wanted, _quoted(wanted))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
