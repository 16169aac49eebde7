"""`/pipeline`: register and enrol in one call, and what this node takes part in."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Response

from mao_shared.errors import MaoError
from mao_shared.models import Listing, Pipeline, PipelineInit, PipelineState
from mao_shared.store import Stored
from mao_shared.web.http import IdempotencyKey, Paging
from mao_shared.web.idempotency import Attempt, once
from mao_shared.web.original import AsksOriginal, original_answer, original_pipeline, with_errors

from .common import CREATED_HEADERS, TheRegistry, answer
from .records import INIT

router = APIRouter(prefix="/pipeline", tags=["pipelines"])


@router.get(
    "",
    name="pipelines.states",
    summary="List pipelines with this node's part in each",
    response_model=Listing[PipelineState],
)
async def states(
    registry: TheRegistry, query: Paging, original: AsksOriginal
) -> Listing[PipelineState] | Response:
    """The original's clients get those that this node takes part in, all of them."""
    if original:
        own = {stored.record.pipeline for stored in await registry.shelf.enrolments.all()}
        known = [stored.record for stored in await registry.shelf.pipelines.all()]
        return original_answer([original_pipeline(each) for each in known if each.name in own])
    return await registry.consent.states(query.limit, query.cursor)


@router.post(
    "/init",
    name="pipelines.init",
    summary="Register a pipeline and enrol this node",
    status_code=201,
    responses=CREATED_HEADERS,
    response_model=Pipeline,
)
async def init(
    registry: TheRegistry,
    response: Response,
    wanted: Annotated[PipelineInit, Body(openapi_examples=INIT)],
    original: AsksOriginal,
    idempotency_key: IdempotencyKey = None,
) -> Pipeline | Response:
    """Checks everything, pins the images, makes the node's branches; then writes.

    A pipeline that is registered as wanted, but not enrolled on this node, is enrolled.
    """

    async def make(attempt: Attempt) -> Stored[Pipeline]:
        return await registry.enrolments.init(wanted, mine=attempt.mine)

    async def taken() -> bool:
        return await registry.enrolments.taken(wanted.pipeline().name)

    try:
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
    except MaoError as error:
        if original:
            with_errors(error)
        raise
    if original:
        return original_answer(original_pipeline(stored.record) | {"ok": True}, 201)
    return answer(response, stored, f"/registry/pipelines/{stored.record.name}")
