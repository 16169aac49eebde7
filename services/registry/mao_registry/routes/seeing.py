"""`/federation/nodes` and `/federation/runs`: what other nodes say of themselves."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from mao_shared.models import Listing, Name, NodeRuns, NodeState

from .common import PathName, TheRegistry

router = APIRouter(prefix="/federation", tags=["federation"])
PipelineQuery = Annotated[Name | None, Query(description="Of this pipeline; else of all")]


@router.get("/nodes", name="federation.nodes", summary="List all nodes, present or not")
async def nodes(registry: TheRegistry) -> Listing[NodeState]:
    return Listing(items=await registry.seeing.nodes())


@router.get("/nodes/{name}", name="federation.node", summary="Show a node, present or not")
async def node(registry: TheRegistry, name: PathName) -> NodeState:
    return await registry.seeing.node(name)


@router.get("/runs", name="federation.runs", summary="Each node's runs of shared pipelines, and who is late")
async def runs(registry: TheRegistry, pipeline: PipelineQuery = None) -> Listing[NodeRuns]:
    return Listing(items=await registry.seeing.runs(pipeline))
