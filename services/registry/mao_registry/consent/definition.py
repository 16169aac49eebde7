"""Pure: the steps a pipeline would run on this node, and how they differ from what runs.

From a pipeline and what it refers to, the steps that this node will run: pure.

Pure: what a pipeline would run here, against what it runs: a document, its id, a diff, and words.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

from mao_registry.records.endorsements import digest_of, label_of
from mao_shared.errors import InvalidInput
from mao_shared.models import (
    Dataset,
    DatasetRef,
    Enrolment,
    Named,
    Pipeline,
    Privileges,
    ResolvedImage,
    ResolvedStep,
    Step,
    Tool,
)
from mao_shared.models.tool import DOCKER_SOCKET, asked_words, network_words


def resolve_steps(
    pipeline: Pipeline,
    tools: Mapping[str, Tool],
    datasets: Mapping[str, Dataset],
    images: Mapping[str, ResolvedImage],
    node: str,
) -> list[ResolvedStep]:
    """Everything filled in; `images` is keyed by the tools' image references."""
    return [
        _resolve(step, tools[step.tool], images[tools[step.tool].image], datasets, node)
        for step in pipeline.steps
    ]


def _resolve(
    step: Step, tool: Tool, image: ResolvedImage, datasets: Mapping[str, Dataset], node: str
) -> ResolvedStep:
    return ResolvedStep(
        name=step.name,
        tool=tool.name,
        image=image,
        command=step.command or tool.command,
        env={**tool.env, **step.env},
        limits=step.limits or tool.limits,
        network=tool.network,
        privileges=_privileges(step, tool),
        output=_output(datasets[step.dataset], node),
        input=_ref(datasets[step.input_dataset], step.input_branch) if step.input_dataset else None,
        retry=step.retry,
        allow_empty=step.allow_empty,
        on_late_truth=step.on_late_truth,
        metrics=step.metrics,
    )


def _privileges(step: Step, tool: Tool) -> Privileges:
    return (
        tool.privileges.model_copy(update={"docker_socket": True}) if step.engine_socket else tool.privileges
    )


def _output(dataset: Dataset, node: str) -> DatasetRef:
    terms = {"vote": dataset.vote, "lfs_above": dataset.lfs_above}
    return _ref(dataset, node).model_copy(update=terms)


def _ref(dataset: Dataset, branch: str) -> DatasetRef:
    return DatasetRef(name=dataset.name, master=dataset.master, branch=branch)


def requested_privileges(tools: Iterable[Tool], steps: Iterable[Step]) -> list[tuple[str, str]]:
    """Tool and word of all that is asked for, by the tools' records and by the steps that use them."""
    asked = [(tool.name, word) for tool in tools for word in tool.asked()]
    asked += [(step.tool, DOCKER_SOCKET) for step in steps if step.engine_socket]
    return list(dict.fromkeys(asked))


def check_agreed(
    tools: Iterable[Tool],
    agree: Iterable[str],
    granted: Set[tuple[str, str]],
    command: str,
    steps: Iterable[Step] = (),
) -> list[str]:
    """What the operator grants, of all that the tools ask for, or `steps` for them.

    `granted`: tool and word of what was granted before, which a renewal keeps. Raises InvalidInput
    (`agreement-needed`) that lists what is missing and tells how to repeat `command` with it.
    """
    given = set(agree)
    asked = requested_privileges(tools, steps)
    missing = [(tool, word) for tool, word in asked if word not in given and (tool, word) not in granted]
    words = sorted({word for _, word in asked})
    if missing:
        raise _agreement_needed(missing, words, command)
    return words


def enrol_command(pipeline: Pipeline, *, registered: bool) -> str:
    """How a person enrols this node with maoctl; the steps of a pipeline yet to be made are left to them."""
    first = pipeline.steps[0]
    if registered:
        return f"maoctl pipeline enrol {pipeline.name}"
    if len(pipeline.steps) == 1 and pipeline.name == first.tool:
        return f"maoctl pipeline init {first.tool} {first.dataset}"
    if any(step.engine_socket for step in pipeline.steps):  # which is nothing that `create` can say
        return f"maoctl apply -f FILE, then maoctl pipeline enrol {pipeline.name}"
    return f"maoctl pipeline create {shlex.quote(pipeline.called)} --step …"


