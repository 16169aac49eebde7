"""Control metrics read from a snapshot, whatever a tool has put there. Blocking.

What cannot be read is reported as such; files are read in pieces and up to a limit.
"""

from __future__ import annotations

import codecs
import json
import math
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import mao_git
from mao_datamgmt.context import Context
from mao_git import Clone, ContentStream, RepositoryError
from mao_shared.errors import MaoError
from mao_shared.models import ControlMetric
from mao_shared.models.alarm import Aggregate, Measured
from mao_vote import records
from mao_vote.records.csv_text import Rows, UnclearDialect, read_rows
from mao_vote.records.numbers import parse_number

MAX_JSON = 8 << 20  # bytes; parsed whole, it takes some twenty times that
MAX_TABLE = 256 << 20  # bytes of all files that one metric reads row by row
MAX_LINE = 1 << 20  # characters
PIECE = 1 << 20  # bytes
ROW_FILES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")  # of a list, in a JSON pointer
_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false"}


class UnreadableMetric(Exception):
    """The snapshot has no such number; the message says why."""


@dataclass(frozen=True, slots=True)
class MetricReading:
    """A metric of a snapshot: its finite value, or why there is none."""

    metric: ControlMetric
    value: float | None = None
    problem: str = ""


def read_metrics(
    context: Context, dataset: str, commit: str, metrics: Iterable[ControlMetric]
) -> list[MetricReading]:
    """Read the metrics of a step from its snapshot. Raises MaoError when the clone cannot be opened."""
    clone = Clone.open(context.data.clone(dataset))
    return [read_metric(clone, commit, metric) for metric in metrics]


def read_metric(clone: Clone, commit: str, metric: ControlMetric) -> MetricReading:
    try:
        value = float(_value(clone, commit, metric))
    except (UnreadableMetric, MaoError) as error:
        return MetricReading(metric, problem=str(error))
    except (UnclearDialect, OverflowError, ValueError, mao_git.ContentMissing, RepositoryError) as error:
        return MetricReading(metric, problem=f"{metric.file or metric.measure}: {error}")
    if not math.isfinite(value):
        return MetricReading(metric, problem=f"it is {value}, which is not a finite number")
    return MetricReading(metric, value)


def _value(clone: Clone, commit: str, metric: ControlMetric) -> float:
    if metric.measure is not None:
        return measure(clone, commit, metric.measure)
    if metric.file is None:
        raise UnreadableMetric("the metric names no file")
    opened = clone.open_file(commit, metric.file)
    if metric.pointer is not None:
        return json_number(opened, metric.pointer)
    _require_room(opened.size, MAX_TABLE)
    rows = table_rows(metric.file, iter_lines(opened))
    return aggregate(column_numbers(rows, metric.column or "", metric.aggregate), metric.aggregate)


# of the whole output


def measure(clone: Clone, commit: str, measured: Measured) -> float:
    """Count files, bytes, or rows (of CSV files without their header, and of JSON lines) of a snapshot."""
    if measured == "bytes":
        return sum(member.size for member in clone.archive_entries(commit, ""))
    paths = clone.list_paths(commit)
    if measured == "files":
        return len(paths)
    rows = total = 0
    for path in paths:
        if path.lower().endswith(ROW_FILES):
            opened = clone.open_file(commit, path)
            total += opened.size
            _require_room(total, MAX_TABLE)
            try:
                rows += _rows(path, opened)
            except UnclearDialect:
                rows += max(0, _lines(clone.open_file(commit, path)) - 1)
    return rows


def _rows(path: str, opened: ContentStream) -> int:
    """Count the rows of a file. Raises UnclearDialect."""
    how = records.record_format(path)
    if how is not None and how.tabular:
        return max(0, sum(1 for _ in read_rows(iter_lines(opened), _separator(path))) - 1)
    return _lines(opened)


def _lines(opened: ContentStream) -> int:
    return sum(1 for line in iter_lines(opened) if line.strip())


def _separator(path: str) -> str | None:
    """Return the separator that a file's extension implies, or None."""
    return "\t" if records.record_format(path) is records.RecordFormat.TSV else None


