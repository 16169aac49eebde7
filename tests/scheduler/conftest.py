"""Fixtures of the scheduler's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from mao_shared.store import Store, open_store
from mao_shared.store.memory import MemoryStore
from tests.support.etcd import EtcdServer

from .samples import ManualClock


@pytest.fixture(params=["memory", pytest.param("etcd", marks=pytest.mark.etcd)])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """Both stores: the rules hold by the store's contract, not by one store's luck."""
    made: Store = MemoryStore()
    if request.param == "etcd":
        server: EtcdServer = request.getfixturevalue("etcd_server")
        server.wipe()
        made = open_store(server.endpoints)
    yield made
    await made.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
