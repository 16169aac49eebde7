"""Publishes this node's recent runs and next ticks to the federation, one record per pipeline.

Nothing waits for it. Changes only add a name to a set; the loop collects them, writes at most once a second
per pipeline, and retries while the federation does not answer. What was missed in a crash or an outage is
caught up at the next start: the newest runs are read from the node's own store.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from mao_scheduler.schedules.due import cron_of
from mao_scheduler.schedules.marks import TickMarks
from mao_shared import keys
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import InvalidInput, Unavailable
from mao_shared.federation import FederationStore
from mao_shared.logs import get_logger
from mao_shared.models import PeerRuns, Run, RunBrief
from mao_shared.models.enrolment import Enrolment
from mao_shared.models.federation import KEPT_BRIEFS
from mao_shared.models.schedule import Schedule
from mao_shared.reconcile import Guard, Mirror
from mao_shared.runs.listing import list_newest
from mao_shared.runs.records import RunRecords
from mao_shared.states import RUN_ENDED
from mao_shared.store import Records, Store, Unreadable

MAX_SCHEDULES = 100  # of one pipeline; more are not looked at for the next tick


def next_tick(schedules: Iterable[Schedule], marks: TickMarks, now: datetime) -> datetime | None:
    """The first tick without an outcome; in the past while the timer lags."""
    coming = []
    for schedule in schedules:
        if schedule.paused:
            continue
        try:
            coming.append(cron_of(schedule).next(marks.get(schedule.id) or now))
        except InvalidInput:  # a zone that this machine does not know; the job says so
            continue
    return min((tick for tick in coming if tick is not None), default=None)


class RecentRuns:
    """The newest runs by pipeline."""

    def __init__(self) -> None:
        self._kept: defaultdict[str, dict[str, RunBrief]] = defaultdict(dict)

    def take(self, run: Run) -> None:
        """A reproduction is nobody's news."""
        if run.reproduces is None:
            self._put(run.pipeline, RunBrief.of(run))

    def take_published(self, published: PeerRuns) -> None:
        """What an earlier process has told; what is known already is newer."""
        for brief in published.runs:
            if brief.id not in self._kept[published.pipeline]:
                self._put(published.pipeline, brief)

    def _put(self, pipeline: str, brief: RunBrief) -> None:
        kept = self._kept[pipeline]
        kept[brief.id] = brief
        if len(kept) > KEPT_BRIEFS:
            del kept[min(kept)]  # ids begin with the time

    def of(self, pipeline: str) -> list[RunBrief]:
        """The newest first."""
        kept = self._kept.get(pipeline, {})
        return [kept[name] for name in sorted(kept, reverse=True)]

    def unfinished(self) -> list[str]:
        """Ids of runs that had not ended when they were last seen."""
        runs = (brief for kept in self._kept.values() for brief in kept.values())
        return [brief.id for brief in runs if brief.phase not in RUN_ENDED]

    def forget(self) -> None:
        self._kept.clear()


log = get_logger(__name__)

BATCH_DELAY = 1.0  # seconds between writes of the same pipeline
MAX_RETRY_DELAY = 30.0  # seconds between attempts while the federation does not answer
RUNS_AT_START = 300  # runs read at the start
LOOKUPS_PER_SLICE = 50  # names looked up before others get their turn


