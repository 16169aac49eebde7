"""`git clone` of a dataset whose remote lies on this node: git's smart HTTP protocol, for reading."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from .routes import DatasetName, TheManager
from .upload_pack import SERVICE, check_service, protocol_of, unpacked

router = APIRouter(tags=["datasets"], prefix="/git/{name}.git")
Protocol = Annotated[str | None, Header(alias="Git-Protocol", max_length=200)]
NOT_KEPT = {"Cache-Control": "no-cache, max-age=0, must-revalidate"}


@router.get(
    "/info/refs",
    name="git.refs",
    summary="What git asks first: git clone NODE/git/NAME.git",
    response_class=Response,
)
async def refs(
    manager: TheManager,
    name: DatasetName,
    service: Annotated[str | None, Query(max_length=100, examples=[SERVICE])] = None,
    protocol: Protocol = None,
) -> Response:
    check_service(service)
    path = await manager.upload_pack.repository(name)
    pieces = await manager.upload_pack.advertise(path, protocol_of(protocol))
    return StreamingResponse(pieces, media_type=f"application/x-{SERVICE}-advertisement", headers=NOT_KEPT)


@router.post(f"/{SERVICE}", name="git.pack", summary="What git asks then", response_class=Response)
async def pack(
    manager: TheManager, name: DatasetName, request: Request, protocol: Protocol = None
) -> Response:
    body = unpacked(await request.body(), request.headers.get("content-encoding"))
    path = await manager.upload_pack.repository(name)
    pieces = await manager.upload_pack.answer(path, body, protocol_of(protocol))
    return StreamingResponse(pieces, media_type=f"application/x-{SERVICE}-result", headers=NOT_KEPT)
