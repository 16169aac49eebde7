"""The data manager's composition root."""

from __future__ import annotations

from fastapi import FastAPI

from mao_shared.exclusive import only_process
from mao_shared.service import Service, make_service
from mao_shared.store import Store
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

    async def start(service: Service) -> None:
        shared = service.federation(given=federation or store)
        service.stack.enter_context(only_process(settings.data_dir, "datamgmt"))
        refuse_half_restored(settings.data_dir)
        manager = build(settings, service.store, shared, service.metrics, service.conditions)
        service.app.state.manager = manager
        service.stack.callback(manager.close)
        service.run(*manager.parts())

    return make_service(
        "datamgmt",
        DESCRIPTION,
        settings,
        start,
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
        store=store,
    )
