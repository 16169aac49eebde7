"""In which datasets this node takes part, by its operator's consent, and whether it decides alone.

What this node's operator has agreed to: in which datasets it has a say, where they lie, and how they vote.

The datasets' records are the federation's, and any member can write them, or make them unreadable. What a
round needs is taken from the node's own enrolments; only how a new round votes is asked of the record.

Whether this node alone decides a dataset's ground truth: whether any other member takes part in it.

Says in which datasets this node takes part: those that its own enrolments write to, no more and no less.

And remembers in the node's own store that others do so as well.

It works whenever an enrolment or what is said of one changes, so also when another federation's store has
come into force; nothing but a failure makes it look again by the clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.errors import Conflict, MaoError, RecordUnreadable, Unavailable
from mao_shared.logs import Outage, get_logger
from mao_shared.models import Dataset, Enrolment, Part, Shared, VoteDefinition
from mao_shared.reconcile import Backoff, Guard, Mirror
from mao_shared.store import Records, Store, Unreadable
from mao_shared.store.unreadable import CONDITION

from .peer_records import Voters, parse_participation, participation_of
from .view import RoundIndex


@dataclass(frozen=True)
class ConsentedDataset:
    """`dataset`: as agreed to, its `nodes` those that have a say. `definitions`: by which this node votes."""

    dataset: Dataset
    definitions: list[VoteDefinition]


async def consented_dataset(
    enrolments: Records[Enrolment], name: str, declared: Dataset | None, voters: Sequence[str]
) -> ConsentedDataset | None:
    """None where no enrolment of this node writes to the dataset: it has no say in it then.

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
    ours = written[0]
    known = declared or Dataset(name=name, master=ours.master, vote=ours.vote)
    dataset = known.model_copy(update={"master": ours.master, "nodes": sorted(set(voters))})
    return ConsentedDataset(dataset, [each.vote or VoteDefinition() for each in written])


class DatasetSharing:
    """`shared`: the datasets that were seen to be shared, in the node's own store. `marks` has to run."""

    def __init__(
        self,
        node: str,
        datasets: Records[Dataset],
        voters: Voters,
        shared: Records[Shared],
        conditions: Conditions | None = None,
    ) -> None:
        self._node = node
        self._datasets = datasets
        self._voters = voters
        self._shared = shared
        self.marks = Mirror(shared, conditions=conditions)

    def is_solo(self, dataset: str) -> bool:
        """Whether nobody else has a say in it, nor ever had; from memory, False while that is not known."""
        seen = self._voters.seen(dataset)
        if seen is None or not self.marks.synced.is_set() or vote_needed(self._node, seen) is not None:
            return False
        return self.marks.get(dataset) is None and dataset not in self.marks.unreadable

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


log = get_logger(__name__)
RETRY_PAUSE, MAX_RETRY_PAUSE = (
    1.0,
    10.0,
)  # seconds between tries while the federation does not answer or refuses


class ParticipationPublisher:
    """`enrolments`, the mirror of this node's, has to run beside this, as those of `voters`."""

    def __init__(
        self,
        node: str,
        own: Store,
        voters: Voters,
        rounds: RoundIndex,
        unreadable: Unreadable | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        self._guard = Guard("parts", conditions)
        self._node = node
        heard = voters.heard
        self._voters, self._rounds = voters, rounds
        self._shared = Records(own, keys.shared_prefix(node), Shared)
        self._noticed: set[str] = set()
        enrolments = Records(own, keys.enrolments_prefix(node), Enrolment, unreadable)
        self.enrolments = Mirror(enrolments, conditions=conditions)
        self._heard = heard
        self._records = Records(heard.mirror.records.store, keys.parts_prefix(node), Part)
        self._some = asyncio.Event()
        rounds.on_first(self._some_rounds)
        self.enrolments.subscribe(lambda _: self._some.set())
        heard.mirror.subscribe(self._said)
        voters.members.subscribe(lambda _: self._some.set())

    def _said(self, name: str) -> None:
        if participation_of(name) is not None:
            self._some.set()

    def _some_rounds(self, _: str) -> None:
        self._some.set()

    async def run(self) -> None:
        """Works until cancelled."""
        outage, tries = Outage(), 0
        self._some.set()
        while True:
            await self._some.wait()
            await self.enrolments.synced.wait()
            await self._voters.known()
            self._some.clear()
            try:
                done = await self._keep()
                outage.over()
                self._guard.worked("")
            except MaoError as error:
                done = False
                if outage.is_news():
                    log.warning("parts.postponed", code=error.code, error=error.detail)
            except Exception as error:  # noqa: BLE001 (it is tried again, whatever it was)
                done = False
                self._guard.failed("", error)
            tries = 0 if done else tries + 1
            if not done:
                pause = Backoff(RETRY_PAUSE, MAX_RETRY_PAUSE).pause(tries)
                asyncio.get_running_loop().call_later(pause, self._some.set)

    async def _keep(self) -> bool:
        """Whether what was missing or too much is so no more."""
        wanted, said = self._wanted(), self._heard.parts_of(self._node)
        await self._remember(wanted)
        for dataset in sorted(said - wanted.keys()):
            await self._records.delete(dataset)
            log.info("part.ended", dataset=dataset)
        done = [await self._declare(wanted[dataset]) for dataset in sorted(wanted.keys() - said)]
        return all(done)

    async def _remember(self, ours: Iterable[str]) -> None:
        """Which datasets several have voted: should this node be left alone, it does not decide them."""
        for dataset in ours:
            others = set(self._voters.seen(dataset) or ()) - {self._node}
            if not others:
                self._noticed.discard(dataset)
            elif dataset not in self._noticed and self._rounds.of(dataset):
                await self._shared.create(dataset, Shared(dataset=dataset))
                self._noticed.add(dataset)

    def _wanted(self) -> dict[str, Part]:
        wanted: dict[str, Part] = {}
        for _, stored in self.enrolments.items():
            since = stored.record.enrolled_at
            for name in {step.output.name for step in stored.record.steps}:
                if name not in wanted or since < wanted[name].since:
                    wanted[name] = Part(dataset=name, since=since)
        return wanted

    async def _declare(self, part: Part) -> bool:
        """False where the write lost a race, say against another store's coming into force."""
        if await self._records.create(part.dataset, part) is not None:
            log.info("part.declared", dataset=part.dataset)
            return True
        there = await self._records.store.get(keys.part(self._node, part.dataset))
        if there is None:
            return False
        if parse_participation(there) is not None:  # it will be heard
            return True
        return await self._records.replace(part.dataset, part, there.revision) is not None
