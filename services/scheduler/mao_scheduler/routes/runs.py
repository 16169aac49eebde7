"""`/runs`: list, look, cancel, retry, follow."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Response, status
from fastapi.sse import EventSourceResponse, ServerSentEvent

from mao_scheduler.runs.commands import RunFilter
from mao_shared import request_context
from mao_shared.models.common import Record, Timestamp
from mao_shared.models.page import Listing
from mao_shared.models.run import CancelBody, Run, Trigger
from mao_shared.states import RunPhase
from mao_shared.web.http import IdempotencyKey, Paging
from mao_shared.web.idempotency import once

from .api import OfPipeline, Parts, answer

router = APIRouter(tags=["runs"])


_TIME = "By the time that a run's id begins with: its tick, or when it was asked for"


def _filter(
    pipeline: OfPipeline,
    phase: Annotated[RunPhase | None, Query()] = None,
    schedule: Annotated[str | None, Query(max_length=200, description="Id of a job")] = None,
    trigger: Annotated[Trigger | None, Query(description="What asked for the run")] = None,
    since: Annotated[Timestamp | None, Query(description=_TIME)] = None,
    until: Annotated[Timestamp | None, Query(description=_TIME)] = None,
) -> RunFilter:
    return RunFilter(pipeline, phase, schedule, trigger, since, until)


@router.get("/runs", name="runs.list", summary="Runs, newest first")
async def list_runs(
    parts: Parts, page: Paging, wanted: Annotated[RunFilter, Depends(_filter)]
) -> Listing[Run]:
    """With a filter a page may hold fewer than `limit` although a `cursor` follows."""
    if wanted.schedule is not None:
        wanted = replace(wanted, ticks=await parts.jobs.find(wanted.schedule))
    return await parts.runs.list(page.limit, page.cursor, wanted)


@router.get("/runs/{id}", name="runs.get", summary="One run with its steps")
async def get_run(id: str, parts: Parts, response: Response) -> Run:  # noqa: A002 (the path's word)
    return answer(await parts.runs.get(id), response)


@router.post("/runs/{id}/cancel", name="runs.cancel", summary="End a run")
async def cancel_run(
    id: str,  # noqa: A002
    parts: Parts,
    response: Response,
    body: CancelBody | None = None,
) -> Run:
    """The run ends when the service that works on it has let go; a step that publishes is not interrupted."""
    return answer(await parts.runs.cancel(id, body.reason if body else ""), response)


class _Retry(Record):
    """What an Idempotency-Key of a retry stands for."""

    run: str


@router.post(
    "/runs/{id}/retry", name="runs.retry", summary="Run it again", status_code=status.HTTP_201_CREATED
)
async def retry_run(
    id: str,  # noqa: A002
    parts: Parts,
    response: Response,
    key: IdempotencyKey = None,
) -> Run:
    """A new run for the same tick, with what the pipeline's enrolment says now."""
    request = request_context.current()
    retried = await once(
        parts.store,
        parts.node,
        "runs.retry",
        key,
        _Retry(run=id),
        Run,
        lambda attempt: parts.runs.retry(id, attempt, request),
        parts.clock,
    )
    return answer(retried, response)


async def _existing(id: str, parts: Parts) -> str:  # noqa: A002
    """Refuses an unknown run before the stream begins."""
    await parts.runs.get(id)
    return id


@router.get(
    "/runs/{id}/events",
    name="runs.events",
    summary="Follow a run",
    response_class=EventSourceResponse,
)
async def run_events(
    run_id: Annotated[str, Depends(_existing)],
    parts: Parts,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> AsyncIterable[ServerSentEvent]:
    """Server-sent events: the run at every change, `id` its revision; the stream ends after the last."""
    known = last_event_id is not None and re.fullmatch("[0-9]{1,18}", last_event_id)
    seen = int(last_event_id or 0) if known else 0
    async with aclosing(parts.runs.follow(run_id, seen)) as changes:
        async for stored in changes:
            data = stored.record.model_dump_json(exclude_none=True)
            yield ServerSentEvent(raw_data=data, event="run", id=str(stored.revision))
