"""`/store`: the operator's word about the node's etcd."""

from __future__ import annotations

from fastapi import APIRouter, Request

from mao_registry.store_identity import StoreIdentity

router = APIRouter(prefix="/store", tags=["node"])


@router.post(
    "/accept", name="store.accept", summary="Let the node's etcd count as it is now", status_code=204
)
async def accept(request: Request) -> None:
    identity = request.app.state.store_identity
    if not isinstance(identity, StoreIdentity):
        raise TypeError("the app's lifespan has not begun")
    await identity.accept()
