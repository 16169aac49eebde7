"""The stores that keep one contract, each behind what the tests need beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from mao_shared.store import Store, open_store
from mao_shared.store.memory import MemoryStore
from tests.support.etcd import EtcdServer

Compact = Callable[[int], None]


@pytest.fixture(params=["memory", pytest.param("etcd", marks=pytest.mark.etcd)])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def store(kind: str, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """An empty store of either kind."""
    store: Store = MemoryStore()
    if kind == "etcd":
        server: EtcdServer = request.getfixturevalue("etcd_server")
        server.wipe()
        store = open_store(server.endpoints)
    yield store
    await store.close()


@pytest.fixture
def compact(store: Store, request: pytest.FixtureRequest) -> Compact:
    """Drops the store's history below a revision."""
    if isinstance(store, MemoryStore):
        return store.compact
    server: EtcdServer = request.getfixturevalue("etcd_server")
    return server.compact
