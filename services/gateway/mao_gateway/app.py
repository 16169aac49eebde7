"""The composition root: settings in, a FastAPI app out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware import Middleware

from mao_shared.models.condition import Condition
from mao_shared.service import Readiness, background, condition_loops, conditions_of, make_service
from mao_shared.settings import SERVICES
from mao_shared.store import Store, open_store

from .auth import AuthMiddleware, policy_from
from .callers import WhoCalls
from .headers import SafeHeaders
from .openapi import CombinedOpenApi
from .proxy import AsyncTransport, Proxy
from .routes import own_routers
from .settings import GatewaySettings
from .state import Gateway
from .status import node_conditions, readiness_probe, watch_services

_OPEN = "Every user and program of this machine can steer the node, and so become root on it."
_CLOSE = "Unset MAO_OPEN_TO_LOCAL_USERS and name those who may in MAO_LOCAL_USERS; then start the node again."
DESCRIPTION = "One node of a MAO federation: all calls of its services at one address."


def make_app(
    settings: GatewaySettings,
    *,
    store: Store | None = None,
    transports: Mapping[str, AsyncTransport] | None = None,
    callers: WhoCalls | None = None,
) -> FastAPI:
    """The gateway; raises InvalidInput when it must not start (see `auth.policy_from`).

    Args:
        store: the node's; opened from the settings (and closed at the end) when not given.
        transports: service → httpx transport, for tests.
        callers: in place of asking the kernel, for tests without a connection.
    """
    policy = policy_from(settings)
    everybody = policy.users is None and not policy.tokens

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        node_store = store or open_store(settings.etcd_endpoints)
        proxy = Proxy({name: settings.service_url(name) for name in SERVICES}, transports)
        app.state.gateway = Gateway(settings.node, node_store, proxy, CombinedOpenApi(proxy, SERVICES))
        conditions = conditions_of(app)
        if everybody:
            conditions.report("open-to-local-users", detail=_OPEN, next_step=_CLOSE)
        looks = [
            *condition_loops("gateway", settings, node_store, conditions),
            watch_services(proxy, SERVICES, conditions),
        ]
        try:
            async with background(*looks):
                yield
        finally:
            await proxy.close()
            if store is None:
                await node_store.close()

    return make_service(
        "gateway",
        DESCRIPTION,
        routers=own_routers(),
        lifespan=lifespan,
        readiness=_readiness,
        own_docs=False,
        all_conditions=_conditions,
        middleware=[Middleware(SafeHeaders), Middleware(AuthMiddleware, policy=policy, callers=callers)],
    )


def _readiness(app: FastAPI) -> Readiness:
    gateway: Gateway = app.state.gateway
    peers = {name: readiness_probe(gateway.proxy, name, conditions_of(app)) for name in SERVICES}
    return {"store": gateway.store.ping, **peers}


async def _conditions(app: FastAPI) -> Sequence[Condition]:
    gateway: Gateway = app.state.gateway
    return await node_conditions(gateway.store, gateway.proxy, SERVICES, conditions_of(app))
