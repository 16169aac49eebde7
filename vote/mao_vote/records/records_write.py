"""Tables back to files."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from .keys import Key
from .load import Format
from .sources import Source
from .write import write_json_lines, write_json_list
from .write_csv import csv_manner, write_csv

if TYPE_CHECKING:
    from polars import DataFrame

_HEAD = 10_000  # bytes that show how a JSON file is spaced


def write_like(table: DataFrame, sources: Sequence[Source], how: Format, key: Key) -> bytes:
    """The records in the manner of the first source, the model; bytes of all of them are taken over."""
    if how.tabular:
        return write_csv(table, sources, how, key)
    if how is Format.JSON_LINES:
        return write_json_lines(table, sources, key)
    return write_json_list(table, sources, key)


def manner_of(content: bytes, how: Format, table: DataFrame) -> Hashable:
    """What is equal for files that are written alike, as far as that can be told from their beginnings."""
    if how.tabular:
        return csv_manner(content, how, table)
    head = content[:_HEAD].decode("utf-8", "replace")
    second = head.partition("\n")[2]
    indent = second[: len(second) - len(second.lstrip())]
    return how, indent, '": ' in head, content[-1:].isspace()
