"""Rules of datasets."""

from __future__ import annotations

from mao_shared.errors import Conflict, InvalidInput
from mao_shared.git_urls import ALLOWED, master_fault
from mao_shared.models import Dataset
from mao_shared.store import Check

from .references import Reference, References, federation_guard


class DatasetRules:
    """A dataset's remote must be one that git can be let loose on, and holds no secret."""

    noun = "dataset"

    def __init__(self, references: References) -> None:
        self.references = references

    def check(self, record: Dataset) -> None:
        if fault := master_fault(record.master):
            raise InvalidInput(
                f"The master of dataset {record.name!r} is refused: {fault}.",
                code="dataset-url-refused",
                next=f"Give {ALLOWED}.",
            )

    async def referred(self, record: Dataset) -> list[Check]:
        """Raises Conflict (`external-key-taken`): what comes from outside under a key goes to one dataset."""
        if not record.external:
            return []
        datasets = self.references.shelf.datasets
        guard = await federation_guard(datasets.store)
        for name, other in (await datasets.by_name()).items():
            shared = sorted(set(record.external) & set(other.external))
            if shared and name != record.name:
                raise Conflict(
                    f"The key {shared[0]!r} is declared by dataset {name!r} already.",
                    code="external-key-taken",
                    next=f"Take it off there: maoctl dataset external {name} "
                    f"--remove-key {shared[0]}; or use another key.",
                )
        return [guard]

    async def find(self, name: str) -> list[Reference]:
        return await self.references.to_dataset(name)


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
