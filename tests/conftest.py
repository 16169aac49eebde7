"""Fixtures for all tests. One etcd serves the session; each test finds it empty."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import AsyncIterator, Iterator

import pytest

from mao_shared.store import Store, open_store
from mao_shared.store.memory import MemoryStore

from .support.etcd import EtcdServer, running_etcd

sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type]  # httpx looks for it again at each call

pytest_plugins = [
    "tests.support.docker",
    "tests.support.folders",
    "tests.support.needs",
    "tests.support.virtual_time",
    "tests.support.workers",
]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported by the end of the collection stays: the garbage collector need not look at it.

    Nor need it look often: tests are short, and so are the lives of their objects.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 10, 100)
        gc.enable()


@pytest.fixture(autouse=True)
def same_umask() -> Iterator[None]:
    """A program's `main` closes its umask; one that a test calls must not do so to the tests after it."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def etcd_server() -> Iterator[EtcdServer]:
    """A running etcd; who kills or freezes it takes an EtcdServer of its own instead."""
    with running_etcd() as server:
        yield server


@pytest.fixture
async def etcd_store(etcd_server: EtcdServer) -> AsyncIterator[Store]:
    """An empty store on the session's etcd."""
    etcd_server.wipe()
    store = open_store(etcd_server.endpoints)
    yield store
    await store.close()


@pytest.fixture(params=["memory", pytest.param("etcd", marks=pytest.mark.etcd)])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """An empty store of either kind: what holds, holds by the contract and not by one store's luck."""
    made: Store = MemoryStore()
    if request.param == "etcd":
        server: EtcdServer = request.getfixturevalue("etcd_server")
        server.wipe()
        made = open_store(server.endpoints)
    yield made
    await made.close()
