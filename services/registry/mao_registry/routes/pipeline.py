"""`/pipeline`: register and enrol in one call, and what this node takes part in."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Response

from mao_shared.models import Listing, Pipeline, PipelineInit, PipelineState
from mao_shared.store import Stored
from mao_shared.web.http import IdempotencyKey, Paging
from mao_shared.web.idempotency import Attempt, once

from .common import CREATED_HEADERS, TheRegistry, answer
from .examples import INIT

router = APIRouter(prefix="/pipeline", tags=["pipelines"])


@router.get("", name="pipelines.states", summary="List pipelines with this node's part in each")
async def states(registry: TheRegistry, query: Paging) -> Listing[PipelineState]:
    return await registry.consent.states(query.limit, query.cursor)


@router.post(
    "/init",
    name="pipelines.init",
    summary="Register a pipeline and enrol this node",
    status_code=201,
    responses=CREATED_HEADERS,
)
async def init(
    registry: TheRegistry,
    response: Response,
    wanted: Annotated[PipelineInit, Body(openapi_examples=INIT)],
    idempotency_key: IdempotencyKey = None,
) -> Pipeline:
    """Checks everything, pins the images, makes the node's branches; then writes.

    A pipeline that is registered as wanted, but not enrolled on this node, is enrolled.
    """

    async def make(attempt: Attempt) -> Stored[Pipeline]:
        return await registry.enrolments.init(wanted, mine=attempt.mine)

    async def taken() -> bool:
        return await registry.enrolments.taken(wanted.pipeline().name)

    stored = await once(
        registry.shelf.own,
        registry.shelf.node,
        "pipelines.init",
        idempotency_key,
        wanted,
        Pipeline,
        make,
        taken=taken,
    )
    return answer(response, stored, f"/registry/pipelines/{stored.record.name}")
