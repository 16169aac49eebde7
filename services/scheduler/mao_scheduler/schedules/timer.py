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
from mao_shared.reconcile import Backoff, Guard, Mirror, every, until_done
from mao_shared.runs.records import RunRecords
from mao_shared.store import Put, Records
from mao_shared.store.records import dump

from .due import BacklogSummary, DueTicks, decide_ticks, undecided_after
from .marks import RestoreStatus, TickMarks
from .new_runs import NewRun, RunCreator, prepare_tick, summary_run, tick_run
from .tick_queue import ScheduleEntry, SharedTicks, TickQueue

log = get_logger(__name__)

MAX_SLEEP = 1.0  # seconds
ENTRIES_PER_BATCH = 1000  # schedules whose ticks are written together
RUNS_PER_BATCH = 1000  # run documents created before they are written, approximately
PREPARE_AHEAD = timedelta(seconds=5)  # ticks this near are prepared
PREPARED_PER_SLICE = 20  # ticks prepared before other tasks run
SAVE_DELAY = 2.0  # seconds in which moved marks are collected before they are saved
FIRST_BACKOFF = 0.2  # seconds until the second attempt while the store is away
MAX_BACKOFF = 2.0  # seconds
RETRY_DELAY = 5.0  # seconds until a failed schedule is retried, doubled each time


