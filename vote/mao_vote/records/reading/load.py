"""Reads files as tables of text; other JSON documents become tables of leaves."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

from mao_shared.json_text import is_number, parse_json, render_json

from .csv_text import UnclearDialect, check_text, find_separator, without_blank_lines

if TYPE_CHECKING:
    from polars import DataFrame

Table: TypeAlias = "DataFrame"
MAX_COLUMNS = 2000
MAX_CELLS = 10_000_000  # records times columns; a small file may expand to a table that exceeds the memory
MAX_LEAVES = 500_000
MAX_OBJECTS = 1_000_000  # of JSON; each takes a few hundred bytes of memory, however short its text
MAX_POINTER_CHARACTERS = 64 << 20  # of all JSON pointers together, each of which repeats the names above it
MAX_DEPTH = 100  # of JSON; the interpreter's own limit varies, and all nodes must have the same
BOM = b"\xef\xbb\xbf"
_encode = json.JSONEncoder(ensure_ascii=False).encode
_TOO_DEEP = "its JSON is nested too deeply"


class RecordFormat(StrEnum):
    CSV = "csv"
    TSV = "tsv"
    JSON = "json"
    JSON_LINES = "jsonl"

    @property
    def tabular(self) -> bool:
        """True for formats with one heading for all records, and cells that are text."""
        return self in (RecordFormat.CSV, RecordFormat.TSV)


_BY_ENDING = {
    "csv": RecordFormat.CSV,
    "tsv": RecordFormat.TSV,
    "tab": RecordFormat.TSV,
    "json": RecordFormat.JSON,
    "jsonl": RecordFormat.JSON_LINES,
    "ndjson": RecordFormat.JSON_LINES,
}


MAX_SHOWN_BYTES = {
    RecordFormat.CSV: 32 << 20,
    RecordFormat.TSV: 32 << 20,
    RecordFormat.JSON: 8 << 20,
    RecordFormat.JSON_LINES: 8 << 20,
}
"""Largest size of a file that is read as records to show it to a person, less than what is voted.

JSON takes many times its size in memory.
"""


class NotRecords(Exception):
    """A file cannot be read as records; the message is the reason.

    `former`: the reason as rules 3 have it in evidence, with the words of a parser.
    """

    def __init__(self, reason: str, former: str | None = None) -> None:
        super().__init__(reason)
        self.former = former or reason


def record_format(path: str) -> RecordFormat | None:
    """Return the format implied by a file's name, or None if it is not a record file."""
    return _BY_ENDING.get(path.rpartition(".")[2].lower())


def load(content: bytes, file_format: RecordFormat) -> DataFrame:
    """Read a file as a table in which every column is text. Raises NotRecords.

    A JSON list of objects gives one row per object. Any other JSON document gives one row per leaf (a scalar,
    or an empty list or object), with its JSON pointer as `path`.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotRecords(f"it is not UTF-8 at byte {error.start}") from None
    if file_format.tabular:
        return _load_csv(text, content, file_format)
    try:
        return _table(_json_rows(text, file_format))
    except RecursionError:
        raise NotRecords(_TOO_DEEP) from None
    except ValueError as error:  # a name has half a letter
        raise NotRecords("it is not JSON", f"it is not JSON: {error}") from error


def separator_in(content: bytes, file_format: RecordFormat) -> str:
    """Return the separator of a tabular file. Raises NotRecords if it is ambiguous."""
    only = "\t" if file_format is RecordFormat.TSV else None
    try:
        return find_separator(
            io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline=""), only=only
        )
    except UnclearDialect as error:
        raise NotRecords(str(error), error.former) from None


def _load_csv(text: str, content: bytes, file_format: RecordFormat) -> DataFrame:
    import polars

    if not text or text.isspace():
        return polars.DataFrame()
    separator = separator_in(content, file_format)
    try:
        quoted = check_text(text, separator)
    except UnclearDialect as error:
        raise NotRecords(str(error), error.former) from None
    if (remaining := without_blank_lines(text, separator, quoted=quoted)) is not text:
        text, content = remaining, remaining.encode()
    heading = text.split("\n", 1)[0]
    if quoted and heading.count('"') % 2:  # polars would read on and find columns that are not counted here
        raise NotRecords("a name in its heading goes over several lines")
    if heading.count(separator) >= MAX_COLUMNS:
        raise NotRecords(f"it has more than {MAX_COLUMNS} columns")
    _check_cells(text.count("\n"), heading.count(separator) + 1)
    names = _parse_heading(heading.rstrip("\r"), separator)
    try:
        table = polars.read_csv(
            io.BytesIO(content.removeprefix(BOM)),
            separator=separator,
            new_columns=names,  # in its own names quotes would stay doubled
            quote_char='"' if quoted else None,
            infer_schema=False,
        )
        return table.fill_null("")  # in CSV an empty field is an empty text
    except polars.exceptions.PolarsError as error:
        former = f"it is not CSV: {str(error).splitlines()[0]}"
        raise NotRecords("it is not CSV", former) from error


def _parse_heading(heading: str, separator: str) -> list[str]:
    """Return the columns' names. Duplicates are refused, since polars would rename them."""
    try:
        names = next(csv.reader([heading], delimiter=separator), [])
    except csv.Error as error:
        raise NotRecords("its heading is not CSV", f"its heading is not CSV: {error}") from error
    duplicate = next((name for name, count in Counter(names).items() if count > 1), None)
    if duplicate is not None:
        raise NotRecords(f"two of its columns are called {duplicate[:100]!r}")
    return names


