"""Rules of datasets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from mao_shared.errors import Conflict, InvalidInput
from mao_shared.git_urls import ALLOWED, master_fault, same_remote
from mao_shared.models import Dataset
from mao_shared.store import Check

from .references import Reference, References, federation_guard


class DatasetRules:
    """A dataset's remote must be one that git can be let loose on, and holds no secret.

    `one_remote`: no two datasets may have one remote, where the nodes' branches would be each other's.
    """

    noun = "dataset"

    def __init__(self, references: References, *, one_remote: bool = False) -> None:
        self.references = references
        self._one_remote = one_remote

    def check(self, record: Dataset) -> None:
        if fault := master_fault(record.master):
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
