"""The store as a member of a federation: TLS, rights, and being struck off."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from mao_shared.errors import Forbidden
from mao_shared.store import Check, Put, Store, open_store
from tests.support.federation_etcd import FederationEtcd, federation_etcd

pytestmark = pytest.mark.etcd


@pytest.fixture(scope="module")
def federation() -> Iterator[FederationEtcd]:
    with federation_etcd() as running:
        yield running


@pytest.fixture
async def store(federation: FederationEtcd) -> AsyncIterator[Store]:
    """The store as node-2 sees it."""
    store = open_store(federation.endpoints, tls=await federation.join("node-2"))
    yield store
    await store.close()


async def test_a_member_writes_under_its_own_prefix_and_shared_records(store: Store) -> None:
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
async def test_a_write_elsewhere_names_user_and_key(store: Store, key: str) -> None:
    with pytest.raises(Forbidden) as refused:
        await store.transact(
            [Check("/mao/registry/tools/t", 0)], [Put("/mao/registry/tools/t", b""), Put(key, b"")]
        )
    assert refused.value.code == "store-forbidden"
    assert "'node-2@1'" in refused.value.detail
    assert repr(key) in refused.value.detail
    assert "tools" not in refused.value.detail
