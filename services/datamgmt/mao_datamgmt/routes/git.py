"""`/git/NAME.git`: remotes on this node, read-only by git and Git LFS over HTTP; and `/signers`."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse

from mao_datamgmt.browse import git_http
from mao_datamgmt.browse.git_http import (
    UPLOAD_PACK,
    BatchRequest,
    Oid,
    check_git_service,
    decompress_request,
    parse_protocol,
)

from .datasets import BYTES, DatasetName, TheManager, download_headers

router = APIRouter(tags=["datasets"])

REPOSITORY = "/git/{name}.git"
Protocol = Annotated[str | None, Header(alias="Git-Protocol", max_length=200)]

NO_CACHE = {"Cache-Control": "no-cache, max-age=0, must-revalidate"}


@router.get(
    REPOSITORY + "/info/refs",
    name="git.refs",
    summary="List references to git's smart HTTP protocol: git clone NODE/git/NAME.git",
    response_class=Response,
    responses={200: {"content": {f"application/x-{UPLOAD_PACK}-advertisement": {}}}},
)
async def refs(
    manager: TheManager,
    name: DatasetName,
    service: Annotated[str | None, Query(max_length=100, examples=[UPLOAD_PACK])] = None,
    protocol: Protocol = None,
) -> Response:
    check_git_service(service)
    path = await manager.upload_pack.repository(name)
    pieces = await manager.upload_pack.advertise(path, parse_protocol(protocol))
    return StreamingResponse(
        pieces, media_type=f"application/x-{UPLOAD_PACK}-advertisement", headers=NO_CACHE
    )


@router.post(
    f"{REPOSITORY}/{UPLOAD_PACK}",
    name="git.pack",
    summary="Send a pack by git's smart HTTP protocol",
    response_class=Response,
    responses={200: {"content": {f"application/x-{UPLOAD_PACK}-result": {}}}},
)
async def pack(
    manager: TheManager, name: DatasetName, request: Request, protocol: Protocol = None
) -> Response:
    body = decompress_request(await request.body(), request.headers.get("content-encoding"))
    path = await manager.upload_pack.repository(name)
    pieces = await manager.upload_pack.answer(path, body, parse_protocol(protocol))
    return StreamingResponse(pieces, media_type=f"application/x-{UPLOAD_PACK}-result", headers=NO_CACHE)


@router.post(
    REPOSITORY + "/info/lfs/objects/batch",
    name="git.lfs",
    summary="Answer the batch API of Git LFS",
    response_class=JSONResponse,
    responses={200: {"content": {git_http.MEDIA_TYPE: {}}}},
)
async def lfs(manager: TheManager, name: DatasetName, request: Request, body: BatchRequest) -> JSONResponse:
    path = await manager.upload_pack.repository(name)
    scheme = request.headers.get("x-forwarded-proto", "http")
    base = f"{scheme}://{request.headers.get('x-forwarded-host', '')}/git/{name}.git"
    response = await asyncio.to_thread(git_http.answer_batch, body, path, base)
    return JSONResponse(response, media_type=git_http.MEDIA_TYPE)


@router.get(
    REPOSITORY + "/lfs/{oid}",
    name="git.lfs-content",
    summary="Download the content of a Git LFS object",
    response_class=FileResponse,
    responses={200: {"content": {BYTES: {}}}},
)
async def lfs_content(manager: TheManager, name: DatasetName, oid: Oid) -> FileResponse:
    path = await manager.upload_pack.repository(name)
    file = await asyncio.to_thread(git_http.lfs_file, path, oid)
    return FileResponse(file, media_type=BYTES, headers=download_headers(oid))


@router.get(
    "/signers",
    name="signers.list",
    summary="Show the keys that sign commits, as an allowed-signers file for git",
    response_class=PlainTextResponse,
    responses={
        200: {
            "content": {"text/plain": {"example": 'mao@node-1 namespaces="git" ssh-ed25519 AAAAC3Nza…'}},
        }
    },
)
async def list_signers(manager: TheManager) -> str:
    """Empty while no node of the federation signs its commits (setting MAO_SIGNING_KEY)."""
    return await manager.signers.allowed()
