"""The skeleton of every service: composition, common parts of the API, and the server.

A service's `make_app` takes settings and returns a FastAPI app; it calls `make_service` with a function that
creates the service's parts.
"""

from __future__ import annotations

import functools
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError
from starlette.middleware import Middleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from mao_shared import __version__
from mao_shared.conditions import Conditions, conditions_of
from mao_shared.errors import MaoError
from mao_shared.host.files import set_private_umask
from mao_shared.host.sockets import LOOPBACK, loopback_listeners, unix_listener
from mao_shared.logs import configure_logs, get_logger
from mao_shared.metrics import Metrics, metrics_of
from mao_shared.progress import OngoingRequests
from mao_shared.reconcile import background
from mao_shared.settings import WRONG_SETTINGS, ServiceSettings, wrong_settings
from mao_shared.store import Store, open_store
from mao_shared.tracing import Tracing, make_tracing
from mao_shared.web import health, progress
from mao_shared.web.api_pages import complete_openapi, docs_router, make_routes
from mao_shared.web.callers import RefuseWebPages
from mao_shared.web.envelope import MAX_HEADER, Envelope, EventStreams, is_untraced
from mao_shared.web.error_handlers import add_error_handlers
from mao_shared.web.health import AllConditions, Health, Probe, Readiness
from mao_shared.web.json_bodies import StrictJson
from mao_shared.web.limits import ConnectionLimits, limited

from .alarms import ConditionAlarms
from .store_health import StoreHealthWatch

if TYPE_CHECKING:
    from mao_shared.federation import FederationStore

log = get_logger(__name__)
S = TypeVar("S", bound=ServiceSettings)
GUARDS = (Middleware(RefuseWebPages), Middleware(StrictJson))
MAX_BODY = 1 << 20  # bytes
STOP_GRACE = 10  # seconds for requests to end after SIGTERM; event streams end at once


class Service:
    """A service during its start: its parts, background loops and cleanup.

    Attributes:
        store: the node's store, opened from the settings unless it was passed to `make_service`.
        stack: closes its contents when the service stops, after the loops have ended.
        probes: probes of `/readyz`, including that of the store.
    """

    def __init__(self, app: FastAPI, settings: ServiceSettings, store: Store, stack: AsyncExitStack) -> None:
        self.app = app
        self.settings = settings
        self.store = store
        self.stack = stack
        self.conditions = conditions_of(app)
        self.metrics = metrics_of(app)
        self.tracing: Tracing = app.state.tracing
        self.ongoing: OngoingRequests = app.state.ongoing
        self.probes: dict[str, Probe] = {"store": store.ping}
        self.loops: list[Coroutine[Any, Any, Any]] = []

    def run(self, *loops: Coroutine[Any, Any, Any]) -> None:
        """Run the loops in the background from the end of the start until the service stops."""
        self.loops += loops

    def needs(self, name: str, probe: Probe) -> None:
        """Add a probe; the service is not ready while it raises."""
        self.probes[name] = probe

    def federation(self, given: Store | None = None) -> FederationStore:
        """Open the federation's store and run its loops. `given`: a store to use instead, for tests."""
        from mao_shared.federation import federation_store  # three of the five services have one

        shared = federation_store(self.settings, self.store, given=given)
        self.stack.push_async_callback(shared.close)
        self.run(shared.run())
        return shared


def make_service(
    name: str,
    description: str,
    settings: ServiceSettings,
    start: Callable[[Service], Awaitable[None]],
    *,
    routes: Sequence[BaseRoute],
    store: Store | None = None,
    own_docs: bool = True,
    middleware: Sequence[Middleware] = GUARDS,
    all_conditions: AllConditions | None = None,
) -> FastAPI:
    """Return the app of a service.

    `start` creates the parts; the loops that it passes to `Service.run` start once it returns. `store`: the
    node's store, for tests; the caller closes it. Every service also checks the node's store and raises
    alarms about lasting conditions. For the other arguments see `make_api`.
    """

    tracing = make_tracing(name, settings.node, settings.traces_endpoint())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            tracing.start()
            stack.push_async_callback(tracing.close)
            used = store or open_store(settings.etcd_endpoints, observe=metrics_of(app).observe_store)
            if store is None:
                stack.push_async_callback(used.close)
            service = app.state.service = Service(app, settings, used, stack)
            service.run(StoreHealthWatch(used, service.conditions, settings.etcd_quota).run())
            service.run(ConditionAlarms(name, settings.node, used, service.conditions).run())
            try:
                await start(service)
            except BaseException:
                for loop in service.loops:
                    loop.close()
                raise
            await stack.enter_async_context(background(*service.loops))
            yield

    return make_api(
        name,
        description,
        routes=routes,
        lifespan=lifespan,
        readiness=lambda app: app.state.service.probes,
        own_docs=own_docs,
        middleware=middleware,
        all_conditions=all_conditions,
        tracing=tracing,
    )


