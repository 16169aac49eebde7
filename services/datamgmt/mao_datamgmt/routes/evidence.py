"""`/runs/{id}/crate` and `/verify`: a run as an RO-Crate, and its verification."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import StreamingResponse

from mao_datamgmt.evidence import export
from mao_datamgmt.evidence.verify import verify_evidence
from mao_shared.models.run import Verification

from .datasets import TheManager, download_headers

router = APIRouter(tags=["evidence"])

RunId = Annotated[
    str,
    Path(
        min_length=1,
        max_length=200,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Id of the run",
        examples=["20260131T120000Z-system-performance-1f3a5c7d"],
    ),
]
ZIP = "application/zip"


@router.get(
    "/runs/{run_id}/crate",
    name="runs.crate",
    summary="Download a run as an RO-Crate (Process Run Crate 0.5), a zip file",
    response_class=Response,
    responses={200: {"content": {ZIP: {}}}},
)
async def crate(
    manager: TheManager,
    run_id: RunId,
    data: Annotated[bool, Query(description="With inputs and outputs, not only records and logs")] = True,
) -> Response:
    run = await manager.find_run(run_id)
    crate_files = await manager.query(export.gather, run_id, run, manager.about, data=data)
    return StreamingResponse(
        manager.stream(export.pack(crate_files)), media_type=ZIP, headers=download_headers(f"{run_id}.zip")
    )


@router.get(
    "/runs/{run_id}/crate/metadata",
    name="runs.crate_metadata",
    summary="Show the metadata of a run's crate as JSON-LD: all its files with sizes and digests",
)
async def crate_metadata(manager: TheManager, run_id: RunId) -> dict[str, Any]:
    run = await manager.find_run(run_id)
    return await manager.query(
        lambda context: export.metadata(export.gather(context, run_id, run, manager.about))
    )


@router.get(
    "/runs/{run_id}/verify",
    name="runs.verify",
    summary="Read every byte of a run's snapshots and logs, and compare with the run's record",
)
async def verify_run(manager: TheManager, run_id: RunId) -> Verification:
    return await manager.query(verify_evidence, run_id, await manager.find_run(run_id))
