"""Reads control metrics from a snapshot. Blocking.

Files may contain anything: a metric that cannot be read is reported, and files are read in pieces up to a
limit.
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
from mao_vote.records.fields.numbers import parse_number
from mao_vote.records.reading.csv_text import Rows, UnclearDialect, read_rows

MAX_JSON_BYTES = 8 << 20  # a parsed document takes about twenty times that in memory
MAX_TABLE_BYTES = 256 << 20  # of all files that one metric reads row by row
MAX_LINE = 1 << 20  # characters
PIECE_BYTES = 1 << 20  # bytes
ROW_FILES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")  # list index in a JSON pointer
_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false"}


class UnreadableMetric(Exception):
    """A metric cannot be read from the snapshot; the message is the reason."""


@dataclass(frozen=True, slots=True)
class MetricReading:
    """A metric of a snapshot: its finite value, or the problem that prevents one."""

    metric: ControlMetric
    value: float | None = None
    problem: str = ""


def read_metrics(
    context: Context, dataset: str, commit: str, metrics: Iterable[ControlMetric]
) -> list[MetricReading]:
    """Read the metrics of a step from its snapshot. Raises MaoError if the clone cannot be opened."""
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
    stream = clone.open_file(commit, metric.file)
    if metric.pointer is not None:
        return json_number(stream, metric.pointer)
    check_size(stream.size, MAX_TABLE_BYTES)
    rows = table_rows(metric.file, iter_lines(stream))
    return aggregate(column_numbers(rows, metric.column or "", metric.aggregate), metric.aggregate)


# measures of the whole output


def measure(clone: Clone, commit: str, measured: Measured) -> float:
    """Count the files, bytes or rows (of CSV files without headers and of JSON lines) of a snapshot."""
    if measured == "bytes":
        return sum(member.size for member in clone.archive_entries(commit, ""))
    paths = clone.list_paths(commit)
    if measured == "files":
        return len(paths)
    rows = total = 0
    for path in paths:
        if path.lower().endswith(ROW_FILES):
            stream = clone.open_file(commit, path)
            total += stream.size
            check_size(total, MAX_TABLE_BYTES)
            try:
                rows += count_rows(path, stream)
            except UnclearDialect:
                rows += max(0, _count_lines(clone.open_file(commit, path)) - 1)
    return rows


def count_rows(path: str, stream: ContentStream) -> int:
    """Return the number of rows of a file. Raises UnclearDialect."""
    aggregation = records.record_format(path)
    if aggregation is not None and aggregation.tabular:
        return max(0, sum(1 for _ in read_rows(iter_lines(stream), _separator(path))) - 1)
    return _count_lines(stream)


def _count_lines(stream: ContentStream) -> int:
    return sum(1 for line in iter_lines(stream) if line.strip())


def _separator(path: str) -> str | None:
    """Return the separator that a file's extension implies, or None."""
    return "\t" if records.record_format(path) is records.RecordFormat.TSV else None


# JSON


def json_number(stream: ContentStream, pointer: str) -> float:
    """Return the number at a JSON pointer (RFC 6901). Raises UnreadableMetric."""
    check_size(stream.size, MAX_JSON_BYTES)
    try:
        document = json.loads(b"".join(stream.pieces), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise UnreadableMetric(f"the file is not valid JSON: {error}") from error
    value = at_pointer(document, pointer)
    if isinstance(value, bool) or not isinstance(value, int | float):
        kind = _KINDS.get(type(value), "null")
        raise UnreadableMetric(f"the value at {pointer!r} is {kind}, not a number")
    if abs(value) > sys.float_info.max:  # an integer of 309 digits or more
        raise UnreadableMetric(f"the value at {pointer!r} is too large for a number")
    return value


def at_pointer(document: Any, pointer: str) -> Any:
    """Return the value at a JSON pointer. Raises UnreadableMetric if there is none."""
    if pointer and not pointer.startswith("/"):
        raise UnreadableMetric(f"{pointer!r} is not a JSON pointer, which begins with '/'")
    value = document
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and _INDEX.fullmatch(name) and int(name) < len(value):
            value = value[int(name)]
        else:
            raise UnreadableMetric(f"{pointer!r} points at nothing: there is no {name[:80]!r}")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number in JSON")


# CSV


def table_rows(path: str, lines: Iterable[str]) -> Rows:
    """Return the rows of a file, parsed as for votes and diffs. Raises UnreadableMetric."""
    try:
        return read_rows(lines, _separator(path))
    except UnclearDialect as error:
        raise UnreadableMetric(f"{path} is not read: {error}") from error


def column_numbers(rows: Rows, column: str, aggregation: Aggregate) -> Iterator[float]:
    """Yield the numbers in a column, skipping empty cells; for `count`, 1 per cell.

    Raises UnreadableMetric.
    """
    header = next(rows, [])
    if header.count(column) != 1:
        value = "several columns" if column in header else "no column"
        raise UnreadableMetric(f"the file has {value} {column!r}")
    index = header.index(column)
    for row in rows:
        cell = row[index].strip() if index < len(row) else ""
        if not cell:
            continue
        try:
            number = 1.0 if aggregation == "count" else parse_number(cell)
        except ValueError:
            problem = f"line {rows.line_num} has {cell[:40]!r}, which is not a number"
            raise UnreadableMetric(problem) from None
        yield number


def aggregate(values: Iterator[float], aggregation: Aggregate) -> float:
    """Reduce numbers to one. Raises UnreadableMetric if there are none, except for a count."""
    if aggregation == "count":
        return math.fsum(values)
    first = next(values, None)
    if first is None:
        raise UnreadableMetric("the column has no value")
    match aggregation:
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


def iter_lines(stream: ContentStream) -> Iterator[str]:
    """Yield the lines of a UTF-8 file with their line ends.

    Raises UnreadableMetric for other encodings and for lines of more than `MAX_LINE` characters.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    pending = ""
    try:
        views = (memoryview(piece) for piece in stream.pieces)
        for piece in (
            view[begin : begin + PIECE_BYTES] for view in views for begin in range(0, len(view), PIECE_BYTES)
        ):
            *complete, pending = (pending + decoder.decode(piece)).split("\n")
            yield from (line + "\n" for line in complete)
            if len(pending) > MAX_LINE:
                raise UnreadableMetric(f"a line is longer than {MAX_LINE} characters")
        pending += decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise UnreadableMetric(f"the file is not UTF-8: {error.reason}") from error
    if pending:
        yield pending


def check_size(size: int, limit: int) -> None:
    """Raise UnreadableMetric for data that are larger than a limit, both in bytes."""
    if size > limit:
        raise UnreadableMetric(f"the data has {size} bytes, the limit is {limit}")
