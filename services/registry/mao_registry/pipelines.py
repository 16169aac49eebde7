"""Rules of pipelines: all they refer to exists."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mao_shared.errors import InvalidInput
from mao_shared.models import Dataset, Pipeline, Tool
from mao_shared.store import Check, Records, Stored
from mao_shared.store.records import R

from .records import Shelf
from .references import Reference, References, datasets_of, tools_of


@dataclass(frozen=True)
class Referred:
    """The records that a pipeline refers to, as they were read."""

    tools: dict[str, Stored[Tool]]
    datasets: dict[str, Stored[Dataset]]


async def read_referred(pipeline: Pipeline, shelf: Shelf) -> Referred:
    """Raises InvalidInput with the code `unknown-tool` or `unknown-dataset`."""
    tools = await _read_all(shelf.tools, tools_of(pipeline), "tool", "maoctl tool add NAME AUTHOR IMAGE …")
    datasets = await _read_all(
        shelf.datasets, datasets_of(pipeline), "dataset", "maoctl dataset add NAME MASTER"
    )
    return Referred(tools, datasets)


async def _read_all(
    records: Records[R], names: Iterable[str], noun: str, command: str
) -> dict[str, Stored[R]]:
    found: dict[str, Stored[R]] = {}
    for name in sorted(names):
        stored = await records.get(name)
        if stored is None:
            raise InvalidInput(
                f"There is no {noun} {name!r}, to which the pipeline refers.",
                code=f"unknown-{noun}",
                next=f"Register it with '{command}', or see what there is with 'maoctl {noun} get'.",
                name=name,
            )
        found[name] = stored
    return found


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
