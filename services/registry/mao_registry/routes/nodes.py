"""`/registry/nodes`, `/federation/{nodes,runs,logs}`, `/store`: the nodes and what they publish."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from mao_registry.store_identity import StoreIdentity
from mao_shared.models import (
    Listing,
    LogAnswer,
    Member,
    Name,
    NameOrTitle,
    NodeName,
    NodePart,
    NodeRuns,
    TickStrip,
)
from mao_shared.models.common import Removed
from mao_shared.web.dependencies import Paging

from .common import ETAG_HEADER, NodeInPath, RegistryDep, answer, listing, pipeline_name

presence_router = APIRouter(prefix="/registry/nodes", tags=["nodes"])


@presence_router.get("", name="nodes.list", summary="List the nodes that are present")
async def list_present(registry: RegistryDep, query: Paging) -> Listing[Member]:
    return listing(await registry.members.page(query.limit, query.cursor))


@presence_router.get(
    "/{name}", name="nodes.get", summary="Show a node that is present", responses=ETAG_HEADER
)
async def show_present(registry: RegistryDep, response: Response, name: NodeInPath) -> Member:
    return answer(response, await registry.members.read(name))


@presence_router.delete("/{name}", name="nodes.delete", summary="Remove an absent node from all datasets")
async def remove_absent(registry: RegistryDep, name: NodeInPath) -> Removed:
    await registry.members.remove(name)
    return Removed(removed=name, detail=f"The node {name!r} is removed.")


peers_router = APIRouter(prefix="/federation", tags=["federation"])


async def queried_pipeline(
    registry: RegistryDep,
    pipeline: Annotated[NameOrTitle | None, Query(description="Name or title of one; else of all")] = None,
) -> str | None:
    """Return the name of the pipeline given in the query by name or title, if any. Raises NotFound."""
    return None if pipeline is None else await pipeline_name(registry, pipeline)


QueriedPipeline = Annotated[str | None, Depends(queried_pipeline)]


@peers_router.get("/nodes", name="federation.nodes", summary="List all nodes, present or not")
async def list_nodes(registry: RegistryDep) -> Listing[NodePart]:
    return Listing(items=await registry.queries.nodes())


@peers_router.get("/nodes/{name}", name="federation.node", summary="Show a node, present or not")
async def show_node(registry: RegistryDep, name: NodeInPath) -> NodePart:
    return await registry.queries.node(name)


@peers_router.get(
    "/runs", name="federation.runs", summary="Each node's runs of shared pipelines, and who is late"
)
async def list_runs(registry: RegistryDep, pipeline: QueriedPipeline) -> Listing[NodeRuns]:
    return Listing(items=await registry.queries.runs(pipeline))


@peers_router.get(
    "/ticks",
    name="federation.ticks",
    summary="The last ticks of the other nodes' pipelines, as strips",
    response_model=Listing[TickStrip],
)
async def list_ticks(registry: RegistryDep, request: Request, response: Response) -> Any:
    """As they have published them. Answers 304 to If-None-Match while nothing has changed."""
    strips = await registry.queries.ticks()
    digest = hashlib.sha256()
    for strip in strips:
        digest.update(f"{strip.node} {strip.pipeline} {strip.updated_at.timestamp()}\n".encode())
    tag = f'"{digest.hexdigest()[:32]}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    response.headers["ETag"] = tag
    return Listing(items=strips)


@peers_router.get("/logs", name="federation.logs", summary="The end of a log of another node's run")
async def show_logs(
    registry: RegistryDep,
    node: Annotated[NodeName, Query(description="Whose run it is")],
    run: Annotated[str, Query(min_length=1, max_length=200)],
    step: Annotated[Name | None, Query(description="Default: the latest that ran")] = None,
    tail: Annotated[int, Query(ge=1, le=100_000, description="Lines, of at most 256 KiB")] = 1000,
) -> LogAnswer:
    """The other node answers if its operator allows it (MAO_SHARE_LOGS)."""
    return await registry.log_requests.read(node, run, step, tail)


store_router = APIRouter(prefix="/store", tags=["node"])


@store_router.post(
    "/accept", name="store.accept", summary="Accept the node's etcd as it is now", status_code=204
)
async def accept_store(request: Request) -> None:
    identity = request.app.state.store_identity
    if not isinstance(identity, StoreIdentity):
        raise TypeError("the app has not started")
    await identity.accept()
