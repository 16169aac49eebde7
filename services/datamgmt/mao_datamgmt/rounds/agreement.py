"""Whether this node alone decides a dataset's ground truth: whether any other member takes part in it."""

from __future__ import annotations

from collections.abc import Sequence

from mao_shared.errors import Conflict, MaoError, RecordUnreadable, Unavailable
from mao_shared.models import Dataset, Shared
from mao_shared.store import Records
from mao_shared.store.unreadable import CONDITION

from .voters import Voters


class Agreement:
    """`shared`: the datasets that were seen to be shared, in the node's own store."""

    def __init__(
        self, node: str, datasets: Records[Dataset], voters: Voters, shared: Records[Shared]
    ) -> None:
        self._node = node
        self._datasets = datasets
        self._voters = voters
        self._shared = shared

    async def declared(self, dataset: str) -> Dataset | None:
        """The dataset's record; None when there is none that can be read: any member may write it.

        Raises Unavailable.
        """
        try:
            stored = await self._datasets.get(dataset)
        except MaoError as error:
            if error.code != CONDITION:
                raise
            return None
        return None if stored is None or stored.record.name != dataset else stored.record

    async def obstacle(self, dataset: str) -> str | None:
        """Why a snapshot does not become ground truth at once; None when it does."""
        try:
            return vote_needed(self._node, await self._nodes(dataset)) or await self.apart(dataset)
        except Unavailable:
            return "ground-truth waits: the federation's store does not answer"

    async def is_shared(self, dataset: str) -> bool:
        """Whether other nodes have a say in it. Raises Unavailable when that is not known."""
        return vote_needed(self._node, await self._nodes(dataset)) is not None

    def takes_part(self, dataset: str) -> bool:
        """Whether this node writes to it, as far as it has said so."""
        return dataset in self._voters.heard.parts_of(self._node)

    async def apart(self, dataset: str) -> str | None:
        """Why a node that is the only one left does not decide alone what several have voted before."""
        if not await self._was_voted(dataset):
            return None
        return (
            "ground-truth was voted by several nodes and is not moved by one: give the dataset a remote of "
            f"its own (maoctl dataset update {dataset} --master URL), then: maoctl dataset alone {dataset}"
        )

    async def _was_voted(self, dataset: str) -> bool:
        """By several nodes; that is noted by a record being there, whatever can be read of it."""
        try:
            return await self._shared.get(dataset) is not None
        except RecordUnreadable:
            return True

    async def remark(self, dataset: str, *, has_tick: bool) -> str | None:
        """What is to be known of a snapshot for good; a vote to come, or an outage, passes by itself."""
        try:
            nodes = set(await self._nodes(dataset)) | {self._node}
        except Unavailable:
            return None
        if len(nodes) == 1:
            return await self.apart(dataset)
        return None if has_tick else f"{len(nodes)} nodes vote on ground-truth by ticks; this run has none"

    async def go_alone(self, dataset: str) -> None:
        """Lets this node alone decide a dataset that was voted before, once nobody else takes part any more.

        Raises Conflict while others do, and Unavailable.
        """
        nodes = await self._nodes(dataset)
        if vote_needed(self._node, nodes) is not None:
            others = ", ".join(node for node in nodes if node != self._node)
            raise Conflict(
                f"Dataset {dataset} is voted by several nodes: {others} take part as well.",
                code="dataset-shared",
                next="Leave the federation first (maoctl federation leave), or have them withdraw.",
            )
        await self._shared.delete(dataset)

    async def _nodes(self, dataset: str) -> list[str]:
        seen = self._voters.seen(dataset)
        if seen is not None:
            return seen
        found = await self._voters.ask(dataset)
        if vote_needed(self._node, found) is None and await self._was_voted(dataset):  # copies may lack some
            raise Unavailable("It is not known yet who takes part.", code="voters-unknown")
        return found


def vote_needed(node: str, nodes: Sequence[str]) -> str | None:
    """Pure: more nodes than this one have a say."""
    if set(nodes) <= {node}:
        return None
    return f"ground-truth is for {len(set(nodes) | {node})} nodes to agree on, it is not moved by one"
