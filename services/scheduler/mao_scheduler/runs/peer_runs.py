"""Publishes this node's recent runs and next ticks to the federation, one record per pipeline.

Nothing waits for it. A change only adds a name to a set; the loop collects these, writes at most once a
second per pipeline, and retries while the federation does not answer. Changes missed in a crash or an outage
are published after the next start, which reads the newest runs from the node's own store.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from mao_scheduler.schedules.due import next_tick
from mao_scheduler.schedules.marks import TickMarks
from mao_shared import keys
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.federation import FederationStore
from mao_shared.models import Enrolment, PeerRuns, Run, RunBrief, Schedule, TickStrip
from mao_shared.models.federation import KEPT_BRIEFS
from mao_shared.reconcile import Backoff, Guard, Mirror, every
from mao_shared.runs.listing import list_newest
from mao_shared.runs.records import RunRecords
from mao_shared.states import RUN_ENDED
from mao_shared.store import Records, Store, Unreadable

from .strips import TickStrips

BATCH_DELAY = 1.0  # seconds in which changes are collected before they are written
MAX_RETRY_DELAY = 30.0  # seconds between attempts while the federation does not answer
RUNS_AT_START = 300  # newest runs read at the start
LOOKUPS_PER_SLICE = 50  # runs looked up before other tasks run
MAX_SCHEDULES = 100  # of one pipeline that are considered for its next tick


class RecentRuns:
    """The newest runs of each pipeline."""

    def __init__(self) -> None:
        self._by_pipeline: defaultdict[str, dict[str, RunBrief]] = defaultdict(dict)

    def add(self, run: Run) -> None:
        """Add a run, unless it is a reproduction."""
        if run.reproduces is None:
            self._put(run.pipeline, RunBrief.of(run))

    def add_published(self, published: PeerRuns) -> None:
        """Add what an earlier process published, except runs that are known already: these are newer."""
        for brief in published.runs:
            if brief.id not in self._by_pipeline[published.pipeline]:
                self._put(published.pipeline, brief)

    def _put(self, pipeline: str, brief: RunBrief) -> None:
        briefs = self._by_pipeline[pipeline]
        briefs[brief.id] = brief
        if len(briefs) > KEPT_BRIEFS:
            del briefs[min(briefs)]  # the oldest, since ids begin with the time

    def of(self, pipeline: str) -> list[RunBrief]:
        """Return the runs of a pipeline, newest first."""
        briefs = self._by_pipeline.get(pipeline, {})
        return [briefs[name] for name in sorted(briefs, reverse=True)]

    def unfinished(self) -> list[str]:
        """Return the ids of runs that had not ended when last seen."""
        runs = (brief for briefs in self._by_pipeline.values() for brief in briefs.values())
        return [brief.id for brief in runs if brief.phase not in RUN_ENDED]

    def forget(self) -> None:
        self._by_pipeline.clear()


class RunPublisher:
    """Publishes changes in the mirrors, which must be running."""

    def __init__(
        self,
        node: str,
        runs: Mirror[Run],
        records: RunRecords,
        schedules: Mirror[Schedule],
        enrolments: Mirror[Enrolment],
        marks: TickMarks,
        federation: Store,
        clock: Clock,
        conditions: Conditions | None = None,
        unreadable: Unreadable | None = None,
        strips: TickStrips | None = None,
    ) -> None:
        self._conditions = conditions
        self._guard = Guard("publishing", conditions)
        self._node = node
        self._runs = runs
        self._records = records
        self._schedules = schedules
        self._enrolments = enrolments
        self._marks = marks
        self._federation = federation
        self._clock = clock
        self._published = Records(federation, f"{keys.peer_root(node)}runs/", PeerRuns, unreadable)
        self._strips = strips
        self._published_strips = Records(federation, keys.peer_ticks_prefix(node), TickStrip, unreadable)
        self._briefs = RecentRuns()
        self._loaded = False
        self._changed: set[str] = set()  # runs
        self._stale: set[str] = set()  # pipelines
        self._hint = asyncio.Event()
        runs.subscribe(self._run_changed)
        schedules.subscribe(self._schedule_changed)
        enrolments.subscribe(self._pipeline_changed)
        if isinstance(federation, FederationStore):
            federation.on_switch(self._reload)

    def _run_changed(self, name: str) -> None:
        self._changed.add(name)
        self._hint.set()

    def _schedule_changed(self, name: str) -> None:
        stored = self._schedules.get(name)
        if stored is None:  # its pipeline is no longer known
            self._stale.update(pipeline for pipeline, _ in self._enrolments.items())
        else:
            self._stale.add(stored.record.pipeline)
        self._hint.set()

    def _pipeline_changed(self, name: str) -> None:
        self._stale.add(name)
        self._hint.set()

    def _reload(self) -> None:
        self._loaded = False
        self._hint.set()

    async def run(self) -> None:
        for mirror in (self._runs, self._schedules, self._enrolments):
            await mirror.synced.wait()
        await every(
            None,
            self.publish,
            name="publishing",
            wake=self._hint,
            debounce=BATCH_DELAY,
            conditions=self._conditions,
            away=Backoff(BATCH_DELAY, MAX_RETRY_DELAY),
            failing=Backoff(BATCH_DELAY, MAX_RETRY_DELAY),
        )

    async def publish(self) -> float | None:
        """Write all changes; return the seconds until those that failed are retried, None if none failed."""
        if not self._loaded:  # the first call shows whose store it is
            await self._federation.get(self._published.prefix)
        if isinstance(self._federation, FederationStore):
            is_solo = self._federation.is_own
        else:
            is_solo = self._federation is self._records.store
        if is_solo:  # there are no other nodes
            self._loaded = False
            self._briefs.forget()
            self._changed.clear()
            self._stale.clear()
            self._guard.keep(set())
            return None
        if not self._loaded:
            await self._load()
        await self._read_changed_runs()
        for pipeline in list(self._stale):
            if self._guard.waits(pipeline):
                continue
            self._stale.discard(pipeline)
            try:
                with self._guard.item(pipeline):
                    await self._write(pipeline)
            except BaseException:
                self._stale.add(pipeline)
                raise
            if self._guard.is_failing(pipeline):
                self._stale.add(pipeline)
        return MAX_RETRY_DELAY if any(map(self._guard.is_failing, self._stale)) else None

    async def _load(self) -> None:
        """Read what was published before, and mark all of it for an update."""
        recent = await list_newest(self._records, RUNS_AT_START)
        for stored in recent.items:
            self._briefs.add(stored.record)
        for published in (await self._published.page()).items:
            self._briefs.add_published(published.record)
            self._stale.add(published.record.pipeline)
        self._changed.update(self._briefs.unfinished())
        self._stale.update(pipeline for pipeline, _ in self._enrolments.items())
        self._loaded = True

    async def _read_changed_runs(self) -> None:
        for number, name in enumerate(list(self._changed)):
            stored = self._runs.get(name) or await self._records.find(name)
            self._changed.discard(name)
            if stored is not None:
                self._briefs.add(stored.record)
                self._stale.add(stored.record.pipeline)
            if number % LOOKUPS_PER_SLICE == LOOKUPS_PER_SLICE - 1:
                await asyncio.sleep(0)

    async def _write(self, pipeline: str) -> None:
        enrolment = self._enrolments.get(pipeline)
        existing = await self._published.store.get(self._published.prefix + pipeline)
        if enrolment is None:
            if existing is not None:
                await self._published_strips.delete(pipeline)
                await self._published.delete(pipeline, existing.revision)
            return
        now = self._clock.now()
        schedules = (stored.record for _, stored in self._schedules.items())
        own = [schedule for schedule in schedules if schedule.pipeline == pipeline][:MAX_SCHEDULES]
        record = PeerRuns(
            node=self._node,
            pipeline=pipeline,
            pipeline_revision=enrolment.record.pipeline_revision,
            runs=self._briefs.of(pipeline),
            next_tick=next_tick(own, self._marks.get, now),
            updated_at=now,
        )
        if existing is None:
            written = await self._published.create(pipeline, record)
        else:
            written = await self._published.replace(pipeline, record, existing.revision)
        if written is None:  # an earlier process of this node, which is about to end, has written it
            self._pipeline_changed(pipeline)
        elif self._strips is not None:
            await self._publish_strip(pipeline, await self._strips.one(pipeline))

    async def _publish_strip(self, pipeline: str, strip: TickStrip) -> None:
        entry = await self._federation.get(keys.peer_ticks(self._node, pipeline))
        if entry is None:
            await self._published_strips.create(pipeline, strip)
        else:
            await self._published_strips.replace(pipeline, strip, entry.revision)
