"""The steps that a pipeline would run on this node, and how they differ from what runs. Pure."""

from __future__ import annotations

import difflib
import hashlib
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

from mao_registry.records.endorsements import record_digest, record_label
from mao_shared.errors import InvalidInput
from mao_shared.models import (
    Dataset,
    DatasetRef,
    Enrolment,
    Named,
    Pipeline,
    ResolvedImage,
    ResolvedStep,
    Step,
    Tool,
)
from mao_shared.models.tool import DOCKER_SOCKET, asked_words, network_words, secret_words
from mao_shared.yaml_text import yaml_lines

Document = dict[str, Any]
MAX_CHANGES = 100  # lines in a description
MAX_VALUE = 200  # characters of a value in a description
MAX_DIFF = 200_000  # characters
MAX_DIFF_LINES = 3000  # longer documents get a simple diff, since difflib is quadratic


def resolve_steps(
    pipeline: Pipeline,
    tools: Mapping[str, Tool],
    datasets: Mapping[str, Dataset],
    images: Mapping[str, ResolvedImage],
    node: str,
) -> list[ResolvedStep]:
    """Return the steps with everything they need from their tools and datasets. `images`: by reference."""
    resolved = []
    for step in pipeline.steps:
        tool, output = tools[step.tool], datasets[step.dataset]
        privileges = tool.privileges
        if step.engine_socket:
            privileges = privileges.model_copy(update={"docker_socket": True})
        written = _ref(output, node).model_copy(update={"vote": output.vote, "lfs_above": output.lfs_above})
        resolved.append(
            ResolvedStep(
                name=step.name,
                tool=tool.name,
                image=images[tool.image],
                command=step.command or tool.command,
                env={**tool.env, **step.env},
                limits=step.limits or tool.limits,
                network=tool.network,
                privileges=privileges,
                output=written,
                input=_ref(datasets[step.input_dataset], step.input_branch) if step.input_dataset else None,
                retry=step.retry,
                allow_empty=step.allow_empty,
                on_late_truth=step.on_late_truth,
                metrics=step.metrics,
                checks=step.checks,
                secrets=list({ref.target: ref for ref in [*tool.secrets, *step.secrets]}.values()),
                record_env=step.record_env,
            )
        )
    return resolved


def _ref(dataset: Dataset, branch: str) -> DatasetRef:
    return DatasetRef(name=dataset.name, master=dataset.master, branch=branch)


def requested_privileges(tools: Iterable[Tool], steps: Iterable[Step]) -> list[tuple[str, str]]:
    """Return (tool, privilege) pairs of everything that the tools and steps request."""
    requested = [(tool.name, word) for tool in tools for word in tool.asked()]
    requested += [(step.tool, word) for step in steps for word in step.asked()]
    return list(dict.fromkeys(requested))


def check_agreed(
    tools: Iterable[Tool],
    agree: Iterable[str],
    granted: Set[tuple[str, str]],
    command: str,
    steps: Iterable[Step] = (),
) -> list[str]:
    """Return the privileges that the tools and steps request, if the operator agrees to all of them.

    `granted`: (tool, privilege) pairs granted before, which a renewal keeps. Raises InvalidInput
    (`agreement-needed`) that lists the missing privileges and how to repeat `command` with them.
    """
    agree = set(agree)
    requested = requested_privileges(tools, steps)
    missing = [(tool, word) for tool, word in requested if word not in agree and (tool, word) not in granted]
    words = sorted({word for _, word in requested})
    if not missing:
        return words
    who = "; ".join(f"tool {tool!r} asks for {asked_words([word])}" for tool, word in missing)
    options = " ".join(f"--agree {shlex.quote(word)}" for word in words)
    raise InvalidInput(
        f"More than the hardened default is asked for: {who}.",
        code="agreement-needed",
        next=f"If you grant it on this node: {command} {options} (in the API: the words in 'agree').",
        agree=words,
    )


def enrol_command(pipeline: Pipeline, *, registered: bool) -> str:
    """Return the command that enrols this node, without the steps of an unregistered pipeline."""
    first = pipeline.steps[0]
    if registered:
        return f"maoctl pipeline enrol {pipeline.name}"
    if len(pipeline.steps) == 1 and pipeline.name == first.tool:
        return f"maoctl pipeline init {first.tool} {first.dataset}"
    if any(step.asked() for step in pipeline.steps):  # `create` has no options for these
        return f"maoctl apply -f FILE, then maoctl pipeline enrol {pipeline.name}"
    return f"maoctl pipeline create {shlex.quote(pipeline.called)} --step …"


def proposed_steps(
    pipeline: Pipeline,
    tools: Mapping[str, Tool],
    datasets: Mapping[str, Dataset],
    node: str,
    before: Enrolment | None,
) -> list[ResolvedStep]:
    """Return the steps after a renewal; `pinned` is empty for an image that is not pinned yet."""
    pins = image_pins(before)
    images = {
        tool.image: pins.get(tool.image) or ResolvedImage(name=tool.image, pinned="", platform="")
        for tool in tools.values()
    }
    return resolve_steps(pipeline, tools, datasets, images, node)


def image_pins(enrolment: Enrolment | None) -> dict[str, ResolvedImage]:
    """Return image reference → pinned image."""
    return {step.image.name: step.image for step in enrolment.steps} if enrolment else {}


