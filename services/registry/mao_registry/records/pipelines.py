"""Rules of pipelines: all they refer to exists."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mao_shared.errors import AlreadyExists, InvalidInput
from mao_shared.models import Dataset, Named, Pipeline, Tool
from mao_shared.store import Check, Records, Stored
from mao_shared.store.records import R

from .references import Reference, References, datasets_of, tools_of
from .repositories import Shelf


@dataclass(frozen=True)
class Referred:
    """The records that a pipeline refers to, as they were read."""

    tools: dict[str, Stored[Tool]]
    datasets: dict[str, Stored[Dataset]]


async def read_referred(pipeline: Pipeline, shelf: Shelf) -> Referred:
    """Raises InvalidInput with the code `unknown-tool` or `unknown-dataset`; it names all that is missing."""
    tools, no_tools = await _read_all(shelf.tools, tools_of(pipeline))
    datasets, no_datasets = await _read_all(shelf.datasets, datasets_of(pipeline))
    if no_tools or no_datasets:
        raise _missing(no_tools, no_datasets)
    return Referred(tools, datasets)


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


def _missing(tools: list[str], datasets: list[str]) -> InvalidInput:
    """`ok` and `errors` are what the original's clients read, to offer to register what is missing."""
    nouns = [(noun, names) for noun, names in (("tool", tools), ("dataset", datasets)) if names]
    absent = ", ".join(f"no {noun} {name!r}" for noun, names in nouns for name in names)
    register = " and ".join(f"'{_REGISTER[noun]}'" for noun, _ in nouns)
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


_REGISTER = {"tool": "maoctl tool add NAME AUTHOR IMAGE …", "dataset": "maoctl dataset add NAME MASTER"}


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


def checks_of(referred: Referred, shelf: Shelf) -> list[Check]:
    """That none of the records was changed or deleted since it was read."""
    tools = [Check(shelf.tools.prefix + name, item.revision) for name, item in referred.tools.items()]
    return tools + [
        Check(shelf.datasets.prefix + name, item.revision) for name, item in referred.datasets.items()
    ]


class PipelineRules:
    """The model has checked the form; whether tools and datasets exist, the store says."""

    noun = "pipeline"

    def __init__(self, references: References, shelf: Shelf) -> None:
        self.references = references
        self.shelf = shelf

    def check(self, record: Pipeline) -> None:
        """Nothing beyond the model's own checks."""

    async def referred(self, record: Pipeline) -> list[Check]:
        return checks_of(await read_referred(record, self.shelf), self.shelf)

    async def find(self, name: str) -> list[Reference]:
        return await self.references.to_pipeline(name)
