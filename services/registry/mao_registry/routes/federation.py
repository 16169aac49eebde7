"""`/federation`: membership of this node and of the others."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from mao_registry.federation.lifecycle import Lifecycle, get_lifecycle
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

from .common import NodeInPath

router = APIRouter(prefix="/federation", tags=["federation"])
LifecycleDep = Annotated[Lifecycle, Depends(get_lifecycle)]
AllowUnsafe = Annotated[
    bool,
    Query(description="Also with an etcd that lets every member read and write all keys (CVE-2026-33343)"),
]
Force = Annotated[bool, Query(description="Also when the federation does not answer")]


@router.get("", name="federation.get", summary="Show the federation that this node is in")
async def show(lifecycle: LifecycleDep) -> FederationState:
    return await lifecycle.state()


@router.post("", name="federation.create", summary="Create a federation on this node", status_code=201)
async def create(lifecycle: LifecycleDep, body: FederationRequest) -> FederationState:
    return await lifecycle.create(body.name, allow_unsafe=body.allow_unsafe_etcd_that_ignores_key_rights)


@router.post(
    "/invitations", name="federation.invite", summary="Invite a node; core nodes only", status_code=201
)
async def invite(lifecycle: LifecycleDep, body: InvitationRequest) -> Invitation:
    return await lifecycle.invite(body.node, body.valid)


@router.post("/join", name="federation.join", summary="Join a federation with an invitation")
async def join(lifecycle: LifecycleDep, body: JoinRequest) -> Joined:
    return await lifecycle.join(body.token, allow_unsafe=body.allow_unsafe_etcd_that_ignores_key_rights)


@router.delete("", name="federation.leave", summary="Leave the federation; the node keeps its records")
async def leave(lifecycle: LifecycleDep, force: Force = False) -> Departure:
    return await lifecycle.leave(force=force)


@router.get("/members", name="federation.members", summary="List the nodes of the federation")
async def members(lifecycle: LifecycleDep) -> Listing[NodeState]:
    return Listing(items=await lifecycle.nodes(), cursor=None)


@router.delete(
    "/members/{name}",
    name="federation.remove",
    summary="Remove a node from the federation and revoke its certificate",
    status_code=204,
)
async def remove(lifecycle: LifecycleDep, name: NodeInPath) -> None:
    await lifecycle.remove(name)


@router.post(
    "/members/{name}/promote",
    name="federation.promote",
    summary="Make a node a core node, with a voting member of etcd",
)
async def promote(
    lifecycle: LifecycleDep, name: NodeInPath, allow_unsafe_etcd_that_ignores_key_rights: AllowUnsafe = False
) -> CoreMember:
    return await lifecycle.promote(name, allow_unsafe=allow_unsafe_etcd_that_ignores_key_rights)


@router.post("/members/{name}/demote", name="federation.demote", summary="Make a core node a client")
async def demote(lifecycle: LifecycleDep, name: NodeInPath) -> Demotion:
    return await lifecycle.demote(name)
