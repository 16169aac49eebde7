"""What the routes need, made once by the lifespan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from mao_shared.store import Store

from .openapi import CombinedOpenApi
from .proxy import Proxy


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts of a running gateway."""

    node: str
    store: Store
    proxy: Proxy
    openapi: CombinedOpenApi


def _gateway(request: Request) -> Gateway:
    gateway = request.app.state.gateway
    if not isinstance(gateway, Gateway):
        raise TypeError("the app's lifespan has not begun")
    return gateway


GatewayOf = Annotated[Gateway, Depends(_gateway)]
