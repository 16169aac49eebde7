"""Commands on schedules (jobs): add, get, list, pause, resume, remove."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from itertools import islice

from mao_scheduler.enrolments import EnrolmentLookup
from mao_shared import keys
from mao_shared.clock import Clock
from mao_shared.errors import Conflict, InvalidInput, NotFound, PreconditionFailed
from mao_shared.models.common import Listing, stored_fields, unreadable_items
from mao_shared.models.run import Run, tick_run_id
from mao_shared.models.schedule import (
    CronPreview,
    Job,
    NextTimes,
    Schedule,
    ScheduleRequest,
    ScheduleSpec,
    TickOutcome,
    schedule_id,
)
from mao_shared.reconcile import Mirror
from mao_shared.store import Check, Delete, Put, Records, Stored
from mao_shared.store.records import dump
from mao_shared.web.dependencies import ANY_REVISION, check_if_match

from .cron import Cron, parse_cron
from .due import cron_of
from .marks import TickMarks


class JobCommands:
    """The verbs on schedules of one node."""

    def __init__(
        self,
        node: str,
        schedules: Mirror[Schedule],
        runs: Records[Run],
        marks: TickMarks,
        enrolled: EnrolmentLookup,
        clock: Clock,
    ) -> None:
        self._node = node
        self._mirror = schedules
        self._schedules = schedules.records
        self._runs = runs
        self._marks = marks
        self._enrolled = enrolled
        self._clock = clock

    async def add(self, request: ScheduleRequest) -> tuple[Stored[Schedule], bool]:
        """The schedule and whether it is new; the same request again finds the same schedule.

        Raises InvalidInput for the cron string, NotFound or Conflict for the pipeline, and Conflict
        `schedule-differs` when that cron string is scheduled already with other settings.
        """
        parse_cron(request.cron, request.timezone, seconds=request.seconds)
        schedule = self._new(request)
        revision = await self._create(schedule)
        if revision is not None:
            self._mirror.note(schedule.id, schedule, revision)
            return Stored(schedule, revision), True
        there = await self.get(schedule.id)
        if _settings(there.record) != _settings(schedule):
            raise Conflict(
                f"The job {schedule.id} has this cron string already, with other settings.",
                code="schedule-differs",
                next=f"Look at it with 'maoctl job get {schedule.id}'; remove it first to change it.",
            )
        return there, False

    async def _create(self, schedule: Schedule) -> int | None:
        """None when there is one of that id. Cannot win together with a withdrawal of the enrolment.

        The guard `keys.node_references` is what the registry watches for that (docs/keys.md).
        """
        key = keys.schedule(self._node, schedule.id)
        writes = [Put(key, dump(schedule)), Put(keys.node_references(self._node), b"")]
        while True:
            enrolment = await self._enrolled.require(schedule.pipeline)
            checks = [Check(keys.enrolment(self._node, schedule.pipeline), enrolment.revision), Check(key, 0)]
            revision = await self._schedules.store.transact(checks, writes)
            if revision is not None or await self._schedules.get(schedule.id) is not None:
                return revision

    def _new(self, request: ScheduleRequest) -> Schedule:
        now = self._clock.now()
        spec = request.model_dump(exclude={"name"})
        return Schedule(
            **spec,
            id=schedule_id(request.name, request),
            pipeline=request.name,
            created_at=now,
            paused_at=now if request.paused else None,
        )

    async def get(self, job_id: str) -> Stored[Schedule]:
        """The schedule; raises NotFound `unknown-job`."""
        stored = await self._schedules.get(job_id)
        if stored is None:
            raise NotFound(
                f"There is no job {job_id!r} on this node.",
                code="unknown-job",
                next="List the jobs with 'maoctl job get'.",
            )
        return stored

    async def find(self, job_id: str) -> Schedule | None:
        """The schedule if it is there and can be read."""
        stored = await self._schedules.find(job_id)
        return None if stored is None else stored.record

    async def only_one(self, text: str) -> str:
        """The id that is meant by an id, or by the name or title of a pipeline that has one schedule.

        Raises NotFound, and Conflict (`several-jobs`) for a pipeline that has several.
        """
        if await self._schedules.store.get(self._schedules.prefix + text) is not None:
            return text
        try:
            pipeline = await self._enrolled.named(text)
        except NotFound:
            return text
        ids = sorted(
            each.record.id for each in await self._schedules.all() if each.record.pipeline == pipeline
        )
        if len(ids) > 1:
            raise Conflict(
                f"The pipeline {text!r} has {len(ids)} jobs: {', '.join(ids[:5])}.",
                code="several-jobs",
                next=f"Name one of them: maoctl job remove {ids[0]}",
            )
        return ids[0] if ids else text

    async def show(self, job_id: str) -> Stored[Job]:
        """The schedule with its next time and the last outcome."""
        stored = await self.get(job_id)
        return Stored(await self._job(stored.record), stored.revision)

    async def list(self, limit: int | None, cursor: str | None, pipeline: str | None = None) -> Listing[Job]:
        """The jobs by id; `pipeline` narrows the page, so that a page may hold fewer than `limit`."""
        page = await self._schedules.page(limit, cursor)
        chosen = [each.record for each in page.items if pipeline in (None, each.record.pipeline)]
        jobs = await asyncio.gather(*(self._job(schedule) for schedule in chosen))
        return Listing(items=jobs, cursor=page.cursor, unreadable=unreadable_items(page.unreadable))

    async def pause(self, job_id: str) -> Stored[Job]:
        """No ticks from now on; what is queued or running goes on."""

        def change(schedule: Schedule, now: datetime) -> Schedule:
            if schedule.paused:
                return schedule
            return schedule.model_copy(update={"paused": True, "paused_at": now, "resumed_at": None})

        return await self._change(job_id, change)

    async def resume(self, job_id: str) -> Stored[Job]:
        """Ticks again; those of the pause are recorded as missed."""

        def change(schedule: Schedule, now: datetime) -> Schedule:
            if not schedule.paused:
                return schedule
            return schedule.model_copy(update={"paused": False, "resumed_at": now})

        return await self._change(job_id, change)

    async def _change(self, job_id: str, change: Callable[[Schedule, datetime], Schedule]) -> Stored[Job]:
        while True:
            stored = await self.get(job_id)
            changed = change(stored.record, self._clock.now())
            if changed is stored.record:
                return Stored(await self._job(changed), stored.revision)
            revision = await self._schedules.replace(job_id, changed, stored.revision)
            if revision is not None:
                self._mirror.note(job_id, changed, revision)  # so that no tick slips in before the echo
                return Stored(await self._job(changed), revision)

    async def remove(self, job_id: str, expected: int | None) -> None:
        """Removes the schedule with its mark, readable or not; its runs stay.

        `expected`: the revision of If-Match. Raises NotFound and PreconditionFailed.
        """
        while True:
            entry = await self._schedules.store.get(self._schedules.prefix + job_id)
            revision = (await self.get(job_id)).revision if entry is None else entry.revision
            check_if_match(expected, revision)
            checks = [Check(self._schedules.prefix + job_id, revision)]
            deletes = [
                Delete(self._schedules.prefix + job_id),
                Delete(self._marks.records.prefix + job_id),
            ]
            if await self._schedules.store.transact(checks, deletes) is not None:
                self._marks.forget(job_id)  # so that one that is added again begins afresh
                self._schedules.gone(self._schedules.prefix + job_id)
                self._marks.records.gone(self._marks.records.prefix + job_id)
                return
            if expected not in (None, ANY_REVISION):
                raise PreconditionFailed(
                    "The job was changed in the meantime.", next="Read it again and repeat the call."
                )

    async def next_times(self, job_id: str, count: int) -> NextTimes:
        """The coming times of a job, paused or not."""
        schedule = (await self.get(job_id)).record
        return self._coming(cron_of(schedule), count, self._from(schedule))

    def preview(self, asked: CronPreview) -> NextTimes:
        """The coming times of a cron string; raises InvalidInput."""
        cron = parse_cron(asked.cron, asked.timezone, seconds=asked.seconds)
        return self._coming(cron, asked.count, self._clock.now())

    def _coming(self, cron: Cron, count: int, after: datetime) -> NextTimes:
        return NextTimes(times=list(islice(cron.times(after), count)))

    def _from(self, schedule: Schedule) -> datetime:
        """After a clock that was set back nothing comes before the ticks that have their outcome already."""
        now = self._clock.now()
        return max(now, self._marks.get(schedule.id) or now)

    async def _job(self, schedule: Schedule) -> Job:
        following = None if schedule.paused else self._next(schedule)
        return Job(**stored_fields(schedule), next=following, last=await self._last(schedule))

    def _next(self, schedule: Schedule) -> datetime | None:
        """None for a zone that this machine does not know: one such job must not hide the others."""
        with suppress(InvalidInput):
            return cron_of(schedule).next(self._from(schedule))
        return None

    async def _last(self, schedule: Schedule) -> TickOutcome | None:
        decided_until = self._marks.get(schedule.id)
        if decided_until is None:
            return None
        run = await self._runs.find(tick_run_id(schedule.pipeline, self._node, decided_until))
        if run is None:
            return None
        found = run.record
        return TickOutcome(run=found.id, scheduled_for=decided_until, phase=found.phase, missed=found.missed)


def _settings(schedule: Schedule) -> dict[str, object]:
    """What a person has set and pausing does not change."""
    return schedule.model_dump(include=set(ScheduleSpec.model_fields) - {"paused", "cron"})
