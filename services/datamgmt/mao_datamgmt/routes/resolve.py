"""What a person decides of a dataset: which branch holds, going on alone, putting the clone away."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from mao_datamgmt.browse.datasets import DatasetStatus
from mao_shared.models.dataset import Resolution, SetAside, Strategy

from .datasets import DatasetName, TheManager

router = APIRouter(tags=["datasets"])


class ResolveRequest(BaseModel):
    """What to do."""

    model_config = ConfigDict(extra="forbid")

    how: Strategy = Field(
        examples=["merge"],
        description="merge: a commit with both as parents and this node's content; replay: this node's "
        "unpushed commits on top of the remote's; take-theirs: the remote's, this node's tip is kept aside",
    )


@router.post(
    "/datasets/{name}/resolve",
    name="datasets.resolve",
    summary="Bring this node's branch and the remote's together where they do not fit",
)
async def resolve(manager: TheManager, name: DatasetName, body: ResolveRequest) -> Resolution:
    return await manager.resolve(name, body.how)


@router.post(
    "/datasets/{name}/alone",
    name="datasets.alone",
    summary="Let this node alone decide a ground truth that was voted before, once nobody else takes part",
)
async def alone(manager: TheManager, name: DatasetName) -> DatasetStatus:
    return await manager.go_alone(name)


@router.post(
    "/datasets/{name}/set-aside",
    name="datasets.set-aside",
    summary="Put away a clone that is left over from a dataset removed or moved; nothing is deleted",
)
async def set_aside(manager: TheManager, name: DatasetName) -> SetAside:
    return await manager.set_aside(name)
