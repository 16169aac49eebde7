"""Arguments and options: their types with shell completion, parsers, and the original client's spelling."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mao_shared.errors import MaoError

from .exits import CommandError
from .session import connect, load_config
from .text import parse_time

if TYPE_CHECKING:
    from mao_shared.clients.gateway import MaoClient

# Completion: names of what there is; silent and quick, whatever the node does

COMPLETION_TIMEOUT = 1.0  # seconds; a shell that hangs at TAB is worse than one that offers nothing
MAX_COMPLETIONS = 100


def completer(list_names: Callable[[MaoClient], Iterable[str]]) -> Callable[[typer.Context, str], list[str]]:
    """A completer that offers the names which begin with what was typed."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        try:
            config = load_config(os.environ, context.find_root().params.get("url"))
            with connect(config, timeout=COMPLETION_TIMEOUT, attempts=1) as client:
                known = islice(list_names(client), MAX_COMPLETIONS)
                return [name for name in known if name.startswith(incomplete)]
        except (MaoError, CommandError, ValueError):
            return []

    return complete


tools = completer(lambda client: (tool.name for tool in client.tools.list()))
datasets = completer(lambda client: (dataset.name for dataset in client.datasets.list()))
pipelines = completer(lambda client: (pipeline.name for pipeline in client.pipelines.list()))
nodes = completer(lambda client: (node.name for node in client.nodes.states()))
jobs = completer(lambda client: (job.id for job in client.jobs.list()))
runs = completer(lambda client: (run.id for run in client.runs.list()))


def strip_kind(kind: str) -> Callable[[str | None], str | None]:
    """Accepts `run/ID` for `ID`: what `-o name` and messages print can be typed again as it is."""
    return lambda typed: typed.removeprefix(f"{kind}/") if typed else typed


def _required(kind: str, help_text: str, completer: Callable[[typer.Context, str], list[str]]) -> Any:
    return typer.Argument(help=help_text, autocompletion=completer, callback=strip_kind(kind))


def _optional(kind: str, help_text: str, completer: Callable[[typer.Context, str], list[str]]) -> Any:
    return typer.Argument(
        help=help_text, autocompletion=completer, callback=strip_kind(kind), show_default=False
    )


ToolArgument = Annotated[str, _required("tool", "Name of the tool.", tools)]
DatasetArgument = Annotated[str, _required("dataset", "Name of the dataset.", datasets)]
PipelineArgument = Annotated[str, _required("pipeline", "Name of the pipeline.", pipelines)]
NodeArgument = Annotated[str, _required("node", "Name of the node.", nodes)]
JobArgument = Annotated[str, _required("job", "Id of the job.", jobs)]
RunArgument = Annotated[str, _required("run", "Id of the run, or the beginning or end of it.", runs)]
AnyTool = Annotated[str | None, _optional("tool", "Name; else all.", tools)]
AnyDataset = Annotated[str | None, _optional("dataset", "Name; else all.", datasets)]
NamedDataset = Annotated[str | None, _optional("dataset", "Name of the dataset.", datasets)]
AnyPipeline = Annotated[str | None, _optional("pipeline", "Name; else all.", pipelines)]
AnyNode = Annotated[str | None, _optional("node", "Name; else all.", nodes)]
AnyJob = Annotated[str | None, _optional("job", "Id; else all.", jobs)]
AnyRun = Annotated[str | None, _optional("run", "Id; else the newest runs.", runs)]


# Values


def parse_duration(text: str) -> float:
    """Seconds of `90`, `90s`, `30m`, `12h`, `7d`; typer's parser of options."""
    from pydantic import TypeAdapter, ValidationError

    from mao_shared.models.common import Seconds

    try:
        return float(TypeAdapter(Seconds).validate_python(text))
    except ValidationError as error:
        raise typer.BadParameter(f"invalid duration {text!r}; use 90s, 30m, 12h or 7d") from error


def duration_option(help: str, *names: str) -> Any:  # noqa: A002 (typer's word)
    """An option that takes a duration; the command gets seconds."""
    return typer.Option(*names, help=help, parser=parse_duration, metavar="DURATION", show_default=False)


def parse_moment(text: str, now: datetime) -> datetime:
    """A time with zone, or how long ago: `2026-01-31T12:00:00Z`, `12h`."""
    try:
        return parse_time(text)
    except ValueError:
        pass
    try:
        return now - timedelta(seconds=parse_duration(text))
    except typer.BadParameter as error:
        forms = "a time with a zone, like 2026-01-31T12:00:00Z, or how long ago, like 12h"
        raise typer.BadParameter(f"invalid time {text!r}; use {forms}") from error


