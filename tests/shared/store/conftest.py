"""Fixtures for the tests of the store contract."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from mao_shared.federation import FederationFiles, FederationStore
from mao_shared.store import Store, open_store
from mao_shared.store.memory import MemoryStore
from tests.support.etcd import EtcdServer

Compact = Callable[[int], None]


LAYERS = ["plain", "own", "shared"]


@pytest.fixture(
    params=[("memory", layer) for layer in LAYERS]
    + [pytest.param(("etcd", layer), marks=pytest.mark.etcd) for layer in LAYERS],
    ids="-".join,
)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Yield a store of either kind, directly or behind the switching store."""
    kind, layer = request.param
    beneath: Store = MemoryStore()
    if kind == "etcd":
        server: EtcdServer = request.getfixturevalue("etcd_server")
        server.wipe()
        beneath = open_store(server.endpoints)
    own = beneath if layer == "own" else MemoryStore()
    switching = FederationStore(own, "n", FederationFiles(tmp_path), fixed=beneath)
    yield beneath if layer == "plain" else switching
    await switching.close()
    await beneath.close()


@pytest.fixture
def compact(store: Store, request: pytest.FixtureRequest) -> Compact:
    """Compact the store's history below a revision."""
    beneath = store
    if isinstance(store, FederationStore):
        assert store.fixed is not None
        beneath = store.fixed
    if isinstance(beneath, MemoryStore):
        return beneath.compact
    server: EtcdServer = request.getfixturevalue("etcd_server")
    return server.compact