def make_api(
    name: str,
    description: str,
    *,
    routes: Sequence[BaseRoute],
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    readiness: Callable[[FastAPI], Readiness],
    own_docs: bool = True,
    middleware: Sequence[Middleware] = GUARDS,
    all_conditions: AllConditions | None = None,
    tracing: Tracing | None = None,
) -> FastAPI:
    """Return a FastAPI app with the common parts: health, metrics, docs, problems, request ids, logs.

    `routes`: the service's own, from `make_routes`; apps may share them. `readiness`: returns the probes of
    the service's dependencies. `own_docs`: False if `routes` serve `/docs` and `/openapi.json`, as in the
    gateway. `middleware`: runs inside request ids, logs and metrics, the first one outermost; it decides
    which callers are admitted. `all_conditions`: returns the conditions for `/conditions`, if not only the
    service's own. `tracing`: by default off.
    """
    tracing = tracing or Tracing()
    app = FastAPI(
        title=f"MAO {name}",
        version=__version__,
        description=description,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if own_docs else None,
        redirect_slashes=False,
        telemetry={  # FastAPI's own, which the environment could turn on otherwise
            "tracing": tracing.is_on,
            "tracer_provider": tracing.provider,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
            "exclude": is_untraced,
        },
    )
    app.state.tracing = tracing
    app.state.ongoing = OngoingRequests()
    app.state.metrics = Metrics()
    app.state.conditions = Conditions()
    app.state.metrics.add_conditions(app.state.conditions.current)
    app.state.health = Health(name, readiness, all_conditions)
    app.state.streams = EventStreams()
    around = Middleware(
        Envelope,
        service=name,
        metrics=app.state.metrics,
        streams=app.state.streams,
        max_body=MAX_BODY,
        tracing=tracing,
    )
    app.user_middleware[:] = [around, *middleware]
    add_error_handlers(app)
    complete_openapi(app)
    app.router.routes += [*_common_routes(name, own_docs), *routes]
    return app


@functools.cache
def _common_routes(name: str, own_docs: bool) -> list[BaseRoute]:
    """Return the routes of `make_api` itself; the same each time, see `make_routes`."""
    own = [docs_router(f"MAO {name}"), progress.router] if own_docs else []
    return make_routes(name, [health.router, *own])


class _Server(uvicorn.Server):
    """uvicorn's server, which closes event streams when it stops, instead of waiting for them."""

    def __init__(self, config: uvicorn.Config, streams: EventStreams) -> None:
        super().__init__(config)
        self._streams = streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._streams.close()
        await super().shutdown(sockets)
        log.info("service.stopped")


def server(
    app: ASGIApp, host: str, port: int, streams: EventStreams, limits: ConnectionLimits | None = None
) -> uvicorn.Server:
    """Return a server for the app. `port`: 0 for a free port; `streams`: closed when the server stops."""
    limits = limits or ConnectionLimits()
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="asyncio",  # uvloop and httptools would only cost memory at this load
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
    """Run a service until it is stopped; return the exit code, 0 or 2 for invalid settings."""
    try:
        known = settings()
        set_private_umask()
        serve(make_app(known), name, known)
    except ValidationError as error:
        sys.stderr.write(wrong_settings(error))
        return WRONG_SETTINGS
    except MaoError as error:
        sys.stderr.write(f"{error.detail}\n  next: {error.next}\n")
        return WRONG_SETTINGS
    return 0


def serve(app: FastAPI, name: str, settings: ServiceSettings) -> None:
    """Serve the app in the foreground until SIGTERM or SIGINT. Raises Conflict (`port-taken`)."""
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
