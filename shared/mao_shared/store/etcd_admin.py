"""Administration of a federation's etcd by core nodes: users, roles and members. All calls are idempotent.

Raises the store's errors: `store-forbidden` for callers that are not administrators,
`store-identity-refused`, StoreUnavailable, StoreUnknown. A request that the cluster rejects raises Conflict
(`etcd-refused`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from aetcd import rpc

from mao_shared import keys
from mao_shared.errors import Conflict, Forbidden, MaoError

from .endpoints import CALL_TIMEOUT, TlsFiles
from .etcd_auth import Grant, Permission
from .etcd_channel import KINDS, Call, Caller, RevisionOrLeaseGone

ROOT = "root"  # etcd's role with all permissions
_TYPES = {kind: number for number, kind in KINDS.items()}


@dataclass(frozen=True, slots=True)
class EtcdMember:
    """A member. `id`: hexadecimal, as printed by etcdctl; `name`: empty until its first start."""

    id: str
    name: str
    peer_urls: list[str]
    client_urls: list[str]
    learner: bool


@dataclass(frozen=True, slots=True)
class MemberHealth:
    """Health of one member of an etcd cluster. `leader`: it is the leader; `has_leader`: it knows a leader.

    `db_size`: in bytes; `raft_index`: last index of its log, to compare a learner with the leader.
    """

    endpoint: str
    reachable: bool
    reason: str | None = None
    member_id: str | None = None
    leader: bool = False
    has_leader: bool = False
    learner: bool = False
    db_size: int | None = None
    raft_index: int | None = None
    version: str | None = None


class Admin:
    """Client of etcd's auth, cluster and maintenance services. Create it inside a running event loop."""

    def __init__(self, endpoints: str, tls: TlsFiles, *, deadline: float = CALL_TIMEOUT) -> None:
        self._caller = Caller(endpoints, deadline=deadline, tls=tls)
        self._tls = tls
        self._limit = {"timeout": deadline}

    async def close(self) -> None:
        await self._caller.close()

    async def ensure_role(self, name: str, grants: Collection[Grant]) -> None:
        """Create or update a role so that it has exactly these permissions."""
        add = rpc.AuthRoleAddRequest(name=name)
        await self._unless("role name already exists", lambda e: e.auth.RoleAdd(add, **self._limit))
        wanted = {Permission(grant.kind, grant.key.encode(), grant.range_end) for grant in grants}
        existing = await self.permissions(name)
        for permission in wanted - existing:
            await self._permit(name, permission)
        wanted_ranges = {(permission.key, permission.end) for permission in wanted}
        for permission in existing - wanted:
            if (permission.key, permission.end) not in wanted_ranges:  # otherwise replaced above
                await self._forbid(name, permission)

    async def permissions(self, role: str) -> set[Permission]:
        """Return the permissions of a role; raises Conflict (`etcd-refused`) if it does not exist."""
        request = rpc.AuthRoleGetRequest(role=role)
        answer = await self._caller.read(lambda e: e.auth.RoleGet(request, **self._limit))
        return {
            Permission(KINDS[granted.permType], granted.key, granted.range_end) for granted in answer.perm
        }

    async def delete_role(self, name: str) -> None:
        """Delete a role, which revokes it from its users."""
        request = rpc.AuthRoleDeleteRequest(role=name)
        await self._unless("role name not found", lambda e: e.auth.RoleDelete(request, **self._limit))

    async def ensure_user(self, user: str, roles: Collection[str]) -> None:
        """Create or update a user without password so that it has exactly these roles."""
        options = rpc.UserAddOptions(no_password=True)
        request = rpc.AuthUserAddRequest(name=user, options=options)
        await self._unless("user name already exists", lambda e: e.auth.UserAdd(request, **self._limit))
        await self.set_roles(user, roles)

    async def set_roles(self, user: str, roles: Collection[str]) -> None:
        """Grant, then revoke roles, so that none is missing in between; raises Conflict without user."""
        held = set(await self.roles(user))
        for role in sorted(set(roles) - held):
            await self._give(user, role)
        for role in sorted(held - set(roles)):
            await self._withdraw(user, role)

    async def users(self) -> list[str]:
        answer = await self._caller.read(lambda e: e.auth.UserList(rpc.AuthUserListRequest(), **self._limit))
        return list(answer.users)

    async def roles(self, user: str) -> list[str]:
        """Return the user's roles; raises Conflict (`etcd-refused`) if the user does not exist."""
        request = rpc.AuthUserGetRequest(name=user)
        answer = await self._caller.read(lambda e: e.auth.UserGet(request, **self._limit))
        return list(answer.roles)

    async def delete_user(self, user: str) -> None:
        """Delete a user, whose certificate then allows no calls or watches.

        The roles are revoked first: etcd 3.5 still treats a deleted user with the role `root` as such until
        users or roles change again.
        """
        request = rpc.AuthUserDeleteRequest(name=user)
        if (
            user not in await self.users()
        ):  # checked first: etcd reports "no such user" for a removed caller as well
            return
        try:
            await self.set_roles(user, ())
        except Conflict:  # another core node may have been faster
            if user in await self.users():
                raise
        await self._unless("user name not found", lambda e: e.auth.UserDelete(request, **self._limit))

    async def enable_auth(self) -> None:
        """Enable authorisation. The caller must have the role `root`; etcd requires a user of that name."""
        await self.ensure_role(ROOT, [])
        await self.ensure_user(ROOT, [ROOT])
        await self._caller.write(lambda e: e.auth.AuthEnable(rpc.AuthEnableRequest(), **self._limit))

    async def members(self) -> list[EtcdMember]:
        answer = await self._caller.read(
            lambda e: e.cluster.MemberList(rpc.MemberListRequest(), **self._limit)
        )
        return [_member(member) for member in answer.members]

    async def add_learner(self, peer_url: str) -> EtcdMember:
        """Add a learner (a member without a vote) whose etcd listens to its peers at `peer_url`.

        Raises StoreUnavailable (`etcd-unhealthy`) unless all members have been connected for 5 seconds. Not
        idempotent: raises Conflict (`etcd-refused`) if the address belongs to a member already, see
        `members`.
        """
        request = rpc.MemberAddRequest(peerURLs=[peer_url], isLearner=True)
        answer = await self._caller.write(lambda e: e.cluster.MemberAdd(request, **self._limit))
        return _member(answer.member)

    async def promote(self, member_id: str) -> None:
        """Promote a learner to a voting member; raises Conflict (`learner-behind`) until it has caught up.

        Does nothing for a voting member.
        """
        request = rpc.MemberPromoteRequest(ID=int(member_id, 16))
        try:
            # A message that ends so means that the member votes already; for a lagging learner it continues.
            await self._caller.write(
                lambda e: e.cluster.MemberPromote(request, **self._limit),
                gone=lambda details: details.endswith("can only promote a learner member"),
            )
        except RevisionOrLeaseGone:
            return
        except Conflict as error:
            if "in sync" not in error.detail:
                raise
            raise Conflict(
                f"The etcd member {member_id} has not caught up with the leader yet.",
                code="learner-behind",
                next="Try again in a moment; a member that stays behind is not running or not reachable.",
            ) from error

    async def remove(self, member_id: str) -> None:
        """Remove a member, whose etcd process then exits.

        etcd protects the quorum: raises StoreUnavailable (`etcd-unhealthy`) if other members are not
        connected or a voter joined less than 5 seconds ago, Conflict (`etcd-refused`) if too few would
        remain.
        """
        request = rpc.MemberRemoveRequest(ID=int(member_id, 16))
        await self._unless("member not found", lambda e: e.cluster.MemberRemove(request, **self._limit))

    async def move_leader(self, member_id: str) -> None:
        """Transfer leadership to another voting member; call it on the leader (`etcd-refused` otherwise)."""
        request = rpc.MoveLeaderRequest(targetID=int(member_id, 16))
        await self._caller.write(lambda e: e.maintenance.MoveLeader(request, **self._limit))

    async def health(self, endpoint: str) -> MemberHealth:
        """Return the health of the member at `host:port` as it reports it; never raises if unreachable."""
        caller = Caller(endpoint, deadline=self._limit["timeout"], tls=self._tls)
        try:
            status = await caller.read(lambda e: e.maintenance.Status(rpc.StatusRequest(), **self._limit))
        except Forbidden:
            # etcd 3.5.28 to 3.5.31 show the status to administrators only. Reading a key that every member
            # of a federation may read takes a majority.
            request = rpc.RangeRequest(key=keys.federation().encode(), count_only=True)
            try:
                await caller.read(lambda e: e.kv.Range(request, **self._limit))
            except MaoError as error:
                return MemberHealth(endpoint, reachable=True, reason=error.detail)
            return MemberHealth(endpoint, reachable=True, has_leader=True)
        except MaoError as error:
            return MemberHealth(endpoint, reachable=False, reason=error.detail)
        finally:
            await caller.close()
        return _health(endpoint, status)

    async def _permit(self, role: str, permission: Permission) -> None:
        perm = rpc.Permission(permType=_TYPES[permission.kind], key=permission.key, range_end=permission.end)
        request = rpc.AuthRoleGrantPermissionRequest(name=role, perm=perm)
        await self._caller.write(lambda e: e.auth.RoleGrantPermission(request, **self._limit))

    async def _forbid(self, role: str, permission: Permission) -> None:
        request = rpc.AuthRoleRevokePermissionRequest(role=role, key=permission.key, range_end=permission.end)
        await self._unless(
            "permission is not granted", lambda e: e.auth.RoleRevokePermission(request, **self._limit)
        )

    async def _give(self, user: str, role: str) -> None:
        request = rpc.AuthUserGrantRoleRequest(user=user, role=role)
        await self._caller.write(lambda e: e.auth.UserGrantRole(request, **self._limit))

    async def _withdraw(self, user: str, role: str) -> None:
        request = rpc.AuthUserRevokeRoleRequest(name=user, role=role)
        await self._unless("role is not granted", lambda e: e.auth.UserRevokeRole(request, **self._limit))

    async def _unless(self, done: str, call: Call) -> None:
        """Make a call; ignore the error with message `done`, which means that nothing is left to do."""
        with contextlib.suppress(RevisionOrLeaseGone):
            await self._caller.write(call, gone=lambda details: done in details)


def _member(member: Any) -> EtcdMember:
    return EtcdMember(
        id=f"{member.ID:x}",
        name=member.name,
        peer_urls=list(member.peerURLs),
        client_urls=list(member.clientURLs),
        learner=member.isLearner,
    )


def _health(endpoint: str, status: Any) -> MemberHealth:
    return MemberHealth(
        endpoint,
        reachable=True,
        member_id=f"{status.header.member_id:x}",
        leader=bool(status.leader) and status.leader == status.header.member_id,
        has_leader=bool(status.leader),
        learner=status.isLearner,
        db_size=status.dbSize,
        raft_index=status.raftIndex,
        version=status.version,
    )
