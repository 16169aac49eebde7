"""`/pipeline`, `/enrolments`, `/trusted`: enrolments, pending changes and their approval."""

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
from mao_shared.web.api_pages import problem_described
from mao_shared.web.dependencies import TITLE, Attempt, IdempotencyKey, IfMatch, Paging, once
from mao_shared.web.original import AsksOriginal, original_answer, original_pipeline, with_errors

from .common import CREATED_HEADERS, ETAG_HEADER, PipelineName, RegistryDep, answer, listing
from .records import INIT

pipelines_router = APIRouter(prefix="/pipeline", tags=["pipelines"])


@pipelines_router.get(
    "",
    name="pipelines.states",
    summary="List pipelines with this node's enrolment in each",
    response_model=Listing[PipelineState],
)
async def list_states(
    registry: RegistryDep, query: Paging, original: AsksOriginal
) -> Listing[PipelineState] | Response:
    """The original's clients get all that this node is enrolled in, unpaged."""
    if original:
        enrolled = {stored.record.pipeline for stored in await registry.repositories.enrolments.all()}
        pipelines = [stored.record for stored in await registry.repositories.pipelines.all()]
        return original_answer([original_pipeline(known) for known in pipelines if known.name in enrolled])
    return await registry.approvals.states(query.limit, query.cursor)


@pipelines_router.post(
    "/init",
    name="pipelines.init",
    summary="Register a pipeline and enrol this node",
    status_code=201,
    responses=CREATED_HEADERS,
    response_model=Pipeline,
)
async def init(
    registry: RegistryDep,
    response: Response,
    wanted: Annotated[PipelineInit, Body(openapi_examples=INIT)],
    original: AsksOriginal,
    idempotency_key: IdempotencyKey = None,
) -> Pipeline | Response:
    """Checks everything, pins the images, creates the node's branches; then writes.

    A pipeline that is registered as wanted, but not enrolled on this node, is enrolled.
    """

    async def make(attempt: Attempt) -> Stored[Pipeline]:
        return await registry.enrolments.init(wanted, name_was_free=attempt.name_was_free)

    async def taken() -> bool:
        return await registry.enrolments.exists(wanted.pipeline().name)

    try:
        stored = await once(
            registry.repositories.own,
            registry.repositories.node,
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
async def list_enrolments(registry: RegistryDep, query: Paging) -> Listing[Enrolment]:
    return listing(await registry.enrolments.page(query.limit, query.cursor))


@enrolments_router.get(
    f"/{{name:{TITLE}}}", name="enrolments.get", summary="Show an enrolment", responses=ETAG_HEADER
)
async def show_enrolment(registry: RegistryDep, response: Response, name: PipelineName) -> Enrolment:
    return answer(response, await registry.enrolments.read(name))


@enrolments_router.put(
    f"/{{name:{TITLE}}}",
    name="enrolments.put",
    summary="Enrol this node, or renew",
    responses={**ETAG_HEADER, 201: {**CREATED_HEADERS[201], "model": Enrolment}},
)
async def put_enrolment(
    registry: RegistryDep,
    response: Response,
    name: PipelineName,
    if_match: IfMatch,
    request: EnrolmentRequest | None = None,
) -> Enrolment:
    """Uses pipeline and tools as they are now and pins the images; 201 if new, 200 if renewed."""
    stored, is_new = await registry.enrolments.renew(name, request or EnrolmentRequest(), if_match)
    response.status_code = 201 if is_new else 200
    return answer(response, stored, f"/enrolments/{name}" if is_new else None)


@enrolments_router.delete(
    f"/{{name:{TITLE}}}", name="enrolments.delete", summary="Withdraw this node", status_code=204
)
async def delete_enrolment(registry: RegistryDep, name: PipelineName, if_match: IfMatch) -> None:
    """Refused while a schedule or an active run needs it."""
    await registry.enrolments.withdraw(name, if_match)


consent_router = APIRouter(tags=["consent"])
PathNode = Annotated[NodeName, Path(description="Name of the node")]


@consent_router.get(
    f"/pipeline/{{name:{TITLE}}}/diff", name="pipelines.diff", summary="What would change on this node"
)
async def diff(registry: RegistryDep, name: PipelineName) -> PipelineDiff:
    """Compares what runs here with what is registered; `definition` goes into the approval."""
    return await registry.approvals.diff(name)


@consent_router.post(
    f"/pipeline/{{name:{TITLE}}}/approve",
    name="pipelines.approve",
    summary="Approve what was shown",
    responses={**ETAG_HEADER, 412: problem_described("What is registered has changed since it was shown")},
)
async def approve(
    registry: RegistryDep, response: Response, name: PipelineName, approval: Approval
) -> Enrolment:
    """Refused (412) if what is registered is no longer what `definition` names."""
    return answer(response, await registry.approvals.approve(name, approval))


@consent_router.get(
    "/trusted", name="trusted.list", summary="Nodes whose endorsed changes are approved automatically"
)
async def list_trusted(registry: RegistryDep) -> Listing[Trust]:
    return listing(await registry.trust.page())


@consent_router.put("/trusted/{node}", name="trusted.put", summary="Trust a node's operator")
async def trust(registry: RegistryDep, node: PathNode) -> Trust:
    """Changes that ask for new privileges still need an approval."""
    return await registry.trust.trust(node)


@consent_router.delete(
    "/trusted/{node}", name="trusted.delete", summary="Stop trusting a node's operator", status_code=204
)
async def untrust(registry: RegistryDep, node: PathNode) -> None:
    await registry.trust.untrust(node)