class Timer:
    """Writes the runs of due ticks of one node.

    `no_tick_due` is cleared while ticks are being written, so that other work waits.
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
        no_tick_due: asyncio.Event,
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
        self._no_tick_due = no_tick_due
        self._schedules = schedules
        self._forgotten = forgotten
        self._conditions = conditions
        self._creator = RunCreator(runs, records)
        self._guard = Guard("schedules", conditions, Backoff(RETRY_DELAY, 300.0))
        self._queue = TickQueue(schedules, marks, self._guard)
        self._restores = RestoreStatus(runs.records.store, node)
        self._restored: Restored | None = None

    async def run(self) -> None:
        """Runs until cancelled; the mirrors have to run beside it."""
        await self.load()
        away = Backoff(FIRST_BACKOFF, MAX_BACKOFF)
        ticks = every(
            MAX_SLEEP,
            self._write_and_prepare,
            name="ticks",
            wake=self._queue.changed,
            conditions=self._conditions,
            away=away,
        )
        marks = every(
            None,
            self.save,
            name="marks",
            wake=self._marks.changed,
            initial_delay=None,
            debounce=SAVE_DELAY,
            conditions=self._conditions,
            away=away,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(ticks)
            group.create_task(marks)

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
        await self._marks.derive_unreadable(self._records, self._forgotten, pipelines)

    async def record_due_ticks(self) -> None:
        """Writes the record of every due tick. Raises Unavailable; then call it again."""
        self._queue.apply_changes()
        now = self._clock.now()
        while due := self._queue.pop_due(now, ENTRIES_PER_BATCH):
            self._no_tick_due.clear()
            try:
                await self._write_due(due, now)
            finally:
                self._no_tick_due.set()
                for entry in due:  # ticks that could not be written are due again
                    self._requeue(entry)

    def next_due(self) -> datetime | None:
        """The time of the next tick."""
        return self._queue.next_due()

    async def save(self) -> None:
        """Writes changed marks. Raises Unavailable."""
        await self._marks.save()

    async def prepare_ticks(self) -> None:
        """Prepares the ticks of the next seconds, until one is due or a schedule changes."""
        until = self._clock.now() + PREPARE_AHEAD
        for number, entry in enumerate(list(self._queue.unprepared(until))):
            enrolment = self._enrolments.get(entry.schedule.pipeline)
            if entry.next is not None and enrolment is not None:
                with suppress(Exception):  # an error shows when the tick is due
                    entry.prepared = prepare_tick(
                        entry.schedule, entry.cron, enrolment, entry.next, self._node
                    )
            if number % PREPARED_PER_SLICE == PREPARED_PER_SLICE - 1:
                await asyncio.sleep(0)
                if self._queue.changed.is_set() or self._due_in() <= 0:
                    return

    def _requeue(self, entry: ScheduleEntry) -> None:
        try:
            self._queue.requeue(entry)
        except Exception as error:  # noqa: BLE001 (of one schedule)
            self._guard.failed(entry.schedule.id, error)
            self._queue.requeue(entry)  # it waits now, so this postpones it

    async def _write_and_prepare(self) -> float:
        """Returns the seconds until the next tick."""
        await self.record_due_ticks()
        await self.prepare_ticks()
        return max(0.0, self._due_in())

    def _due_in(self) -> float:
        """Seconds until the next tick, at most MAX_SLEEP."""
        due = self._queue.next_due()
        return min(MAX_SLEEP, (due - self._clock.now()).total_seconds()) if due else MAX_SLEEP

    async def _write_due(self, entries: Sequence[ScheduleEntry], now: datetime) -> None:
        ready: list[tuple[ScheduleEntry, datetime, str]] = []
        others: list[ScheduleEntry] = []

        def prepared() -> Iterator[NewRun]:
            for entry in entries:
                document = self._prepared_document(entry, now)
                if document is None or document.run.scheduled_for is None:
                    others.append(entry)
                else:
                    ready.append((entry, document.run.scheduled_for, document.run.id))
                    yield document

        failed = await self._create(prepared())
        for entry, tick, run_id in ready:
            self._advance_mark(entry, tick, [run_id], failed)
        await self._decide_and_write(others, now)

    def _prepared_document(self, entry: ScheduleEntry, now: datetime) -> NewRun | None:
        """The prepared document if it still applies.

        That is: it is the only due tick, on time, the enrolment is unchanged, and no other schedule of the
        pipeline has the tick.
        """
        prepared = entry.prepared
        enrolment = self._enrolments.get(entry.schedule.pipeline)
        if prepared is None or prepared.tick != entry.next or enrolment is None:
            return None
        only_one = prepared.following is None or prepared.following > now
        alone = all(_is_decided(other, prepared.tick) for other in self._queue.siblings(entry))
        on_time = (now - prepared.tick).total_seconds() <= entry.schedule.start_deadline
        same = prepared.enrolment_revision == enrolment.revision and not entry.schedule.paused
        return prepared.document_at(now) if only_one and alone and on_time and same else None

    async def _decide_and_write(self, entries: Iterable[ScheduleEntry], now: datetime) -> None:
        """Decides ticks and writes their runs in batches: after a long downtime a schedule has many ticks."""
        decided: list[tuple[ScheduleEntry, datetime, list[str]]] = []
        runs: list[Run] = []
        shared = SharedTicks(lambda entry: self._due(entry, now), self._queue.siblings)
        for entry in entries:
            try:
                due = await self._decide(entry, now)
                own = await self._documents(entry, due, shared, now)
            except Unavailable:
                raise
            except Exception as error:  # noqa: BLE001 (of one schedule)
                self._guard.failed(entry.schedule.id, error)
                continue
            runs += own
            if due.ticks:
                decided.append((entry, due.ticks[-1].at, [run.id for run in own]))
            if len(runs) >= RUNS_PER_BATCH:
                await self._write_runs(runs, decided)
                decided, runs = [], []
        await self._write_runs(runs, decided)

    async def _write_runs(
        self, runs: Sequence[Run], decided: Iterable[tuple[ScheduleEntry, datetime, list[str]]]
    ) -> None:
        failed = await self._create(NewRun(run, dump(run)) for run in runs)
        for entry, until, names in decided:
            self._advance_mark(entry, until, names, failed)

    def _advance_mark(
        self, entry: ScheduleEntry, until: datetime, runs: Iterable[str], failed: dict[str, Exception]
    ) -> None:
        """Advances the mark past recorded ticks; sets the schedule aside if a run could not be written."""
        for run in runs:
            if run in failed:
                self._guard.failed(entry.schedule.id, failed[run])
                return
        self._guard.succeeded(entry.schedule.id)
        self._marks.set(entry.schedule.id, until)

    async def _decide(self, entry: ScheduleEntry, now: datetime) -> DueTicks:
        """The due ticks, after the summary of a long backlog has been written."""
        due = self._due(entry, now)
        if due.summary is None:
            return due
        await self._skip_recorded(entry)
        due = self._due(entry, now)
        if due.summary is not None and not await self._write_summary(entry, due.summary, now):
            return DueTicks([])  # decided by another scheduler; the rest is due again
        return due

    def _due(self, entry: ScheduleEntry, now: datetime) -> DueTicks:
        return decide_ticks(
            entry.schedule, entry.cron, self._marks.get(entry.schedule.id), now, self._restored
        )

    async def _documents(
        self, entry: ScheduleEntry, due: DueTicks, shared: SharedTicks, now: datetime
    ) -> list[Run]:
        pipeline = entry.schedule.pipeline
        # The mirror may lag, so the store has the last word on there being no enrolment.
        stored = self._enrolments.get(pipeline) or await self._enrolments.records.get(pipeline)
        enrolment = None if stored is None else stored.record
        outcomes = (shared.outcome(entry, tick) for tick in due.ticks)
        return [tick_run(whose.schedule, tick, enrolment, self._node, now) for whose, tick in outcomes]

    async def _skip_recorded(self, entry: ScheduleEntry) -> None:
        """Advances a lagging mark past existing records, so that no summary covers them."""
        schedule = entry.schedule
        for moment in entry.cron.times(undecided_after(schedule, self._marks.get(schedule.id))):
            name = tick_run_id(schedule.pipeline, self._node, moment)
            if await self._records.entry(name) is None:
                return
            self._marks.set(schedule.id, moment)

    async def _write_summary(self, entry: ScheduleEntry, summary: BacklogSummary, now: datetime) -> bool:
        """Writes the summary and the mark in one transaction, so that two summaries cannot overlap."""
        run, until = summary_run(entry.schedule, summary, self._node, now), summary.covers.until
        put = Put(self._records.prefix + run.id, dump(run))
        if await self._marks.set_with(entry.schedule.id, until, self._records.absent(run.id), put):
            return True
        if await self._records.entry(run.id) is not None:  # the same summary, written earlier
            self._marks.set(entry.schedule.id, until)
        return False

    async def _create(self, documents: Iterable[NewRun]) -> dict[str, Exception]:
        """Writes new runs; returns the errors of those that cannot be written, by id."""
        created = await self._creator.create(documents)
        now = self._clock.now()
        for run in created.runs:
            self._metrics.count(run)
            if run.missed is None and run.scheduled_for is not None:
                self._metrics.lateness.observe(max(0.0, (now - run.scheduled_for).total_seconds()))
        return created.failed


def _is_decided(entry: ScheduleEntry, tick: datetime) -> bool:
    """Whether all ticks of the schedule up to and including this one are decided, as far as known."""
    return entry.schedule.paused if entry.next is None else entry.next > tick
