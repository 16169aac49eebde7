"""`POST /runs/{id}/reproduce`."""

from __future__ import annotations

from fastapi import APIRouter, Response, status

from mao_shared import request_context
from mao_shared.models.run import ReproduceBody, Run
from mao_shared.web.http import IdempotencyKey
from mao_shared.web.idempotency import once

from .api import Parts, answer

router = APIRouter(tags=["runs"])


class _Reproduce(ReproduceBody):
    """What an Idempotency-Key of a reproduction stands for."""

    run: str


@router.post(
    "/runs/{id}/reproduce",
    name="runs.reproduce",
    summary="Run a step again on the same input and compare",
    status_code=status.HTTP_201_CREATED,
)
async def reproduce_run(
    id: str,  # noqa: A002 (the path's word)
    parts: Parts,
    response: Response,
    body: ReproduceBody | None = None,
    key: IdempotencyKey = None,
) -> Run:
    """A run with the same image by digest, on the same commits, in a scratch workspace.

    Nothing of it is published; `steps[0].reproduced` says file by file what came out.
    """
    request = request_context.current()
    step = None if body is None else body.step
    made = await once(
        parts.store,
        parts.node,
        "runs.reproduce",
        key,
        _Reproduce(run=id, step=step),
        Run,
        lambda attempt: parts.runs.reproduce(id, step, attempt, request),
        parts.clock,
    )
    return answer(made, response)
