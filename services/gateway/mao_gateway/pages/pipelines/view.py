"""What the page of a pipeline shows of its definition, its pending change and other nodes. Pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mao_gateway.pages.checks import CheckRow, declared_rows
from mao_gateway.pages.formats import NONE, memory, number, span
from mao_shared.models import (
    GROUND_TRUTH,
    Enrolment,
    Limits,
    NodeRuns,
    Pipeline,
    PipelineDiff,
    ResolvedImage,
    ResolvedStep,
    Retry,
    Step,
    Tool,
)
from mao_shared.models.tool import RISKS
from mao_shared.text import HARMFUL
from mao_shared.yaml_text import yaml_lines

MAX_DIFF_LINES = 2000  # of the diff that is shown; the command prints all
_SECONDS_FIELDS = ("limits.time", "limits.grace", "retry.backoff")
_CHANGE = re.compile(r"(?:step (?P<step>\S+): )?(?P<field>[^\s:]+): (?P<before>.*) \u2192 (?P<after>.*)")


@dataclass(frozen=True, slots=True)
class ChainNode:
    """A step or a dataset in the picture of a pipeline. `note`: a line below the name."""

    kind: str  # `step` or `dataset`
    number: int
    name: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class StepRow:
    """A step in the table. `image`: what runs, or what the tool's record names; None if that is not known."""

    name: str
    tool: str
    image: str | None
    command: str | None
    input: str | None
    input_note: str
    output: str
    limits: str
    retries: str
    metrics: str
    asked: tuple[str, ...]
    checks: Sequence[CheckRow] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """A line of a pending change: a field's values, of which None is not set, or a `note`."""

    step: str = ""
    field: str = ""
    before: str | None = None
    after: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class OtherNode:
    """What another node publishes of its runs. `last`: phase of its newest run."""

    node: str
    present: bool
    last: str | None
    at: datetime | None
    next: datetime | None
    updated_at: datetime | None
    note: str


def chains(steps: Sequence[Step]) -> list[list[ChainNode]]:
    """Return the picture of the steps; a step that does not read the dataset before it begins a new chain."""
    found: list[list[ChainNode]] = []
    written: str | None = None
    for index, step in enumerate(steps, start=1):
        if written is None or step.input_dataset != written:
            found.append([])
            if step.input_dataset:
                found[-1].append(ChainNode("dataset", index, step.input_dataset, "read"))
        note = "" if step.tool == step.name and not step.title else f"tool {step.tool}"
        found[-1].append(ChainNode("step", index, step.title or step.name, note))
        found[-1].append(ChainNode("dataset", index, step.dataset, "written"))
        written = step.dataset
    return found


def step_rows(pipeline: Pipeline, enrolment: Enrolment | None, tools: Mapping[str, Tool]) -> list[StepRow]:
    """Return the steps as they run here; of a pipeline that this node is not enrolled in, as registered.

    `tools`: those of a pipeline without an enrolment, by name, as far as they are known.
    """
    if enrolment is not None:
        return [_resolved_row(step) for step in enrolment.steps]
    return [_registered_row(step, tools.get(step.tool)) for step in pipeline.steps]


def _pinned_words(image: ResolvedImage) -> str:
    """Return an image as its tool's record names it, with the digest or id that runs. Pure."""
    name = image.name.partition("@")[0]
    return f"{name}@{image.pinned.rpartition('@')[2]}" if image.pinned else name


def _resolved_row(step: ResolvedStep) -> StepRow:
    return StepRow(
        name=step.name,
        tool=step.tool,
        image=_pinned_words(step.image),
        command=shlex.join(step.command) if step.command else None,
        input=step.input.name if step.input else None,
        input_note=_input_words(step.input.branch, step.on_late_truth) if step.input else "",
        output=step.output.name,
        limits=_limit_words(step.limits),
        retries=_retries(step.retry),
        metrics=", ".join(metric.name for metric in step.metrics),
        asked=tuple(step.asked()),
        checks=declared_rows(step.checks),
    )


def _registered_row(step: Step, tool: Tool | None) -> StepRow:
    command = step.command or (tool.command if tool else None)
    limits = step.limits or (tool.limits if tool else None)
    asked = [*(tool.asked() if tool else ()), *step.asked()]
    return StepRow(
        name=step.title or step.name,
        tool=step.tool,
        image=tool.image if tool else None,
        command=shlex.join(command) if command else None,
        input=step.input_dataset,
        input_note=_input_words(step.input_branch, step.on_late_truth) if step.input_dataset else "",
        output=step.dataset,
        limits=_limit_words(limits) if limits else NONE,
        retries=_retries(step.retry),
        metrics=", ".join(metric.name for metric in step.metrics),
        asked=tuple(dict.fromkeys(asked)),
        checks=declared_rows(step.checks),
    )


