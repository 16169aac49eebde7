"""Rules for tools, datasets and pipelines that their models cannot check."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mao_shared import keys
from mao_shared.errors import AlreadyExists, Conflict, InvalidInput, NotFound
from mao_shared.git_urls import ALLOWED, has_secret, remote_url_fault, same_remote
from mao_shared.models import Dataset, Named, Pipeline, Tool
from mao_shared.store import Check, Records, Stored
from mao_shared.store.records import R

from .references import Reference, References, pipeline_datasets, pipeline_tools, read_guard
from .stores import Repositories

_REGISTER_COMMAND = {
    "tool": "maoctl tool add NAME AUTHOR IMAGE …",
    "dataset": "maoctl dataset add NAME MASTER",
}


class ToolRules:
    """Rules for tools: URLs must not contain secrets."""

    noun = "tool"

    def __init__(self, references: References) -> None:
        self.references = references

    def check(self, record: Tool) -> None:
        for field in ("data_repo", "code_repo", "artefact"):
            if has_secret(getattr(record, field)):
                raise InvalidInput(
                    f"The URL in '{field}' contains a secret, which all nodes of the federation could read.",
                    code="secret-in-record",
                    next=f"Send '{field}' without the part before '@'.",
                )

    async def reference_checks(self, record: Tool) -> list[Check]:  # noqa: ARG002 (a tool refers to nothing)
        return []

    async def find_references(self, name: str) -> list[Reference]:
        return await self.references.to_tool(name)


class DatasetRules:
    """Rules for datasets: the remote must be safe for git and contain no secret, external keys are unique.

    `unique_remote`: refuse a second dataset with the same remote; both would write to the same branches.
    """

    noun = "dataset"

    def __init__(self, references: References, *, unique_remote: bool = False) -> None:
        self.references = references
        self._unique_remote = unique_remote

    def check(self, record: Dataset) -> None:
        if fault := remote_url_fault(record.master):
            raise InvalidInput(
                f"The master of dataset {record.name!r} is refused: {fault}.",
                code="dataset-url-refused",
                next=f"Give {ALLOWED}.",
            )

    async def reference_checks(self, record: Dataset) -> list[Check]:
        """Return the checks. Raises Conflict (`external-key-taken`, `dataset-remote-taken`)."""
        if not record.external and not self._unique_remote:
            return []
        datasets = self.references.repositories.datasets
        guard = await read_guard(datasets.store, keys.references())
        by_name = await datasets.by_name()
        before = by_name.pop(record.name, None)
        for name, other in by_name.items():
            if shared := sorted(set(record.external) & set(other.external)):
                raise Conflict(
                    f"The key {shared[0]!r} is already declared by dataset {name!r}.",
                    code="external-key-taken",
                    next=f"Remove it there: maoctl dataset external {name} "
                    f"--remove-key {shared[0]}; or use another key.",
                )
        if self._unique_remote:
            await asyncio.to_thread(_check_remote, before, record, by_name)
        return [guard]

    async def find_references(self, name: str) -> list[Reference]:
        return await self.references.to_dataset(name)


def _check_remote(before: Dataset | None, record: Dataset, others: Mapping[str, Dataset]) -> None:
    """Raise Conflict (`dataset-remote-taken`) if another dataset has the remote. Blocks."""
    if before is not None and same_remote(before.master, record.master):
        return
    for name, other in others.items():
        if same_remote(other.master, record.master):
            raise Conflict(
                f"The remote {record.master} already belongs to dataset {name!r}: two datasets in it would "
                "write to the same branches.",
                code="dataset-remote-taken",
                next=f"Use dataset {name}, or give {record.name} another repository: "
                "maoctl dataset init NAME creates one on this node.",
                dataset=name,
            )


def with_node(dataset: Dataset, node: str) -> Dataset:
    """Return the dataset with `node` among its nodes; the same object if it already is."""
    if node in dataset.nodes:
        return dataset
    return dataset.model_copy(update={"nodes": sorted([*dataset.nodes, node])})


def without_node(dataset: Dataset, node: str) -> Dataset:
    """Return the dataset without `node`; the same object if it is not among its nodes."""
    if node not in dataset.nodes:
        return dataset
    return dataset.model_copy(update={"nodes": [other for other in dataset.nodes if other != node]})


@dataclass(frozen=True)
class ReferencedRecords:
    """The tools and datasets that a pipeline refers to, with their revisions."""

    tools: dict[str, Stored[Tool]]
    datasets: dict[str, Stored[Dataset]]


async def read_references(pipeline: Pipeline, repositories: Repositories) -> ReferencedRecords:
    """Read tools and datasets of a pipeline.

    Raises InvalidInput (`unknown-tool`, `unknown-dataset`) that names all missing records.
    """
    tools, missing_tools = await _read_all(repositories.tools, pipeline_tools(pipeline))
    datasets, missing_datasets = await _read_all(repositories.datasets, pipeline_datasets(pipeline))
    if not missing_tools and not missing_datasets:
        return ReferencedRecords(tools, datasets)
    nouns = [
        (noun, names) for noun, names in (("tool", missing_tools), ("dataset", missing_datasets)) if names
    ]
    missing = ", ".join(f"no {noun} {name!r}" for noun, names in nouns for name in names)
    register = " and ".join(f"'{_REGISTER_COMMAND[noun]}'" for noun, _ in nouns)
    show = " and ".join(f"'maoctl {noun} get'" for noun, _ in nouns)
    several = len(missing_tools) + len(missing_datasets) > 1
    raise InvalidInput(
        f"There is {missing}, which the pipeline refers to.",
        code=f"unknown-{nouns[0][0]}",
        next=f"Register {'them' if several else 'it'} with {register}, or see what there is with {show}.",
        name=nouns[0][1][0],
        ok=False,  # the original's clients read this and `errors`, and offer to register what is missing
        errors={"missing_tools": missing_tools, "missing_datasets": missing_datasets},
    )


async def _read_all(records: Records[R], names: Iterable[str]) -> tuple[dict[str, Stored[R]], list[str]]:
    """Return the records that exist, and the names of those that do not."""
    existing: dict[str, Stored[R]] = {}
    missing: list[str] = []
    for name in sorted(names):
        stored = await records.get(name)
        if stored is None:
            missing.append(name)
        else:
            existing[name] = stored
    return existing, missing


def title_clash(wanted: Named, existing: Named) -> AlreadyExists | None:
    """Return the error if the title of `wanted` maps to the name of another pipeline; otherwise None."""
    if not (isinstance(wanted, Pipeline) and isinstance(existing, Pipeline)):
        return None
    if wanted.title is None or wanted.title == existing.title:
        return None
    return AlreadyExists(
        f"The title {wanted.title!r} maps to the name {wanted.name!r}, which belongs to {existing.called!r}.",
        code="title-taken",
        next=f"Choose another title, or see that pipeline: maoctl pipeline get {existing.name}",
        name=wanted.name,
    )


def keep_title(before: R, after: R) -> R:
    """Return `after`, with the title of `before` if it has none. Raises InvalidInput (`title-mismatch`)."""
    if not (isinstance(before, Pipeline) and isinstance(after, Pipeline)) or before.title == after.title:
        return after
    if after.title is None:
        return after.model_copy(update={"title": before.title})
    raise InvalidInput(
        f"The pipeline {before.name!r} is called {before.called!r}, but the body has {after.title!r}; "
        "a pipeline keeps its title.",
        code="title-mismatch",
        next="Send its title, or none.",
    )


def reference_conditions(referenced: ReferencedRecords, repositories: Repositories) -> list[Check]:
    """Return checks that none of the records has been changed or deleted since it was read."""
    return [
        Check(records.prefix + name, stored.revision)
        for records, by_name in (
            (repositories.tools, referenced.tools),
            (repositories.datasets, referenced.datasets),
        )
        for name, stored in by_name.items()
    ]


class PipelineRules:
    """Rules for pipelines: all tools and datasets that they refer to must exist."""

    noun = "pipeline"

    def __init__(self, references: References) -> None:
        self.references = references

    def check(self, record: Pipeline) -> None:
        """Accept every record: the model has checked it."""

    async def reference_checks(self, record: Pipeline) -> list[Check]:
        repositories = self.references.repositories
        return reference_conditions(await read_references(record, repositories), repositories)

    async def find_references(self, name: str) -> list[Reference]:
        return await self.references.to_pipeline(name)


def not_found(noun: str, name: str) -> NotFound:
    return NotFound(f"There is no {noun} {name!r}.", next=f"See what there is with 'maoctl {noun} get'.")
