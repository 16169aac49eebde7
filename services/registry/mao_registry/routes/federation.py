"""`/federation`: the life of the federation that this node is in."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from mao_registry.federation.lifecycle import Lifecycle
from mao_shared.models import (
    CoreMember,
    Departure,
    FederationRequest,
    FederationState,
    Invitation,
    InvitationRequest,
    JoinRequest,
    Listing,
    NodeState,
)

from .common import PathName, TheRegistry

router = APIRouter(prefix="/federation", tags=["federation"])
Force = Annotated[bool, Query(description="Also when the federation does not answer")]


def _life(registry: TheRegistry) -> Lifecycle:
    return registry.lifecycle


@router.get("", name="federation.get", summary="Show the federation that this node is in")
async def show(registry: TheRegistry) -> FederationState:
    return await _life(registry).state()


@router.post("", name="federation.create", summary="Create a federation on this node", status_code=201)
async def create(registry: TheRegistry, body: FederationRequest) -> FederationState:
    return await _life(registry).create(body.name)


@router.post(
    "/invitations", name="federation.invite", summary="Invite a node; core nodes only", status_code=201
)
async def invite(registry: TheRegistry, body: InvitationRequest) -> Invitation:
    return await _life(registry).invite(body.node, body.valid)


@router.post("/join", name="federation.join", summary="Join a federation with an invitation")
async def join(registry: TheRegistry, body: JoinRequest) -> FederationState:
    return await _life(registry).join(body.token)


@router.delete("", name="federation.leave", summary="Leave the federation; the node keeps its records")
async def leave(registry: TheRegistry, force: Force = False) -> Departure:
    return await _life(registry).leave(force=force)


@router.get("/members", name="federation.members", summary="List the nodes of the federation")
async def members(registry: TheRegistry) -> Listing[NodeState]:
    return Listing(items=await _life(registry).nodes(), cursor=None)


@router.delete(
    "/members/{name}",
    name="federation.remove",
    summary="Take a node off the federation; its certificate is worthless from then on",
    status_code=204,
)
async def remove(registry: TheRegistry, name: PathName) -> None:
    await _life(registry).remove(name)


@router.post(
    "/members/{name}/promote", name="federation.promote", summary="Let a node run a voting member of etcd"
)
async def promote(registry: TheRegistry, name: PathName) -> CoreMember:
    return await _life(registry).promote(name)


@router.post(
    "/members/{name}/demote", name="federation.demote", summary="Let a core node be a client", status_code=204
)
async def demote(registry: TheRegistry, name: PathName) -> None:
    await _life(registry).demote(name)
