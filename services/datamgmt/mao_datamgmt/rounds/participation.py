"""In which datasets this node takes part, by its operator's consent, and whether it decides alone.

Any member of the federation can write the records of datasets. What a round needs is therefore taken from the
node's own enrolments; only how a new round votes is taken from the dataset's record.
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
    """`dataset`: as agreed to, with the voters as its `nodes`. `definitions`: by which this node votes."""

    dataset: Dataset
    definitions: list[VoteDefinition]


async def consented_dataset(
    enrolments: Records[Enrolment], name: str, declared: Dataset | None, voters: Sequence[str]
) -> ConsentedDataset | None:
    """None where no enrolment of this node writes to the dataset: then it does not vote.

    `declared`: the dataset's record, if it can be read.
    """
    written = [
        step.output
        for each in await enrolments.all()
        for step in each.record.steps
        if step.output.name == name
    ]
    if not written:
        return None
    output = written[0]
    known = declared or Dataset(name=name, master=output.master, vote=output.vote)
    dataset = known.model_copy(update={"master": output.master, "nodes": sorted(set(voters))})
    return ConsentedDataset(dataset, [each.vote or VoteDefinition() for each in written])


class DatasetSharing:
    """Whether this node alone decides a dataset's ground truth, or other members take part in it.

    `shared`: the node's own record of the datasets that it has seen shared.
    """

    def __init__(
        self, node: str, datasets: Records[Dataset], voters: Voters, shared: Records[SharedDataset]
    ) -> None:
        self._node = node
        self._datasets = datasets
        self._voters = voters
        self._shared = shared
        self._never_shared: set[str] = set()  # datasets, until somebody's participation changes
        voters.peer_records.mirror.subscribe(self._peer_record_changed)
        voters.members.subscribe(lambda _: self._never_shared.clear())

    def _peer_record_changed(self, name: str) -> None:
        if (named := participation_names(name)) is not None:
            self._never_shared.discard(named[0])

    async def is_solo(self, dataset: str) -> bool:
        """Whether it is certain that nobody else votes, or ever has; from memory but for the first time."""
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
        """The dataset's record; None where there is none that can be read. Raises Unavailable."""
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
            return vote_needed(self._node, await self._nodes(dataset)) or await self.solo_refusal(dataset)
        except Unavailable:
            return "ground-truth waits: the federation store does not answer"

    async def is_shared(self, dataset: str) -> bool:
        """Whether other nodes vote on it. Raises Unavailable while that is not known."""
        return vote_needed(self._node, await self._nodes(dataset)) is not None

    def takes_part(self, dataset: str) -> bool:
        """Whether this node has published that it writes to the dataset."""
        return dataset in self._voters.peer_records.participations(self._node)

    async def solo_refusal(self, dataset: str) -> str | None:
        """Why the only node left does not decide alone: several nodes have voted before."""
        if not await self._was_shared(dataset):
            return None
        return (
            "ground-truth was voted by several nodes and is not moved by one: give the dataset a remote of "
            f"its own (maoctl dataset update {dataset} --master URL), then: maoctl dataset alone {dataset}"
        )

    async def _was_shared(self, dataset: str) -> bool:
        """Known by a record being there, readable or not."""
        try:
            return await self._shared.get(dataset) is not None
        except RecordUnreadable:
            return True

    async def remark(self, dataset: str, *, has_tick: bool) -> str | None:
        """What to note with a snapshot for good; a vote to come, or an outage, passes by itself."""
        try:
            nodes = set(await self._nodes(dataset)) | {self._node}
        except Unavailable:
            return None
        if len(nodes) == 1:
            return await self.solo_refusal(dataset)
        return None if has_tick else f"{len(nodes)} nodes vote on ground-truth by ticks; this run has none"

    async def go_alone(self, dataset: str) -> None:
        """Lets this node decide a dataset alone that several have voted before.

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
        if vote_needed(self._node, found) is None and await self._was_shared(dataset):  # copies may lack some
            raise Unavailable("It is not known yet who takes part.", code="voters-unknown")
        return found


def vote_needed(node: str, nodes: Sequence[str]) -> str | None:
    """Why a vote is needed: other nodes vote as well. Pure."""
    if set(nodes) <= {node}:
        return None
    return f"ground-truth is for {len(set(nodes) | {node})} nodes to agree on, it is not moved by one"


class ParticipationPublisher:
    """Publishes in which datasets this node takes part: those that its enrolments write to, no more, no less.

    It also records in the node's own store which of them other nodes share. It works whenever an enrolment or
    a participation changes, also by a switch to another federation store. `enrolments` must run beside it.
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
        """Works until cancelled."""
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
        wanted, published = self._wanted(), self._peers.participations(self._node)
        await self._record_shared(wanted)
        for dataset in sorted(published - wanted.keys()):
            await self._records.delete(dataset)
            log.info("part.ended", dataset=dataset)
        for dataset in sorted(wanted.keys() - published):
            await self._records.put(dataset, wanted[dataset])
            log.info("part.declared", dataset=dataset)

    async def _record_shared(self, datasets: Iterable[str]) -> None:
        """Should this node be left alone, it must not decide a dataset that several have voted."""
        for dataset in datasets:
            others = set(self._voters.cached(dataset) or ()) - {self._node}
            if not others:
                self._recorded_as_shared.discard(dataset)
            elif dataset not in self._recorded_as_shared and self._index.of(dataset):
                await self._shared.create(dataset, SharedDataset(dataset=dataset))
                self._recorded_as_shared.add(dataset)

    def _wanted(self) -> dict[str, Participation]:
        wanted: dict[str, Participation] = {}
        for _, stored in self.enrolments.items():
            since = stored.record.enrolled_at
            for name in {step.output.name for step in stored.record.steps}:
                if name not in wanted or since < wanted[name].since:
                    wanted[name] = Participation(dataset=name, since=since)
        return wanted
