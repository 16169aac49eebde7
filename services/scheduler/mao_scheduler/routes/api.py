"""The scheduler's HTTP API: runs, jobs, and previews of cron strings."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, Depends, Header, Query, Response, status
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import Discriminator, Tag

from mao_scheduler.runs.commands import RunFilter
from mao_scheduler.scheduler import Scheduler, scheduler_of
from mao_shared import request_context
from mao_shared.models.common import Listing, Record, Timestamp
from mao_shared.models.pipeline import NameOrTitle
from mao_shared.models.run import CancelBody, ReproduceBody, Run, RunRequest, Trigger, has_cron
from mao_shared.models.schedule import (
    BackfillRequest,
    BackfillResult,
    CronPreview,
    Job,
    NextTimes,
    Schedule,
    ScheduleRequest,
)
from mao_shared.states import RunPhase
from mao_shared.store import Stored
from mao_shared.web.dependencies import JOB_TITLE, IdempotencyKey, IfMatch, Paging, etag, once
from mao_shared.web.original import AsksOriginal, Removed, original_answer

R = TypeVar("R", bound=Record)
SchedulerDep = Annotated[Scheduler, Depends(scheduler_of)]


async def pipeline_filter(
    parts: SchedulerDep,
    pipeline: Annotated[NameOrTitle | None, Query(description="Name or title of a pipeline")] = None,
) -> str | None:
    """Dependency: the name of the pipeline by which a list is narrowed."""
    return None if pipeline is None else await parts.enrolled.named(pipeline)


PipelineFilter = Annotated[str | None, Depends(pipeline_filter)]


def with_etag(stored: Stored[R], response: Response) -> R:
    """The record, with its revision as the ETag."""
    response.headers["ETag"] = etag(stored.revision)
    return stored.record


runs_router = APIRouter(tags=["runs"])
_TIME_DESCRIPTION = "By the time that a run's id begins with: its tick, or when it was asked for"


def _run_filter(
    pipeline: PipelineFilter,
    phase: Annotated[RunPhase | None, Query()] = None,
    schedule: Annotated[str | None, Query(max_length=200, description="Id of a job")] = None,
    trigger: Annotated[Trigger | None, Query(description="What asked for the run")] = None,
    since: Annotated[Timestamp | None, Query(description=_TIME_DESCRIPTION)] = None,
    until: Annotated[Timestamp | None, Query(description=_TIME_DESCRIPTION)] = None,
) -> RunFilter:
    return RunFilter(pipeline, phase, schedule, trigger, since, until)


@runs_router.get("/runs", name="runs.list", summary="Runs, newest first")
async def list_runs(
    parts: SchedulerDep, page: Paging, wanted: Annotated[RunFilter, Depends(_run_filter)]
) -> Listing[Run]:
    """With a filter a page may hold fewer than `limit` although a `cursor` follows."""
    if wanted.schedule is not None:
        wanted = replace(wanted, ticks=await parts.jobs.find(wanted.schedule))
    return await parts.runs.list(page.limit, page.cursor, wanted)


@runs_router.get("/runs/{id}", name="runs.get", summary="One run with its steps")
async def get_run(id: str, parts: SchedulerDep, response: Response) -> Run:  # noqa: A002 (the path's word)
    return with_etag(await parts.runs.get(id), response)


@runs_router.post("/runs/{id}/cancel", name="runs.cancel", summary="End a run")
async def cancel_run(
    id: str,  # noqa: A002
    parts: SchedulerDep,
    response: Response,
    body: CancelBody | None = None,
) -> Run:
    """The run ends when the service that works on it has let go; a step that publishes is not interrupted."""
    return with_etag(await parts.runs.cancel(id, body.reason if body else ""), response)


class _RetryKey(Record):
    """What an Idempotency-Key of a retry stands for."""

    run: str


@runs_router.post(
    "/runs/{id}/retry", name="runs.retry", summary="Run it again", status_code=status.HTTP_201_CREATED
)
async def retry_run(
    id: str,  # noqa: A002
    parts: SchedulerDep,
    response: Response,
    key: IdempotencyKey = None,
) -> Run:
    """A new run for the same tick, with what the pipeline's enrolment says now."""
    request = request_context.current_request_id()
    retried = await once(
        parts.store,
        parts.node,
        "runs.retry",
        key,
        _RetryKey(run=id),
        Run,
        lambda attempt: parts.runs.retry(id, attempt, request),
        parts.clock,
    )
    return with_etag(retried, response)


async def _existing(id: str, parts: SchedulerDep) -> str:  # noqa: A002
    """Refuses an unknown run before the stream begins."""
    await parts.runs.get(id)
    return id


