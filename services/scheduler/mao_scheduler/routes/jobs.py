"""`/pipeline/run`, `/jobs` and `/cron/preview`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Response, status
from pydantic import Discriminator, Tag

from mao_shared import request_context
from mao_shared.models.page import Listing
from mao_shared.models.run import Run, RunRequest, has_cron
from mao_shared.models.schedule import (
    BackfillRequest,
    BackfillResult,
    CronPreview,
    Job,
    NextTimes,
    Schedule,
    ScheduleRequest,
)
from mao_shared.web.dependencies import JOB_TITLE
from mao_shared.web.http import IdempotencyKey, IfMatch, Paging
from mao_shared.web.idempotency import once
from mao_shared.web.original import AsksOriginal, Removed, original_answer

from .api import OfPipeline, Parts, answer

router = APIRouter(tags=["jobs"])


def _kind(body: Any) -> str:
    schedules = has_cron(body) if isinstance(body, dict) else isinstance(body, ScheduleRequest)
    return "schedule" if schedules else "run"


PipelineRunBody = Annotated[
    Annotated[RunRequest, Tag("run")] | Annotated[ScheduleRequest, Tag("schedule")],
    Discriminator(_kind),
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


@router.post(
    "/pipeline/run",
    name="pipelines.run",
    summary="Run a pipeline now, or by a cron string",
    status_code=status.HTTP_201_CREATED,
    responses={200: {"description": "The same cron string was scheduled already: that schedule"}},
    response_model=Run | Schedule,
)
async def run_pipeline(
    body: PipelineRunBody, parts: Parts, response: Response, key: IdempotencyKey = None
) -> Run | Schedule:
    """Without `cron` a run (it waits while another run of the pipeline is under way), with it a schedule.

    `name`: the pipeline's name or its title.
    """
    body = body.model_copy(update={"name": await parts.enrolled.named(body.name)})
    if isinstance(body, RunRequest):
        request = request_context.current()
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
        return answer(started, response)
    added, is_new = await parts.jobs.add(body)
    response.status_code = status.HTTP_201_CREATED if is_new else status.HTTP_200_OK
    return answer(added, response)


@router.get("/jobs", name="jobs.list", summary="The schedules of this node", response_model=Listing[Job])
async def list_jobs(
    parts: Parts, page: Paging, original: AsksOriginal, pipeline: OfPipeline
) -> Listing[Job] | Response:
    """By id, with the next time and the last outcome of each. The original's clients get a map, id → time."""
    if original:
        jobs = await parts.jobs.list(None, None, pipeline)
        return original_answer({job.id: job.next and str(job.next) for job in jobs.items})
    return await parts.jobs.list(page.limit, page.cursor, pipeline)


@router.get("/jobs/{id}", name="jobs.get", summary="One schedule")
async def get_job(id: str, parts: Parts, response: Response) -> Job:  # noqa: A002 (the path's word)
    return answer(await parts.jobs.show(id), response)


@router.delete(f"/jobs/{{id:{JOB_TITLE}}}", name="jobs.delete", summary="Remove a schedule")
async def delete_job(id: str, parts: Parts, expected: IfMatch) -> Removed:  # noqa: A002
    """Its runs stay, and those that are queued or under way go on.

    By its id; or by its pipeline's name or title, as the original named it, where that has one schedule only.
    """
    removed = await parts.jobs.only_one(id)
    await parts.jobs.remove(removed, expected)
    return Removed(removed=removed, detail=f"The job {removed!r} is removed: nothing is due by it any more.")


@router.post("/jobs/{id}/pause", name="jobs.pause", summary="Stop a schedule for a while")
async def pause_job(id: str, parts: Parts, response: Response) -> Job:  # noqa: A002
    return answer(await parts.jobs.pause(id), response)


@router.post("/jobs/{id}/resume", name="jobs.resume", summary="Let a paused schedule go on")
async def resume_job(id: str, parts: Parts, response: Response) -> Job:  # noqa: A002
    """The ticks of the pause are recorded as missed; run them with a backfill if they are wanted."""
    return answer(await parts.jobs.resume(id), response)


@router.post("/jobs/{id}/backfill", name="jobs.backfill", summary="Run what was missed")
async def backfill_job(id: str, body: BackfillRequest, parts: Parts) -> BackfillResult:  # noqa: A002
    """Oldest first, at most `max_catch_up` runs a call; the tool finds its tick in `MAO_SCHEDULED_FOR`."""
    return await parts.backfill(id, body)


@router.get("/jobs/{id}/next", name="jobs.next", summary="The coming times of a schedule")
async def next_times(
    id: str,  # noqa: A002
    parts: Parts,
    count: Annotated[int, Query(ge=1, le=100)] = 10,
) -> NextTimes:
    return await parts.jobs.next_times(id, count)


@router.post("/cron/preview", name="cron.preview", summary="Check a cron string and see its coming times")
async def preview(body: CronPreview, parts: Parts) -> NextTimes:
    return parts.jobs.preview(body)
