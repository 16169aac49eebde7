"""Decides whether a step's output meets a check; one function for each kind. Blocking.

Output may contain anything. What cannot be checked has failed, with the reason: a check is a promise about
what is published.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

import mao_git
from mao_datamgmt.monitoring.extract import MAX_JSON_BYTES, UnreadableMetric, check_size, measure, read_metric
from mao_datamgmt.monitoring.series import judge
from mao_git import Clone, RepositoryError
from mao_shared.errors import MaoError
from mao_shared.models import ControlMetric, Point
from mao_shared.models.check import Check, CheckKind, CheckResult
from mao_vote import records
from mao_vote.records import RecordFormat
from mao_vote.records.reading.csv_text import UnclearDialect

from . import tables

MAX_DETAIL = 500  # characters of a result's detail
OWN_FOLDER = ".mao/"  # written by MAO, not by the tool


@dataclass(frozen=True, slots=True)
class Output:
    """The output to check: a tree, and that of the last snapshot. `points`: of each metric, oldest first."""

    clone: Clone
    tree: str
    base: str
    metrics: Mapping[str, ControlMetric]
    points: Mapping[str, Sequence[Point]]
    moment: datetime


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found. `fault`: why the check has failed, or None; `value`: of a count or metric."""

    fault: str | None
    detail: str = ""
    value: float | None = None


def evaluate(check: Check, output: Output) -> CheckResult:
    """Check the output. Never raises for what the output or the check contains."""
    try:
        if check.unknown_part is not None:
            finding = Finding(f"this version of MAO does not know {check.unknown_part!r}; update this node")
        else:
            finding = _KINDS[check.kind](check, output)
    except (UnreadableMetric, MaoError) as error:
        finding = Finding(f"it cannot be checked: {error}")
    except (UnclearDialect, OverflowError, ValueError, RecursionError) as error:
        finding = Finding(f"it cannot be checked: {check.file or check.kind}: {error}")
    except mao_git.ContentMissing:
        finding = Finding("it cannot be checked: the content of a large file is not on this node")
    except RepositoryError as error:
        finding = Finding(f"it cannot be checked: {error}")
    return result_of(check, finding)


def result_of(check: Check, finding: Finding) -> CheckResult:
    detail = finding.detail if finding.fault is None else finding.fault
    return CheckResult(
        name=check.name,
        kind=check.kind,
        on_failure=check.on_failure,
        passed=finding.fault is None,
        detail=detail if len(detail) <= MAX_DETAIL else f"{detail[: MAX_DETAIL - 1]}…",
        value=finding.value,
    )


# files


def file_pattern(pattern: str) -> re.Pattern[str]:
    """Return the expression for a pattern: `*` and `?` match within a name, `**` across folders. Pure."""
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(words.get(piece) or re.escape(piece) for piece in pieces), re.DOTALL)


def matching(clone: Clone, tree: str, pattern: str) -> list[str]:
    """Return the paths of the tool's files that match a pattern, sorted; a file of that very name first."""
    paths = [path for path in clone.list_paths(tree) if not path.startswith(OWN_FOLDER)]
    if pattern in paths:
        return [pattern]
    expression = file_pattern(pattern)
    return sorted(path for path in paths if expression.fullmatch(path))


def _files(check: Check, output: Output) -> list[str]:
    found = matching(output.clone, output.tree, check.file or "")
    if not found:
        raise UnreadableMetric(f"the output has no file {check.file!r}")
    return found


def _check_present(check: Check, output: Output) -> Finding:
    found = matching(output.clone, output.tree, check.file or "")
    if not found:
        return Finding(f"the output has no file {check.file!r}")
    return Finding(None, found[0] if len(found) == 1 else f"{len(found)} files")


def _check_columns(check: Check, output: Output) -> Finding:
    columns = check.columns or {}
    found = _files(check, output)
    for path in found:
        fault = tables.column_faults(output.clone, output.tree, path, columns, check.not_empty)
        if fault is not None:
            return Finding(fault)
    return Finding(None, f"{len(columns)} columns as declared")


# rows


