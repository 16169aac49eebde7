"""Tables back to files, in the manner of a file that was observed."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from .load import Format, separator_in

if TYPE_CHECKING:
    from polars import DataFrame

_BOM = b"\xef\xbb\xbf"
_HEAD = 10_000  # bytes that show how a JSON file is spaced
_SAMPLE = 200  # records by which the manner of quoting is told

Quoting = Literal["necessary", "always", "non_numeric"]


@dataclass(frozen=True, slots=True)
class CsvManner:
    separator: str = ","
    line_end: str = "\n"
    quoting: Quoting = "necessary"
    mark: bytes = b""  # before the heading
    ends: bool = True  # the last line as well


def write_like(table: DataFrame, model: bytes, how: Format, model_table: DataFrame) -> bytes:
    """The records in the format of `model`, which reads as `model_table`."""
    if how.tabular:
        return _write_csv(table, _csv_manner(model, how, model_table))
    records = list(_records(table))
    if how is Format.JSON_LINES:
        return write_json_lines(records, model)
    return write_json(records, model)


def manner_of(content: bytes, how: Format, table: DataFrame) -> Hashable:
    """What is equal for files that are written alike, as far as that can be told from their beginnings."""
    if how.tabular:
        return _csv_manner(content, how, table)
    head = content[:_HEAD].decode("utf-8", "replace")
    second = head.partition("\n")[2]
    indent = second[: len(second) - len(second.lstrip())]
    return how, indent, '": ' in head, content[-1:].isspace()


def _csv_manner(model: bytes, how: Format, table: DataFrame) -> CsvManner:
    mark = _BOM if model.startswith(_BOM) else b""
    heading = model[len(mark) : model.find(b"\n") if b"\n" in model else None].decode()
    line_end = "\r\n" if heading.endswith("\r") else "\n"
    ends = model.endswith(b"\n") or not model
    separator = separator_in(model.decode("utf-8-sig"), how)
    sample = table.head(_SAMPLE)
    styles: tuple[Quoting, ...] = ("necessary", "always", "non_numeric")
    for quoting in styles:
        manner = CsvManner(separator, line_end, quoting, mark, ends)
        if model.startswith(_write_csv(sample, manner).rstrip()):
            return manner
    return CsvManner(separator, line_end, "necessary", mark, ends)


def _write_csv(table: DataFrame, manner: CsvManner) -> bytes:
    import polars

    if manner.quoting == "necessary" and table.width > 1:  # polars would quote empty texts, but not nulls
        table = table.with_columns(
            polars.when(polars.col(name) != "").then(polars.col(name)).alias(name) for name in table.columns
        )
    text = table.write_csv(
        separator=manner.separator, line_terminator=manner.line_end, quote_style=manner.quoting
    )
    return manner.mark + (text if manner.ends else text.removesuffix(manner.line_end)).encode()


def _records(table: DataFrame) -> Iterator[dict[str, Any]]:
    for row in table.iter_rows(named=True):
        yield {name: json.loads(text) for name, text in row.items() if text is not None}


Dump = Callable[[Any], str]


def _manners(indent: int | str | None) -> Iterator[Dump]:
    for separators, ascii_only, sort in product((None, (",", ":")), (False, True), (True, False)):
        yield partial(
            json.dumps, indent=indent, separators=separators, ensure_ascii=ascii_only, sort_keys=sort
        )


def _encoded(dump: Dump, value: Any) -> str:
    """Half letters, which UTF-8 does not have, stay escaped."""
    text = dump(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def write_json(document: Any, model: bytes) -> bytes:
    """A JSON document, indented and ended as the model is; by two spaces where that is in no usual way."""
    text = model.decode("utf-8-sig")
    body = text.rstrip()
    was = json.loads(body) if body else []
    second = body.partition("\n")[2]
    indent = second[: len(second) - len(second.lstrip())] or None
    dump = next((dump for dump in _manners(indent) if dump(was) == body), partial(json.dumps, indent=2))
    return (_encoded(dump, document) + (text[len(body) :] if body else "\n")).encode()


def write_json_lines(records: list[dict[str, Any]], model: bytes) -> bytes:
    """A line a record, spaced as most of the model's first lines are."""
    lines = [line for line in model.decode("utf-8-sig").split("\n")[:_SAMPLE] if line.strip()]
    parsed = [json.loads(line) for line in lines]
    dump = max(
        _manners(None),
        key=lambda dump: sum(dump(value) == line.rstrip() for value, line in zip(parsed, lines, strict=True)),
    )
    text = "\n".join(_encoded(dump, record) for record in records)
    return (text + ("\n" if records and (model.endswith(b"\n") or not model) else "")).encode()
