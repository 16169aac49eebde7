"""`/enrolments`: this node takes part, renews, withdraws; reading needs the node's own store only."""

from __future__ import annotations

from fastapi import APIRouter, Response

from mao_shared.models import Enrolment, EnrolmentRequest, Listing
from mao_shared.web.dependencies import TITLE
from mao_shared.web.http import IfMatch, Paging

from .common import ETAG_HEADER, PipelineName, TheRegistry, answer, listing

router = APIRouter(prefix="/enrolments", tags=["enrolments"])


@router.get("", name="enrolments.list", summary="List what this node is enrolled in")
async def page(registry: TheRegistry, query: Paging) -> Listing[Enrolment]:
    return listing(await registry.enrolments.page(query.limit, query.cursor))


@router.get(f"/{{name:{TITLE}}}", name="enrolments.get", summary="Show an enrolment", responses=ETAG_HEADER)
async def read(registry: TheRegistry, response: Response, name: PipelineName) -> Enrolment:
    return answer(response, await registry.enrolments.read(name))


@router.put(
    f"/{{name:{TITLE}}}", name="enrolments.put", summary="Enrol this node, or renew", responses=ETAG_HEADER
)
async def put(
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


@router.delete(f"/{{name:{TITLE}}}", name="enrolments.delete", summary="Withdraw this node", status_code=204)
async def delete(registry: TheRegistry, name: PipelineName, if_match: IfMatch) -> None:
    """Refused while a schedule or an active run needs it."""
    await registry.enrolments.withdraw(name, if_match)