@runs_router.get(
    "/runs/{id}/events",
    name="runs.events",
    summary="Follow a run",
    response_class=EventSourceResponse,
)
async def run_events(
    run_id: Annotated[str, Depends(_existing)],
    parts: SchedulerDep,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> AsyncIterable[ServerSentEvent]:
    """Server-sent events: the run at every change, `id` its revision; the stream ends after the last."""
    known = last_event_id is not None and re.fullmatch("[0-9]{1,18}", last_event_id)
    seen = int(last_event_id or 0) if known else 0
    async with aclosing(parts.runs.follow(run_id, seen)) as changes:
        async for stored in changes:
            data = stored.record.model_dump_json(exclude_none=True)
            yield ServerSentEvent(raw_data=data, event="run", id=str(stored.revision))


reproduce_router = APIRouter(tags=["runs"])


class _ReproduceKey(ReproduceBody):
    """What an Idempotency-Key of a reproduction stands for."""

    run: str


@reproduce_router.post(
    "/runs/{id}/reproduce",
    name="runs.reproduce",
    summary="Run a step again on the same input and compare",
    status_code=status.HTTP_201_CREATED,
)
async def reproduce_run(
    id: str,  # noqa: A002 (the path's word)
    parts: SchedulerDep,
    response: Response,
    body: ReproduceBody | None = None,
    key: IdempotencyKey = None,
) -> Run:
    """A run with the same image by digest, on the same commits, in a scratch workspace.

    Nothing of it is published; `steps[0].reproduced` says file by file what came out.
    """
    request = request_context.current_request_id()
    step = None if body is None else body.step
    made = await once(
        parts.store,
        parts.node,
        "runs.reproduce",
        key,
        _ReproduceKey(run=id, step=step),
        Run,
        lambda attempt: parts.runs.reproduce(id, step, attempt, request),
        parts.clock,
    )
    return with_etag(made, response)


jobs_router = APIRouter(tags=["jobs"])


def _body_kind(body: Any) -> str:
    schedules = has_cron(body) if isinstance(body, dict) else isinstance(body, ScheduleRequest)
    return "schedule" if schedules else "run"


PipelineRunBody = Annotated[
    Annotated[RunRequest, Tag("run")] | Annotated[ScheduleRequest, Tag("schedule")],
    Discriminator(_body_kind),
    Body(
        openapi_examples={
            "once": {"summary": "Run it now", "value": {"name": "system-performance"}},
            "by cron": {
                "summary": "Run it every night, by the clock of Zurich",
                "value": {"name": "system-performance", "cron": "30 2 * * *", "timezone": "Europe/Zurich"},
            },
        }
    ),
]


@jobs_router.post(
    "/pipeline/run",
    name="pipelines.run",
    summary="Run a pipeline now, or by a cron string",
    status_code=status.HTTP_201_CREATED,
    responses={200: {"description": "The same cron string was scheduled already: that schedule"}},
    response_model=Run | Schedule,
)
async def run_pipeline(
    body: PipelineRunBody, parts: SchedulerDep, response: Response, key: IdempotencyKey = None
) -> Run | Schedule:
    """Without `cron` a run (it waits while another run of the pipeline is under way), with it a schedule.

    `name`: the pipeline's name or its title.
    """
    body = body.model_copy(update={"name": await parts.enrolled.named(body.name)})
    if isinstance(body, RunRequest):
        request = request_context.current_request_id()
        started = await once(
            parts.store,
            parts.node,
            "pipelines.run",
            key,
            body,
            Run,
            lambda attempt: parts.runs.start(body, attempt, request),
            parts.clock,
        )
        return with_etag(started, response)
    added, is_new = await parts.jobs.add(body)
    response.status_code = status.HTTP_201_CREATED if is_new else status.HTTP_200_OK
    return with_etag(added, response)


@jobs_router.get("/jobs", name="jobs.list", summary="The schedules of this node", response_model=Listing[Job])
async def list_jobs(
    parts: SchedulerDep, page: Paging, original: AsksOriginal, pipeline: PipelineFilter
) -> Listing[Job] | Response:
    """By id, with the next time and the last outcome of each. The original's clients get a map, id → time."""
    if original:
        jobs = await parts.jobs.list(None, None, pipeline)
        return original_answer({job.id: job.next and str(job.next) for job in jobs.items})
    return await parts.jobs.list(page.limit, page.cursor, pipeline)


@jobs_router.get("/jobs/{id}", name="jobs.get", summary="One schedule")
async def get_job(id: str, parts: SchedulerDep, response: Response) -> Job:  # noqa: A002 (the path's word)
    return with_etag(await parts.jobs.show(id), response)


@jobs_router.delete(f"/jobs/{{id:{JOB_TITLE}}}", name="jobs.delete", summary="Remove a schedule")
async def delete_job(id: str, parts: SchedulerDep, expected: IfMatch) -> Removed:  # noqa: A002
    """Its runs stay, and those that are queued or under way go on.

    By its id; or by its pipeline's name or title, as the original named it, where that has one schedule only.
    """
    removed = await parts.jobs.only_one(id)
    await parts.jobs.remove(removed, expected)
    return Removed(removed=removed, detail=f"The job {removed!r} is removed: nothing is due by it any more.")


@jobs_router.post("/jobs/{id}/pause", name="jobs.pause", summary="Stop a schedule for a while")
async def pause_job(id: str, parts: SchedulerDep, response: Response) -> Job:  # noqa: A002
    return with_etag(await parts.jobs.pause(id), response)


@jobs_router.post("/jobs/{id}/resume", name="jobs.resume", summary="Let a paused schedule go on")
async def resume_job(id: str, parts: SchedulerDep, response: Response) -> Job:  # noqa: A002
    """The ticks of the pause are recorded as missed; run them with a backfill if they are wanted."""
    return with_etag(await parts.jobs.resume(id), response)


@jobs_router.post("/jobs/{id}/backfill", name="jobs.backfill", summary="Run what was missed")
async def backfill_job(id: str, body: BackfillRequest, parts: SchedulerDep) -> BackfillResult:  # noqa: A002
    """Oldest first, at most `max_catch_up` runs a call; the tool finds its tick in `MAO_SCHEDULED_FOR`."""
    return await parts.backfill(id, body)


@jobs_router.get("/jobs/{id}/next", name="jobs.next", summary="The coming times of a schedule")
async def next_times(
    id: str,  # noqa: A002
    parts: SchedulerDep,
    count: Annotated[int, Query(ge=1, le=100)] = 10,
) -> NextTimes:
    return await parts.jobs.next_times(id, count)


@jobs_router.post(
    "/cron/preview", name="cron.preview", summary="Check a cron string and see its coming times"
)
async def preview(body: CronPreview, parts: SchedulerDep) -> NextTimes:
    return parts.jobs.preview(body)
