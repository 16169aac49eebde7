"""Queries about the nodes of the federation: which there are, their runs, and which are late.

The answers come from what nodes publish about themselves, each under its own prefix. These records are
untrusted: limited in size, and left out (or reported as unreadable) if they do not match their key.

Only a node's own `next_tick` decides whether it is late: nobody can make another node late by inventing
ticks, and nodes with different schedules do not wait for each other.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import TypeVar

from pydantic import ValidationError

from mao_registry.consent.agreements import Agreements
from mao_registry.records.references import pipeline_outputs
from mao_registry.records.rules import not_found
from mao_registry.records.stores import Repositories
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
    TickStrip,
    format_time,
    is_name,
)
from mao_shared.models.common import STORED
from mao_shared.models.federation import KEPT_BRIEFS
from mao_shared.runs.listing import list_newest
from mao_shared.states import RUN_ENDED, RunPhase
from mao_shared.store import Entry, Records

log = get_logger(__name__)
LATE_AFTER = timedelta(minutes=2)  # since a node's next tick
MAX_RECORD_BYTES = 256 << 10  # larger records of other nodes are ignored
MAX_NODES = 1000
MAX_SCHEDULES = 1000  # read to find this node's next tick
MAX_STRIPS = 1000  # of one node
CONCURRENT_READS = 20
MAX_OWN_RUNS = 300  # read if this node publishes none
R = TypeVar("R", bound=Record)
T = TypeVar("T")


def lateness(runs: PeerRuns, others: Iterable[PeerRuns], now: datetime) -> str | None:
    """Return why the node counts as late, None if it does not. Pure."""
    finished = {
        brief.scheduled_for: other.node
        for other in others
        for brief in other.runs
        if brief.phase is RunPhase.SUCCEEDED and brief.scheduled_for and brief.scheduled_for <= now
    }
    for tick in sorted(finished, reverse=True):
        run = next((brief for brief in runs.runs if brief.scheduled_for == tick), None)
        not_run = run is None and runs.next_tick is not None and runs.next_tick <= tick
        if not_run or (run is not None and run.phase not in RUN_ENDED):
            return f"the tick {format_time(tick)}, which {finished[tick]} has finished"
    if runs.next_tick is not None and now - runs.next_tick > LATE_AFTER:
        return f"the tick {format_time(runs.next_tick)} has no run"
    return None


class PeerQueries:
    """Queries about nodes. Outages raise Unavailable. `scheduler`: client of this node's scheduler."""

    def __init__(
        self,
        repositories: Repositories,
        agreements: Agreements,
        clock: Clock,
        scheduler: SchedulerClient | None,
    ) -> None:
        self.repositories = repositories
        self.scheduler = scheduler
        self.agreements = agreements
        self.clock = clock
        self._strips: dict[tuple[str, int], TickStrip | None] = {}  # by key and revision

    async def nodes(self) -> list[NodePart]:
        """Return all nodes that are present, belong to the federation, or are listed by a dataset."""
        members = await self._members()
        datasets: defaultdict[str, set[str]] = defaultdict(set)
        for dataset in await self.repositories.datasets.all():
            for node in dataset.record.nodes:
                datasets[node].add(dataset.record.name)
        trusted = await self.agreements.trusted()
        identities = Records(self.repositories.federation, keys.identities_prefix(), Identity)
        joined = [
            stored.record.node
            for stored in (await identities.page(MAX_NODES)).items
            if stored.record.state == "joined"
        ]
        names = sorted({*members, *datasets, *joined})[:MAX_NODES]
        last_seen = await _read_each(names, lambda node: self._read(keys.peer_node(node), PeerNode))
        return [
            self._node(name, members.get(name), last_seen[name]).model_copy(
                update={"trusted": name in trusted, "datasets": sorted(datasets.get(name, ()))}
            )
            for name in names
        ]

    async def node(self, name: str) -> NodePart:
        """Return the node with this name. Raises NotFound."""
        for node in await self.nodes():
            if node.name == name:
                return node
        raise NotFound(f"There is no node {name!r}.", next="See all nodes with 'maoctl node list'.")

    def _node(self, name: str, member: Member | None, last: PeerNode | None) -> NodePart:
        if member is None:
            seen = last and min(last.seen_at, self.clock.now())
            return NodePart(name=name, present=False, version=last and last.version, last_seen=seen)
        facts = member.model_dump(include=set(NodePart.model_fields))
        return NodePart(present=True, last_seen=self.clock.now(), **facts)

    async def _members(self) -> dict[str, Member]:
        """Return the member records of present nodes by name, without those under another node's key."""
        page = await self.repositories.federation.list(keys.members_prefix(), limit=MAX_NODES)
        members = {keys.last_part(entry.key): _parse(entry, Member) for entry in page.entries}
        return {name: member for name, member in members.items() if member and member.name == name}

    async def runs(self, pipeline: str | None) -> list[NodeRuns]:
        """Return each node's runs of a pipeline, or of all registered pipelines. Raises NotFound."""
        if pipeline is None:
            pipelines = (await self.repositories.pipelines.page(100)).items
        elif (stored := await self.repositories.pipelines.get(pipeline)) is not None:
            pipelines = [stored]
        else:
            raise not_found("pipeline", pipeline)
        members = await self._members()
        return [row for stored in pipelines for row in await self._query_runs(stored.record, members)]

    async def ticks(self) -> list[TickStrip]:
        """Return the strips that other nodes have published, by pipeline and node.

        Only those that have changed since the last call are parsed.
        """
        members = await self._members()
        listed = {node for stored in await self.repositories.datasets.all() for node in stored.record.nodes}
        names = sorted(name for name in {*members, *listed} if is_name(name))[:MAX_NODES]
        parsed: dict[tuple[str, int], TickStrip | None] = {}
        for node in names:
            if node == self.repositories.node:
                continue
            prefix = keys.peer_ticks_prefix(node)
            page = await self.repositories.federation.list(prefix, limit=MAX_STRIPS)
            for entry in page.entries:
                place = (entry.key, entry.revision)
                strip = self._strips.get(place) or _parse(entry, TickStrip)
                own = strip is not None and entry.key == keys.peer_ticks(strip.node, strip.pipeline)
                parsed[place] = strip if own else None
        self._strips = parsed
        found = (strip for strip in parsed.values() if strip is not None)
        return sorted(found, key=lambda strip: (strip.pipeline, strip.node))

    async def _query_runs(self, pipeline: Pipeline, members: dict[str, Member]) -> list[NodeRuns]:
        datasets = [
            await self.repositories.datasets.find(name) for name in sorted(pipeline_outputs(pipeline))
        ]
        listed = {node for stored in datasets if stored for node in stored.record.nodes}
        names = sorted({*members, *listed})[:MAX_NODES]

        async def published_runs(node: str) -> PeerRuns | None:
            runs = await self._read(keys.peer_runs(node, pipeline.name), PeerRuns)
            if runs is not None and (runs.node, runs.pipeline) == (node, pipeline.name):
                return runs
            return await self._own_runs(pipeline.name) if node == self.repositories.node else None

        published = await _read_each(names, published_runs)
        rows = []
        for node, runs in published.items():
            member = members.get(node)
            row = NodeRuns(node=node, pipeline=pipeline.name, present=member is not None)
            row = row.model_copy(update={"version": member and member.version})
            if runs is not None:
                others = [other for other in published.values() if other is not None and other.node != node]
                facts = {"runs": runs.runs, "next_tick": runs.next_tick, "updated_at": runs.updated_at}
                late = lateness(runs, others, self.clock.now())
                rows.append(row.model_copy(update={**facts, "late": late}))
            elif node in listed:
                rows.append(row.model_copy(update={"problem": "it has published no readable runs"}))
        return rows

    async def _own_runs(self, pipeline: str) -> PeerRuns | None:
        """Read this node's runs from its own store: outside a federation it publishes none."""
        if await self.repositories.enrolments.find(pipeline) is None:
            return None
        page = await list_newest(self.repositories.runs, MAX_OWN_RUNS)
        runs = [stored.record for stored in page.items if stored.record.pipeline == pipeline]
        next_tick = None
        if self.scheduler is not None:
            try:
                jobs = await self.scheduler.jobs(MAX_SCHEDULES, pipeline=pipeline)
                next_tick = min((job.next for job in jobs.items if job.next is not None), default=None)
            except MaoError as error:  # the runs are shown without it
                log.info("peers.next_tick_unknown", pipeline=pipeline, code=error.code)
        return PeerRuns(
            node=self.repositories.node,
            pipeline=pipeline,
            runs=[RunBrief.of(run) for run in runs if run.reproduces is None][:KEPT_BRIEFS],
            next_tick=next_tick,
            updated_at=self.clock.now(),
        )

    async def _read(self, key: str, model: type[R]) -> R | None:
        return _parse(await self.repositories.federation.get(key), model)


def _parse(entry: Entry | None, model: type[R]) -> R | None:
    """Parse a record; return None if it is missing, too large or invalid."""
    if entry is None or len(entry.value) > MAX_RECORD_BYTES:
        return None
    try:
        return model.model_validate_json(entry.value, context=STORED)
    except ValidationError:
        return None


async def _read_each(names: Iterable[str], read: Callable[[str], Awaitable[T]]) -> dict[str, T | None]:
    """Call `read` for the names, CONCURRENT_READS at a time; the result is None for an invalid name."""
    slots = asyncio.Semaphore(CONCURRENT_READS)
    names = list(names)

    async def read_one(name: str) -> T | None:
        async with slots:
            return await read(name) if is_name(name) else None

    return dict(zip(names, await asyncio.gather(*map(read_one, names)), strict=True))
