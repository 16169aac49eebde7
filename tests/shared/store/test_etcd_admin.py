"""Users, roles and members of a federation's etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeVar

import pytest

from mao_shared.errors import Conflict, Forbidden, MaoError, Unauthorized, Unavailable
from mao_shared.store import Grant, Store, open_admin, open_store
from mao_shared.store.etcd_admin import Admin, EtcdMember
from tests.support.federation_etcd import ADMIN, FederationEtcd, TlsEtcd, federation_etcd

pytestmark = pytest.mark.etcd

SECONDS = 30.0
T = TypeVar("T")


@pytest.fixture(scope="module")
def federation() -> Iterator[FederationEtcd]:
    with federation_etcd() as running:
        yield running


@pytest.fixture
async def admin(federation: FederationEtcd) -> AsyncIterator[Admin]:
    admin = federation.admin()
    yield admin
    await admin.close()


async def test_admin_role_has_exactly_the_rights_asked_for_last(admin: Admin) -> None:
    first = [Grant("read", "/a/", prefix=True), Grant("read", "/b"), Grant("write", "/c")]
    then = [Grant("readwrite", "/b"), Grant("write", "/c")]
    for grants in (first, first, then, then):
        await admin.ensure_role("some", grants)
        held = {
            (grant.kind, grant.key.decode(), bool(grant.end)) for grant in await admin.permissions("some")
        }
        assert held == {(grant.kind, grant.key, grant.prefix) for grant in grants}
    await admin.delete_role("some")
    await admin.delete_role("some")


async def test_admin_user_has_exactly_the_roles_asked_for_last(admin: Admin) -> None:
    for role in ("one", "two"):
        await admin.ensure_role(role, [])
    for roles in ([], ["one"], ["one", "two"], ["two"], ["two"]):
        await admin.ensure_user("n@1", roles)
        assert await admin.roles("n@1") == roles
    assert "n@1" in await admin.users()
    await admin.delete_user("n@1")
    await admin.delete_user("n@1")
    with pytest.raises(Conflict) as refused:
        await admin.set_roles("n@1", ["one"])
    assert refused.value.code == "etcd-refused"


async def test_admin_enabling_rights_again_changes_nothing(admin: Admin) -> None:
    await admin.enable_auth()
    assert set(await admin.roles("root")) == {"root"}


async def test_admin_rights_count_only_once_they_are_enabled() -> None:
    fresh = FederationEtcd()
    try:
        member = fresh.new_member()
        member.spawn([member])
        member.await_health()
        admin = fresh.admin()
        await admin.ensure_role("root", [])
        await admin.ensure_user(ADMIN, ["root"])
        await admin.enable_auth()
        stranger = open_store(fresh.endpoints, tls=fresh.files("stranger@1"))
        with pytest.raises(Unauthorized):
            await stranger.get("/mao/x")
        await stranger.close()
        await admin.close()
    finally:
        fresh.stop()


async def test_admin_member_node_administers_nothing(federation: FederationEtcd) -> None:
    files = await federation.join("node-2")
    admin = open_admin(federation.endpoints, files)
    for call in (
        admin.ensure_user("friend@1", ["root"]),
        admin.set_roles("node-2@1", ["root"]),
        admin.ensure_role("node-node-2", [Grant("readwrite", "/", prefix=True)]),
        admin.delete_user(ADMIN),
        admin.add_learner("https://127.0.0.1:1"),
        admin.remove("1"),
        admin.promote("1"),
    ):
        with pytest.raises(Forbidden, match="'node-2@1'") as refused:
            await call
        assert refused.value.code == "store-forbidden"
    await admin.close()


async def test_admin_struck_off_administrator_is_told_so(federation: FederationEtcd, admin: Admin) -> None:
    """etcd's message equals that for deleting an unknown user, which is not an error."""
    await admin.ensure_user("core-9@1", ["root"])
    former = open_admin(federation.endpoints, federation.files("core-9@1"))
    assert await former.users()
    await admin.delete_user("core-9@1")
    for call in (
        former.users(),
        former.delete_user("other@1"),
        former.ensure_user("core-9@1", ["root"]),
        former.remove("1"),
    ):
        with pytest.raises(Unauthorized, match="'core-9@1'"):
            await call
    await former.close()


