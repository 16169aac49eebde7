"""Looking at datasets: what differs, and taking folders away."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from mao_datamgmt.browse.archive import MEDIA_TYPES, Packing, open_archive, write_archive
from mao_datamgmt.browse.diff import DiffFormat, difference
from mao_shared.models.dataset import DatasetDiff
from mao_shared.web.dependencies import Paging

from .datasets import DatasetName, Ref, TheManager, download_headers

router = APIRouter(tags=["datasets"])

Folder = Annotated[str, Query(max_length=4096, description="Folder; the top without it")]


@router.get(
    "/datasets/{name}/diff",
    name="datasets.diff",
    summary="Compare two commits: files, and of one file the rows and fields, or the lines",
)
async def diff(
    manager: TheManager,
    name: DatasetName,
    page: Paging,
    before: Annotated[
        str | None,
        Query(alias="from", max_length=200, description="Branch or commit id; ground-truth without it"),
    ] = None,
    after: Annotated[
        str | None,
        Query(alias="to", max_length=200, description="Branch or commit id; this node's branch without it"),
    ] = None,
    path: Annotated[
        str, Query(max_length=4096, description="Folder, or a file to look into", examples=["results.csv"])
    ] = "",
    manner: Annotated[
        DiffFormat, Query(alias="as", description="How to compare a file; auto: rows where it has records")
    ] = "auto",
    key: Annotated[
        list[Annotated[str, Query(max_length=1000)]] | None,
        Query(max_length=20, description="Columns that tell records apart; inferred without it"),
    ] = None,
) -> DatasetDiff:
    return await manager.ask(
        difference,
        name,
        before,
        after,
        path,
        manner=manner,
        key=key or (),
        limit=page.limit,
        cursor=page.cursor,
    )


@router.get(
    "/datasets/{name}/archive",
    name="datasets.archive",
    summary="Download a folder of a dataset, or all of it",
    response_class=Response,
    responses={200: {"content": {media: {} for media in MEDIA_TYPES.values()}}},
)
async def archive(
    manager: TheManager,
    name: DatasetName,
    ref: Ref = None,
    path: Folder = "",
    packing: Annotated[Packing, Query(alias="format", description="How it is packed")] = "tar.gz",
) -> Response:
    source = await manager.ask(open_archive, name, ref, path)
    headers = download_headers(f"{source.root}.{packing}")
    return StreamingResponse(
        manager.stream(write_archive(source, packing)), media_type=MEDIA_TYPES[packing], headers=headers
    )
