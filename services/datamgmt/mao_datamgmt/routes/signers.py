"""`GET /signers`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import PlainTextResponse

from mao_datamgmt.manager import DataManager, manager_of

router = APIRouter(tags=["datasets"])


@router.get(
    "/signers",
    name="signers.list",
    summary="Show whose signatures count: an allowed-signers file for git",
    response_class=PlainTextResponse,
    responses={
        200: {
            "content": {"text/plain": {"example": 'mao@node-1 namespaces="git" ssh-ed25519 AAAAC3Nza…'}},
        }
    },
)
async def list_signers(manager: Annotated[DataManager, Depends(manager_of)]) -> str:
    """Empty while no node of the federation signs its commits (setting MAO_SIGNING_KEY)."""
    return await manager.signers.allowed()