def _agreement_needed(missing: list[tuple[str, str]], words: list[str], command: str) -> InvalidInput:
    whom = "; ".join(f"tool {tool!r} asks for {asked_words([word])}" for tool, word in missing)
    options = " ".join(f"--agree {shlex.quote(word)}" for word in words)
    return InvalidInput(
        f"More than the hardened default is asked for: {whom}.",
        code="agreement-needed",
        next=f"If you grant it on this node: {command} {options} (in the API: the words in 'agree').",
        agree=words,
    )


MOST_WORDS = 100

LONGEST_VALUE = 200  # characters of a value in words

LONGEST_DIFF = 200_000  # characters

MANY_LINES = 3000

Document = dict[str, Any]


def proposed_steps(
    pipeline: Pipeline,
    tools: Mapping[str, Tool],
    datasets: Mapping[str, Dataset],
    node: str,
    before: Enrolment | None,
) -> list[ResolvedStep]:
    """The steps as a renewal would make them; an image that is not pinned yet has no `pinned`."""
    kept = pins_of(before)
    images = {
        tool.image: kept.get(tool.image) or ResolvedImage(name=tool.image, pinned="", platform="")
        for tool in tools.values()
    }
    return resolve_steps(pipeline, tools, datasets, images, node)


def pins_of(enrolment: Enrolment | None) -> dict[str, ResolvedImage]:
    """Image reference → what it is pinned to here."""
    return {step.image.name: step.image for step in enrolment.steps} if enrolment else {}


def digests_of(records: Sequence[Named]) -> dict[str, str]:
    """`kind/name` → digest."""
    return {label_of(record): digest_of(record) for record in records}


def document_of(overlap: str, steps: Sequence[ResolvedStep]) -> Document:
    """All that decides what runs, without the pins: that a tag has moved is nobody's change of a record."""
    return {"overlap": overlap, "steps": {step.name: _described(step) for step in steps}}


def _described(step: ResolvedStep) -> Document:
    said = step.model_dump(mode="json", exclude_none=True, exclude={"name"})
    return {**said, "image": step.image.name}


def _legible(document: Document) -> Document:
    """For a person: networks with what is reached on them. What is hashed stays as it is."""
    steps = {
        name: {**step, "network": network_words(step["network"])} for name, step in document["steps"].items()
    }
    return {**document, "steps": steps}


