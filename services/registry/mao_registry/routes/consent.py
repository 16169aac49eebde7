"""What is pending on this node: the difference, the approval, and whose changes need none."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from mao_shared.models import Approval, Enrolment, Listing, NodeName, PipelineDiff, Trust
from mao_shared.web.dependencies import TITLE

from .common import ETAG_HEADER, PipelineName, TheRegistry, answer, listing

router = APIRouter(tags=["consent"])
PathNode = Annotated[NodeName, Path(description="Name of the node")]


@router.get(
    f"/pipeline/{{name:{TITLE}}}/diff", name="pipelines.diff", summary="What would change on this node"
)
async def diff(registry: TheRegistry, name: PipelineName) -> PipelineDiff:
    """What runs here against what is registered; `definition` goes into the approval."""
    return await registry.consent.diff(name)


@router.post(
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


@router.get("/trusted", name="trusted.list", summary="Nodes whose operators' changes are taken over unasked")
async def trusted(registry: TheRegistry) -> Listing[Trust]:
    return listing(await registry.trusting.page())


@router.put("/trusted/{node}", name="trusted.put", summary="Trust a node's operator")
async def trust(registry: TheRegistry, node: PathNode) -> Trust:
    """Privileges and agreements that a tool has not yet are asked for nevertheless."""
    return await registry.trusting.trust(node)


@router.delete("/trusted/{node}", name="trusted.delete", summary="Trust it no longer", status_code=204)
async def untrust(registry: TheRegistry, node: PathNode) -> None:
    await registry.trusting.untrust(node)