def load_json_document(content: bytes) -> Any:
    """Parse a JSON file; an empty one is an empty list. Raises NotRecords."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotRecords(f"it is not UTF-8 at byte {error.start}", f"it is not JSON: {error}") from None
    return _parse(text, "it") if text.strip() else []


def _parse(text: str, what: str) -> Any:
    """Parse JSON. Raises NotRecords.

    The reason becomes evidence, so it must not have the words of Python's parser, nor its position, which
    depend on Python's version.
    """
    try:
        return parse_json(text, names_once=True)
    except RecursionError:
        raise NotRecords(_TOO_DEEP) from None
    except json.JSONDecodeError as error:
        raise NotRecords(f"{what} is not JSON", f"it is not JSON: {error}") from error
    except ValueError as error:
        raise NotRecords(f"{what} is not JSON: {error}", f"it is not JSON: {error}") from None


def is_record_list(document: Any) -> bool:
    """True for a list of objects, which is read as records."""
    return isinstance(document, list) and all(isinstance(item, dict) for item in document)


def _json_rows(text: str, file_format: RecordFormat) -> list[dict[str, str]]:
    if file_format is RecordFormat.JSON:
        document = _parse(text, "it") if text.strip() else []
        return _record_rows(document) if is_record_list(document) else leaf_rows(document)
    rows = []
    _check_objects(text.count("\n"))
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        record = _parse(line, f"line {number}")
        if not isinstance(record, dict):
            raise NotRecords(f"line {number} is not a JSON object")
        rows.append(_row(record))
    return rows


def record_table(document: list[dict[str, Any]]) -> DataFrame:
    """Return a list of objects, as parsed by `load_json_document`, as a table. Raises NotRecords."""
    return _table(_record_rows(document))


def _record_rows(document: list[dict[str, Any]]) -> list[dict[str, str]]:
    _check_objects(len(document))
    return [_row(item) for item in document]


def leaf_rows(document: Any) -> list[dict[str, str]]:
    """Return the `path` (JSON pointer) and `value` (JSON text) of each leaf of a document.

    Raises NotRecords.
    """
    return [{"path": path, "value": cell_text(value)} for path, value in iter_leaves(document)]


def iter_leaves(document: Any) -> Iterator[tuple[str, Any]]:
    """Yield the JSON pointer and value of each leaf of a document. Raises NotRecords if it is too large."""
    name_length = 0
    for count, (path, value) in enumerate(_leaves("", document)):
        name_length += len(path)
        if not path.isascii() and _has_lone_surrogate(path):
            raise NotRecords("the name of a field has half a letter")
        if count == MAX_LEAVES or name_length > MAX_POINTER_CHARACTERS:
            raise NotRecords(f"it has more than {MAX_LEAVES} values outside of records, or too long names")
        yield path, value


def check_document(document: Any) -> None:
    """Raise NotRecords if a document is too large or too deep to be voted value by value."""
    for _ in iter_leaves(document):
        pass


def _row(record: dict[str, Any]) -> dict[str, str]:
    return {name: cell_text(value) for name, value in record.items()}


def _leaves(path: str, value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a document, each with its JSON pointer (RFC 6901)."""
    if depth > MAX_DEPTH:
        raise NotRecords(_TOO_DEEP)
    if not isinstance(value, dict | list) or not value:
        yield path, value
        return
    children = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in children:
        yield from _leaves(f"{path}/{escape_step(str(name))}", inner, depth + 1)


def cell_text(value: Any) -> str:
    """Return a value as JSON text with sorted names; numbers keep their spelling. Raises NotRecords."""
    if isinstance(value, str):
        text = render_json(value) if is_number(value) else _encode(value)
        return text if text.isascii() or not _has_lone_surrogate(text) else render_json(value)
    text = render_json(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    if text.count("[") + text.count("{") > MAX_DEPTH:
        level = [value]
        for _ in range(MAX_DEPTH):
            inner = (item for item in level if isinstance(item, dict | list))
            level = [
                children for item in inner for children in (item.values() if isinstance(item, dict) else item)
            ]
        if any(isinstance(item, dict | list) for item in level):
            raise NotRecords(_TOO_DEEP)
    if not text.isascii() and _has_lone_surrogate(text):
        return render_json(value, sort_keys=True, separators=(",", ":"))
    return text


def _has_lone_surrogate(text: str) -> bool:
    """True if a text has an unpaired UTF-16 surrogate, which no table can hold."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def _table(rows: list[dict[str, str]]) -> DataFrame:
    import polars

    columns = list(dict.fromkeys(name for row in rows for name in row))
    if len(columns) > MAX_COLUMNS:
        raise NotRecords(f"it has more than {MAX_COLUMNS} different fields")
    _check_cells(len(rows), len(columns))
    if any("\0" in name for name in columns):
        raise NotRecords("the name of a field has a NUL character")
    series = {name: [row.get(name) for row in rows] for name in columns}
    return polars.DataFrame(series, schema=dict.fromkeys(columns, polars.String))


def _check_objects(count: int) -> None:
    if count > MAX_OBJECTS:
        raise NotRecords(f"it has more than {MAX_OBJECTS // 1_000_000} million lines or records of JSON")


def _check_cells(rows: int, columns: int) -> None:
    if rows * columns > MAX_CELLS:
        raise NotRecords(f"it has more than {MAX_CELLS // 1_000_000} million cells")


def escape_step(name: str) -> str:
    """Return a name as a step of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
