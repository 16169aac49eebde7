"""The nodes of the federation, their runs of shared pipelines, and which of them are late.

Pure: which nodes are late with a pipeline, from what each says of its own runs.

A node's own `next_tick` is the measure of what it owes: nobody can make another late by inventing ticks, and
nodes with different schedules do not wait for each other.

What this node sees of the others: who there is, and their runs of shared pipelines.

All of it is what nodes say of themselves, under their own prefixes: of bounded size, checked against the
key that it lies under, and left out (or said to be unreadable) where it does not fit.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import TypeVar

from pydantic import ValidationError

from mao_registry.consent.agreements import Agreements
from mao_registry.records.references import outputs_of
from mao_registry.records.repositories import Repositories
from mao_registry.records.rules import not_registered
from mao_shared import keys
from mao_shared.clients import SchedulerClient
from mao_shared.clock import Clock
from mao_shared.errors import MaoError, NotFound
from mao_shared.logs import get_logger
from mao_shared.models import (
    Identity,
    Member,
    NodePart,
    NodeRuns,
    PeerNode,
    PeerRuns,
    Pipeline,
    Record,
    RunBrief,
    format_time,
    is_name,
)
from mao_shared.models.common import STORED
from mao_shared.models.federation import KEPT_BRIEFS
from mao_shared.runs.listing import list_newest
from mao_shared.states import RUN_ENDED, RunPhase
from mao_shared.store import Entry, Records

GRACE = timedelta(minutes=2)


def lateness(told: PeerRuns, others: Iterable[PeerRuns], now: datetime) -> str | None:
    """Why the node counts as late, in words; None when it does not."""
    finished = _finished(others, now)
    for tick, node in finished:
        if _owes(told, tick):
            return f"the tick {format_time(tick)}, which {node} has finished"
    if told.next_tick is not None and now - told.next_tick > GRACE:
        return f"the tick {format_time(told.next_tick)} has no run"
    return None


def _finished(others: Iterable[PeerRuns], now: datetime) -> list[tuple[datetime, str]]:
    """Ticks that are over with a node that has finished them, the newest first."""
    done = {
        brief.scheduled_for: told.node
        for told in others
        for brief in told.runs
        if brief.phase is RunPhase.SUCCEEDED and brief.scheduled_for and brief.scheduled_for <= now
    }
    return sorted(done.items(), reverse=True)


def _owes(told: PeerRuns, tick: datetime) -> bool:
    own = _run_of(told, tick)
    if own is not None:
        return own.phase not in RUN_ENDED
    return told.next_tick is not None and told.next_tick <= tick


def _run_of(told: PeerRuns, tick: datetime) -> RunBrief | None:
    return next((brief for brief in told.runs if brief.scheduled_for == tick), None)


log = get_logger(__name__)

MAX_RECORD_BYTES = 256 << 10  # bytes of what a node says of itself; more is not read

MAX_NODES = 1000

AT_ONCE = 20  # reads under way

OWN_RECENT = 300  # runs looked at for the node's own

MAX_SCHEDULES = 1000  # looked at for its next tick

R = TypeVar("R", bound=Record)

T = TypeVar("T")


class PeerQueries:
    """Lists of bounded length; outages raise Unavailable's kinds. `scheduler`: this node's own."""

    def __init__(
        self, shelf: Repositories, agreements: Agreements, clock: Clock, scheduler: SchedulerClient | None
    ) -> None:
        self.shelf = shelf
        self.scheduler = scheduler
        self.agreements = agreements
        self.clock = clock

    # nodes

    async def nodes(self) -> list[NodePart]:
        """Everybody who is present, belongs to the federation, or is listed by a dataset."""
        members = await self._members()
        listed = await self._listed()
        trusted = await self.agreements.trusted()
        names = sorted({*members, *listed, *await self._identities()})[:MAX_NODES]
        traces = await _read_all(names, self._trace)
        return [
            self._state(name, members.get(name), trace).model_copy(
                update={"trusted": name in trusted, "datasets": sorted(listed.get(name, ()))}
            )
            for name, trace in zip(names, traces, strict=True)
        ]

    async def node(self, name: str) -> NodePart:
        """Raises NotFound."""
        found = next((state for state in await self.nodes() if state.name == name), None)
        if found is None:
            raise NotFound(f"There is no node {name!r}.", next="See who there is with 'maoctl node list'.")
        return found

    def _state(self, name: str, member: Member | None, trace: PeerNode | None) -> NodePart:
        if member is None:
            seen = trace and min(trace.seen_at, self.clock.now())
            return NodePart(name=name, present=False, version=trace and trace.version, last_seen=seen)
        facts = member.model_dump(include=set(NodePart.model_fields))
        return NodePart(present=True, last_seen=self.clock.now(), **facts)

    async def _members(self) -> dict[str, Member]:
        """Only under its own key can a node say that it is present."""
        page = await self.shelf.federation.list(keys.members_prefix(), limit=MAX_NODES)
        found = {keys.last_part(entry.key): _parse(entry, Member) for entry in page.entries}
        return {name: member for name, member in found.items() if member and member.name == name}

    async def _listed(self) -> dict[str, set[str]]:
        """Node → the datasets that list it."""
        listed: defaultdict[str, set[str]] = defaultdict(set)
        for stored in (await self.shelf.datasets.page()).items:
            for node in stored.record.nodes:
                listed[node].add(stored.record.name)
        return listed

    async def _identities(self) -> list[str]:
        identities = Records(self.shelf.federation, keys.identities_prefix(), Identity)
        page = await identities.page(MAX_NODES)
        return [stored.record.node for stored in page.items if stored.record.state == "joined"]

    async def _trace(self, node: str) -> PeerNode | None:
        return await self._read(keys.peer_node(node), PeerNode)

    # runs

    async def runs(self, pipeline: str | None) -> list[NodeRuns]:
        """Each node's runs of a pipeline, or of all that are registered. Raises NotFound."""
        members = await self._members()
        found: list[NodeRuns] = []
        for record in await self._pipelines(pipeline):
            found += await self._of_pipeline(record, members)
        return found

    async def _pipelines(self, name: str | None) -> list[Pipeline]:
        if name is None:
            page = await self.shelf.pipelines.page(100)
            return [stored.record for stored in page.items]
        stored = await self.shelf.pipelines.get(name)
        if stored is None:
            raise not_registered(name)
        return [stored.record]

    async def _of_pipeline(self, pipeline: Pipeline, members: dict[str, Member]) -> list[NodeRuns]:
        listed = await self._nodes_of(pipeline)
        names = sorted({*members, *listed})[:MAX_NODES]
        told = dict(zip(names, await _read_all(names, lambda node: self._told(node, pipeline)), strict=True))
        return [
            self._row(pipeline.name, node, members.get(node), runs, told.values())
            for node, runs in told.items()
            if runs is not None or node in listed
        ]

    async def _nodes_of(self, pipeline: Pipeline) -> set[str]:
        stored = [await self.shelf.datasets.find(name) for name in sorted(outputs_of(pipeline))]
        return {node for each in stored if each for node in each.record.nodes}

    async def _told(self, node: str, pipeline: Pipeline) -> PeerRuns | None:
        told = await self._read(keys.peer_runs(node, pipeline.name), PeerRuns)
        if told is not None and (told.node, told.pipeline) == (node, pipeline.name):
            return told
        return await self._own(pipeline.name) if node == self.shelf.node else None

    async def _own(self, pipeline: str) -> PeerRuns | None:
        """A node alone publishes nothing; its runs are in its store."""
        if await self.shelf.enrolments.find(pipeline) is None:
            return None
        page = await list_newest(self.shelf.runs, OWN_RECENT)
        runs = [stored.record for stored in page.items if stored.record.pipeline == pipeline]
        briefs = [RunBrief.of(run) for run in runs if run.reproduces is None][:KEPT_BRIEFS]
        return PeerRuns(
            node=self.shelf.node,
            pipeline=pipeline,
            runs=briefs,
            next_tick=await self._own_next(pipeline),
            updated_at=self.clock.now(),
        )

    async def _own_next(self, pipeline: str) -> datetime | None:
        """None without a schedule, and where the scheduler does not answer: the runs are shown anyway."""
        if self.scheduler is None:
            return None
        try:
            jobs = await self.scheduler.jobs(MAX_SCHEDULES, pipeline=pipeline)
        except MaoError as error:
            log.info("seeing.next_unknown", pipeline=pipeline, code=error.code)
            return None
        return min((job.next for job in jobs.items if job.next is not None), default=None)

    def _row(
        self,
        pipeline: str,
        node: str,
        member: Member | None,
        told: PeerRuns | None,
        everybody: Iterable[PeerRuns | None],
    ) -> NodeRuns:
        known = NodeRuns(node=node, pipeline=pipeline, present=member is not None)
        known = known.model_copy(update={"version": member and member.version})
        if told is None:
            return known.model_copy(update={"problem": "it has said nothing of its runs that can be read"})
        others = [each for each in everybody if each is not None and each.node != node]
        said = {"runs": told.runs, "next_tick": told.next_tick, "updated_at": told.updated_at}
        return known.model_copy(update={**said, "late": lateness(told, others, self.clock.now())})

    async def _read(self, key: str, model: type[R]) -> R | None:
        return _parse(await self.shelf.federation.get(key), model)


def _parse(entry: Entry | None, model: type[R]) -> R | None:
    """None for what is absent, too large, or nothing that this version can read."""
    if entry is None or len(entry.value) > MAX_RECORD_BYTES:
        return None
    try:
        return model.model_validate_json(entry.value, context=STORED)
    except ValidationError:
        return None


async def _read_all(names: Iterable[str], read: Callable[[str], Awaitable[T]]) -> list[T | None]:
    """`read` of each name, a few at once; None for what is no name and so has no key."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> T | None:
        async with slots:
            return await read(name) if is_name(name) else None

    return list(await asyncio.gather(*map(one, names)))
