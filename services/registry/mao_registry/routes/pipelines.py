"""`/pipeline`, `/enrolments`, `/trusted`: what this node takes part in, changes, approval.

`/pipeline`: register and enrol in one call, and what this node takes part in.

`/enrolments`: this node takes part, renews, withdraws; reading needs the node's own store only.

What is pending on this node: the difference, the approval, and whose changes need none.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path, Response

from mao_shared.errors import MaoError
from mao_shared.models import (
    Approval,
    Enrolment,
    EnrolmentRequest,
    Listing,
    NodeName,
    Pipeline,
    PipelineDiff,
    PipelineInit,
    PipelineState,
    Trust,
)
from mao_shared.store import Stored
from mao_shared.web.dependencies import TITLE, Attempt, IdempotencyKey, IfMatch, Paging, once
from mao_shared.web.original import AsksOriginal, original_answer, original_pipeline, with_errors

from .common import CREATED_HEADERS, ETAG_HEADER, PipelineName, TheRegistry, answer, listing
from .records import INIT

pipelines_router = APIRouter(prefix="/pipeline", tags=["pipelines"])


@pipelines_router.get(
    "",
    name="pipelines.states",
    summary="List pipelines with this node's part in each",
    response_model=Listing[PipelineState],
)
async def list_states(
    registry: TheRegistry, query: Paging, original: AsksOriginal
) -> Listing[PipelineState] | Response:
    """The original's clients get those that this node takes part in, all of them."""
    if original:
        own = {stored.record.pipeline for stored in await registry.shelf.enrolments.all()}
        known = [stored.record for stored in await registry.shelf.pipelines.all()]
        return original_answer([original_pipeline(each) for each in known if each.name in own])
    return await registry.consent.states(query.limit, query.cursor)


@pipelines_router.post(
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


enrolments_router = APIRouter(prefix="/enrolments", tags=["enrolments"])


@enrolments_router.get("", name="enrolments.list", summary="List what this node is enrolled in")
async def list_enrolments(registry: TheRegistry, query: Paging) -> Listing[Enrolment]:
    return listing(await registry.enrolments.page(query.limit, query.cursor))


@enrolments_router.get(
    f"/{{name:{TITLE}}}", name="enrolments.get", summary="Show an enrolment", responses=ETAG_HEADER
)
async def show_enrolment(registry: TheRegistry, response: Response, name: PipelineName) -> Enrolment:
    return answer(response, await registry.enrolments.read(name))


@enrolments_router.put(
    f"/{{name:{TITLE}}}", name="enrolments.put", summary="Enrol this node, or renew", responses=ETAG_HEADER
)
async def put_enrolment(
    registry: TheRegistry,
    response: Response,
    name: PipelineName,
    if_match: IfMatch,
    request: EnrolmentRequest | None = None,
) -> Enrolment:
    """Takes pipeline and tools as they are now and pins the images; 201 when new, 200 when renewed."""
    stored, is_new = await registry.enrolments.renew(name, request or EnrolmentRequest(), if_match)
    response.status_code = 201 if is_new else 200
    return answer(response, stored, f"/enrolments/{name}" if is_new else None)


@enrolments_router.delete(
    f"/{{name:{TITLE}}}", name="enrolments.delete", summary="Withdraw this node", status_code=204
)
async def delete_enrolment(registry: TheRegistry, name: PipelineName, if_match: IfMatch) -> None:
    """Refused while a schedule or an active run needs it."""
    await registry.enrolments.withdraw(name, if_match)


consent_router = APIRouter(tags=["consent"])

PathNode = Annotated[NodeName, Path(description="Name of the node")]


@consent_router.get(
    f"/pipeline/{{name:{TITLE}}}/diff", name="pipelines.diff", summary="What would change on this node"
)
async def diff(registry: TheRegistry, name: PipelineName) -> PipelineDiff:
    """What runs here against what is registered; `definition` goes into the approval."""
    return await registry.consent.diff(name)


@consent_router.post(
    f"/pipeline/{{name:{TITLE}}}/approve",
    name="pipelines.approve",
    summary="Take over what was shown",
    responses=ETAG_HEADER,
)
async def approve(
    registry: TheRegistry, response: Response, name: PipelineName, approval: Approval
) -> Enrolment:
    """Refused (412) when something else is registered by now than what `definition` names."""
    return answer(response, await registry.consent.approve(name, approval))


@consent_router.get(
    "/trusted", name="trusted.list", summary="Nodes whose operators' changes are taken over unasked"
)
async def list_trusted(registry: TheRegistry) -> Listing[Trust]:
    return listing(await registry.trusting.page())


@consent_router.put("/trusted/{node}", name="trusted.put", summary="Trust a node's operator")
async def trust(registry: TheRegistry, node: PathNode) -> Trust:
    """Privileges and agreements that a tool has not yet are asked for nevertheless."""
    return await registry.trusting.trust(node)


@consent_router.delete(
    "/trusted/{node}", name="trusted.delete", summary="Trust it no longer", status_code=204
)
async def untrust(registry: TheRegistry, node: PathNode) -> None:
    await registry.trusting.untrust(node)
