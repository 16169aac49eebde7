"""Tracks in which datasets this node takes part with its operator's consent, and whether it decides alone.

Any member of the federation can write the records of datasets. So all facts that a round needs come from the
node's own enrolments, except the vote definition of a new round, which comes from the dataset's record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.errors import Conflict, MaoError, RecordUnreadable, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models import Dataset, Enrolment, Participation, SharedDataset, VoteDefinition
from mao_shared.reconcile import Backoff, Mirror, every
from mao_shared.store import Records, Store, Unreadable
from mao_shared.store.unreadable import CONDITION

from .peer_records import Voters, participation_names
from .view import RoundIndex

log = get_logger(__name__)


@dataclass(frozen=True)
class ConsentedDataset:
    """A dataset and vote definitions as this node's operator agreed to them; its `nodes` are the voters."""

    dataset: Dataset
    definitions: list[VoteDefinition]


async def consented_dataset(
    enrolments: Records[Enrolment], name: str, declared: Dataset | None, voters: Sequence[str]
) -> ConsentedDataset | None:
    """Return a dataset as this node's enrolments define it; None if none writes to it.

    `declared` is the dataset's record, if it can be read.
    """
    written = [
        step.output
        for stored in await enrolments.all()
        for step in stored.record.steps
        if step.output.name == name
    ]
    if not written:
        return None
    output = written[0]
    known = declared or Dataset(name=name, master=output.master, vote=output.vote)
    dataset = known.model_copy(update={"master": output.master, "nodes": sorted(set(voters))})
    return ConsentedDataset(dataset, [output.vote or VoteDefinition() for output in written])


