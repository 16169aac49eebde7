"""`/datasets/{name}/history`, `/preview` and `/image`: what files contain, and contained."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from mao_datamgmt.browse.history import value_history
from mao_datamgmt.browse.preview import open_image, preview
from mao_shared.models.common import Timestamp
from mao_shared.models.dataset import FilePreview, ValueVersion
from mao_vote import HistoryQuery

from .datasets import DatasetName, Ref, TheManager, download_headers

router = APIRouter(tags=["datasets"])


class JsonLines(StreamingResponse):
    """A stream of JSON documents, each on a line."""

    media_type = "application/x-ndjson"


FilePath = Annotated[
    str, Query(min_length=1, max_length=4096, description="Path of the file", examples=["results.csv"])
]


@router.get(
    "/datasets/{name}/history",
    name="datasets.history",
    summary="Show what a field of a record was in each commit of a branch that changed its file",
    response_class=JsonLines,
    responses={
        200: {
            "description": "Versions, newest first, each a line; empty lines keep the connection open",
            "model": ValueVersion,
        }
    },
)
async def history(
    manager: TheManager,
    name: DatasetName,
    file: Annotated[
        str, Query(min_length=1, max_length=4096, description="Record file", examples=["results.csv"])
    ],
    key: Annotated[
        str,
        Query(
            max_length=10_000,
            description="Key of the record: a,b or a JSON list for two columns, the number of the record "
            "without key columns, in a JSON document a path",
            examples=["node-7"],
        ),
    ],
    field: Annotated[
        str,
        Query(
            max_length=10_000,
            description="Field of the record, or a JSON pointer of something inside of one; `value`: what is "
            "at a document's path",
            examples=["temp"],
        ),
    ],
    branch: Annotated[
        str | None, Query(max_length=200, description="Branch or commit id; this node's branch without it")
    ] = None,
    by: Annotated[
        list[Annotated[str, Query(max_length=1000)]] | None,
        Query(max_length=20, description="Key columns of the records; inferred without it"),
    ] = None,
    since: Annotated[Timestamp | None, Query(description="Commits of this time or later")] = None,
    until: Annotated[Timestamp | None, Query(description="Commits of this time or earlier")] = None,
    limit: Annotated[
        int | None, Query(ge=1, le=1_000_000, description="Only the newest versions; all without it")
    ] = None,
) -> Response:
    query = HistoryQuery(file, key, field, tuple(by or ()), since, until, limit)
    lines = await manager.query(value_history, name, branch, query)
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return JsonLines(manager.stream(lines), headers=headers)


@router.get(
    "/datasets/{name}/preview",
    name="datasets.preview",
    summary="Show the beginning of a file: the first records of a table, or text, or that it is an image",
)
async def show_preview(
    manager: TheManager,
    name: DatasetName,
    path: FilePath,
    ref: Ref = None,
    offset: Annotated[int, Query(ge=0, le=10_000_000, description="Records to leave out first")] = 0,
    limit: Annotated[int, Query(ge=1, le=200, description="Maximum number of records")] = 20,
) -> FilePreview:
    return await manager.query(preview, name, ref, path, offset, limit)


@router.get(
    "/datasets/{name}/image",
    name="datasets.image",
    summary="Show an image of a dataset: PNG, JPEG, GIF, WebP or SVG, up to 8 MiB",
    response_class=Response,
    responses={200: {"content": {"image/*": {}}}},
)
async def image(manager: TheManager, name: DatasetName, path: FilePath, ref: Ref = None) -> Response:
    """The media type is that of the content, whatever its name. Opened by itself, it runs no script."""
    found = await manager.query(open_image, name, ref, path)
    headers = {
        **download_headers(path, "inline"),
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    return Response(found.content, media_type=found.media_type, headers=headers)
