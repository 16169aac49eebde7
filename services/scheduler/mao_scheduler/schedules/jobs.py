"""Commands on schedules (jobs): add, get, list, pause, resume, remove."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from itertools import islice

from mao_scheduler.enrolments import EnrolmentLookup
from mao_shared import keys
from mao_shared.clock import Clock
from mao_shared.errors import Conflict, InvalidInput, NotFound, PreconditionFailed
from mao_shared.models import Job, Listing, NextTimes, Run, Schedule, ScheduleSpec, schedule_id, tick_run_id
from mao_shared.models.common import stored_fields, unreadable_items
from mao_shared.models.schedule import CronPreview, ScheduleRequest, TickOutcome
from mao_shared.reconcile import Mirror
from mao_shared.store import Check, Delete, Put, Records, Stored, dump, retry_lost
from mao_shared.web.dependencies import ANY_REVISION, check_if_match

from .cron import Cron, parse_cron
from .due import schedule_cron
from .marks import TickMarks

EXISTS = 0  # in place of a revision: a schedule with this id exists already


class JobCommands:
    """Commands on the schedules of one node. `record_pause`: see `Timer.record_pause`."""

    def __init__(
        self,
        node: str,
        schedules: Mirror[Schedule],
        runs: Records[Run],
        marks: TickMarks,
        enrolments: EnrolmentLookup,
        clock: Clock,
        record_pause: Callable[[Schedule], Awaitable[None]],
    ) -> None:
        self._record_pause = record_pause
        self._node = node
        self._mirror = schedules
        self._schedules = schedules.records
        self._runs = runs
        self._marks = marks
        self._enrolments = enrolments
        self._clock = clock

    async def add(self, request: ScheduleRequest) -> tuple[Stored[Schedule], bool]:
        """Create a schedule; return it and whether it is new. A repeated request returns the same schedule.

        Raises InvalidInput for the cron string, NotFound or Conflict for the pipeline, and Conflict
        `schedule-differs` when that cron string is scheduled already with other settings.
        """
        parse_cron(request.cron, request.timezone, seconds=request.seconds)
        now = self._clock.now()
        schedule = Schedule(
            **request.model_dump(exclude={"name"}),
            id=schedule_id(request.name, request),
            pipeline=request.name,
            created_at=now,
            paused_at=now if request.paused else None,
        )
        revision = await self._create(schedule)
        if revision is not None:
            self._mirror.note(schedule.id, schedule, revision)
            return Stored(schedule, revision), True
        existing = await self.get(schedule.id)
        if _settings(existing.record) != _settings(schedule):
            raise Conflict(
                f"The job {schedule.id} already has this cron string, with other settings.",
                code="schedule-differs",
                next=f"See it with 'maoctl job get {schedule.id}'; remove it first to change it.",
            )
        return existing, False

    async def _create(self, schedule: Schedule) -> int | None:
        """Write the schedule; return None if there is one with this id.

        The transaction excludes a concurrent withdrawal of the enrolment, which the registry guards by
        `keys.node_references` (docs/keys.md).
        """
        key = keys.schedule(self._node, schedule.id)
        writes = [Put(key, dump(schedule)), Put(keys.node_references(self._node), b"")]

        async def attempt() -> int | None:
            enrolment = await self._enrolments.require(schedule.pipeline)
            checks = [Check(keys.enrolment(self._node, schedule.pipeline), enrolment.revision), Check(key, 0)]
            revision = await self._schedules.store.transact(checks, writes)
            if revision is None and await self._schedules.get(schedule.id) is not None:
                return EXISTS
            return revision

        return (
            await retry_lost(attempt, f"the enrolment in {schedule.pipeline!r}", unknown_is_lost=False)
            or None
        )

    async def get(self, job_id: str) -> Stored[Schedule]:
        """Return the schedule. Raises NotFound (`unknown-job`)."""
        stored = await self._schedules.get(job_id)
        if stored is None:
            raise _unknown_job(job_id)
        return stored

    async def find(self, job_id: str) -> Schedule | None:
        """Return the schedule, or None if there is none that can be read."""
        stored = await self._schedules.find(job_id)
        return None if stored is None else stored.record

    async def resolve_id(self, text: str) -> str:
        """Return the id of a job given by its id, or by the name or title of a pipeline with one schedule.

        Raises NotFound, and Conflict (`several-jobs`) for a pipeline that has several.
        """
        if await self._schedules.store.get(self._schedules.prefix + text) is not None:
            return text
        try:
            pipeline = await self._enrolments.resolve_name(text)
        except NotFound:
            return text
        records = [stored.record for stored in await self._schedules.all()]
        ids = sorted(schedule.id for schedule in records if schedule.pipeline == pipeline)
        if len(ids) > 1:
            raise Conflict(
                f"The pipeline {text!r} has {len(ids)} jobs: {', '.join(ids[:5])}.",
                code="several-jobs",
                next=f"Name one of them: maoctl job remove {ids[0]}",
            )
        return ids[0] if ids else text

    async def show(self, job_id: str) -> Stored[Job]:
        """Return the schedule with its next time and last outcome."""
        stored = await self.get(job_id)
        return Stored(await self._job(stored.record), stored.revision)

    async def list(self, limit: int | None, cursor: str | None, pipeline: str | None = None) -> Listing[Job]:
        """List the jobs by id; with `pipeline`, a page may have fewer than `limit`."""
        page = await self._schedules.page(limit, cursor)
        chosen = [stored.record for stored in page.items if pipeline in (None, stored.record.pipeline)]
        jobs = await asyncio.gather(*(self._job(schedule) for schedule in chosen))
        return Listing(items=jobs, cursor=page.cursor, unreadable=unreadable_items(page.unreadable))

    async def pause(self, job_id: str) -> Stored[Job]:
        """Pause a schedule: no ticks from now on; queued and running runs continue."""

        def change(schedule: Schedule, now: datetime) -> Schedule:
            if schedule.paused:
                return schedule
            return schedule.model_copy(update={"paused": True, "paused_at": now, "resumed_at": None})

        return await self._change(job_id, change)

    async def resume(self, job_id: str) -> Stored[Job]:
        """Resume a schedule; the ticks of the pause are recorded as missed."""

        def change(schedule: Schedule, now: datetime) -> Schedule:
            if not schedule.paused:
                return schedule
            return schedule.model_copy(update={"paused": False, "resumed_at": now})

        return await self._change(job_id, change)

    async def _change(self, job_id: str, change: Callable[[Schedule, datetime], Schedule]) -> Stored[Job]:
        stored = await self._schedules.update(job_id, lambda schedule: change(schedule, self._clock.now()))
        if stored is None:
            raise _unknown_job(job_id)
        # At once, so that no tick comes before the watch event.
        self._mirror.note(job_id, stored.record, stored.revision)
        return Stored(await self._job(stored.record), stored.revision)

    async def remove(self, job_id: str, expected: int | None) -> None:
        """Delete the schedule and its mark, whether they can be read or not; its runs stay.

        The ticks of a pause are recorded as missed first. `expected`: the revision of If-Match. Raises
        NotFound and PreconditionFailed.
        """

        async def attempt() -> bool | None:
            entry = await self._schedules.store.get(self._schedules.prefix + job_id)
            revision = (await self.get(job_id)).revision if entry is None else entry.revision
            check_if_match(expected, revision)
            schedule = await self.find(job_id)
            if schedule is not None and schedule.paused:
                await self._record_pause(schedule)
            checks = [Check(self._schedules.prefix + job_id, revision)]
            deletes = [
                Delete(self._schedules.prefix + job_id),
                Delete(self._marks.records.prefix + job_id),
            ]
            if await self._schedules.store.transact(checks, deletes) is not None:
                self._marks.forget(job_id)  # so that the same job can be added again
                self._schedules.note_absent(self._schedules.prefix + job_id)
                self._marks.records.note_absent(self._marks.records.prefix + job_id)
                return True
            if expected not in (None, ANY_REVISION):
                raise PreconditionFailed(
                    "The job was changed in the meantime.", next="Read it again and repeat the call."
                )
            return None

        await retry_lost(attempt, f"the job {job_id!r}", unknown_is_lost=False)

    async def next_times(self, job_id: str, count: int) -> NextTimes:
        """Return the next times of a job, even if it is paused."""
        schedule = (await self.get(job_id)).record
        return self._next_times(schedule_cron(schedule), count, self._next_after(schedule))

    def preview(self, request: CronPreview) -> NextTimes:
        """Return the next times of a cron string. Raises InvalidInput."""
        cron = parse_cron(request.cron, request.timezone, seconds=request.seconds)
        return self._next_times(cron, request.count, self._clock.now())

    def _next_times(self, cron: Cron, count: int, after: datetime) -> NextTimes:
        return NextTimes(times=list(islice(cron.times(after), count)))

    def _next_after(self, schedule: Schedule) -> datetime:
        """Return now, or the last decided tick if the clock was set back."""
        now = self._clock.now()
        return max(now, self._marks.get(schedule.id) or now)

    async def _job(self, schedule: Schedule) -> Job:
        following = None
        if not schedule.paused:
            with suppress(InvalidInput):  # a zone unknown to this machine; the other jobs are still listed
                following = schedule_cron(schedule).next(self._next_after(schedule))
        last, decided_until = None, self._marks.get(schedule.id)
        if decided_until is not None:
            stored = await self._runs.find(tick_run_id(schedule.pipeline, self._node, decided_until))
            if stored is not None:
                run = stored.record
                last = TickOutcome(
                    run=run.id, scheduled_for=decided_until, phase=run.phase, missed=run.missed
                )
        return Job(**stored_fields(schedule), next=following, last=last)


def _unknown_job(job_id: str) -> NotFound:
    return NotFound(
        f"There is no job {job_id!r} on this node.",
        code="unknown-job",
        next="List the jobs with 'maoctl job get'.",
    )


def _settings(schedule: Schedule) -> dict[str, object]:
    """Return the settings in the request, without those that a pause changes."""
    return schedule.model_dump(include=set(ScheduleSpec.model_fields) - {"paused", "cron"})
