"""`/registry/nodes`: who is present."""

from __future__ import annotations

from fastapi import APIRouter, Response

from mao_shared.models import Listing, Member
from mao_shared.web.http import Paging
from mao_shared.web.original import Removed

from .common import ETAG_HEADER, PathName, TheRegistry, answer, listing

router = APIRouter(prefix="/registry/nodes", tags=["nodes"])


@router.get("", name="nodes.list", summary="List the nodes that are present")
async def page(registry: TheRegistry, query: Paging) -> Listing[Member]:
    return listing(await registry.members.page(query.limit, query.cursor))


@router.get("/{name}", name="nodes.get", summary="Show a node that is present", responses=ETAG_HEADER)
async def read(registry: TheRegistry, response: Response, name: PathName) -> Member:
    return answer(response, await registry.members.read(name))


@router.delete("/{name}", name="nodes.delete", summary="Take a gone node off all datasets")
async def delete(registry: TheRegistry, name: PathName) -> Removed:
    await registry.members.remove(name)
    return Removed(removed=name, detail=f"The node {name!r} is removed.")
