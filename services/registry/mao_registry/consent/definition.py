"""From a pipeline and what it refers to, the steps that this node will run: pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Set

from mao_shared.errors import InvalidInput
from mao_shared.models import (
    Dataset,
    DatasetRef,
    Pipeline,
    Privileges,
    ResolvedImage,
    ResolvedStep,
    Step,
    Tool,
)
from mao_shared.models.tool import DOCKER_SOCKET, asked_words


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


def asked_of(tools: Iterable[Tool], steps: Iterable[Step]) -> list[tuple[str, str]]:
    """Tool and word of all that is asked for, by the tools' records and by the steps that use them."""
    asked = [(tool.name, word) for tool in tools for word in tool.asked()]
    asked += [(step.tool, DOCKER_SOCKET) for step in steps if step.engine_socket]
    return list(dict.fromkeys(asked))


def agreed_words(
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
    asked = asked_of(tools, steps)
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
