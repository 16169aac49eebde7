"""Sleeps until the next tick, writes the runs of due ticks, and advances the tick marks.

The sleep ends at the next tick, when a schedule changes, or after MAX_SLEEP, so that a change of the system
clock is noticed. Before it sleeps, the timer prepares the documents of the next ticks. It needs only the node
store. A schedule whose ticks cannot be decided or written is set aside, reported and retried; the others
continue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from mao_scheduler.metrics import SchedulerMetrics
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import InvalidInput, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models import Enrolment, Run, Schedule, tick_run_id
from mao_shared.models.node import Restored
from mao_shared.models.schedule import Forgotten
from mao_shared.reconcile import Backoff, Guard, Mirror, every, until_done
from mao_shared.runs.records import RunRecords
from mao_shared.store import Put, Records, dump

from .due import DueTicks, decide_ticks, schedule_cron, undecided_after
from .marks import RestoreStatus, TickMarks
from .new_runs import NewRun, RunCreator, prepare_tick, summary_run, tick_run
from .tick_queue import ScheduleEntry, SharedTicks, TickQueue

log = get_logger(__name__)

MAX_SLEEP = 1.0  # seconds
ENTRIES_PER_BATCH = 1000  # schedules whose ticks are written together
RUNS_PER_BATCH = 1000  # run documents created before they are written, approximately
PREPARE_AHEAD = timedelta(seconds=5)  # ticks up to this far ahead are prepared
PREPARED_PER_SLICE = 20  # ticks prepared before other tasks run
SAVE_DELAY = 2.0  # seconds in which advanced marks are collected before they are saved
FIRST_BACKOFF = 0.2  # seconds until the second attempt while the store is unavailable
MAX_BACKOFF = 2.0  # seconds
PAUSE_ATTEMPTS = 3  # a summary and its mark may lose a race
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
        """Run until cancelled; the mirrors must be running."""
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
        """Wait for the mirrors, then read the marks."""
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
        """Write the record of every due tick. Raises Unavailable; then call it again."""
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

    async def record_pause(self, schedule: Schedule) -> None:
        """Record the ticks of a pause that ends because its schedule is removed. Raises Unavailable.

        May be repeated. A schedule whose ticks cannot be told, because its zone is unknown here, has none.
        """
        now = self._clock.now()
        changes = {"paused": False, "paused_at": schedule.paused_at or schedule.created_at, "resumed_at": now}
        ended = schedule.model_copy(update=changes)
        with suppress(InvalidInput):
            entry = ScheduleEntry(ended, schedule_cron(ended))
            for _ in range(PAUSE_ATTEMPTS):
                due = self._due(entry, now)
                if not due.ticks and due.summary is None:
                    return
                await self._decide_and_write([entry], now)

    def next_due(self) -> datetime | None:
        """Return the time of the next tick."""
        return self._queue.next_due()

    async def save(self) -> None:
        """Write changed marks. Raises Unavailable."""
        await self._marks.save()

    async def prepare_ticks(self) -> None:
        """Prepare the ticks of the next seconds, until one is due or a schedule changes."""
        until = self._clock.now() + PREPARE_AHEAD
        for number, entry in enumerate(list(self._queue.unprepared(until))):
            enrolment = self._enrolments.get(entry.schedule.pipeline)
            if entry.next is not None and enrolment is not None:
                with suppress(Exception):  # the error is reported when the tick is due
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
            self._queue.requeue(entry)  # the guard delays it now, so this only postpones its tick

    async def _write_and_prepare(self) -> float:
        """Write due ticks and prepare the next; return the seconds until the next tick."""
        await self.record_due_ticks()
        await self.prepare_ticks()
        return max(0.0, self._due_in())

    def _due_in(self) -> float:
        """Return the seconds until the next tick, at most MAX_SLEEP."""
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
        """Return the prepared document if it still applies.

        This requires that its tick is the only due one and on time, that the enrolment is unchanged, and that
        no other schedule of the pipeline may have the same tick undecided.
        """
        prepared = entry.prepared
        enrolment = self._enrolments.get(entry.schedule.pipeline)
        if prepared is None or prepared.tick != entry.next or enrolment is None:
            return None
        only_one = prepared.following is None or prepared.following > now
        alone = all(
            other.schedule.paused if other.next is None else other.next > prepared.tick
            for other in self._queue.siblings(entry)
        )
        on_time = (now - prepared.tick).total_seconds() <= entry.schedule.start_deadline
        same = prepared.enrolment_revision == enrolment.revision and not entry.schedule.paused
        return prepared.document_at(now) if only_one and alone and on_time and same else None

    async def _decide_and_write(self, entries: Iterable[ScheduleEntry], now: datetime) -> None:
        """Decide ticks and write their runs, in batches: after a long downtime a schedule has many ticks."""
        decided: list[tuple[ScheduleEntry, datetime, list[str]]] = []
        runs: list[Run] = []
        shared = SharedTicks(lambda entry: self._due(entry, now), self._queue.siblings)
        for entry in entries:
            try:
                due = await self._decide(entry, now)
                # The mirror may lag, so only the store can show that there is no enrolment.
                pipeline = entry.schedule.pipeline
                stored = self._enrolments.get(pipeline) or await self._enrolments.records.get(pipeline)
                enrolment = None if stored is None else stored.record
                outcomes = (shared.outcome(entry, tick) for tick in due.ticks)
                own = [tick_run(by.schedule, tick, enrolment, self._node, now) for by, tick in outcomes]
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
        """Advance the mark past recorded ticks; set the schedule aside if a run could not be written."""
        for run in runs:
            if run in failed:
                self._guard.failed(entry.schedule.id, failed[run])
                return
        self._guard.succeeded(entry.schedule.id)
        self._marks.set(entry.schedule.id, until)

    async def _decide(self, entry: ScheduleEntry, now: datetime) -> DueTicks:
        """Return the due ticks, after the summary of a long backlog has been written."""
        schedule = entry.schedule
        due = self._due(entry, now)
        if due.summary is None:
            return due
        # A lagging mark is advanced past existing records first, so that no summary covers them.
        for moment in entry.cron.times(undecided_after(schedule, self._marks.get(schedule.id))):
            if await self._records.entry(tick_run_id(schedule.pipeline, self._node, moment)) is None:
                break
            self._marks.set(schedule.id, moment)
        due = self._due(entry, now)
        if due.summary is None:
            return due
        # Summary and mark are written in one transaction, so that two summaries cannot overlap.
        run, until = summary_run(schedule, due.summary, self._node, now), due.summary.covers.until
        put = Put(self._records.prefix + run.id, dump(run))
        if await self._marks.set_with(schedule.id, until, self._records.absent(run.id), put):
            return due
        if await self._records.entry(run.id) is not None:  # the same summary, written earlier
            self._marks.set(schedule.id, until)
        return DueTicks([])  # decided by another scheduler; the remaining ticks are due again

    def _due(self, entry: ScheduleEntry, now: datetime) -> DueTicks:
        return decide_ticks(
            entry.schedule, entry.cron, self._marks.get(entry.schedule.id), now, self._restored
        )

    async def _create(self, documents: Iterable[NewRun]) -> dict[str, Exception]:
        """Write new runs; return the errors of those that cannot be written, by id."""
        created = await self._creator.create(documents)
        now = self._clock.now()
        for run in created.runs:
            self._metrics.count(run)
            if run.missed is None and run.scheduled_for is not None:
                self._metrics.lateness.observe(max(0.0, (now - run.scheduled_for).total_seconds()))
        return created.failed
