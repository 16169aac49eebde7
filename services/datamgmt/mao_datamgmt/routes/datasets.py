"""`/datasets`: the datasets on this node, their status and content, and operators' decisions about them.

Also `/bare-repo` and `/storage`.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from mao_datamgmt.browse import datasets
from mao_datamgmt.browse.archive import MEDIA_TYPES, Packing, open_archive, write_archive
from mao_datamgmt.browse.diff import DiffFormat, difference
from mao_datamgmt.datasets import clones
from mao_datamgmt.manager import DataManager, get_manager
from mao_shared.errors import AlreadyExists, InvalidInput
from mao_shared.models import Dataset, Listing, Name
from mao_shared.models.dataset import (
    BareRepository,
    BareRequest,
    CommitInfo,
    DatasetDiff,
    DatasetStatus,
    FileInfo,
    Resolution,
    ResolveRequest,
    SetAside,
)
from mao_shared.models.node import Storage
from mao_shared.models.progress import OngoingWork
from mao_shared.web.dependencies import IdempotencyKey, Paging
from mao_shared.web.original import AsksOriginal

router = APIRouter(tags=["datasets"])

BYTES = "application/octet-stream"

TheManager = Annotated[DataManager, Depends(get_manager)]

DatasetName = Annotated[Name, Path(description="Name of the dataset", examples=["performance"])]

Ref = Annotated[
    str | None,
    Query(
        max_length=200, description="Branch or commit id; ground-truth without it", examples=["ground-truth"]
    ),
]


@router.post(
    "/bare-repo/init",
    name="bare.init",
    summary="Make an empty repository on this node, to serve as a dataset's remote",
    status_code=201,
    responses={
        201: {
            "links": {
                "register": {
                    "operationId": "datasets.create",
                    "requestBody": {"name": "performance", "master": "$response.body#/master"},
                    "description": "Register it as the remote of a dataset",
                }
            }
        }
    },
)
async def init_bare(
    manager: TheManager, body: BareRequest, original: AsksOriginal, key: IdempotencyKey = None
) -> BareRepository:
    """Clients of the original MAO get an existing repository, as they did from `git init`."""
    try:
        return await manager.init_bare(body, key)
    except AlreadyExists:
        if not original:
            raise
        return await asyncio.to_thread(clones.init_bare, manager.context.data, body.name, name_was_free=True)


@router.get("/storage", name="storage.show", summary="Show free disk space and the signer of commits")
async def show_storage(manager: TheManager) -> Storage:
    return await manager.storage()


@router.get("/datasets", name="datasets.statuses", summary="List the datasets on this node with their status")
async def list_statuses(manager: TheManager, page: Paging) -> Listing[DatasetStatus]:
    return await manager.statuses(page.limit, page.cursor)


@router.get("/datasets/{name}", name="datasets.status", summary="Show a dataset's status on this node")
async def status(manager: TheManager, name: DatasetName) -> DatasetStatus:
    return await manager.status(name)


@router.post("/datasets/{name}/push", name="datasets.push", summary="Push a dataset's unpushed commits now")
async def push(manager: TheManager, name: DatasetName) -> DatasetStatus:
    return await manager.push_now(name)


@router.post(
    "/datasets/{name}/acknowledge",
    name="datasets.acknowledge",
    summary="Acknowledge a broken clone that was set aside, or a branch that was rewound at the remote",
)
async def acknowledge(manager: TheManager, name: DatasetName) -> DatasetStatus:
    return await manager.acknowledge(name)


@router.put(
    "/datasets/{name}",
    name="datasets.ensure",
    summary="Clone a dataset to this node if it is not here, with the node's branch; may be repeated",
)
async def ensure(request: Request, manager: TheManager, name: DatasetName, body: Dataset) -> DatasetStatus:
    if body.name != name:
        raise InvalidInput(
            f"The path names {name!r}, the body {body.name!r}.",
            code="name-mismatch",
            next="Send the same name in both.",
        )
    with request.app.state.ongoing.track(OngoingWork(what="clone", subject=name, unit="objects")):
        return await manager.ensure_dataset(body)


@router.get("/datasets/{name}/log", name="datasets.log", summary="List a branch's commits, newest first")
async def log(
    manager: TheManager,
    name: DatasetName,
    page: Paging,
    branch: Annotated[
        str | None, Query(max_length=200, description="Branch or commit id; this node's branch without it")
    ] = None,
) -> Listing[CommitInfo]:
    return await manager.commits(name, branch, page.limit, page.cursor)


@router.get("/datasets/{name}/files", name="datasets.files", summary="List a folder of a dataset")
async def files(
    manager: TheManager,
    name: DatasetName,
    page: Paging,
    ref: Ref = None,
    path: Annotated[str, Query(max_length=4096, description="Folder; the top without it")] = "",
    details: Annotated[
        bool, Query(description="Also when entries were changed last, and how many a folder has")
    ] = False,
) -> Listing[FileInfo]:
    return await manager.files(name, ref, path, page.limit, page.cursor, details=details)


@router.get(
    "/datasets/{name}/file",
    name="datasets.file",
    summary="Download a file of a dataset",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
async def file(
    manager: TheManager,
    name: DatasetName,
    path: Annotated[
        str, Query(min_length=1, max_length=4096, description="Path of the file", examples=["results.csv"])
    ],
    ref: Ref = None,
) -> Response:
    content = await manager.query(datasets.open_content, name, ref, path)
    headers = {**download_headers(path), "Content-Length": str(content.size)}
    return StreamingResponse(manager.stream(content.pieces), media_type=BYTES, headers=headers)


def download_headers(
    path: str, disposition: Literal["attachment", "inline"] = "attachment"
) -> dict[str, str]:
    """Return headers that make a browser download a file and never display it: it may be hostile.

    `inline`: it may be displayed, but without scripts and outside of the node's origin.
    """
    return {
        "Content-Disposition": f"{disposition}; filename*=UTF-8''{quote(path.rsplit('/', 1)[-1], safe='')}",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cache-Control": "no-store",
    }


@router.post(
    "/datasets/{name}/resolve",
    name="datasets.resolve",
    summary="Reconcile this node's branch with the remote's where they have diverged",
)
async def resolve(manager: TheManager, name: DatasetName, body: ResolveRequest) -> Resolution:
    return await manager.resolve(name, body.how)


@router.post(
    "/datasets/{name}/alone",
    name="datasets.alone",
    summary="Let this node decide alone a ground truth that was voted on, once no other node takes part",
)
async def alone(manager: TheManager, name: DatasetName) -> DatasetStatus:
    return await manager.go_alone(name)


@router.post(
    "/datasets/{name}/set-aside",
    name="datasets.set-aside",
    summary="Set aside a clone left over from a dataset removed or moved; nothing is deleted",
)
async def set_aside(manager: TheManager, name: DatasetName) -> SetAside:
    return await manager.set_aside(name)


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
        Query(max_length=20, description="Key columns of the records; inferred without it"),
    ] = None,
) -> DatasetDiff:
    return await manager.query(
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
    source = await manager.query(open_archive, name, ref, path)
    headers = download_headers(f"{source.root}.{packing}")
    return StreamingResponse(
        manager.stream(write_archive(source, packing)), media_type=MEDIA_TYPES[packing], headers=headers
    )
