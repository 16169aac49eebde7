"""Turns ticks into run records: sleeps until the next one is due, writes what is due, moves the marks on.

Nothing here polls: the sleep ends at the next tick, at a change of a schedule, or after MAX_NAP, so that a
clock that was set is noticed. Only the node store is needed.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from mao_shared.clock import Clock
from mao_shared.errors import InvalidInput, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models.enrolment import Enrolment
from mao_shared.models.run import Run, tick_run_id
from mao_shared.models.schedule import Schedule
from mao_shared.reconcile import Mirror
from mao_shared.store import Check, Put
from mao_shared.store.records import dump

from .creation import RunCreator
from .cron import Cron, parse_cron
from .due import Due, decide, first_undecided, horizon
from .marks import Marks
from .metrics import SchedulerMetrics
from .ticks import summary_run, tick_run

log = get_logger(__name__)

MAX_NAP = 1.0  # seconds
CHUNK = 1000  # schedules taken together
PART = 64  # schedules decided and written together
SAVE_DELAY = 2.0  # seconds that marks lag
MAX_BACKOFF = 2.0  # seconds between attempts while the store is away


@dataclass(slots=True, eq=False)
class _Plan:
    """A schedule with its next tick; `next` is None while it has none (paused)."""

    schedule: Schedule
    cron: Cron
    next: datetime | None = None


class Timer:
    """The scheduler's clockwork for one node. `run` works until cancelled; `settle` does one round."""

    def __init__(
        self,
        node: str,
        schedules: Mirror[Schedule],
        enrolments: Mirror[Enrolment],
        runs: Mirror[Run],
        marks: Marks,
        clock: Clock,
        metrics: SchedulerMetrics,
    ) -> None:
        self._node = node
        self._schedules = schedules
        self._enrolments = enrolments
        self._runs = runs
        self._marks = marks
        self._clock = clock
        self._metrics = metrics
        self._creator = RunCreator(runs)
        self._plans: dict[str, _Plan] = {}
        self._heap: list[tuple[datetime, str]] = []
        self._changed: set[str] = set()
        self._wake = asyncio.Event()
        self.settled = asyncio.Event()  # cleared while records are written: what can wait lets them go first
        self.settled.set()
        schedules.subscribe(self._note_change)

    async def run(self) -> None:
        """Works until cancelled; the mirrors have to run beside it."""
        await self.prepare()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._save_for_ever())
            group.create_task(self._settle_for_ever())

    async def prepare(self) -> None:
        """Waits for the mirrors and reads the marks."""
        for mirror in (self._schedules, self._enrolments, self._runs):
            await mirror.synced.wait()
        await self._load_marks()

    async def settle(self) -> None:
        """Gives every tick that is due its record. Raises Unavailable: then call again."""
        self._take_changes()
        now = self._clock.now()
        while due := self._take_due(now):
            self.settled.clear()
            try:
                await self._settle(due, now)
            finally:
                self.settled.set()
                for plan in due:  # what could not be written is due again
                    self._plan_next(plan)

    async def save(self) -> None:
        """Writes the marks that have moved."""
        await self._marks.save()

    # the loops

    async def _load_marks(self) -> None:
        while True:
            try:
                return await self._marks.load()
            except Unavailable as error:
                log.warning("timer.store_away", error=error.detail)
                await asyncio.sleep(MAX_BACKOFF)

    async def _settle_for_ever(self) -> None:
        failures = 0
        while True:
            try:
                await self.settle()
            except Unavailable as error:
                failures += 1
                log.warning("timer.store_away", error=error.detail, tries=failures)
                await asyncio.sleep(min(0.1 * 2**failures, MAX_BACKOFF))
            else:
                failures = 0
                await self._nap()

    async def _nap(self) -> None:
        due_in = (self._heap[0][0] - self._clock.now()).total_seconds() if self._heap else MAX_NAP
        try:
            async with asyncio.timeout(max(0.0, min(due_in, MAX_NAP))):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _save_for_ever(self) -> None:
        while True:
            await self._marks.changed.wait()
            await asyncio.sleep(SAVE_DELAY)
            try:
                await self._marks.save()
            except Unavailable as error:
                log.warning("timer.marks_not_saved", error=error.detail)
                self._marks.changed.set()

    # the plan

    def _note_change(self, name: str) -> None:
        self._changed.add(name)
        self._wake.set()

    def _take_changes(self) -> None:
        for name in self._changed:
            stored = self._schedules.get(name)
            if stored is None:
                self._plans.pop(name, None)
                self._marks.forget(name)
            else:
                self._replan(stored.record)
        self._changed.clear()

    def _replan(self, schedule: Schedule) -> None:
        try:
            cron = parse_cron(schedule.cron, schedule.timezone, seconds=schedule.seconds)
        except InvalidInput as error:  # only a zone that this machine no longer knows
            log.error("timer.schedule_unusable", schedule=schedule.id, error=error.detail)
            return
        plan = self._plans[schedule.id] = _Plan(schedule, cron)
        self._plan_next(plan)

    def _plan_next(self, plan: _Plan) -> None:
        if self._plans.get(plan.schedule.id) is not plan:
            return
        after = first_undecided(plan.schedule, self._marks.get(plan.schedule.id))
        plan.next = plan.cron.next(after)
        if plan.schedule.paused and plan.next and plan.next > horizon(plan.schedule, plan.next):
            plan.next = None
        if plan.next is not None:
            heapq.heappush(self._heap, (plan.next, plan.schedule.id))

    def _take_due(self, now: datetime) -> list[_Plan]:
        due: dict[str, _Plan] = {}
        while self._heap and self._heap[0][0] <= now and len(due) < CHUNK:
            moment, name = heapq.heappop(self._heap)
            plan = self._plans.get(name)
            if plan is not None and plan.next == moment:  # else the entry is from an earlier plan
                due[name] = plan
        return list(due.values())

    # the records

    async def _settle(self, plans: Sequence[_Plan], now: datetime) -> None:
        """Part by part, so that the first records are on their way while the others are made."""
        parts: list[asyncio.Task[None]] = []
        for at in range(0, len(plans), PART):
            parts.append(asyncio.create_task(self._settle_part(plans[at : at + PART], now)))
            await asyncio.sleep(0)
        results = await asyncio.gather(*parts, return_exceptions=True)  # none is left behind in flight
        for result in results:
            if result is not None:
                raise result

    async def _settle_part(self, plans: Iterable[_Plan], now: datetime) -> None:
        decided: list[tuple[_Plan, Due]] = []
        for plan in plans:
            due = self._decide(plan, now)
            if due.summary is not None:
                await self._skip_recorded(plan)
                due = self._decide(plan, now)
            if due.summary is None or await self._write_summary(plan, due, now):
                decided.append((plan, due))
        runs = [run for plan, due in decided for run in await self._documents(plan, due, now)]
        created = await self._creator.create(runs)
        self._measure(created)
        for plan, due in decided:
            if due.ticks:
                self._marks.set(plan.schedule.id, due.ticks[-1].at)

    def _decide(self, plan: _Plan, now: datetime) -> Due:
        return decide(plan.schedule, plan.cron, self._marks.get(plan.schedule.id), now)

    async def _documents(self, plan: _Plan, due: Due, now: datetime) -> list[Run]:
        enrolment = await self._enrolment(plan.schedule.pipeline)
        return [tick_run(plan.schedule, tick, enrolment, self._node, now) for tick in due.ticks]

    async def _enrolment(self, pipeline: str) -> Enrolment | None:
        """From the mirror; where that has none the store is asked, as its news may come late."""
        stored = self._enrolments.get(pipeline) or await self._enrolments.records.get(pipeline)
        return None if stored is None else stored.record

    async def _skip_recorded(self, plan: _Plan) -> None:
        """Moves a mark that had lagged past the records that are there, so that no summary covers these."""
        schedule = plan.schedule
        for moment in plan.cron.times(first_undecided(schedule, self._marks.get(schedule.id))):
            if await self._runs.records.get(tick_run_id(schedule.pipeline, self._node, moment)) is None:
                return
            self._marks.set(schedule.id, moment)

    async def _write_summary(self, plan: _Plan, due: Due, now: datetime) -> bool:
        """Writes the summary and moves the mark in one transaction: two of them cannot overlap."""
        assert due.summary is not None  # noqa: S101 (the caller has looked)
        run = summary_run(plan.schedule, due.summary, self._node, now)
        key = self._runs.records.prefix + run.id
        return await self._marks.set_with(
            plan.schedule.id, due.summary.covers.until, Check(key, 0), Put(key, dump(run))
        )

    def _measure(self, created: Iterable[Run]) -> None:
        now = self._clock.now()
        for run in created:
            self._metrics.count(run)
            if run.missed is None and run.overlap != "queue" and run.scheduled_for is not None:
                self._metrics.lateness.observe(max(0.0, (now - run.scheduled_for).total_seconds()))
