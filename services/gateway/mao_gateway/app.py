"""The gateway's composition root."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from datetime import timedelta
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from mao_shared.conditions import conditions_of
from mao_shared.models.node import Condition
from mao_shared.service.app import Service, make_service
from mao_shared.settings import SERVICES
from mao_shared.store import Store

from .audit import AuditLog
from .audit_calls import AuditMiddleware
from .auth import AuthMiddleware, policy_from
from .callers import CallerCheck
from .components import Gateway
from .openapi import CombinedOpenApi
from .proxy import AsyncTransport, Proxy
from .routes import SERVICE_ROUTES
from .settings import GatewaySettings
from .status import node_conditions, readiness_probe, watch_services

DESCRIPTION = "One node of a MAO federation: the API of all its services at one address."
OPEN_DETAIL = "Every user and program on this machine can control the node, and thereby become root on it."
OPEN_STEP = "Unset MAO_OPEN_TO_LOCAL_USERS, name the users in MAO_LOCAL_USERS, and restart the node."
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class SafeHeaders:
    """ASGI middleware that adds security headers for browsers unless the response has them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, with_headers)


def make_app(
    settings: GatewaySettings,
    *,
    store: Store | None = None,
    transports: Mapping[str, AsyncTransport] | None = None,
    callers: CallerCheck | None = None,
) -> FastAPI:
    """Make the app. Raises InvalidInput if the gateway must not start (see `auth.policy_from`).

    Args:
        store: the node's store; by default opened from the settings and closed at shutdown.
        transports: service → httpx transport, for tests.
        callers: replaces the check of local callers, for tests without a connection.
    """
    policy = policy_from(settings)
    open_to_all = policy.users is None and not policy.tokens

    async def start(service: Service) -> None:
        proxy = Proxy({name: settings.service_url(name) for name in SERVICES}, transports)
        service.stack.push_async_callback(proxy.close)
        openapi = CombinedOpenApi(proxy, SERVICES)
        audit = AuditLog(
            settings.node,
            service.store,
            keep=settings.keep_audit,
            keep_for=timedelta(days=settings.keep_audit_days),
        )
        service.stack.push_async_callback(audit.flush)
        service.run(audit.run())
        service.app.state.gateway = Gateway(
            settings.node, service.store, proxy, openapi, audit, settings.public_datasets
        )
        if open_to_all:
            service.conditions.report("open-to-local-users", detail=OPEN_DETAIL, next_step=OPEN_STEP)
        for name in SERVICES:
            service.needs(name, readiness_probe(proxy, name, service.conditions))
        service.run(watch_services(proxy, SERVICES, service.conditions))

    return make_service(
        "gateway",
        DESCRIPTION,
        settings,
        start,
        routes=SERVICE_ROUTES,
        store=store,
        own_docs=False,
        all_conditions=_conditions,
        middleware=[
            Middleware(SafeHeaders),
            Middleware(AuthMiddleware, policy=policy, callers=callers),
            Middleware(AuditMiddleware, node=settings.node, log_of=_audit_of),
        ],
    )


def _audit_of(scope: Scope) -> AuditLog:
    gateway: Gateway = scope["app"].state.gateway
    return gateway.audit


async def _conditions(app: FastAPI) -> Sequence[Condition]:
    gateway: Gateway = app.state.gateway
    return await node_conditions(gateway.store, gateway.proxy, SERVICES, conditions_of(app))