def _count(check: Check, output: Output, tree: str) -> int | None:
    """Return the number of rows in a tree; None if it has none of the tables."""
    if check.file is None:
        return int(measure(output.clone, tree, "rows"))
    found = matching(output.clone, tree, check.file)
    return sum(tables.count_records(output.clone, tree, path) for path in found) if found else None


def _check_rows(check: Check, output: Output) -> Finding:
    count = _count(check, output, output.tree)
    if count is None:
        return Finding(f"the output has no file {check.file!r}")
    if check.at_least is not None and count < check.at_least:
        return Finding(f"{_rows(count)}, at least {check.at_least} are expected", value=count)
    if check.at_most is not None and count > check.at_most:
        return Finding(f"{_rows(count)}, at most {check.at_most} are expected", value=count)
    return Finding(None, _rows(count), count)


def _check_change(check: Check, output: Output) -> Finding:
    count = _count(check, output, output.tree)
    if count is None:
        return Finding(f"the output has no file {check.file!r}")
    try:
        before = _count(check, output, output.base)
    except (UnreadableMetric, UnclearDialect, mao_git.ContentMissing, MaoError) as error:
        return Finding(None, f"{_rows(count)}; those of the last snapshot cannot be counted: {error}", count)
    if not before:
        return Finding(None, f"{_rows(count)}; the last snapshot has none to compare with", count)
    change = count - before
    limits = ((check.max_increase, change, "more"), (check.max_decrease, -change, "less"))
    for limit, amount, word in limits:
        if limit is not None and amount > allowed_change(limit, before):
            share = Fraction(100 * abs(change), before)
            text = (
                f"{_rows(count)}, {abs(change)} ({float(share):.1f} %) {word} than the {before} of the last"
            )
            return Finding(f"{text} snapshot; at most {limit} {word} are expected", value=count)
    return Finding(None, f"{_rows(count)}, {change:+d} against the last snapshot", count)


def allowed_change(limit: str, before: int) -> Fraction:
    """Return the largest change in rows that a limit (`500`, `10%`) allows. Exact, and pure."""
    return Fraction(limit[:-1]) * before / 100 if limit.endswith("%") else Fraction(limit)


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


# values


def _check_metric(check: Check, output: Output) -> Finding:
    metric = output.metrics.get(check.metric or "")
    if metric is None:
        return Finding(f"the step has no metric {check.metric!r}")
    reading = read_metric(output.clone, output.tree, metric)
    if reading.value is None:
        return Finding(f"{metric.name} cannot be read: {reading.problem}")
    judgement = judge(output.points.get(metric.name, ()), reading.value, output.moment)
    unit = f" {metric.unit}" if metric.unit else ""
    text = f"{metric.name} is {reading.value:.15g}{unit}"
    if judgement.expected is None or judgement.band is None:
        return Finding(None, f"{text}, the first value", reading.value)
    allowed = f"expected {judgement.expected:.6g} ± {judgement.band:.6g}"
    if judgement.accepted:
        return Finding(None, f"{text}, {allowed}", reading.value)
    return Finding(f"{text}, {allowed}: {judgement.reason}", value=reading.value)


def _check_schema(check: Check, output: Output) -> Finding:
    from . import schemas  # with its library; most steps have no such check

    found = _files(check, output)
    for path in found:
        stream = output.clone.open_file(output.tree, path)
        check_size(stream.size, MAX_JSON_BYTES)
        text = b"".join(stream.pieces).decode("utf-8-sig")
        lines = records.record_format(path) is RecordFormat.JSON_LINES
        try:
            faults = schemas.violations(check.json_schema or {}, schemas.read_documents(text, lines=lines))
        except schemas.SchemaUnusable as error:
            return Finding(str(error))
        if faults:
            return Finding(f"{path}: {'; '.join(faults)}")
    return Finding(None, "valid" if len(found) == 1 else f"{len(found)} files are valid")


_KINDS: dict[CheckKind, Callable[[Check, Output], Finding]] = {
    "present": _check_present,
    "columns": _check_columns,
    "rows": _check_rows,
    "rows-change": _check_change,
    "metric": _check_metric,
    "schema": _check_schema,
}
