"""The store of a federation member: TLS, permissions, and removal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from mao_registry.federation import pki
from mao_shared.errors import Forbidden, StoreUnavailable, Unauthorized
from mao_shared.store import Batch, Check, Put, Store, etcd, open_store
from tests.support.federation_etcd import ADMIN, FederationEtcd, federation_etcd

pytestmark = pytest.mark.etcd

SECONDS = 15.0


@pytest.fixture(scope="module")
def federation() -> Iterator[FederationEtcd]:
    with federation_etcd() as running:
        yield running


@pytest.fixture
async def store(federation: FederationEtcd) -> AsyncIterator[Store]:
    """Yield the store opened as node-2."""
    store = open_store(federation.endpoints, tls=await federation.join("node-2"))
    yield store
    await store.close()


async def test_tls_member_writes_under_its_own_prefix_and_shared_records(store: Store) -> None:
    await store.ping()
    for key in (
        "/mao/peers/node-2/runs/p",
        "/mao/members/node-2",
        "/mao/registry/tools/t",
        "/mao/rounds/d/1",
    ):
        revision = await store.create(key, b"1")
        assert revision
        assert await store.replace(key, b"2", revision)
        assert await store.delete(key)
    assert (await store.list("/mao/")).entries == []


@pytest.mark.parametrize(
    "key",
    [
        "/mao/peers/node-1/runs/p",
        "/mao/peers/node-20/runs/p",
        "/mao/members/node-22",
        "/mao/core/node-2",
        "/x",
    ],
)
async def test_tls_write_elsewhere_names_user_and_key(store: Store, key: str) -> None:
    with pytest.raises(Forbidden) as refused:
        await store.transact(
            [Check("/mao/registry/tools/t", 0)], [Put("/mao/registry/tools/t", b""), Put(key, b"")]
        )
    assert refused.value.code == "store-forbidden"
    assert "'node-2@1'" in refused.value.detail
    assert repr(key) in refused.value.detail
    assert "tools" not in refused.value.detail


@pytest.mark.parametrize("prefix", ["/", "/mao-authority/"])
async def test_tls_authority_is_for_core_nodes_alone(store: Store, prefix: str) -> None:
    with pytest.raises(Forbidden, match="'node-2@1' read"):
        await store.list(prefix)
    with pytest.raises(Forbidden, match="'node-2@1' read"):
        await anext(store.watch(prefix, after=1))


async def test_tls_deletion_elsewhere_and_a_foreign_lease_are_refused(
    federation: FederationEtcd, store: Store
) -> None:
    core = open_store(federation.endpoints, tls=federation.files(ADMIN))
    lease = await core.grant(60)
    await core.create("/mao/members/node-1", b"", lease=lease)
    with pytest.raises(Forbidden, match=r"'node-2@1' write '/mao/members/node-1'"):
        await store.delete("/mao/members/node-1")
    with pytest.raises(Forbidden):
        await store.revoke(lease)
    assert await core.get("/mao/members/node-1")
    await core.close()


async def refused(call: Awaitable[object]) -> str:
    """Return the error text of a call or watch that is not accepted."""
    with pytest.raises(Unauthorized) as error:
        async with asyncio.timeout(SECONDS):
            await call
    assert error.value.code == "store-identity-refused"
    assert "maoctl federation invite" in str(error.value.next)
    return error.value.detail


async def _first(store: Store, prefix: str, after: int) -> Batch:
    return await anext(store.watch(prefix, after=after))


async def _keep(store: Store, lease: int) -> None:
    """Renew a lease until that fails."""
    while await store.keep_alive(lease):
        pass


async def test_tls_revoked_user_is_refused(
    federation: FederationEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also ends open watches and leases, which etcd itself would continue."""
    monkeypatch.setattr(etcd, "IDENTITY_CHECK_PERIOD", 0.05)
    store = open_store(federation.endpoints, tls=await federation.join("node-5"))
    key = "/mao/members/node-5"
    lease = await store.grant(60)
    assert await store.create(key, b"", lease=lease)
    revision = (await store.list("/mao/")).revision
    watches = [
        asyncio.ensure_future(_first(store, prefix, revision))
        for prefix in ("/mao/registry/", "/mao/rounds/", key)
    ]
    admin = federation.admin()
    await admin.delete_user("node-5@1")
    calls: list[Awaitable[object]] = [
        *watches,
        store.get(key),
        store.list("/mao/"),
        store.create("/mao/registry/tools/t", b""),
        store.delete(key),
        store.revoke(lease),
        store.ping(),
        anext(store.watch("/mao/", after=1)),
    ]
    for call in calls:
        assert "'node-5@1'" in await refused(call)
    assert "'node-5@1'" in await refused(_keep(store, lease))
    await admin.close()
    await store.close()


