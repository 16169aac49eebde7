"""The components of a running gateway, as its routes and pages get them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from mao_shared.store import Store

from .audit import AuditLog
from .openapi import CombinedOpenApi
from .proxy import Proxy


@dataclass(frozen=True, slots=True)
class Gateway:
    """The components of a running gateway. `public`: datasets whose status anybody may see."""

    node: str
    store: Store
    proxy: Proxy
    openapi: CombinedOpenApi
    audit: AuditLog
    public: frozenset[str] = frozenset()


async def _gateway(request: Request) -> Gateway:
    gateway = request.app.state.gateway
    if not isinstance(gateway, Gateway):
        raise TypeError("the app has not started")
    return gateway


GatewayDep = Annotated[Gateway, Depends(_gateway)]
