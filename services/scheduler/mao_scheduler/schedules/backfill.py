"""Runs missed ticks of a schedule on request: queues missed records again and creates absent ones."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import islice

from mao_scheduler.enrolments import EnrolmentLookup
from mao_shared.clock import Clock
from mao_shared.errors import InvalidInput, RecordUnreadable
from mao_shared.models import BackfillResult, Enrolment, Run, Schedule, tick_run_id
from mao_shared.models.schedule import BackfillRequest, BackfillTick
from mao_shared.reconcile import Mirror
from mao_shared.runs.records import RunRecords
from mao_shared.states import RunPhase
from mao_shared.store import Stored

from .due import schedule_cron
from .jobs import JobCommands
from .marks import RestoreStatus, TickHistory
from .new_runs import queued_run

TICKS_PER_LOOKUP = 64  # ticks looked up at the same time
MAX_TICKS_SCANNED = 10_000  # ticks scanned in one call
_SECOND = timedelta(seconds=1)


class Backfill:
    """The command behind `POST /jobs/{id}/backfill`."""

    def __init__(
        self,
        node: str,
        jobs: JobCommands,
        runs: Mirror[Run],
        records: RunRecords,
        memory: TickHistory,
        enrolments: EnrolmentLookup,
        clock: Clock,
    ) -> None:
        self._node = node
        self._records = records
        self._memory = memory
        self._jobs = jobs
        self._runs = runs
        self._enrolments = enrolments
        self._clock = clock
        self._restores = RestoreStatus(runs.records.store, node)

    async def __call__(self, job_id: str, request: BackfillRequest) -> BackfillResult:
        """Queue at most `max_catch_up` ticks of [since, until], oldest first.

        Ticks that were run, are running or are queued are skipped. With `dry_run` nothing is written.

        Raises:
            InvalidInput: `range-invalid`; `range-forgotten`: it is no longer known what was run then, and
                nothing may run twice.
            NotFound: `unknown-job`.
            Conflict: `not-enrolled`, `restore-open`.
        """
        schedule = (await self._jobs.get(job_id)).record
        now, since = self._clock.now(), request.since
        until = min(request.until or now, now)
        if since > until or since.year < 1970:
            raise InvalidInput(
                f"There are no ticks between {since:%Y-%m-%dT%H:%M:%SZ} and {until:%Y-%m-%dT%H:%M:%SZ}.",
                code="range-invalid",
                next="Send a 'since' that is in the past and before 'until'.",
            )
        forgotten = await self._memory.forgotten(schedule.pipeline)
        if forgotten is not None and since <= forgotten:
            last = f"{forgotten:%Y-%m-%dT%H:%M:%SZ}"
            raise InvalidInput(
                f"Records of runs of {schedule.pipeline!r} up to the tick of {last} have been removed by "
                "retention, so it is unknown which ticks before that were run.",
                code="range-forgotten",
                next="Send a later 'since'; run a single older tick manually: "
                f"maoctl pipeline run {schedule.pipeline} --scheduled-for TIME.",
                forgotten_until=last,
            )
        await self._restores.require_checked(since)
        enrolment = (await self._enrolments.require(schedule.pipeline)).record
        result = BackfillResult(queued=[], present=0)
        ticks = schedule_cron(schedule).times(since - _SECOND, until)
        for _ in range(0, MAX_TICKS_SCANNED, TICKS_PER_LOOKUP):
            chunk = list(islice(ticks, TICKS_PER_LOOKUP))
            if not chunk:
                return result
            left = schedule.max_catch_up - len(result.queued) - len(result.ticks)
            if request.dry_run:
                result.more_since = await self._list_ticks(schedule, chunk, left, result)
            else:
                result.more_since = await self._queue_ticks(schedule, enrolment, chunk, left, result)
            if result.more_since is not None:
                return result
        result.more_since = next(ticks, None)
        return result

    async def _list_ticks(
        self, schedule: Schedule, ticks: Sequence[datetime], left: int, result: BackfillResult
    ) -> datetime | None:
        """Add up to `left` of the ticks that would run to the result; return the first one beyond that."""
        for tick, name, stored in await self._look_up(schedule, ticks):
            if _has_run(stored):
                result.present += 1
                continue
            if left == 0:
                return tick
            missed = stored.record if isinstance(stored, Stored) else None
            result.ticks.append(
                BackfillTick(
                    run=name,
                    scheduled_for=tick,
                    missed=missed and missed.missed,
                    reason=missed and missed.reason,
                )
            )
            left -= 1
        return None

    async def _queue_ticks(
        self,
        schedule: Schedule,
        enrolment: Enrolment,
        ticks: Sequence[datetime],
        left: int,
        result: BackfillResult,
    ) -> datetime | None:
        """Queue up to `left` of the ticks; return the first one beyond that."""
        for tick, name, stored in await self._look_up(schedule, ticks):
            if isinstance(stored, RecordUnreadable) or _has_run(stored):
                result.present += 1
                continue
            if left == 0:
                return tick
            fresh = queued_run(
                name,
                enrolment,
                self._clock.now(),
                "schedule",
                overlap="queue",  # with `skip` only one of the backfilled runs would run
                scheduled_for=tick,
                schedule=schedule.id,
            )
            if stored is None:
                revision = await self._records.create(name, fresh)
            else:
                again = stored.record.move(
                    RunPhase.QUEUED,
                    steps=fresh.steps,
                    overlap=fresh.overlap,
                    created_at=fresh.created_at,
                    finished_at=None,
                    missed=None,
                    reason=None,
                    schedule=fresh.schedule,
                )
                fresh, revision = again, await self._records.replace(name, again, stored.revision)
            if revision is None:
                result.present += 1  # written by another process in the meantime
                continue
            self._runs.note(name, fresh, revision)
            result.queued.append(name)
            left -= 1
        return None

    async def _look_up(
        self, schedule: Schedule, ticks: Sequence[datetime]
    ) -> list[tuple[datetime, str, Stored[Run] | RecordUnreadable | None]]:
        """Return each tick with its run's id and record."""
        names = [tick_run_id(schedule.pipeline, self._node, tick) for tick in ticks]
        records = await asyncio.gather(*(self._find(name) for name in names))
        return list(zip(ticks, names, records, strict=True))

    async def _find(self, name: str) -> Stored[Run] | RecordUnreadable | None:
        try:
            return await self._records.get(name)
        except RecordUnreadable as error:
            return error


def _has_run(stored: Stored[Run] | RecordUnreadable | None) -> bool:
    """Return True for a tick that must not run again; one whose record is unreadable may have been run."""
    if isinstance(stored, RecordUnreadable):
        return True
    return stored is not None and stored.record.phase is not RunPhase.MISSED
