"""Reads tables record by record, and compares their columns with the declared ones. Blocking.

Tables are read as control metrics are: as for votes, in pieces, up to a limit.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from mao_datamgmt.monitoring.extract import (
    MAX_JSON_BYTES,
    MAX_TABLE_BYTES,
    UnreadableMetric,
    check_size,
    count_rows,
    iter_lines,
    table_rows,
)
from mao_git import Clone, ContentStream
from mao_shared.models.check import ColumnType
from mao_vote import records
from mao_vote.records import RecordFormat
from mao_vote.records.fields.numbers import parse_number

MAX_SHOWN_VALUE = 40  # characters
_INTEGER = re.compile(r"[+-]?[0-9]+")
Cells = Mapping[str, Any]
"""A record: of CSV texts by column, of JSON values; missing and empty ones are None."""


def count_records(clone: Clone, tree: str, path: str) -> int:
    """Return the number of records of a table. Raises UnreadableMetric, UnclearDialect."""
    table_format = record_format(path)
    stream = clone.open_file(tree, path)
    if table_format is RecordFormat.JSON:
        return len(_json_list(path, stream))
    check_size(stream.size, MAX_TABLE_BYTES)
    return count_rows(path, stream)


def record_format(path: str) -> RecordFormat:
    """Return the format of a table by its name. Raises UnreadableMetric for another file."""
    found = records.record_format(path)
    if found is None:
        raise UnreadableMetric(
            f"{path} is not a table: its name ends in none of .csv, .tsv, .tab, .jsonl, .json"
        )
    return found


def column_faults(
    clone: Clone, tree: str, path: str, columns: Mapping[str, ColumnType], not_empty: Sequence[str]
) -> str | None:
    """Return the first way in which a table differs from the declared columns, or None."""
    table_format = record_format(path)
    stream = clone.open_file(tree, path)
    if table_format.tabular:
        header, rows = _read_csv(path, stream)
    else:
        header, rows = None, _read_json(path, stream, table_format)
    if header is not None and (lacking := _lacking(columns, header)):
        return lacking
    tests = [(name, wanted, _TESTS[wanted], name in not_empty) for name, wanted in columns.items()]
    seen: set[str] = set()
    for place, row in rows:
        if header is None:
            seen.update(columns.keys() & row.keys())
        for name, wanted, test, is_required in tests:
            value = row.get(name)
            if value is None:
                if is_required:
                    return f"{path}, {place}: {name!r} is empty"
            elif not test(value):
                return f"{path}, {place}: {name!r} is {_shown(value)}, which is not {_WORDS[wanted]}"
    return None if header is not None else _lacking(columns, sorted(seen))


def _lacking(columns: Mapping[str, ColumnType], header: Sequence[str]) -> str | None:
    for name in columns:
        if (count := header.count(name)) != 1:
            having = ", ".join(map(repr, header[:10])) or "none"
            return f"the table has {'no' if count == 0 else 'several'} column {name!r}; it has {having}"
    return None


def _read_csv(path: str, stream: ContentStream) -> tuple[list[str], Iterator[tuple[str, Cells]]]:
    check_size(stream.size, MAX_TABLE_BYTES)
    rows = table_rows(path, iter_lines(stream))
    header = [name.strip() for name in next(rows, [])]

    def cells() -> Iterator[tuple[str, Cells]]:
        for row in rows:
            yield (
                f"line {rows.line_num}",
                {name: text for name, cell in zip(header, row, strict=False) if (text := cell.strip())},
            )

    return header, cells()


def _read_json(path: str, stream: ContentStream, table_format: RecordFormat) -> Iterator[tuple[str, Cells]]:
    if table_format is RecordFormat.JSON:
        for number, item in enumerate(_json_list(path, stream), 1):
            yield f"record {number}", _object(path, f"record {number}", item)
        return
    check_size(stream.size, MAX_TABLE_BYTES)
    for number, line in enumerate(iter_lines(stream), 1):
        if line.strip():
            yield f"line {number}", _object(path, f"line {number}", _parse(path, line))


def _json_list(path: str, stream: ContentStream) -> list[Any]:
    check_size(stream.size, MAX_JSON_BYTES)
    document = _parse(path, b"".join(stream.pieces).decode("utf-8-sig"))
    if not isinstance(document, list):
        raise UnreadableMetric(f"{path} is not a table: its JSON is not a list of objects")
    return document


def _parse(path: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableMetric(f"{path} is not valid JSON: {error}") from error


def _object(path: str, place: str, item: Any) -> Cells:
    if not isinstance(item, dict):
        raise UnreadableMetric(f"{path}, {place} is not an object")
    return {name: value for name, value in item.items() if value not in (None, "")}


# types of cells: of CSV as text, of JSON by the value's own type


def _is_integer(value: Any) -> bool:
    if isinstance(value, str):
        return _INTEGER.fullmatch(value) is not None
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    if not isinstance(value, str):
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    try:
        return math.isfinite(parse_number(value))
    except ValueError:
        return False


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.lower() in ("true", "false"))


def _is_time(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_TESTS: dict[ColumnType, Callable[[Any], bool]] = {
    "text": _is_text,
    "integer": _is_integer,
    "number": _is_number,
    "boolean": _is_boolean,
    "time": _is_time,
}
_WORDS: dict[ColumnType, str] = {
    "text": "text",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "time": "a date or time (ISO 8601)",
}


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= MAX_SHOWN_VALUE else f"{text[: MAX_SHOWN_VALUE - 1]}…"
