"""Fixtures: a registry on either kind of store, and its API."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from mao_registry.app import make_app
from mao_registry.node_services import NodeServices
from mao_registry.registry import Registry
from mao_registry.settings import RegistrySettings
from mao_shared.store import Store
from mao_shared.store.memory import MemoryStore

from .doubles import WillingServices

NODE = "node-1"


@asynccontextmanager
async def serving(
    store: Store, services: NodeServices, *, node: str = NODE, federation: Store | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a registry in this process."""
    async with running(store, services, node=node, federation=federation) as (client, _):
        yield client


@asynccontextmanager
async def running(
    store: Store,
    services: NodeServices,
    *,
    node: str = NODE,
    federation: Store | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[httpx.AsyncClient, Registry]]:
    """Yield a client and the registry's components, with a new agreements directory unless given."""
    with tempfile.TemporaryDirectory() as folder:
        made = RegistrySettings(node=node, **({"agreements_dir": Path(folder) / "agreements"} | settings))
        async with _running(made, store, services, federation) as parts:
            yield parts


@asynccontextmanager
async def _running(
    made: RegistrySettings, store: Store, services: NodeServices, federation: Store | None
) -> AsyncIterator[tuple[httpx.AsyncClient, Registry]]:
    app = make_app(made, store=store, federation=federation, clients=services)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://registry") as client,
    ):
        yield client, app.state.registry


@pytest.fixture
async def memory() -> AsyncIterator[MemoryStore]:
    store = MemoryStore()
    yield store
    await store.close()


@pytest.fixture
def services() -> WillingServices:
    return WillingServices()


@pytest.fixture
async def api(store: Store, services: WillingServices) -> AsyncIterator[httpx.AsyncClient]:
    """Yield the API on both kinds of store."""
    async with serving(store, services) as client:
        yield client


@pytest.fixture
async def quick_api(memory: MemoryStore, services: WillingServices) -> AsyncIterator[httpx.AsyncClient]:
    """Yield the API on the memory store."""
    async with serving(memory, services) as client:
        yield client
