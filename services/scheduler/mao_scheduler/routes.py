"""The scheduler's HTTP API: runs, jobs, and previews of cron strings."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Response, status
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import Discriminator, Tag

from mao_shared.models import (
    BackfillResult,
    Job,
    Listing,
    NameOrTitle,
    NextTimes,
    Record,
    Run,
    RunRequest,
    Schedule,
    TickStrip,
    Timestamp,
    Trigger,
)
from mao_shared.models.common import Removed
from mao_shared.models.run import CancelBody, ReproduceBody, has_cron
from mao_shared.models.schedule import BackfillRequest, CronPreview, ScheduleRequest
from mao_shared.request_context import current_request_id
from mao_shared.states import RunPhase
from mao_shared.store import Stored
from mao_shared.web.api_pages import make_routes
from mao_shared.web.dependencies import JOB_TITLE, Attempt, IdempotencyKey, IfMatch, Paging, etag, once
from mao_shared.web.original import AsksOriginal, original_answer

from .runs.commands import RunFilter
from .scheduler import Scheduler, get_scheduler

R = TypeVar("R", bound=Record)
runs_router = APIRouter(tags=["runs"])
jobs_router = APIRouter(tags=["jobs"])
SchedulerDep = Annotated[Scheduler, Depends(get_scheduler)]
RunId = Annotated[
    str, Path(description="Id of the run", examples=["20260131T120000Z-system-performance-1f3a5c7d"])
]
JobId = Annotated[str, Path(description="Id of the schedule", examples=["system-performance-3fa9c1"])]


async def pipeline_filter(
    scheduler: SchedulerDep,
    pipeline: Annotated[NameOrTitle | None, Query(description="Name or title of a pipeline")] = None,
) -> str | None:
    """Return the name of the pipeline that a list is filtered by (FastAPI dependency)."""
    return None if pipeline is None else await scheduler.enrolment_lookup.resolve_name(pipeline)


PipelineFilter = Annotated[str | None, Depends(pipeline_filter)]


def with_etag(stored: Stored[R], response: Response) -> R:
    """Set the ETag of the response to the revision, and return the record."""
    response.headers["ETag"] = etag(stored.revision)
    return stored.record


async def _create_once(
    scheduler: Scheduler,
    response: Response,
    operation: str,
    key: str | None,
    identity: Record,
    create: Callable[[Attempt], Awaitable[Stored[Run]]],
) -> Run:
    """Create a run, or return that of an earlier request with the same key and identity."""
    run = await once(scheduler.store, scheduler.node, operation, key, identity, Run, create, scheduler.clock)
    return with_etag(run, response)


_TIME_DESCRIPTION = "By the time at the start of a run's id: its tick, or when it was requested"


async def _run_filter(
    pipeline: PipelineFilter,
    phase: Annotated[RunPhase | None, Query()] = None,
    schedule: Annotated[str | None, Query(max_length=200, description="Id of a job")] = None,
    trigger: Annotated[Trigger | None, Query(description="What caused the run")] = None,
    since: Annotated[Timestamp | None, Query(description=_TIME_DESCRIPTION)] = None,
    until: Annotated[Timestamp | None, Query(description=_TIME_DESCRIPTION)] = None,
) -> RunFilter:
    return RunFilter(pipeline, phase, schedule, trigger, since, until)


@runs_router.get("/runs", name="runs.list", summary="Runs, newest first")
async def list_runs(
    scheduler: SchedulerDep, page: Paging, wanted: Annotated[RunFilter, Depends(_run_filter)]
) -> Listing[Run]:
    """With a filter, a page may have fewer than `limit` runs although more follow."""
    if wanted.schedule is not None:
        wanted = replace(wanted, ticks=await scheduler.jobs.find(wanted.schedule))
    return await scheduler.runs.list(page.limit, page.cursor, wanted)


@runs_router.get("/ticks", name="ticks.list", summary="The last ticks of this node's pipelines, as strips")
async def list_ticks(scheduler: SchedulerDep, pipeline: PipelineFilter) -> Listing[TickStrip]:
    """A letter for each of up to 300 ticks, the newest run, and the next time; by name of the pipeline."""
    if pipeline is not None:
        return Listing(items=[await scheduler.strips.one(pipeline)])
    return Listing(items=await scheduler.strips.all())


@runs_router.get("/runs/{id}", name="runs.get", summary="One run with its steps")
async def get_run(id: RunId, scheduler: SchedulerDep, response: Response) -> Run:  # noqa: A002 (the path's word)
    return with_etag(await scheduler.runs.get(id), response)


@runs_router.post("/runs/{id}/cancel", name="runs.cancel", summary="Cancel a run")
async def cancel_run(
    id: RunId,  # noqa: A002
    scheduler: SchedulerDep,
    response: Response,
    body: CancelBody | None = None,
) -> Run:
    """The run ends once its current step has stopped; a step that is publishing is not interrupted."""
    return with_etag(await scheduler.runs.cancel(id, body.reason if body else ""), response)


class _RetryKey(Record):
    """The request that an Idempotency-Key of a retry identifies."""

    run: str


@runs_router.post(
    "/runs/{id}/retry", name="runs.retry", summary="Retry a run", status_code=status.HTTP_201_CREATED
)
async def retry_run(
    id: RunId,  # noqa: A002
    scheduler: SchedulerDep,
    response: Response,
    key: IdempotencyKey = None,
) -> Run:
    """A new run for the same tick, with the current enrolment of the pipeline."""
    request = current_request_id()
    return await _create_once(
        scheduler,
        response,
        "runs.retry",
        key,
        _RetryKey(run=id),
        lambda attempt: scheduler.runs.retry(id, attempt, request),
    )


async def _existing(id: RunId, scheduler: SchedulerDep) -> str:  # noqa: A002
    """Return the id of an existing run, so that an unknown one is refused before the stream starts."""
    await scheduler.runs.get(id)
    return id


@runs_router.get(
    "/runs/{id}/events",
    name="runs.events",
    summary="Follow a run",
    response_class=EventSourceResponse,
)
async def run_events(
    run_id: Annotated[str, Depends(_existing)],
    scheduler: SchedulerDep,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> AsyncIterable[ServerSentEvent]:
    """Server-sent events: the run at every change, `id` its revision; the stream ends after the last."""
    known = last_event_id is not None and re.fullmatch("[0-9]{1,18}", last_event_id)
    seen = int(last_event_id or 0) if known else 0
    async with aclosing(scheduler.runs.follow(run_id, seen)) as changes:
        async for stored in changes:
            data = stored.record.model_dump_json(exclude_none=True)
            yield ServerSentEvent(raw_data=data, event="run", id=str(stored.revision))


class _ReproduceKey(ReproduceBody):
    """The request that an Idempotency-Key of a reproduction identifies."""

    run: str


@runs_router.post(
    "/runs/{id}/reproduce",
    name="runs.reproduce",
    summary="Run a step again on the same input and compare",
    status_code=status.HTTP_201_CREATED,
)
async def reproduce_run(
    id: RunId,  # noqa: A002 (the path's word)
    scheduler: SchedulerDep,
    response: Response,
    body: ReproduceBody | None = None,
    key: IdempotencyKey = None,
) -> Run:
    """A run with the same image by digest, on the same commits, in a scratch workspace.

    Nothing is published; `steps[0].reproduced` compares the output file by file.
    """
    request = current_request_id()
    step = None if body is None else body.step
    return await _create_once(
        scheduler,
        response,
        "runs.reproduce",
        key,
        _ReproduceKey(run=id, step=step),
        lambda attempt: scheduler.runs.reproduce(id, step, attempt, request),
    )


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
                "summary": "Run it every night, in Zurich's local time",
                "value": {"name": "system-performance", "cron": "30 2 * * *", "timezone": "Europe/Zurich"},
            },
        }
    ),
]


@jobs_router.post(
    "/pipeline/run",
    name="pipelines.run",
    summary="Run a pipeline now, or schedule it by a cron string",
    status_code=status.HTTP_201_CREATED,
    responses={
        200: {"description": "The schedule that already exists for this cron string", "model": Schedule},
        201: {
            "description": "The run, or the schedule",
            "links": {
                "run": {
                    "operationId": "runs.get",
                    "parameters": {"id": "$response.body#/id"},
                    "description": "The run, as it goes on",
                },
                "schedule": {
                    "operationId": "jobs.get",
                    "parameters": {"id": "$response.body#/id"},
                    "description": "The schedule, if the body had `cron`",
                },
            },
        },
    },
    response_model=Run | Schedule,
)
async def run_pipeline(
    body: PipelineRunBody, scheduler: SchedulerDep, response: Response, key: IdempotencyKey = None
) -> Run | Schedule:
    """Without `cron` a run (which waits for earlier runs of the pipeline), with it a schedule.

    `name`: the pipeline's name or its title.
    """
    body = body.model_copy(update={"name": await scheduler.enrolment_lookup.resolve_name(body.name)})
    if isinstance(body, RunRequest):
        request = current_request_id()
        return await _create_once(
            scheduler,
            response,
            "pipelines.run",
            key,
            body,
            lambda attempt: scheduler.runs.start(body, attempt, request),
        )
    added, is_new = await scheduler.jobs.add(body)
    response.status_code = status.HTTP_201_CREATED if is_new else status.HTTP_200_OK
    return with_etag(added, response)


@jobs_router.get("/jobs", name="jobs.list", summary="The schedules of this node", response_model=Listing[Job])
async def list_jobs(
    scheduler: SchedulerDep, page: Paging, original: AsksOriginal, pipeline: PipelineFilter
) -> Listing[Job] | Response:
    """By id, with next time and last outcome. Clients of the original get a map, id → next time."""
    if original:
        jobs = await scheduler.jobs.list(None, None, pipeline)
        return original_answer({job.id: job.next and str(job.next) for job in jobs.items})
    return await scheduler.jobs.list(page.limit, page.cursor, pipeline)


@jobs_router.get("/jobs/{id}", name="jobs.get", summary="One schedule")
async def get_job(id: JobId, scheduler: SchedulerDep, response: Response) -> Job:  # noqa: A002 (the path's word)
    return with_etag(await scheduler.jobs.show(id), response)


@jobs_router.delete(f"/jobs/{{id:{JOB_TITLE}}}", name="jobs.delete", summary="Remove a schedule")
async def delete_job(id: JobId, scheduler: SchedulerDep, expected: IfMatch) -> Removed:  # noqa: A002
    """Its runs stay; queued and running ones continue.

    Named by its id, or by its pipeline's name or title if that has only one schedule.
    """
    removed = await scheduler.jobs.resolve_id(id)
    await scheduler.jobs.remove(removed, expected)
    return Removed(removed=removed, detail=f"The job {removed!r} is removed.")


@jobs_router.post("/jobs/{id}/pause", name="jobs.pause", summary="Pause a schedule")
async def pause_job(id: JobId, scheduler: SchedulerDep, response: Response) -> Job:  # noqa: A002
    return with_etag(await scheduler.jobs.pause(id), response)


@jobs_router.post("/jobs/{id}/resume", name="jobs.resume", summary="Resume a paused schedule")
async def resume_job(id: JobId, scheduler: SchedulerDep, response: Response) -> Job:  # noqa: A002
    """Ticks during the pause are recorded as missed; run them with a backfill if necessary."""
    return with_etag(await scheduler.jobs.resume(id), response)


@jobs_router.post("/jobs/{id}/backfill", name="jobs.backfill", summary="Run missed ticks")
async def backfill_job(id: JobId, body: BackfillRequest, scheduler: SchedulerDep) -> BackfillResult:  # noqa: A002
    """Oldest first, at most `max_catch_up` runs per call; `MAO_SCHEDULED_FOR` tells the tool its tick."""
    return await scheduler.backfill(id, body)


@jobs_router.get("/jobs/{id}/next", name="jobs.next", summary="The next times of a schedule")
async def next_times(
    id: JobId,  # noqa: A002
    scheduler: SchedulerDep,
    count: Annotated[int, Query(ge=1, le=100)] = 10,
) -> NextTimes:
    return await scheduler.jobs.next_times(id, count)


@jobs_router.post("/cron/preview", name="cron.preview", summary="Check a cron string and show its next times")
async def preview(body: CronPreview, scheduler: SchedulerDep) -> NextTimes:
    return scheduler.jobs.preview(body)


ROUTES = make_routes("scheduler", [runs_router, jobs_router])
