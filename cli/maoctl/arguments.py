"""Types and parsers of arguments and options, shell completion, the original client's syntax."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mao_shared.errors import MaoError

from .contexts import read_contexts
from .exits import CommandError
from .session import connect, load_config
from .text import parse_time

if TYPE_CHECKING:
    from mao_shared.clients.gateway import MaoClient

# Completion: must be silent and quick, even if the node does not answer

COMPLETION_TIMEOUT = 1.0  # seconds; a hanging shell is worse than one without completion
MAX_COMPLETIONS = 100


def completer(list_names: Callable[[MaoClient], Iterable[str]]) -> Callable[[typer.Context, str], list[str]]:
    """Return a completer that offers the names that begin with what was typed."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        try:
            given = context.find_root().params
            config = load_config(os.environ, given.get("url"), given.get("context_name"))
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


def contexts(incomplete: str) -> list[str]:
    """Return the contexts that begin with what was typed."""
    try:
        return [name for name in sorted(read_contexts(os.environ).by_name) if name.startswith(incomplete)]
    except CommandError:
        return []


alarms = completer(lambda client: (alarm.id for alarm in client.alarms.list()))
webhooks = completer(lambda client: (webhook.name for webhook in client.webhooks.list()))
channels = completer(lambda client: (channel.name for channel in client.notifications.channels()))
secrets = completer(lambda client: (secret.name for secret in client.secrets.list()))
rules = completer(lambda client: (rule.name for rule in client.notifications.rules()))
heartbeats = completer(lambda client: (beat.pipeline for beat in client.notifications.heartbeats()))
runs = completer(lambda client: (run.id for run in client.runs.list()))


def strip_kind(*kinds: str) -> Callable[[str | None], str | None]:
    """Return a callback that accepts `run/ID` for `ID`, as `-o name` and messages print it."""

    def strip(typed: str | None) -> str | None:
        kind, slash, name = (typed or "").partition("/")
        return name if slash and kind in kinds else typed

    return strip


_KINDS = {"pipeline": strip_kind("pipeline", "enrolment")}  # an enrolment is named after its pipeline


def _required(kind: str, help_text: str, completer: Callable[[typer.Context, str], list[str]]) -> Any:
    return typer.Argument(
        help=help_text, autocompletion=completer, callback=_KINDS.get(kind, strip_kind(kind))
    )


def _optional(kind: str, help_text: str, completer: Callable[[typer.Context, str], list[str]]) -> Any:
    return typer.Argument(
        help=help_text,
        autocompletion=completer,
        callback=_KINDS.get(kind, strip_kind(kind)),
        show_default=False,
    )


ToolArgument = Annotated[str, _required("tool", "Name of the tool.", tools)]
DatasetArgument = Annotated[str, _required("dataset", "Name of the dataset.", datasets)]
PipelineArgument = Annotated[str, _required("pipeline", "Name of the pipeline.", pipelines)]
NodeArgument = Annotated[str, _required("node", "Name of the node.", nodes)]
JobArgument = Annotated[str, _required("job", "Id of the job.", jobs)]
RunArgument = Annotated[str, _required("run", "Id of the run, or its beginning or end.", runs)]
AnyTool = Annotated[str | None, _optional("tool", "Name; else all.", tools)]
AnyDataset = Annotated[str | None, _optional("dataset", "Name; else all.", datasets)]
NamedDataset = Annotated[str | None, _optional("dataset", "Name of the dataset.", datasets)]
AnyPipeline = Annotated[str | None, _optional("pipeline", "Name; else all.", pipelines)]
AnyNode = Annotated[str | None, _optional("node", "Name; else all.", nodes)]
AnyJob = Annotated[str | None, _optional("job", "Id; else all.", jobs)]
AnyRun = Annotated[str | None, _optional("run", "Id; else the newest runs.", runs)]


# Values


def parse_duration(text: str) -> float:
    """Parse a duration such as `90`, `90s`, `30m`, `12h`, `7d` into seconds. Raises BadParameter."""
    from pydantic import TypeAdapter, ValidationError

    from mao_shared.models.common import Seconds

    try:
        return float(TypeAdapter(Seconds).validate_python(text))
    except ValidationError as error:
        raise typer.BadParameter(f"invalid duration {text!r}; use 90s, 30m, 12h or 7d") from error


