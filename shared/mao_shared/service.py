"""The skeleton of every service: errors as problems, health, metrics, request ids, API pages.

Its parts are the modules of `web/`; `background` runs controllers beside the app.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import uvicorn
from fastapi import APIRouter, FastAPI
from pydantic import ValidationError
from starlette.middleware import Middleware
from starlette.types import ASGIApp

from . import __version__
from .alarms import ConditionAlarms
from .conditions import Conditions, conditions_of
from .errors import MaoError
from .listeners import LOOPBACK, loopback_listeners, unix_listener
from .logs import configure_logs, get_logger
from .metrics import Metrics, metrics_of
from .private import private_umask
from .reconcile import background
from .settings import WRONG_SETTINGS, ServiceSettings, wrong_settings
from .store import Store
from .store_watch import StoreWatch
from .web.api_pages import RESPONSES, describe_problems, docs_router, operation_id
from .web.callers import NoPages
from .web.envelope import Envelope, EventStreams
from .web.error_handlers import add_error_handlers
from .web.health import AllConditions, Readiness, health_router
from .web.limits import Limits, limited
from .web.refusals import MAX_HEADER
from .web.strict_json import StrictJson

__all__ = [
    "Readiness",
    "background",
    "condition_loops",
    "conditions_of",
    "make_service",
    "metrics_of",
    "run_service",
    "serve",
]

log = get_logger(__name__)
S = TypeVar("S", bound=ServiceSettings)

MAX_BODY = 1 << 20  # bytes
STOP_GRACE = 10  # seconds that requests get to end after SIGTERM; event streams end at once


def make_service(
    name: str,
    description: str,
    *,
    routers: Sequence[APIRouter],
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    readiness: Callable[[FastAPI], Readiness],
    own_docs: bool = True,
    middleware: Sequence[Middleware] = (Middleware(NoPages), Middleware(StrictJson)),
    all_conditions: AllConditions | None = None,
) -> FastAPI:
    """A FastAPI app with what all services have: health, metrics, docs, problems, request ids, logs.

    `readiness` names what the service needs and how to ask for it. With `own_docs=False` the caller's
    routers serve `/docs` and `/openapi.json` (the gateway does). `middleware` works inside the request's
    id, logs and metrics, the first one outermost; it decides who is let in. `all_conditions`: what
    `/conditions` lists where that is more than the service's own.
    """
    app = FastAPI(
        title=f"MAO {name}",
        version=__version__,
        description=description,
        lifespan=lifespan,
        responses=RESPONSES,
        generate_unique_id_function=operation_id(name),
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if own_docs else None,
        redirect_slashes=False,
    )
    app.state.metrics = Metrics()
    app.state.conditions = Conditions()
    app.state.metrics.of_conditions(app.state.conditions.current)
    app.state.streams = EventStreams()
    around = Middleware(
        Envelope, service=name, metrics=app.state.metrics, streams=app.state.streams, max_body=MAX_BODY
    )
    app.user_middleware[:] = [around, *middleware]
    add_error_handlers(app)
    describe_problems(app)
    app.include_router(health_router(name, readiness, all_conditions))
    if own_docs:
        app.include_router(docs_router(f"MAO {name}"))
    for router in routers:
        app.include_router(router)
    return app


def condition_loops(
    name: str, settings: ServiceSettings, store: Store, conditions: Conditions
) -> list[Coroutine[Any, Any, None]]:
    """What every service runs beside its own: a look at the node's store, and alarms about what lasts."""
    watch = StoreWatch(store, conditions, settings.etcd_quota)
    return [watch.run(), ConditionAlarms(name, settings.node, store, conditions).run()]


class _Server(uvicorn.Server):
    """uvicorn, but event streams end when it stops: it would wait for them to the end of its grace."""

    def __init__(self, config: uvicorn.Config, streams: EventStreams) -> None:
        super().__init__(config)
        self._streams = streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._streams.close()
        await super().shutdown(sockets)
        log.info("service.stopped")


def server(
    app: ASGIApp, host: str, port: int, streams: EventStreams, limits: Limits | None = None
) -> uvicorn.Server:
    """A server for the app; port 0 takes a free one, `streams` are ended when it stops."""
    limits = limits or Limits()
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="asyncio",  # uvloop and httptools bring nothing at this load and cost memory
        http=limited(limits),
        h11_max_incomplete_event_size=MAX_HEADER,
        timeout_keep_alive=limits.idle,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_GRACE,
    )
    return _Server(config, streams)


def run_service(name: str, settings: type[S], make_app: Callable[[S], FastAPI]) -> int:
    """A service's `main`: exit code 0 after a clean stop, 2 for settings that cannot be used."""
    try:
        known = settings()
        private_umask()
        serve(make_app(known), name, known)
    except ValidationError as error:
        sys.stderr.write(wrong_settings(error))
        return WRONG_SETTINGS
    except MaoError as error:
        sys.stderr.write(f"{error.detail}\n  next: {error.next}\n")
        return WRONG_SETTINGS
    return 0


def serve(app: FastAPI, name: str, settings: ServiceSettings) -> None:
    """Serves the app in the foreground until SIGTERM or SIGINT. Raises Conflict (`port-taken`)."""
    configure_logs(name, settings.log_level, settings.log_format)
    running = server(app, settings.host, settings.port, app.state.streams)
    address = (
        f"http://{settings.host}:{settings.port}" if settings.socket is None else f"unix://{settings.socket}"
    )
    log.info("service.start", node=settings.node, address=address)
    if settings.socket is not None:
        running.run(sockets=[unix_listener(settings.socket)])
    elif settings.host in (*LOOPBACK, "localhost"):
        running.run(sockets=loopback_listeners(settings.port))
    else:
        running.run()
