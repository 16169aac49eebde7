"""The composition root: settings in, a FastAPI app out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.middleware import Middleware

from mao_shared.service import Readiness, make_service
from mao_shared.settings import SERVICES
from mao_shared.store import Store

from .auth import AuthMiddleware, policy_from
from .headers import SafeHeaders
from .openapi import CombinedOpenApi
from .proxy import Proxy
from .routes import own_routers
from .settings import GatewaySettings
from .state import Gateway
from .status import readiness_probe

if TYPE_CHECKING:
    Transports = Mapping[str, Any]

DESCRIPTION = "One node of a MAO federation: all calls of its services at one address."


def make_app(
    settings: GatewaySettings,
    *,
    open_store: Callable[[GatewaySettings], Store],
    transports: Transports | None = None,
) -> FastAPI:
    """The gateway; raises InvalidInput when it must not start (see `auth.policy_from`).

    Args:
        open_store: makes the node store inside the running event loop.
        transports: service → httpx transport, for tests.
    """
    policy = policy_from(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        store = open_store(settings)
        proxy = Proxy({name: settings.service_url(name) for name in SERVICES}, transports)
        app.state.gateway = Gateway(settings.node, store, proxy, CombinedOpenApi(proxy, SERVICES))
        try:
            yield
        finally:
            await proxy.close()
            await store.close()

    return make_service(
        "gateway",
        DESCRIPTION,
        routers=own_routers(),
        lifespan=lifespan,
        readiness=_readiness,
        own_docs=False,
        middleware=[Middleware(SafeHeaders), Middleware(AuthMiddleware, policy=policy)],
    )


def _readiness(app: FastAPI) -> Readiness:
    gateway: Gateway = app.state.gateway
    peers = {name: readiness_probe(gateway.proxy, name) for name in SERVICES}
    return {"store": gateway.store.ping, **peers}
