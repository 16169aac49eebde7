"""`/federation/nodes` and `/federation/runs`: what other nodes say of themselves."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from mao_shared.models import Listing, LogAnswer, Name, NameOrTitle, NodeName, NodePart, NodeRuns

from .common import PathName, TheRegistry, pipeline_name

router = APIRouter(prefix="/federation", tags=["federation"])


async def pipeline_asked(
    registry: TheRegistry,
    pipeline: Annotated[NameOrTitle | None, Query(description="Name or title of one; else of all")] = None,
) -> str | None:
    """Dependency: the name of the pipeline that is asked for."""
    return None if pipeline is None else await pipeline_name(registry, pipeline)


PipelineAsked = Annotated[str | None, Depends(pipeline_asked)]


@router.get("/nodes", name="federation.nodes", summary="List all nodes, present or not")
async def nodes(registry: TheRegistry) -> Listing[NodePart]:
    return Listing(items=await registry.seeing.nodes())


@router.get("/nodes/{name}", name="federation.node", summary="Show a node, present or not")
async def node(registry: TheRegistry, name: PathName) -> NodePart:
    return await registry.seeing.node(name)


@router.get("/runs", name="federation.runs", summary="Each node's runs of shared pipelines, and who is late")
async def runs(registry: TheRegistry, pipeline: PipelineAsked) -> Listing[NodeRuns]:
    return Listing(items=await registry.seeing.runs(pipeline))


@router.get("/logs", name="federation.logs", summary="The end of a log of another node's run")
async def logs(
    registry: TheRegistry,
    node: Annotated[NodeName, Query(description="Whose run it is")],
    run: Annotated[str, Query(min_length=1, max_length=200)],
    step: Annotated[Name | None, Query(description="Default: the latest that ran")] = None,
    tail: Annotated[int, Query(ge=1, le=100_000, description="Lines, of at most 256 KiB")] = 1000,
) -> LogAnswer:
    """Asks that node, which answers if its operator lets it (MAO_SHARE_LOGS)."""
    return await registry.log_asks.read(node, run, step, tail)
