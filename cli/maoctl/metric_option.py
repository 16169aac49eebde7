"""`--metric`: a control metric of a step as one word of the command line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import typer

METAVAR = "STEP:NAME=SOURCE"
HELP = (
    "A number to watch after each run; SOURCE: FILE.json#/pointer, FILE.csv:column[:last|first|sum|mean|"
    "min|max|count], or files, bytes, rows. May be repeated."
)


_MEASURES = ("files", "bytes", "rows")
_ENDS = tuple(f":{how}" for how in ("last", "first", "sum", "mean", "min", "max", "count"))


def parse_metric(text: str) -> tuple[str, dict[str, str]]:
    """The step's name and the fields of a ControlMetric; raises BadParameter."""
    target, equals, source = text.partition("=")
    step, colon, name = target.partition(":")
    if not (equals and colon and step and name and source):
        raise _wrong(text)
    return step, {"name": name, **_source(text, source)}


def _source(text: str, source: str) -> dict[str, str]:
    if source in _MEASURES:
        return {"measure": source}
    file, hash_, pointer = source.partition("#")
    if hash_ and file:
        return {"file": file, "pointer": pointer}
    file, colon, column = source.partition(":")
    if not (file and colon and column):
        raise _wrong(text)
    column, colon, how = column.rpartition(":") if column.endswith(_ENDS) else (column, "", "")
    return {"file": file, "column": column} | ({"aggregate": how} if how else {})


def with_metrics(steps: list[dict[str, Any]], metrics: Iterable[str]) -> list[dict[str, Any]]:
    """The steps with the metrics that name them; a step bears its tool's name. Raises BadParameter."""
    found: dict[str, list[dict[str, str]]] = {step["tool"]: [] for step in steps}
    for text in metrics:
        name, fields = parse_metric(text)
        if name not in found:
            raise typer.BadParameter(f"{text!r} names none of {', '.join(found)}", param_hint="--metric")
        found[name].append(fields)
    return [{**step, "metrics": asked} if (asked := found[step["tool"]]) else step for step in steps]


def _wrong(text: str) -> typer.BadParameter:
    return typer.BadParameter(f"{text!r} is not {METAVAR}; see --help", param_hint="--metric")
