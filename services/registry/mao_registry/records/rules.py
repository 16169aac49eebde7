"""Rules of tools, datasets and pipelines beyond what their models check.

Rules of tools.

Rules of datasets.

Rules of pipelines: all they refer to exists.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mao_shared.errors import AlreadyExists, Conflict, InvalidInput, NotFound
from mao_shared.git_urls import ALLOWED, has_secret, remote_url_fault, same_remote
from mao_shared.models import (
    Dataset,
    Named,
    Pipeline,
    Tool,
)
from mao_shared.store import Check, Records, Stored
from mao_shared.store.records import R

from .references import (
    Reference,
    References,
    datasets_of,
    federation_guard,
    tools_of,
)
from .repositories import Repositories


class ToolRules:
    """The model has checked names, image and limits; what is left are secrets in links."""

    noun = "tool"

    def __init__(self, references: References) -> None:
        self.references = references

    def check(self, record: Tool) -> None:
        for field in ("data_repo", "code_repo", "artefact"):
            if has_secret(getattr(record, field)):
                raise InvalidInput(
                    f"The URL in '{field}' carries a secret, which all nodes of the federation could read.",
                    code="secret-in-record",
                    next=f"Send '{field}' without what stands before '@'.",
                )

    async def referred(self, record: Tool) -> list[Check]:  # noqa: ARG002 (a tool refers to nothing)
        return []

    async def find(self, name: str) -> list[Reference]:
        return await self.references.to_tool(name)


class DatasetRules:
    """A dataset's remote must be one that git can be let loose on, and holds no secret.

    `one_remote`: no two datasets may have one remote, where the nodes' branches would be each other's.
    """

    noun = "dataset"

    def __init__(self, references: References, *, one_remote: bool = False) -> None:
        self.references = references
        self._one_remote = one_remote

    def check(self, record: Dataset) -> None:
        if fault := remote_url_fault(record.master):
            raise InvalidInput(
                f"The master of dataset {record.name!r} is refused: {fault}.",
                code="dataset-url-refused",
                next=f"Give {ALLOWED}.",
            )

    async def referred(self, record: Dataset) -> list[Check]:
        """Raises Conflict: `external-key-taken`, since what comes from outside under a key goes to one
        dataset, and `dataset-remote-taken`."""
        if not record.external and not self._one_remote:
            return []
        datasets = self.references.shelf.datasets
        guard = await federation_guard(datasets.store)
        by_name = await datasets.by_name()
        others = {name: other for name, other in by_name.items() if name != record.name}
        _check_keys(record, others)
        if self._one_remote:
            await asyncio.to_thread(_check_place, by_name.get(record.name), record, others)
        return [guard]

    async def find(self, name: str) -> list[Reference]:
        return await self.references.to_dataset(name)


def _check_keys(record: Dataset, others: Mapping[str, Dataset]) -> None:
    for name, other in others.items():
        if shared := sorted(set(record.external) & set(other.external)):
            raise Conflict(
                f"The key {shared[0]!r} is declared by dataset {name!r} already.",
                code="external-key-taken",
                next=f"Take it off there: maoctl dataset external {name} "
                f"--remove-key {shared[0]}; or use another key.",
            )


def _check_place(before: Dataset | None, record: Dataset, others: Mapping[str, Dataset]) -> None:
    """Looks at folders of this machine, so that it may block."""
    if before is not None and same_remote(before.master, record.master):
        return
    for name, other in others.items():
        if same_remote(other.master, record.master):
            raise Conflict(
                f"The remote {record.master} is that of dataset {name!r} already, and two datasets there "
                "would write to the same branches.",
                code="dataset-remote-taken",
                next=f"Use dataset {name}, or give {record.name} a repository of its own: "
                "maoctl dataset init NAME makes one on this node.",
                dataset=name,
            )


def with_node(dataset: Dataset, node: str) -> Dataset:
    """The dataset with `node` among its nodes; the same object when it is there already."""
    if node in dataset.nodes:
        return dataset
    return dataset.model_copy(update={"nodes": sorted([*dataset.nodes, node])})


def without_node(dataset: Dataset, node: str) -> Dataset:
    """The dataset without `node`; the same object when it is not there."""
    if node not in dataset.nodes:
        return dataset
    return dataset.model_copy(update={"nodes": [other for other in dataset.nodes if other != node]})


@dataclass(frozen=True)
class ReferencedRecords:
    """The records that a pipeline refers to, as they were read."""

    tools: dict[str, Stored[Tool]]
    datasets: dict[str, Stored[Dataset]]


async def read_references(pipeline: Pipeline, shelf: Repositories) -> ReferencedRecords:
    """Raises InvalidInput with the code `unknown-tool` or `unknown-dataset`; it names all that is missing."""
    tools, no_tools = await _read_all(shelf.tools, tools_of(pipeline))
    datasets, no_datasets = await _read_all(shelf.datasets, datasets_of(pipeline))
    if no_tools or no_datasets:
        raise _unknown_references(no_tools, no_datasets)
    return ReferencedRecords(tools, datasets)


async def _read_all(records: Records[R], names: Iterable[str]) -> tuple[dict[str, Stored[R]], list[str]]:
    """What is there, and the names of what is not."""
    found: dict[str, Stored[R]] = {}
    missing: list[str] = []
    for name in sorted(names):
        stored = await records.get(name)
        if stored is None:
            missing.append(name)
        else:
            found[name] = stored
    return found, missing


def _unknown_references(tools: list[str], datasets: list[str]) -> InvalidInput:
    """`ok` and `errors` are what the original's clients read, to offer to register what is missing."""
    nouns = [(noun, names) for noun, names in (("tool", tools), ("dataset", datasets)) if names]
    absent = ", ".join(f"no {noun} {name!r}" for noun, names in nouns for name in names)
    register = " and ".join(f"'{_REGISTER_COMMAND[noun]}'" for noun, _ in nouns)
    show = " and ".join(f"'maoctl {noun} get'" for noun, _ in nouns)
    several = len(tools) + len(datasets) > 1
    return InvalidInput(
        f"There is {absent}, to which the pipeline refers.",
        code=f"unknown-{nouns[0][0]}",
        next=f"Register {'them' if several else 'it'} with {register}, or see what there is with {show}.",
        name=nouns[0][1][0],
        ok=False,
        errors={"missing_tools": tools, "missing_datasets": datasets},
    )