def definition_id(pipeline: str, document: Document) -> str:
    """The order of steps counts, that of fields does not; too long for two documents to be made alike."""
    order = list(document["steps"])
    said = json.dumps([pipeline, order, document], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def widened(before: Sequence[ResolvedStep], after: Sequence[ResolvedStep]) -> list[str]:
    """What tools would get that they have not now: words of `asked`, and a network where they have none.

    The engine's socket is root on the host, so it is got anew by whatever else is to run with it.
    """
    had = {(step.tool, word) for step in before for word in step.asked()}
    shut_in = {step.tool for step in before if step.network == "none"}
    gets = {(step.tool, word) for step in after for word in step.asked()} - had
    gets |= {(step.tool, "a network") for step in after if step.network != "none" and step.tool in shut_in}
    with_socket = [_program(step) for step in before if step.privileges.docker_socket]
    gets |= {
        (step.tool, f"{DOCKER_SOCKET}, to run something else with it")
        for step in after
        if step.privileges.docker_socket
        and (step.tool, DOCKER_SOCKET) in had
        and _program(step) not in with_socket
    }
    return sorted(f"tool {tool} asks for {word}" for tool, word in gets)


def _program(step: ResolvedStep) -> Document:
    """What decides which program runs, and what it is told."""
    return step.model_dump(include={"image", "command", "env"})


def describe_changes(before: Document, after: Document) -> list[str]:
    """What would change, a line each, of bounded number and length."""
    old, new = _legible(before)["steps"], _legible(after)["steps"]
    words = [f"step {name} is gone" for name in old if name not in new]
    words += [f"step {name} is new: {_value(new[name]['image'])}" for name in new if name not in old]
    if [name for name in old if name in new] != [name for name in new if name in old]:
        words.append(f"order of the steps: {_value(list(new))}")
    words += _fields("", {"overlap": before["overlap"]}, {"overlap": after["overlap"]})
    for name in new:
        if name in old:
            words += _fields(f"step {name}: ", old[name], new[name])
    return words[:MOST_WORDS] + ([f"and {len(words) - MOST_WORDS} more"] if len(words) > MOST_WORDS else [])


def _fields(where: str, before: Document, after: Document) -> Iterator[str]:
    old, new = dict(_flat(before)), dict(_flat(after))
    for path in [*old, *(path for path in new if path not in old)]:
        if old.get(path) != new.get(path):
            yield f"{where}{path}: {_shown(old.get(path), new.get(path))}"


def _flat(value: Document, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _shown(old: Any, new: Any) -> str:
    """Both values; of long ones the part where they begin to differ, so that nothing hides behind a cut."""
    one, other = _text(old), _text(new)
    pairs = enumerate(zip(one, other, strict=False))
    same = next((index for index, (left, right) in pairs if left != right), min(len(one), len(other)))
    start = max(0, same - 20) if max(len(one), len(other)) > LONGEST_VALUE else 0
    return f"{_cut(one, start)} → {_cut(other, start)}"


def _cut(text: str, start: int) -> str:
    shown = ("…" if start else "") + text[start : start + LONGEST_VALUE]
    return shown + ("…" if len(text) > start + LONGEST_VALUE else "")


def _value(value: Any) -> str:
    return _cut(_text(value), 0)


def _text(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=True)


# The diff is of YAML: JSON's scalars and escapes are YAML's too, so hostile strings stay on their line.

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./@+-]*(?::[A-Za-z0-9_./@+-]+)*")

_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def unified_diff(before: Document, after: Document, *, was: str, will_be: str) -> str:
    """Unified diff of two documents; empty when they say the same. What is cut off is said."""
    old, new = yaml_lines(_legible(before)), yaml_lines(_legible(after))
    if len(old) + len(new) > MANY_LINES:
        lines = [f"--- {was}", f"+++ {will_be}", *_plain_diff(old, new)]
    else:
        lines = list(difflib.unified_diff(old, new, was, will_be, n=100, lineterm=""))
    text = "\n".join(lines)
    return text if len(text) <= LONGEST_DIFF else f"{text[:LONGEST_DIFF]}\n… {len(text) - LONGEST_DIFF} more"


def _plain_diff(old: list[str], new: list[str]) -> list[str]:
    """Linear: what lies between the first and the last line that differ. (difflib is quadratic.)"""
    pairs = zip(old, new, strict=False)
    head = next((index for index, (one, other) in enumerate(pairs) if one != other), min(len(old), len(new)))
    pairs = zip(reversed(old[head:]), reversed(new[head:]), strict=False)
    rest = min(len(old), len(new)) - head
    tail = next((index for index, (one, other) in enumerate(pairs) if one != other), rest)
    gone, come = old[head : len(old) - tail], new[head : len(new) - tail]
    return [f"@@ line {head + 1} @@", *(f"-{line}" for line in gone), *(f"+{line}" for line in come)]


def yaml_lines(value: Any, indent: str = "") -> list[str]:
    """A document of dictionaries, lists and scalars as lines of YAML."""
    lines: list[str] = []
    if isinstance(value, dict):
        pairs = [(f"{indent}{_scalar(key)}:", item) for key, item in value.items()]
    else:
        pairs = [(f"{indent}-", item) for item in value]
    for head, item in pairs:
        if isinstance(item, dict | list) and item:
            lines += [head, *yaml_lines(item, indent + "  ")]
        else:
            lines.append(f"{head} {_scalar(item)}")
    return lines


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=True)
