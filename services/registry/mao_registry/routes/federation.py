"""`/federation`: the life of the federation that this node is in."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from mao_registry.federation.lifecycle import Lifecycle, lifecycle_of
from mao_shared.models import (
    CoreMember,
    Demotion,
    Departure,
    FederationRequest,
    FederationState,
    Invitation,
    InvitationRequest,
    Joined,
    JoinRequest,
    Listing,
    NodeState,
)

from .common import PathName

router = APIRouter(prefix="/federation", tags=["federation"])
TheLife = Annotated[Lifecycle, Depends(lifecycle_of)]
AllowUnsafe = Annotated[
    bool,
    Query(description="Also with an etcd that lets every member read and write all keys (CVE-2026-33343)"),
]
Force = Annotated[bool, Query(description="Also when the federation does not answer")]


@router.get("", name="federation.get", summary="Show the federation that this node is in")
async def show(life: TheLife) -> FederationState:
    return await life.state()


@router.post("", name="federation.create", summary="Create a federation on this node", status_code=201)
async def create(life: TheLife, body: FederationRequest) -> FederationState:
    return await life.create(body.name, allow_unsafe=body.allow_unsafe_etcd_that_ignores_key_rights)


@router.post(
    "/invitations", name="federation.invite", summary="Invite a node; core nodes only", status_code=201
)
async def invite(life: TheLife, body: InvitationRequest) -> Invitation:
    return await life.invite(body.node, body.valid)


@router.post("/join", name="federation.join", summary="Join a federation with an invitation")
async def join(life: TheLife, body: JoinRequest) -> Joined:
    return await life.join(body.token, allow_unsafe=body.allow_unsafe_etcd_that_ignores_key_rights)


@router.delete("", name="federation.leave", summary="Leave the federation; the node keeps its records")
async def leave(life: TheLife, force: Force = False) -> Departure:
    return await life.leave(force=force)


@router.get("/members", name="federation.members", summary="List the nodes of the federation")
async def members(life: TheLife) -> Listing[NodeState]:
    return Listing(items=await life.nodes(), cursor=None)


@router.delete(
    "/members/{name}",
    name="federation.remove",
    summary="Take a node off the federation; its certificate is worthless from then on",
    status_code=204,
)
async def remove(life: TheLife, name: PathName) -> None:
    await life.remove(name)


@router.post(
    "/members/{name}/promote", name="federation.promote", summary="Let a node run a voting member of etcd"
)
async def promote(
    life: TheLife, name: PathName, allow_unsafe_etcd_that_ignores_key_rights: AllowUnsafe = False
) -> CoreMember:
    return await life.promote(name, allow_unsafe=allow_unsafe_etcd_that_ignores_key_rights)


@router.post("/members/{name}/demote", name="federation.demote", summary="Let a core node be a client")
async def demote(life: TheLife, name: PathName) -> Demotion:
    return await life.demote(name)
