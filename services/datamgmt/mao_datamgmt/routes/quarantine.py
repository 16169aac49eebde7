"""`/datasets/{name}/quarantine`: snapshots that failed a check, and the operator's decisions about them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from mao_datamgmt.datasets.quarantine import Decision
from mao_shared.models import Listing
from mao_shared.models.check import QuarantineDecision, QuarantinedSnapshot, QuarantineState
from mao_shared.web.dependencies import Paging

from .datasets import DatasetName, TheManager

router = APIRouter(tags=["datasets"])

SnapshotName = Annotated[
    str,
    Path(
        min_length=1,
        max_length=200,
        description="Commit of the snapshot, 7 digits or more, or id of its run",
        examples=["c64a6e947f"],
    ),
]


@router.get(
    "/datasets/{name}/quarantine",
    name="quarantine.list",
    summary="List this node's quarantined snapshots of a dataset, newest first",
)
async def list_quarantined(
    manager: TheManager,
    name: DatasetName,
    page: Paging,
    state: Annotated[QuarantineState | None, Query(description="Only those in this state")] = None,
) -> Listing[QuarantinedSnapshot]:
    return await manager.quarantine.list_(name, state, page.limit, page.cursor)


@router.get(
    "/datasets/{name}/quarantine/{snapshot}",
    name="quarantine.get",
    summary="Show a quarantined snapshot and what its checks found",
)
async def get_quarantined(
    manager: TheManager, name: DatasetName, snapshot: SnapshotName
) -> QuarantinedSnapshot:
    return await manager.quarantine.get(name, snapshot)


@router.post(
    "/datasets/{name}/quarantine/{snapshot}/accept",
    name="quarantine.accept",
    summary="Publish a quarantined snapshot on top of this node's branch; may be repeated",
)
async def accept_quarantined(
    manager: TheManager, name: DatasetName, snapshot: SnapshotName, body: QuarantineDecision
) -> QuarantinedSnapshot:
    return await manager.quarantine.accept(name, snapshot, Decision("accepted", body.by, body.note))


@router.post(
    "/datasets/{name}/quarantine/{snapshot}/discard",
    name="quarantine.discard",
    summary="Discard a quarantined snapshot; its commit stays in the quarantine branch; may be repeated",
)
async def discard_quarantined(
    manager: TheManager, name: DatasetName, snapshot: SnapshotName, body: QuarantineDecision
) -> QuarantinedSnapshot:
    return await manager.quarantine.discard(name, snapshot, Decision("discarded", body.by, body.note))