async def test_admin_health_of_members_that_answer_and_do_not(
    federation: FederationEtcd, admin: Admin
) -> None:
    up = await admin.health(federation.endpoints)
    assert (up.reachable, up.leader, up.has_leader, up.learner) == (True, True, True, False)
    assert up.db_size
    assert up.db_size > 0
    assert up.member_id == (await admin.members())[0].id
    member = open_admin(federation.endpoints, await federation.join("node-7"))
    seen = await member.health(federation.endpoints)  # which some versions tell to administrators alone
    assert (seen.reachable, seen.has_leader) == (True, True)
    await member.close()
    down = await admin.health("127.0.0.1:1")
    assert not down.reachable
    assert "127.0.0.1:1" in str(down.reason)


async def insist(call: Callable[[], Awaitable[T]], code: str) -> T:
    """Repeat a call while it fails with this code, and return its result."""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                return await call()
            except MaoError as error:
                if error.code != code:
                    raise
            await asyncio.sleep(0.05)


async def learner(federation: FederationEtcd, admin: Admin) -> tuple[TlsEtcd, EtcdMember]:
    """Add a member that does not run yet."""
    made = federation.new_member()
    return made, await insist(lambda: admin.add_learner(made.peer_url), "etcd-unhealthy")


async def test_admin_learner_becomes_a_voter_and_leaves_again(
    federation: FederationEtcd, admin: Admin
) -> None:
    before = await admin.members()
    newcomer, added = await learner(federation, admin)
    assert (added.learner, added.name, added.peer_urls) == (True, "", [newcomer.peer_url])
    with pytest.raises(Conflict) as refused:
        await admin.promote(added.id)  # it does not run yet
    assert refused.value.code == "learner-behind"
    newcomer.spawn(federation.members, "existing")
    await insist(lambda: admin.promote(added.id), "learner-behind")
    await admin.promote(added.id)  # as after a kill between promotion and writing it down
    await asyncio.to_thread(newcomer.await_health)
    members = {member.id: member for member in await admin.members()}
    assert (members[added.id].learner, members[added.id].name) == (False, newcomer.name)
    assert len(members) == len(before) + 1
    await insist(lambda: admin.remove(added.id), "etcd-unhealthy")
    await admin.remove(added.id)
    assert await asyncio.to_thread(newcomer.wait) == 0
    federation.members.remove(newcomer)
    assert [member.id for member in await admin.members()] == [member.id for member in before]


async def test_admin_learner_is_no_place_to_ask_but_the_others_are(
    federation: FederationEtcd, admin: Admin
) -> None:
    newcomer, added = await learner(federation, admin)
    newcomer.spawn(federation.members, "existing")
    async with asyncio.timeout(SECONDS):
        while not (await admin.health(newcomer.client)).learner:  # noqa: ASYNC110 (etcd has no event)
            await asyncio.sleep(0.05)
    order = f"{newcomer.client},{federation.members[0].client}"
    store = open_store(order, tls=federation.files(ADMIN))
    assert await store.create("/mao/registry/tools/t", b"")
    assert await store.get("/mao/registry/tools/t")
    await store.close()
    await admin.remove(added.id)
    await asyncio.to_thread(newcomer.wait)
    federation.members.remove(newcomer)


async def _written(store: Store, key: str) -> bool:
    """Try once to create the key, and return whether it exists."""
    try:
        await store.create(key, b"")
        return await store.get(key) is not None
    except Unavailable:
        return False


async def test_admin_three_members_of_which_one_dies() -> None:
    with federation_etcd(3) as federation:
        files = await federation.join("node-2")
        store = open_store(federation.endpoints, tls=files)
        assert await store.create("/mao/peers/node-2/runs/a", b"")
        admin = federation.admin()
        states = [await admin.health(member.client) for member in federation.members]
        assert sum(state.leader for state in states) == 1
        leader = next(
            member for member, state in zip(federation.members, states, strict=True) if state.leader
        )
        leader.kill()
        async with asyncio.timeout(SECONDS):
            while not await _written(store, "/mao/peers/node-2/runs/b"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await admin.close()
        await store.close()
