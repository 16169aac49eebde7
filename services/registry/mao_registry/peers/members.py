"""Members: which nodes are present, and what becomes of one that will not come back."""

from __future__ import annotations

from mao_registry.records.datasets import without_node
from mao_registry.records.repositories import Shelf
from mao_registry.records.writes import unknown_is_lost, until_decided
from mao_shared import keys
from mao_shared.errors import Conflict, Forbidden, NotFound
from mao_shared.models import Member
from mao_shared.store import Check, Put, Stored
from mao_shared.store.records import StoredPage, dump


class Members:
    """A node is a member as long as its registry holds the lease (`presence.py`)."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf

    async def page(self, limit: int, cursor: str | None) -> StoredPage[Member]:
        return await self.shelf.members.page(limit, cursor)

    async def read(self, node: str) -> Stored[Member]:
        """Raises NotFound."""
        stored = await self.shelf.members.get(node)
        if stored is None:
            raise _absent(node)
        return stored

    async def remove(self, node: str) -> None:
        """Ends an absent node's part in all datasets, so that no vote waits for it; it may come back.

        Raises Conflict (`node-present`), NotFound when it has a part in none, and Forbidden (`not-core`) in a
        federation where this node may not speak for others.
        """
        await self._check_absent(node)
        datasets = await self.shelf.datasets.by_name()  # one that cannot be read lists nobody
        listed = [name for name, record in datasets.items() if node in record.nodes]
        parts = (await self.shelf.federation.list(keys.parts_prefix(node))).entries
        if not listed and not parts:
            raise _absent(node)
        for part in parts:
            await self._end(part.key, node)
        for dataset in listed:
            await self._strike(dataset, node)

    async def _end(self, part: str, node: str) -> None:
        try:
            await self.shelf.federation.delete(part)
        except Forbidden as error:
            raise Forbidden(
                f"The node {node!r} takes part in datasets, and only a core node can end that for it.",
                code="not-core",
                next=f"On a core node (see maoctl federation show): maoctl federation remove {node}.",
            ) from error

    async def _check_absent(self, node: str) -> None:
        if await self.shelf.members.get(node):
            raise Conflict(
                f"The node {node!r} is present.",
                code="node-present",
                next="Stop that node first, or withdraw its enrolments there: maoctl pipeline withdraw NAME.",
            )

    async def _strike(self, dataset: str, node: str) -> None:
        key = self.shelf.datasets.prefix + dataset

        async def attempt() -> bool | None:
            await self._check_absent(node)
            stored = await self.shelf.datasets.get(dataset)
            if stored is None or node not in stored.record.nodes:
                return True
            checks = [Check(key, stored.revision), Check(self.shelf.members.prefix + node, 0)]
            changed = Put(key, dump(without_node(stored.record, node)))
            written = self.shelf.federation.transact(checks, [changed])
            return await unknown_is_lost(written) is not None or None

        await until_decided(attempt, f"the dataset {dataset!r}")


def _absent(node: str) -> NotFound:
    return NotFound(f"There is no node {node!r} now.", next="See who is present with 'maoctl node get'.")