class RunPublisher:
    """`run` works until cancelled; the mirrors have to run beside it."""

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
    ) -> None:
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
        self._briefs = RecentRuns()
        self._loaded = False
        self._changed: set[str] = set()  # runs
        self._stale: set[str] = set()  # pipelines
        self._hint = asyncio.Event()
        runs.subscribe(self._run_changed)
        schedules.subscribe(self._schedule_changed)
        enrolments.subscribe(self._pipeline_changed)
        if isinstance(federation, FederationStore):
            federation.on_switch(self._begin_again)

    def _run_changed(self, name: str) -> None:
        self._changed.add(name)
        self._hint.set()

    def _schedule_changed(self, name: str) -> None:
        stored = self._schedules.get(name)
        if stored is None:  # whose it was is not known any more
            self._stale.update(pipeline for pipeline, _ in self._enrolments.items())
        else:
            self._stale.add(stored.record.pipeline)
        self._hint.set()

    def _pipeline_changed(self, name: str) -> None:
        self._stale.add(name)
        self._hint.set()

    def _begin_again(self) -> None:
        self._loaded = False
        self._hint.set()

    @property
    def _alone(self) -> bool:
        """Whether there is nobody to tell."""
        if isinstance(self._federation, FederationStore):
            return self._federation.is_own
        return self._federation is self._records.store

    async def run(self) -> None:
        for mirror in (self._runs, self._schedules, self._enrolments):
            await mirror.synced.wait()
        self._hint.set()
        pause = BATCH_DELAY
        while True:
            await self._hint.wait()
            await asyncio.sleep(pause)
            self._hint.clear()
            try:
                await self.publish()
            except Exception as error:  # noqa: BLE001 (it is tried again, whatever it was)
                if isinstance(error, Unavailable):
                    log.warning("publishing.failed", error=error.detail)
                else:
                    self._guard.failed("", error)
                pause = min(MAX_RETRY_DELAY, pause * 2)
                self._hint.set()
            else:
                self._guard.worked("")
                pause = BATCH_DELAY
                if any(map(self._guard.is_failing, self._stale)):
                    asyncio.get_running_loop().call_later(MAX_RETRY_DELAY, self._hint.set)

    async def publish(self) -> None:
        """Writes what has changed; what could not be written is tried again by the next call."""
        if not self._loaded:
            await self._federation.get(self._published.prefix)  # it knows whose it is from its first call on
        if self._alone:
            self._forget()
            return
        if not self._loaded:
            await self._load()
        await self._look_up()
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

    def _forget(self) -> None:
        self._loaded = False
        self._briefs.forget()
        self._changed.clear()
        self._stale.clear()
        self._guard.keep(set())

    async def _load(self) -> None:
        """What was published, brought up to date; what this node no longer takes part in is taken back."""
        recent = await list_newest(self._records, RUNS_AT_START)
        for stored in recent.items:
            self._briefs.take(stored.record)
        for published in (await self._published.page()).items:
            self._briefs.take_published(published.record)
            self._stale.add(published.record.pipeline)
        self._changed.update(self._briefs.unfinished())
        self._stale.update(pipeline for pipeline, _ in self._enrolments.items())
        self._loaded = True

    async def _look_up(self) -> None:
        for number, name in enumerate(list(self._changed)):
            stored = self._runs.get(name) or await self._records.find(name)
            self._changed.discard(name)
            if stored is not None:
                self._briefs.take(stored.record)
                self._stale.add(stored.record.pipeline)
            if number % LOOKUPS_PER_SLICE == LOOKUPS_PER_SLICE - 1:
                await asyncio.sleep(0)

    async def _write(self, pipeline: str) -> None:
        enrolment = self._enrolments.get(pipeline)
        there = await self._published.store.get(self._published.prefix + pipeline)
        if enrolment is None:
            if there is not None:
                await self._published.delete(pipeline, there.revision)
            return
        told = self._told(pipeline, enrolment.record)
        if there is None:
            written = await self._published.create(pipeline, told)
        else:
            written = await self._published.replace(pipeline, told, there.revision)
        if written is None:  # another process of ours that is about to end; ours is the later word
            self._pipeline_changed(pipeline)

    def _told(self, pipeline: str, enrolment: Enrolment) -> PeerRuns:
        now = self._clock.now()
        schedules = (stored.record for _, stored in self._schedules.items())
        own = [schedule for schedule in schedules if schedule.pipeline == pipeline][:MAX_SCHEDULES]
        return PeerRuns(
            node=self._node,
            pipeline=pipeline,
            pipeline_revision=enrolment.pipeline_revision,
            runs=self._briefs.of(pipeline),
            next_tick=next_tick(own, self._marks, now),
            updated_at=now,
        )