def parse_pairs(pairs: Iterable[str], option: str) -> dict[str, str]:
    """`NAME=VALUE` items as a map; raises BadParameter for one without `=`."""
    result: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint=option)
        result[name] = value
    return result


# `--metric`: a control metric of a step as one word of the command line

METRIC_METAVAR = "STEP:NAME=SOURCE"
METRIC_HELP = (
    "A number to watch after each run; SOURCE: FILE.json#/pointer, FILE.csv:column[:last|first|sum|mean|"
    "min|max|count], or files, bytes, rows. May be repeated."
)


_MEASURES = ("files", "bytes", "rows")
_AGGREGATES = tuple(f":{how}" for how in ("last", "first", "sum", "mean", "min", "max", "count"))


def parse_metric(text: str) -> tuple[str, dict[str, str]]:
    """The step's name and the fields of a ControlMetric; raises BadParameter."""
    target, equals, source = text.partition("=")
    step, colon, name = target.partition(":")
    if not (equals and colon and step and name and source):
        raise _invalid_metric(text)
    return step, {"name": name, **_metric_source(text, source)}


def _metric_source(text: str, source: str) -> dict[str, str]:
    if source in _MEASURES:
        return {"measure": source}
    file, hash_, pointer = source.partition("#")
    if hash_ and file:
        return {"file": file, "pointer": pointer}
    file, colon, column = source.partition(":")
    if not (file and colon and column):
        raise _invalid_metric(text)
    column, colon, how = column.rpartition(":") if column.endswith(_AGGREGATES) else (column, "", "")
    return {"file": file, "column": column} | ({"aggregate": how} if how else {})


def with_metrics(steps: list[dict[str, Any]], metrics: Iterable[str]) -> list[dict[str, Any]]:
    """The steps with the metrics that name them; a step is named after its tool. Raises BadParameter."""
    found: dict[str, list[dict[str, str]]] = {step["tool"]: [] for step in steps}
    for text in metrics:
        name, fields = parse_metric(text)
        if name not in found:
            raise typer.BadParameter(
                f"{text!r} names none of the steps {', '.join(found)}", param_hint="--metric"
            )
        found[name].append(fields)
    return [{**step, "metrics": asked} if (asked := found[step["tool"]]) else step for step in steps]


def _invalid_metric(text: str) -> typer.BadParameter:
    return typer.BadParameter(f"{text!r} is not {METRIC_METAVAR}; see --help", param_hint="--metric")


# The command lines of the original's client in our words: its verbs and options are accepted too, so that
# notes and scripts keep working. What it did without asking is done without asking. Pure.

_ORIGINAL_OPTIONS = {
    ("tool", "get"): ("--name",),
    ("tool", "add"): ("--name", "--author", "--image", "--data_repo", "--code_repo", "--artefact"),
    ("tool", "remove"): ("--name",),
    ("tool", "stop"): ("--id",),
    ("dataset", "get"): ("--name",),
    ("dataset", "add"): ("--name", "--git_url"),
    ("dataset", "remove"): ("--name",),
    ("pipeline", "get"): ("--name",),
    ("pipeline", "run"): ("--name",),
    ("repo", "add"): ("--name",),
}
"""Options of the original that are arguments here, in the order of the arguments."""
_ORIGINAL_VERBS = {
    ("tool", "list-scheduled"): ("job", "get"),
    ("tool", "stop"): ("job", "remove"),
    ("pipeline", "add"): ("pipeline", "create"),
    ("repo", "add"): ("dataset", "init"),
}
_UNCONFIRMED = {("tool", "remove"), ("tool", "stop"), ("dataset", "remove")}


def from_original(args: Sequence[str]) -> list[str]:
    """The command line in our words; one that is in our words already comes back as it is."""
    verb = (args[0], args[1]) if len(args) > 1 else ("", "")
    given, rest = _take_options(args[2:], _ORIGINAL_OPTIONS.get(verb, ()))
    ours = list(_ORIGINAL_VERBS.get(verb, args[:2]))
    if not given:
        return [*ours, *rest]
    options = _ORIGINAL_OPTIONS[verb]
    last = max(options.index(name) for name in given)
    arguments = [given.get(name, "") for name in options[: last + 1]]
    confirmed = ["--yes"] if verb in _UNCONFIRMED and "--yes" not in rest else []
    return [*ours, *rest, *confirmed, "--", *arguments]


def _take_options(args: Sequence[str], options: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The values of these options, and all else; `--name x` and `--name=x` alike."""
    given: dict[str, str] = {}
    rest: list[str] = []
    waiting = list(args)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            return given, [*rest, word, *waiting]
        name, equals, value = word.partition("=")
        if name not in options or not (equals or waiting):
            rest.append(word)
        else:
            given[name] = value if equals else waiting.pop(0)
    return given, rest