class DatasetSharing:
    """Tells whether this node decides a dataset's ground truth alone or other members take part in it.

    `shared` are the node's own records of datasets that have been shared.
    """

    def __init__(
        self, node: str, datasets: Records[Dataset], voters: Voters, shared: Records[SharedDataset]
    ) -> None:
        self._node = node
        self._datasets = datasets
        self._voters = voters
        self._shared = shared
        self._never_shared: set[str] = set()  # datasets; until a participation changes
        voters.peer_records.mirror.subscribe(self._peer_record_changed)
        voters.members.subscribe(lambda _: self._never_shared.clear())

    def _peer_record_changed(self, name: str) -> None:
        if (participation := participation_names(name)) is not None:
            self._never_shared.discard(participation[0])

    async def is_solo(self, dataset: str) -> bool:
        """True if it is certain that no other node votes or ever has. Cached after the first call."""
        voters = self._voters.cached(dataset)
        if voters is None or not set(voters) <= {self._node}:
            return False
        if dataset not in self._never_shared:
            try:
                if await self._was_shared(dataset):
                    return False
            except Unavailable:
                return False
            self._never_shared.add(dataset)
        return True

    async def declared(self, dataset: str) -> Dataset | None:
        """Return the dataset's record; None if it is missing or unreadable. Raises Unavailable."""
        try:
            stored = await self._datasets.get(dataset)
        except MaoError as error:
            if error.code != CONDITION:
                raise
            return None
        return None if stored is None or stored.record.name != dataset else stored.record

    async def obstacle(self, dataset: str) -> str | None:
        """Return why a snapshot does not become ground truth at once, or None if it does."""
        try:
            return vote_needed(self._node, await self._nodes(dataset)) or await self.solo_refusal(dataset)
        except Unavailable:
            return "ground-truth waits: the federation store does not answer"

    async def is_shared(self, dataset: str) -> bool:
        """True if other nodes vote on a dataset. Raises Unavailable while that is unknown."""
        return vote_needed(self._node, await self._nodes(dataset)) is not None

    def takes_part(self, dataset: str) -> bool:
        """True if this node has published that it writes to the dataset."""
        return dataset in self._voters.peer_records.participations(self._node)

    async def solo_refusal(self, dataset: str) -> str | None:
        """Return why this node, the only voter, does not decide alone: several nodes have voted before."""
        if not await self._was_shared(dataset):
            return None
        return (
            "ground-truth was voted by several nodes and is not moved by one: give the dataset a remote of "
            f"its own (maoctl dataset update {dataset} --master URL), then: maoctl dataset alone {dataset}"
        )

    async def _was_shared(self, dataset: str) -> bool:
        """True if there is a record, readable or not, that the dataset was shared."""
        try:
            return await self._shared.get(dataset) is not None
        except RecordUnreadable:
            return True

    async def remark(self, dataset: str, *, has_tick: bool) -> str | None:
        """Return a permanent remark on a snapshot; a pending vote or an outage is only temporary."""
        try:
            nodes = set(await self._nodes(dataset)) | {self._node}
        except Unavailable:
            return None
        if len(nodes) == 1:
            return await self.solo_refusal(dataset)
        return None if has_tick else f"{len(nodes)} nodes vote on ground-truth by ticks; this run has none"

    async def go_alone(self, dataset: str) -> None:
        """Let this node decide alone on a dataset that several nodes have voted on.

        Raises Conflict while other nodes take part, and Unavailable.
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
        cached = self._voters.cached(dataset)
        if cached is not None:
            return cached
        found = await self._voters.fetch(dataset)
        if vote_needed(self._node, found) is None and await self._was_shared(
            dataset
        ):  # the replica may lack some
            raise Unavailable("It is not known yet who takes part.", code="voters-unknown")
        return found


def vote_needed(node: str, nodes: Sequence[str]) -> str | None:
    """Return why a vote is needed, or None if no other node votes. Pure."""
    if set(nodes) <= {node}:
        return None
    return f"ground-truth is for {len(set(nodes) | {node})} nodes to agree on, it is not moved by one"


class ParticipationPublisher:
    """Publishes the datasets in which this node takes part: exactly those that its enrolments write to.

    It also records in the node's own store which of them other nodes share. It runs whenever an enrolment or
    a participation changes, also after a switch to another federation store. `enrolments` must be running.
    """

    def __init__(
        self,
        node: str,
        own: Store,
        voters: Voters,
        index: RoundIndex,
        unreadable: Unreadable | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        self._node = node
        self._voters, self._peers, self._index = voters, voters.peer_records, index
        self._conditions = conditions
        self._shared = Records(own, keys.shared_prefix(node), SharedDataset)
        self._recorded_as_shared: set[str] = set()
        enrolments = Records(own, keys.enrolments_prefix(node), Enrolment, unreadable)
        self.enrolments = Mirror(enrolments, conditions=conditions)
        self._records = Records(self._peers.mirror.records.store, keys.parts_prefix(node), Participation)
        self._wake = asyncio.Event()
        index.on_first(self._changed)
        self.enrolments.subscribe(self._changed)
        voters.members.subscribe(self._changed)
        self._peers.mirror.subscribe(self._peer_record_changed)

    def _changed(self, _: str) -> None:
        self._wake.set()

    def _peer_record_changed(self, name: str) -> None:
        if participation_names(name) is not None:
            self._wake.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        await every(
            None,
            self._publish,
            name="parts",
            wake=self._wake,
            conditions=self._conditions,
            away=Backoff(1.0, 10.0),
            outages=MaoError,
        )

    async def _publish(self) -> None:
        await self.enrolments.synced.wait()
        await self._voters.wait_synced()
        enrolled, published = self._enrolled_participations(), self._peers.participations(self._node)
        await self._record_shared(enrolled)
        for dataset in sorted(published - enrolled.keys()):
            await self._records.delete(dataset)
            log.info("participation.ended", dataset=dataset)
        for dataset in sorted(enrolled.keys() - published):
            await self._records.put(dataset, enrolled[dataset])
            log.info("participation.declared", dataset=dataset)

    async def _record_shared(self, datasets: Iterable[str]) -> None:
        """Record shared datasets, so that this node does not decide them alone once the others have left."""
        for dataset in datasets:
            others = set(self._voters.cached(dataset) or ()) - {self._node}
            if not others:
                self._recorded_as_shared.discard(dataset)
            elif dataset not in self._recorded_as_shared and self._index.of(dataset):
                await self._shared.create(dataset, SharedDataset(dataset=dataset))
                self._recorded_as_shared.add(dataset)

    def _enrolled_participations(self) -> dict[str, Participation]:
        enrolled: dict[str, Participation] = {}
        for _, stored in self.enrolments.items():
            since = stored.record.enrolled_at
            for name in {step.output.name for step in stored.record.steps}:
                if name not in enrolled or since < enrolled[name].since:
                    enrolled[name] = Participation(dataset=name, since=since)
        return enrolled
