"""Sleeps until the next tick, writes the runs of due ticks, and moves the tick marks on.

There is no polling: the sleep ends at the next tick, when a schedule changes, or after MAX_SLEEP, so that a
change of the system clock is noticed. Before it sleeps, the timer prepares the documents of the next ticks.
It needs the node store only. A schedule whose ticks cannot be decided or written is set aside, reported and
retried; the others continue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from mao_scheduler.metrics import SchedulerMetrics
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import Unavailable
from mao_shared.logs import get_logger
from mao_shared.models.enrolment import Enrolment
from mao_shared.models.node import Restored
from mao_shared.models.run import Run, tick_run_id
from mao_shared.models.schedule import Forgotten, Schedule
from mao_shared.reconcile import Backoff, Guard, Mirror, every, until_done, wait_at_most
from mao_shared.runs.records import RunRecords
from mao_shared.store import Put, Records
from mao_shared.store.records import dump

from .due import BacklogSummary, DueTicks, decide_ticks, undecided_after
from .marks import RestoreStatus, TickMarks
from .new_runs import NewRun, RunCreator, prepare_tick, summary_run, tick_run
from .tick_queue import ScheduleEntry, SharedTicks, TickQueue

log = get_logger(__name__)

MAX_SLEEP = 1.0  # seconds
ENTRIES_PER_BATCH = 1000  # schedules settled together
RUNS_PER_BATCH = 1000  # records made before they are written, more or less
PREPARE_AHEAD = timedelta(seconds=5)  # ticks this near are prepared
PREPARED_PER_SLICE = 20  # ticks prepared in one go, before others get their turn
SAVE_DELAY = 2.0  # seconds that marks lag
FIRST_BACKOFF = 0.2  # seconds until the second attempt while the store is away
MAX_BACKOFF = 2.0  # seconds
RETRY_DELAY = 5.0  # seconds until a schedule that failed is tried again, doubled each time


class Timer:
    """The scheduler's clockwork for one node. `run` works until cancelled; `settle` does one round.

    `quiet` is cleared while ticks are being written, for others to stand back.
    """

    def __init__(
        self,
        node: str,
        schedules: Mirror[Schedule],
        enrolments: Mirror[Enrolment],
        runs: Mirror[Run],
        marks: TickMarks,
        clock: Clock,
        metrics: SchedulerMetrics,
        quiet: asyncio.Event,
        forgotten: Records[Forgotten],
        records: RunRecords,
        conditions: Conditions | None = None,
    ) -> None:
        self._node = node
        self._records = records
        self._mirrors = (schedules, enrolments, runs)
        self._enrolments = enrolments
        self._runs = runs
        self._marks = marks
        self._clock = clock
        self._metrics = metrics
        self._quiet = quiet
        self._schedules = schedules
        self._forgotten = forgotten
        self._conditions = conditions
        self._creator = RunCreator(runs, records)
        self._guard = Guard("schedules", conditions, Backoff(RETRY_DELAY, 300.0))
        self._plans = TickQueue(schedules, marks, self._guard)
        self._restores = RestoreStatus(runs.records.store, node)
        self._restored: Restored | None = None

    async def run(self) -> None:
        """Works until cancelled; the mirrors have to run beside it."""
        await self.load()
        async with asyncio.TaskGroup() as group:
            for name, step in (("marks", self._save_what_changed), ("ticks", self._settle_and_sleep)):
                group.create_task(
                    every(
                        0.0,
                        step,
                        name=name,
                        conditions=self._conditions,
                        away=Backoff(FIRST_BACKOFF, MAX_BACKOFF),
                    )
                )

    async def load(self) -> None:
        """Waits for the mirrors and reads the marks."""
        for mirror in self._mirrors:
            await mirror.synced.wait()
        await until_done(
            self._load, name="marks", conditions=self._conditions, away=Backoff(FIRST_BACKOFF, MAX_BACKOFF)
        )

    async def _load(self) -> None:
        self._restored = await self._restores.read()
        await self._marks.load()
        pipelines = {name: stored.record.pipeline for name, stored in self._schedules.items()}
        await self._marks.work_out(self._records, self._forgotten, pipelines)

    async def settle(self) -> None:
        """Gives every tick that is due its record. Raises Unavailable: then call again."""
        self._plans.take_changes()
        now = self._clock.now()
        while due := self._plans.take_due(now, ENTRIES_PER_BATCH):
            self._quiet.clear()
            try:
                await self._settle(due, now)
            finally:
                self._quiet.set()
                for plan in due:  # what could not be written is due again
                    self._put_back(plan)

    def next_due(self) -> datetime | None:
        """The time of the next tick."""
        return self._plans.next_due()

    async def save(self) -> None:
        """Writes the marks that have moved."""
        await self._marks.save()

    async def look_ahead(self) -> None:
        """Prepares the ticks of the next seconds, until one is due or a schedule changes."""
        until = self._clock.now() + PREPARE_AHEAD
        for number, plan in enumerate(list(self._plans.unprepared(until))):
            enrolment = self._enrolments.get(plan.schedule.pipeline)
            if plan.next is not None and enrolment is not None:
                with suppress(Exception):  # what is wrong shows when the tick is due
                    plan.prepared = prepare_tick(plan.schedule, plan.cron, enrolment, plan.next, self._node)
            if number % PREPARED_PER_SLICE == PREPARED_PER_SLICE - 1:
                await asyncio.sleep(0)
                if self._plans.changed.is_set() or self._due_in() <= 0:
                    return

    def _put_back(self, plan: ScheduleEntry) -> None:
        try:
            self._plans.put_back(plan)
        except Exception as error:  # noqa: BLE001 (of one schedule)
            self._guard.failed(plan.schedule.id, error)
            self._plans.put_back(plan)  # for later: it waits now

    # the loops

    async def _settle_and_sleep(self) -> None:
        await self.settle()
        await self.look_ahead()
        await wait_at_most(self._plans.changed, max(0.0, self._due_in()))
        self._plans.changed.clear()

    def _due_in(self) -> float:
        """Seconds to the next tick, at most MAX_NAP."""
        due = self._plans.next_due()
        return min(MAX_SLEEP, (due - self._clock.now()).total_seconds()) if due else MAX_SLEEP

    async def _save_what_changed(self) -> None:
        await self._marks.changed.wait()
        await asyncio.sleep(SAVE_DELAY)
        try:
            await self._marks.save()
        except Exception:
            self._marks.changed.set()
            raise

    # the records

    async def _settle(self, plans: Sequence[ScheduleEntry], now: datetime) -> None:
        ready: list[tuple[ScheduleEntry, datetime, str]] = []
        others: list[ScheduleEntry] = []

        def prepared() -> Iterator[NewRun]:
            for plan in plans:
                document = self._ready(plan, now)
                if document is None or document.run.scheduled_for is None:
                    others.append(plan)
                else:
                    ready.append((plan, document.run.scheduled_for, document.run.id))
                    yield document

        failed = await self._create(prepared())
        for plan, tick, run_id in ready:
            self._decided(plan, tick, [run_id], failed)
        await self._settle_others(others, now)

    def _ready(self, plan: ScheduleEntry, now: datetime) -> NewRun | None:
        """The prepared document, if it is still right: the only tick due, on time, the same enrolment, and
        no other schedule of the pipeline has the tick.
        """
        known = plan.prepared
        enrolment = self._enrolments.get(plan.schedule.pipeline)
        if known is None or known.tick != plan.next or enrolment is None:
            return None
        only_one = known.following is None or known.following > now
        alone = all(_is_decided(other, known.tick) for other in self._plans.siblings(plan))
        on_time = (now - known.tick).total_seconds() <= plan.schedule.start_deadline
        same = known.enrolment_revision == enrolment.revision and not plan.schedule.paused
        return known.document_at(now) if only_one and alone and on_time and same else None

    async def _settle_others(self, plans: Iterable[ScheduleEntry], now: datetime) -> None:
        """Decides afresh; in portions, since after a long downtime a schedule can have many ticks."""
        decided: list[tuple[ScheduleEntry, datetime, list[str]]] = []
        runs: list[Run] = []
        meetings = SharedTicks(lambda plan: self._due(plan, now), self._plans.siblings)
        for plan in plans:
            try:
                due = await self._decide(plan, now)
                own = await self._documents(plan, due, meetings, now)
            except Unavailable:
                raise
            except Exception as error:  # noqa: BLE001 (of one schedule)
                self._guard.failed(plan.schedule.id, error)
                continue
            runs += own
            if due.ticks:
                decided.append((plan, due.ticks[-1].at, [run.id for run in own]))
            if len(runs) >= RUNS_PER_BATCH:
                await self._record(runs, decided)
                decided, runs = [], []
        await self._record(runs, decided)

    async def _record(
        self, runs: Sequence[Run], decided: Iterable[tuple[ScheduleEntry, datetime, list[str]]]
    ) -> None:
        failed = await self._create(NewRun(run, dump(run)) for run in runs)
        for plan, until, names in decided:
            self._decided(plan, until, names, failed)

    def _decided(
        self, plan: ScheduleEntry, until: datetime, runs: Iterable[str], failed: dict[str, Exception]
    ) -> None:
        """Moves the mark past what is recorded; a schedule with a tick that cannot be is set aside."""
        for run in runs:
            if run in failed:
                self._guard.failed(plan.schedule.id, failed[run])
                return
        self._guard.worked(plan.schedule.id)
        self._marks.set(plan.schedule.id, until)

    async def _decide(self, plan: ScheduleEntry, now: datetime) -> DueTicks:
        """What is due, with the summary of a long backlog written already."""
        due = self._due(plan, now)
        if due.summary is None:
            return due
        await self._skip_recorded(plan)
        due = self._due(plan, now)
        if due.summary is not None and not await self._write_summary(plan, due.summary, now):
            return DueTicks([])  # decided by another; what is left is due again
        return due

    def _due(self, plan: ScheduleEntry, now: datetime) -> DueTicks:
        return decide_ticks(plan.schedule, plan.cron, self._marks.get(plan.schedule.id), now, self._restored)

    async def _documents(
        self, plan: ScheduleEntry, due: DueTicks, meetings: SharedTicks, now: datetime
    ) -> list[Run]:
        enrolment = await self._enrolment(plan.schedule.pipeline)
        outcomes = (meetings.outcome(plan, tick) for tick in due.ticks)
        return [tick_run(whose.schedule, tick, enrolment, self._node, now) for whose, tick in outcomes]

    async def _enrolment(self, pipeline: str) -> Enrolment | None:
        """From the mirror; where that has none the store is asked, as its news may come late."""
        stored = self._enrolments.get(pipeline) or await self._enrolments.records.get(pipeline)
        return None if stored is None else stored.record

    async def _skip_recorded(self, plan: ScheduleEntry) -> None:
        """Moves a mark that had lagged past the records that are there, so that no summary covers these."""
        schedule = plan.schedule
        for moment in plan.cron.times(undecided_after(schedule, self._marks.get(schedule.id))):
            name = tick_run_id(schedule.pipeline, self._node, moment)
            if await self._records.entry(name) is None:
                return
            self._marks.set(schedule.id, moment)

    async def _write_summary(self, plan: ScheduleEntry, summary: BacklogSummary, now: datetime) -> bool:
        """Writes the summary and moves the mark in one transaction: two of them cannot overlap."""
        run, until = summary_run(plan.schedule, summary, self._node, now), summary.covers.until
        put = Put(self._records.prefix + run.id, dump(run))
        if await self._marks.set_with(plan.schedule.id, until, self._records.absent(run.id), put):
            return True
        if await self._records.entry(run.id) is not None:  # the very same, from before
            self._marks.set(plan.schedule.id, until)
        return False

    async def _create(self, documents: Iterable[NewRun]) -> dict[str, Exception]:
        """What cannot be written, by run, with the reason."""
        created = await self._creator.create(documents)
        now = self._clock.now()
        for run in created.runs:
            self._metrics.count(run)
            if run.missed is None and run.scheduled_for is not None:
                self._metrics.lateness.observe(max(0.0, (now - run.scheduled_for).total_seconds()))
        return created.failed


def _is_decided(plan: ScheduleEntry, tick: datetime) -> bool:
    """Whether the schedule has nothing undecided up to and with the tick; not known while it is set aside."""
    return plan.schedule.paused if plan.next is None else plan.next > tick
