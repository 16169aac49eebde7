"""What the tests of the stores' contract need beside a store."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mao_shared.store import Store
from mao_shared.store.memory import MemoryStore
from tests.support.etcd import EtcdServer

Compact = Callable[[int], None]


@pytest.fixture
def compact(store: Store, request: pytest.FixtureRequest) -> Compact:
    """Drops the store's history below a revision."""
    if isinstance(store, MemoryStore):
        return store.compact
    server: EtcdServer = request.getfixturevalue("etcd_server")
    return server.compact