_REGISTER_COMMAND = {
    "tool": "maoctl tool add NAME AUTHOR IMAGE …",
    "dataset": "maoctl dataset add NAME MASTER",
}


def title_clash(wanted: Named, there: Named) -> AlreadyExists | None:
    """The refusal of a title from which the name of another pipeline follows; None for anything else."""
    if not (isinstance(wanted, Pipeline) and isinstance(there, Pipeline)):
        return None
    if wanted.title is None or wanted.title == there.title:
        return None
    return AlreadyExists(
        f"The title {wanted.title!r} gives the name {wanted.name!r}, which {there.called!r} has.",
        code="title-taken",
        next=f"Choose another title, or look at that pipeline: maoctl pipeline get {there.name}",
        name=wanted.name,
    )


def keeping_title(before: R, after: R) -> R:
    """The record that replaces another, with the title of that where it does not say it itself.

    Raises InvalidInput (`title-mismatch`) for another title, by which nobody would find it any more.
    """
    if not (isinstance(before, Pipeline) and isinstance(after, Pipeline)) or before.title == after.title:
        return after
    if after.title is None:
        return after.model_copy(update={"title": before.title})
    raise InvalidInput(
        f"The pipeline {before.name!r} is called {before.called!r}, the body says {after.title!r}; "
        "a pipeline keeps its title.",
        code="title-mismatch",
        next="Send the title that it has, or none.",
    )


def checks_of(referred: ReferencedRecords, shelf: Repositories) -> list[Check]:
    """That none of the records was changed or deleted since it was read."""
    tools = [Check(shelf.tools.prefix + name, item.revision) for name, item in referred.tools.items()]
    return tools + [
        Check(shelf.datasets.prefix + name, item.revision) for name, item in referred.datasets.items()
    ]


class PipelineRules:
    """The model has checked the form; whether tools and datasets exist, the store says."""

    noun = "pipeline"

    def __init__(self, references: References, shelf: Repositories) -> None:
        self.references = references
        self.shelf = shelf

    def check(self, record: Pipeline) -> None:
        """Nothing beyond the model's own checks."""

    async def referred(self, record: Pipeline) -> list[Check]:
        return checks_of(await read_references(record, self.shelf), self.shelf)

    async def find(self, name: str) -> list[Reference]:
        return await self.references.to_pipeline(name)


def not_registered(name: str) -> NotFound:
    return NotFound(f"There is no pipeline {name!r}.", next="See what there is with 'maoctl pipeline get'.")