# JSON


def json_number(opened: ContentStream, pointer: str) -> float:
    """Return the number at a JSON pointer (RFC 6901). Raises UnreadableMetric."""
    _require_room(opened.size, MAX_JSON)
    try:
        document = json.loads(b"".join(opened.pieces), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise UnreadableMetric(f"the file is not valid JSON: {error}") from error
    found = at_pointer(document, pointer)
    if isinstance(found, bool) or not isinstance(found, int | float):
        kind = _KINDS.get(type(found), "null")
        raise UnreadableMetric(f"the value at {pointer!r} is {kind}, not a number")
    if abs(found) > sys.float_info.max:  # an integer of 309 digits or more
        raise UnreadableMetric(f"the value at {pointer!r} is too large for a number")
    return found


def at_pointer(document: Any, pointer: str) -> Any:
    """Return the value at a JSON pointer. Raises UnreadableMetric if there is none."""
    if pointer and not pointer.startswith("/"):
        raise UnreadableMetric(f"{pointer!r} is not a JSON pointer, which begins with '/'")
    found = document
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and _INDEX.fullmatch(name) and int(name) < len(found):
            found = found[int(name)]
        else:
            raise UnreadableMetric(f"{pointer!r} points at nothing: there is no {name[:80]!r}")
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number in JSON")


# CSV


def table_rows(path: str, lines: Iterable[str]) -> Rows:
    """Return the rows of a file; the separator is found as for votes and diffs. Raises UnreadableMetric."""
    try:
        return read_rows(lines, _separator(path))
    except UnclearDialect as error:
        raise UnreadableMetric(f"{path} is not read: {error}") from error


def column_numbers(rows: Rows, column: str, how: Aggregate) -> Iterator[float]:
    """Yield the numbers of a column, without empty cells; for `count`, 1 per cell. Raises
    UnreadableMetric.
    """
    header = next(rows, [])
    if header.count(column) != 1:
        found = "several columns" if column in header else "no column"
        raise UnreadableMetric(f"the file has {found} {column!r}")
    place = header.index(column)
    for row in rows:
        cell = row[place].strip() if place < len(row) else ""
        if not cell:
            continue
        try:
            number = 1.0 if how == "count" else parse_number(cell)
        except ValueError:
            problem = f"line {rows.line_num} has {cell[:40]!r}, which is not a number"
            raise UnreadableMetric(problem) from None
        yield number


def aggregate(values: Iterator[float], how: Aggregate) -> float:
    """Reduce many numbers to one. Raises UnreadableMetric when there are none, except for a count."""
    if how == "count":
        return math.fsum(values)
    first = next(values, None)
    if first is None:
        raise UnreadableMetric("the column has no value")
    match how:
        case "first":
            return first
        case "last":
            return deque(chain([first], values), maxlen=1)[0]
        case "sum":
            return first + math.fsum(values)
        case "mean":
            total, count = first, 1
            for value in values:
                total, count = total + value, count + 1
            return total / count
        case "min":
            return min(first, min(values, default=first))
        case "max":
            return max(first, max(values, default=first))


# text


def iter_lines(opened: ContentStream) -> Iterator[str]:
    """Yield the lines of a UTF-8 file with their ends. Raises UnreadableMetric for other text and endless
    lines.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    held = ""
    try:
        views = (memoryview(piece) for piece in opened.pieces)
        for piece in (view[begin : begin + PIECE] for view in views for begin in range(0, len(view), PIECE)):
            *whole, held = (held + decoder.decode(piece)).split("\n")
            yield from (line + "\n" for line in whole)
            if len(held) > MAX_LINE:
                raise UnreadableMetric(f"a line is longer than {MAX_LINE} characters")
        held += decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise UnreadableMetric(f"the file is not UTF-8: {error.reason}") from error
    if held:
        yield held


def _require_room(size: int, most: int) -> None:
    if size > most:
        raise UnreadableMetric(f"the data has {size} bytes, the limit is {most}")