def duration_option(help: str, *names: str) -> Any:  # noqa: A002 (typer's word)
    """Return an option that takes a duration and passes seconds."""
    return typer.Option(*names, help=help, parser=parse_duration, metavar="DURATION", show_default=False)


def parse_moment(text: str, now: datetime) -> datetime:
    """Parse a time with a zone, or how long ago: `2026-01-31T12:00:00Z`, `12h`. Raises BadParameter."""
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
    """Return `NAME=VALUE` items as a map. Raises BadParameter for an item of another form."""
    result: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"invalid value {pair!r}; use NAME=VALUE", param_hint=option)
        result[name] = value
    return result


# `--metric`: a control metric of a step as one argument

METRIC_METAVAR = "STEP:NAME=SOURCE"
METRIC_HELP = (
    "A number to watch after each run; SOURCE: FILE.json#/pointer, FILE.csv:column[:last|first|sum|mean|"
    "min|max|count], or files, bytes, rows. May be repeated."
)


_MEASURES = ("files", "bytes", "rows")
_AGGREGATES = tuple(f":{how}" for how in ("last", "first", "sum", "mean", "min", "max", "count"))


def parse_metric(text: str) -> tuple[str, dict[str, str]]:
    """Return the step's name and the fields of a ControlMetric. Raises BadParameter."""
    target, equals, source = text.partition("=")
    step, colon, name = target.partition(":")
    invalid = typer.BadParameter(f"invalid value {text!r}; use {METRIC_METAVAR}", param_hint="--metric")
    if not (equals and colon and step and name and source):
        raise invalid
    if source in _MEASURES:
        return step, {"name": name, "measure": source}
    file, hash_, pointer = source.partition("#")
    if hash_ and file:
        return step, {"name": name, "file": file, "pointer": pointer}
    file, colon, column = source.partition(":")
    if not (file and colon and column):
        raise invalid
    column, colon, how = column.rpartition(":") if column.endswith(_AGGREGATES) else (column, "", "")
    return step, {"name": name, "file": file, "column": column} | ({"aggregate": how} if how else {})


def with_metrics(steps: list[dict[str, Any]], metrics: Iterable[str]) -> list[dict[str, Any]]:
    """Return the steps with their metrics; a step is named after its tool. Raises BadParameter."""
    found: dict[str, list[dict[str, str]]] = {step["tool"]: [] for step in steps}
    for text in metrics:
        name, fields = parse_metric(text)
        if name not in found:
            raise typer.BadParameter(
                f"{text!r} names no step; the steps are {', '.join(found)}", param_hint="--metric"
            )
        found[name].append(fields)
    return [{**step, "metrics": asked} if (asked := found[step["tool"]]) else step for step in steps]


# `--check`: a data check of a step as one argument

CHECK_METAVAR = "STEP:NAME=CONDITION[:REACTION]"
CHECK_HELP = (
    "A check of a step's output before it is published; CONDITION: FILE (is present), "
    "FILE:columns:NAME=TYPE,…, [FILE:]rows:100..5000, [FILE:]rows-change:-10%..+500, FILE:schema:SCHEMA_FILE "
    "or metric:METRIC; REACTION: warn, quarantine or block [default: warn]. May be repeated."
)
_REACTIONS = ("warn", "quarantine", "block")


def parse_check(text: str) -> tuple[str, dict[str, Any]]:
    """Return the step's name and the fields of a Check; reads the file of a schema. Raises BadParameter."""
    target, equals, condition = text.partition("=")
    step, colon, name = target.partition(":")
    before, _, last = condition.rpartition(":")
    reaction, condition = (last, before) if last in _REACTIONS else (None, condition)
    if not (equals and colon and step and name and condition):
        raise _invalid_check(text)
    fields = _check_condition(text, condition)
    return step, {"name": name, **fields} | ({"on_failure": reaction} if reaction else {})


