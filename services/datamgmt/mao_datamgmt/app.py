"""The data manager's composition root."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI

from mao_shared.exclusive import only_process
from mao_shared.federation import federation_store
from mao_shared.service import (
    Readiness,
    background,
    condition_loops,
    conditions_of,
    make_service,
    metrics_of,
)
from mao_shared.store import Store, open_store
from mao_shared.workspace import refuse_half_restored

from . import (
    routes_alarms,
    routes_evidence,
    routes_external,
    routes_git,
    routes_live,
    routes_resolve,
    routes_rounds,
    routes_signers,
)
from .manager import build
from .routes import router
from .routes_look import router as look_router
from .settings import DataSettings

DESCRIPTION = "The git datasets of this node: prepared for tools, published, and read."


def make_app(
    settings: DataSettings, *, store: Store | None = None, federation: Store | None = None
) -> FastAPI:
    """The app; stores that are not given are opened from the settings and closed at the end."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            own = store or _opened(settings.etcd_endpoints, stack)
            shared = federation_store(settings, own, given=federation or store)
            stack.push_async_callback(shared.close)
            stack.enter_context(only_process(settings.data_dir, "datamgmt"))
            refuse_half_restored(settings.data_dir)
            manager = app.state.manager = build(settings, own, shared, metrics_of(app), conditions_of(app))
            stack.callback(manager.close)
            looks = condition_loops("datamgmt", settings, own, manager.conditions)
            await stack.enter_async_context(background(shared.run(), *manager.parts(), *looks))
            yield

    def readiness(app: FastAPI) -> Readiness:
        return {"store": app.state.manager.own.ping}  # the federation may be away

    return make_service(
        "datamgmt",
        DESCRIPTION,
        routers=[
            router,
            look_router,
            routes_signers.router,
            routes_alarms.router,
            routes_external.router,
            routes_external.verbatim,
            routes_git.router,
            routes_resolve.router,
            routes_evidence.router,
            routes_rounds.router,
            routes_live.router,
        ],
        lifespan=lifespan,
        readiness=readiness,
    )


def _opened(endpoints: str, stack: AsyncExitStack) -> Store:
    opened = open_store(endpoints)
    stack.push_async_callback(opened.close)
    return opened
