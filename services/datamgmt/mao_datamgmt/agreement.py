"""Whether this node alone decides a dataset's ground truth, from the dataset's record in the federation."""

from __future__ import annotations

from mao_shared.errors import Unavailable
from mao_shared.models import Dataset
from mao_shared.store import Records


class Agreement:
    """Remembers the nodes it has seen, for when the federation's store does not answer."""

    def __init__(self, node: str, datasets: Records[Dataset]) -> None:
        self._node = node
        self._datasets = datasets
        self._seen: dict[str, list[str]] = {}

    async def declared(self, dataset: str) -> Dataset | None:
        """The dataset's record; None when there is none or the store does not answer."""
        try:
            stored = await self._datasets.get(dataset)
        except Unavailable:
            return None
        return None if stored is None else stored.record

    async def obstacle(self, dataset: str) -> str | None:
        """Why a snapshot does not become ground truth at once; None when it does."""
        try:
            stored = await self._datasets.get(dataset)
        except Unavailable:
            if dataset not in self._seen:
                return "ground-truth waits: the federation's store does not answer"
        else:
            self._seen[dataset] = [] if stored is None else stored.record.nodes
        return vote_needed(self._node, self._seen[dataset])

    async def is_shared(self, dataset: str) -> bool:
        """Whether other nodes have a say in it. Raises Unavailable when that is not known."""
        try:
            stored = await self._datasets.get(dataset)
        except Unavailable:
            if dataset not in self._seen:
                raise
        else:
            self._seen[dataset] = [] if stored is None else stored.record.nodes
        return vote_needed(self._node, self._seen[dataset]) is not None


def vote_needed(node: str, nodes: list[str]) -> str | None:
    """Pure: more nodes than this one have a say."""
    if set(nodes) <= {node}:
        return None
    return f"ground-truth is for {len(set(nodes) | {node})} nodes to agree on, it is not moved by one"