def _check_condition(text: str, condition: str) -> dict[str, Any]:
    first, _, rest = condition.partition(":")
    if first == "metric":
        return {"metric": rest}
    if first in ("rows", "rows-change") and rest:
        return _check_range(text, first, rest)
    for kind in ("columns", "rows-change", "rows", "schema"):
        file, found, what = condition.partition(f":{kind}:")
        if not found:
            continue
        if kind == "columns":
            return {"file": file, "columns": parse_pairs(what.split(","), "--check")}
        if kind == "schema":
            return {"file": file, "json_schema": _read_schema(what)}
        return {"file": file} | _check_range(text, kind, what)
    return {"file": condition}


def _check_range(text: str, kind: str, given: str) -> dict[str, Any]:
    """Parse `100..5000` and `-10%..+500`; either side may be left out."""
    low, dots, high = given.partition("..")
    if not dots or not (low or high):
        raise _invalid_check(text)
    if kind == "rows":
        if not all(side.isascii() and side.isdigit() for side in (low, high) if side):
            raise _invalid_check(text)
        sides = {"at_least": low, "at_most": high}
        return {name: int(side) for name, side in sides.items() if side}
    if (low and not low.startswith("-")) or (high and not high.startswith("+")):
        raise _invalid_check(text)
    return {name: side[1:] for name, side in (("max_decrease", low), ("max_increase", high)) if side}


def _read_schema(path: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(Path(path).read_text("utf-8"))  # JSON is YAML as well
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise typer.BadParameter(
            f"the schema {path!r} cannot be read: {error}", param_hint="--check"
        ) from error


def _invalid_check(text: str) -> typer.BadParameter:
    return typer.BadParameter(f"invalid value {text!r}; use {CHECK_METAVAR}", param_hint="--check")


def with_checks(steps: list[dict[str, Any]], checks: Iterable[str]) -> list[dict[str, Any]]:
    """Return the steps with their checks; a step is named after its tool. Raises BadParameter."""
    found: dict[str, list[dict[str, Any]]] = {step["tool"]: [] for step in steps}
    for text in checks:
        name, fields = parse_check(text)
        if name not in found:
            raise typer.BadParameter(
                f"{text!r} names no step; the steps are {', '.join(found)}", param_hint="--check"
            )
        found[name].append(fields)
    return [{**step, "checks": asked} if (asked := found[step["tool"]]) else step for step in steps]


# Translation of the original client's command lines, so that notes and scripts keep working. Commands that
# it ran without confirmation are not confirmed here either. Pure.

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
"""Options of the original that are arguments here, in the order of arguments."""
_ORIGINAL_VERBS = {
    ("tool", "list-scheduled"): ("job", "get"),
    ("tool", "stop"): ("job", "remove"),
    ("pipeline", "add"): ("pipeline", "create"),
    ("repo", "add"): ("dataset", "init"),
}
_UNCONFIRMED = {("tool", "remove"), ("tool", "stop"), ("dataset", "remove")}


def from_original(args: Sequence[str]) -> list[str]:
    """Translate a command line of the original's client; any other one is returned unchanged."""
    verb = (args[0], args[1]) if len(args) > 1 else ("", "")
    options = _ORIGINAL_OPTIONS.get(verb, ())
    given: dict[str, str] = {}  # by option, from `--name x` and `--name=x`
    rest: list[str] = []
    remaining = list(args[2:])
    while remaining:
        word = remaining.pop(0)
        if word == "--":
            rest += [word, *remaining]
            break
        name, equals, value = word.partition("=")
        if name not in options or not (equals or remaining):
            rest.append(word)
        else:
            given[name] = value if equals else remaining.pop(0)
    ours = list(_ORIGINAL_VERBS.get(verb, args[:2]))
    if not given:
        return [*ours, *rest]
    last = max(options.index(name) for name in given)
    arguments = [given.get(name, "") for name in options[: last + 1]]
    confirmed = ["--yes"] if verb in _UNCONFIRMED and "--yes" not in rest else []
    return [*ours, *rest, *confirmed, "--", *arguments]