@pytest.mark.parametrize(
    ("user", "lifetime", "foreign", "words"),
    [
        ("node-2@1", timedelta(minutes=-5), False, "expired at"),
        ("node-2@1", timedelta(days=1), True, "not one of the federation's authority"),
        ("nobody@1", timedelta(days=1), False, "does not exist"),
    ],
)
async def test_tls_certificate_that_is_not_good(
    federation: FederationEtcd, user: str, lifetime: timedelta, foreign: bool, words: str
) -> None:
    authority = pki.make_authority("MAO federation test") if foreign else None
    files = federation.files(user, lifetime=lifetime, authority=authority)
    store = open_store(federation.endpoints, tls=files)
    calls: list[Awaitable[object]] = [
        store.get("/mao/x"),
        store.create("/mao/members/node-2", b""),
        anext(store.watch("/mao/", after=1)),
    ]
    for call in calls:
        detail = await refused(call)
        assert words in detail
        assert user in detail
    await store.close()


async def test_tls_another_etcd_at_the_address_is_not_believed(federation: FederationEtcd) -> None:
    files = federation.files("node-2@1")
    files.ca.write_text(pki.make_authority("MAO federation test").certificate)
    store = open_store(federation.endpoints, tls=files)
    with pytest.raises(StoreUnavailable) as error:
        await store.get("/mao/x")
    assert error.value.code == "store-not-trusted"
    await store.close()


async def test_tls_writes_go_on_while_users_come_and_go(federation: FederationEtcd, store: Store) -> None:
    """etcd fails a write whose user was checked before such a change; the write is retried."""
    changing = asyncio.create_task(_change_users(federation, 30))
    number = 0
    while not changing.done():
        assert await store.create(f"/mao/peers/node-2/runs/{number}", b"")
        number += 1
    await changing
    assert len((await store.list("/mao/peers/node-2/runs/")).entries) == number > 0


async def _change_users(federation: FederationEtcd, times: int) -> None:
    admin = federation.admin()
    for number in range(times):
        await admin.ensure_user(f"node-9@{number}", [])
        await admin.delete_user(f"node-9@{number}")
    await admin.close()


@pytest.mark.parametrize("missing", ["ca", "certificate", "key"])
async def test_tls_files_that_are_not_there(federation: FederationEtcd, missing: str) -> None:
    files = federation.files("node-2@1")
    path: Path = getattr(files, missing)
    path.unlink()
    with pytest.raises(StoreUnavailable, match=path.name) as error:
        open_store(federation.endpoints, tls=files)
    assert error.value.code == "store-credentials"


@pytest.mark.parametrize(
    "content", ["", "junk", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"]
)
async def test_tls_files_that_hold_something_else(federation: FederationEtcd, content: str) -> None:
    files = federation.files("node-2@1")
    files.certificate.write_text(content)
    with pytest.raises(StoreUnavailable, match="does not hold"):
        open_store(federation.endpoints, tls=files)


def test_tls_certificate_facts_agree_with_pki(federation: FederationEtcd) -> None:
    """Covers both forms of dates: up to 2049, and later."""
    for days in (1, 20_000):
        files = federation.files("node-2@1", lifetime=timedelta(days=days))
        facts = pki.facts(files.certificate.read_text())
        material = files.read()
        assert (material.user, material.expires_at) == (facts.user, facts.not_after)
