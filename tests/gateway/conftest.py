"""Fixtures: a gateway over fake services."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Scope

from mao_gateway.app import make_app
from mao_gateway.settings import GatewaySettings
from mao_shared.store import Store
from mao_shared.store.memory import MemoryStore

UNUSED = "http://127.0.0.1:9"  # nothing listens on the discard port

Open = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    store = MemoryStore()
    yield store
    await store.close()


class OperatorCalls:
    """Treat every call as the operator's, since in-process calls have no connection."""

    async def admits(self, scope: Scope) -> bool:
        return True


def settings(**urls: str) -> GatewaySettings:
    return GatewaySettings(
        node="node-1",
        registry_url=urls.get("registry", UNUSED),
        scheduler_url=urls.get("scheduler", UNUSED),
        runner_url=urls.get("runner", UNUSED),
        datamgmt_url=urls.get("datamgmt", UNUSED),
    )


def gateway(store: Store, apps: dict[str, ASGIApp], **urls: str) -> FastAPI:
    """Return a gateway app over the given ASGI apps; other services are unreachable, or at `urls`."""
    transports = {name: httpx.ASGITransport(app) for name, app in apps.items()}
    return make_app(settings(**urls), store=store, transports=transports, callers=OperatorCalls())


@pytest.fixture
def open_gateway(store: MemoryStore) -> Open:
    @asynccontextmanager
    async def open_(apps: dict[str, ASGIApp] | None = None, **urls: str) -> AsyncIterator[httpx.AsyncClient]:
        app = gateway(store, apps or {}, **urls)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost:8080") as client,
        ):
            yield client

    return open_