def record_digests(records: Sequence[Named]) -> dict[str, str]:
    """Return the digests of records by `kind/name`."""
    return {record_label(record): record_digest(record) for record in records}


def consent_document(overlap: str, steps: Sequence[ResolvedStep]) -> Document:
    """Return everything that determines what runs, without image digests: a moved tag changes no record."""
    documents = {
        step.name: {
            **step.model_dump(mode="json", exclude_none=True, exclude={"name"}),
            "image": step.image.name,
        }
        for step in steps
    }
    return {"overlap": overlap, "steps": documents}


def _readable(document: Document) -> Document:
    """Return the document for display: networks are described by what they reach."""
    steps = {
        name: {**step, "network": network_words(step["network"])} for name, step in document["steps"].items()
    }
    return {**document, "steps": steps}


def definition_id(pipeline: str, document: Document) -> str:
    """Return a digest (128 bits) that depends on the order of steps but not of fields."""
    order = list(document["steps"])
    content = json.dumps([pipeline, order, document], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def gained_privileges(before: Sequence[ResolvedStep], after: Sequence[ResolvedStep]) -> list[str]:
    """List the privileges that tools would gain, and networks for tools that have none now.

    The engine's socket is root on the host, and a secret can be sent anywhere, so a different program that
    runs with either counts as a gain.
    """
    had = {(step.tool, word) for step in before for word in step.asked()}
    isolated = {step.tool for step in before if step.network == "none"}
    gained = {(step.tool, word) for step in after for word in step.asked()} - had
    gained |= {(step.tool, "a network") for step in after if step.network != "none" and step.tool in isolated}
    programs = [(word, _program(step)) for step in before for word in _guarded(step)]
    gained |= {
        (step.tool, f"{word}, to run something else with it")
        for step in after
        for word in _guarded(step)
        if (step.tool, word) in had and (word, _program(step)) not in programs
    }
    return sorted(f"tool {tool} asks for {word}" for tool, word in gained)


def _guarded(step: ResolvedStep) -> list[str]:
    """Return the privileges of a step that depend on which program has them."""
    return ([DOCKER_SOCKET] if step.privileges.docker_socket else []) + secret_words(step.secrets)


def _program(step: ResolvedStep) -> Document:
    """Return the fields that determine which program runs and with what input."""
    return step.model_dump(include={"image", "command", "env", "secrets"})


def describe_changes(before: Document, after: Document) -> list[str]:
    """Describe changes, one a line; the number and length of lines are limited."""
    old, new = _readable(before)["steps"], _readable(after)["steps"]
    changes = [f"step {name} is gone" for name in old if name not in new]
    changes += [
        f"step {name} is new: {_truncated(_text(new[name]['image']))}" for name in new if name not in old
    ]
    if [name for name in old if name in new] != [name for name in new if name in old]:
        changes.append(f"order of the steps: {_truncated(_text(list(new)))}")
    changes += _describe_fields("", {"overlap": before["overlap"]}, {"overlap": after["overlap"]})
    for name in new:
        if name in old:
            changes += _describe_fields(f"step {name}: ", old[name], new[name])
    more = [f"and {len(changes) - MAX_CHANGES} more"] if len(changes) > MAX_CHANGES else []
    return changes[:MAX_CHANGES] + more


def _describe_fields(prefix: str, before: Document, after: Document) -> Iterator[str]:
    old, new = dict(_flatten(before)), dict(_flatten(after))
    for path in [*old, *(path for path in new if path not in old)]:
        if old.get(path) == new.get(path):
            continue
        was, becomes, start = _text(old.get(path)), _text(new.get(path)), 0
        if max(len(was), len(becomes)) > MAX_VALUE:  # truncate the common start, not the difference
            start = max(0, _common_length(was, becomes) - 20)
        yield f"{prefix}{path}: {_truncated(was, start)} → {_truncated(becomes, start)}"


def _flatten(value: Document, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _flatten(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _common_length(old: Sequence[str], new: Sequence[str]) -> int:
    """Return the length of the common prefix."""
    pairs = enumerate(zip(old, new, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(old), len(new)))


def _truncated(text: str, start: int = 0) -> str:
    shown = ("…" if start else "") + text[start : start + MAX_VALUE]
    return shown + ("…" if len(text) > start + MAX_VALUE else "")


def _text(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=True)


def unified_diff(before: Document, after: Document, *, was: str, will_be: str) -> str:
    """Return the unified diff of two documents, truncated to MAX_DIFF; empty if they are equal."""
    old, new = yaml_lines(_readable(before)), yaml_lines(_readable(after))
    if len(old) + len(new) <= MAX_DIFF_LINES:
        lines = list(difflib.unified_diff(old, new, was, will_be, n=100, lineterm=""))
    else:  # one hunk, from the first to the last line that differs
        head = _common_length(old, new)
        tail = _common_length(old[head:][::-1], new[head:][::-1])
        removed, added = old[head : len(old) - tail], new[head : len(new) - tail]
        lines = [f"--- {was}", f"+++ {will_be}", f"@@ line {head + 1} @@"]
        lines += [*(f"-{line}" for line in removed), *(f"+{line}" for line in added)]
    text = "\n".join(lines)
    return text if len(text) <= MAX_DIFF else f"{text[:MAX_DIFF]}\n… {len(text) - MAX_DIFF} more"