def _input_words(branch: str, on_late: str) -> str:
    if branch != GROUND_TRUTH:
        return f"branch {branch}"
    words = {"skip": "skip", "own": "this node\u2019s own", "last": "the latest"}
    return f"{branch}, else {words.get(on_late, on_late)}"


def _retries(retry: Retry) -> str:
    return NONE if retry.attempts <= 1 else f"{retry.attempts - 1}, after {span(retry.backoff)}"


def _limit_words(limits: Limits) -> str:
    words = [f"up to {span(limits.time)}", memory(limits.memory)]
    return ", ".join([*words, f"{number(limits.cpu)} CPU"] if limits.cpu else words)


def definition_texts(pipeline: Pipeline) -> tuple[list[str], list[str]]:
    """Return the lines of the definition as YAML and as JSON, as `maoctl apply` takes them.

    Fields with their default values are left out.
    """
    known = {name: getattr(pipeline, name) for name in Pipeline.model_fields}
    fields = Pipeline.model_construct(**known).model_dump(mode="json", exclude_defaults=True)
    document: dict[str, Any] = {"kind": "pipeline", **fields}
    text = _quote(document, indent=2)
    return yaml_lines(document, quote=_quote), text.split("\n")


def _quote(value: Any, indent: int | None = None) -> str:
    """Return JSON in which control and bidirectional characters are escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return HARMFUL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def read_changes(pending: Iterable[str]) -> list[Change]:
    """Return pending changes, as the registry words them, as rows of a table."""
    return [_read_change(line) for line in pending]


def _read_change(line: str) -> Change:
    """Values are JSON in ASCII, so an arrow outside of them separates the value before from that after."""
    match = _CHANGE.fullmatch(line)
    if match is None:
        return Change(note=line)
    field = match["field"]
    before, after = _readable(field, match["before"]), _readable(field, match["after"])
    return Change(match["step"] or "", field, before, after)


def _readable(field: str, text: str) -> str | None:
    """Return a value for people: a text without quotes, a command as a line; None for one that is not set."""
    if text == "nothing":
        return None
    try:
        value = json.loads(text)
    except ValueError:  # it was truncated
        return text
    if isinstance(value, str):
        return value
    if field == "limits.memory" and isinstance(value, int):
        return memory(value)
    if field in _SECONDS_FIELDS and isinstance(value, int | float):
        return span(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return shlex.join(value)
    return text


def diff_lines(diff: str) -> tuple[list[tuple[str, str]], int]:
    """Return the lines of a unified diff as (`ins`, `del` or empty, text), and how many are left out."""
    lines = diff.splitlines()
    kinds = {"+": "ins", "-": "del"}
    shown = [
        ("" if line.startswith(("+++", "---")) else kinds.get(line[:1], ""), line)
        for line in lines[:MAX_DIFF_LINES]
    ]
    return shown, max(0, len(lines) - MAX_DIFF_LINES)


def privileges(diff: PipelineDiff | None) -> list[tuple[str, str]]:
    """Return the privileges that the operator would have to grant, with what each of them allows."""
    return [] if diff is None else [(word, RISKS.get(word, "")) for word in diff.agree]


def agree_options(words: Iterable[str]) -> str:
    """Return the options of maoctl that grant privileges, each after a space."""
    return "".join(f" --agree {shlex.quote(word)}" for word in words)


def agreed_words(fields: Mapping[str, str]) -> list[str]:
    """Return the privileges granted in a form, in which each has a field of its own."""
    return [value for name, value in sorted(fields.items()) if name.startswith("agree-")]


def other_nodes(rows: Iterable[NodeRuns], node: str) -> list[OtherNode]:
    """Return the other nodes that take part in a pipeline, by name."""
    found = []
    for row in sorted(rows, key=lambda row: row.node):
        if row.node == node or not (row.runs or row.next_tick or row.updated_at or row.problem):
            continue
        last = row.runs[0] if row.runs else None
        at = (last.finished_at or last.started_at or last.scheduled_for) if last else None
        found.append(
            OtherNode(
                node=row.node,
                present=row.present,
                last=last.phase if last else None,
                at=at,
                next=row.next_tick,
                updated_at=row.updated_at,
                note=row.problem or row.late or "",
            )
        )
    return found
