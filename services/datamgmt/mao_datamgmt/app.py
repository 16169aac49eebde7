"""The data manager's composition root."""

from __future__ import annotations

from fastapi import FastAPI

from mao_shared.host.data_dir import check_restore_finished, process_lock
from mao_shared.service.app import Service, make_service
from mao_shared.store import Store

from .manager import build
from .routes import ROUTES
from .settings import DataSettings

DESCRIPTION = "The git datasets of this node: prepared for tools, published, and read."


def make_app(
    settings: DataSettings, *, store: Store | None = None, federation: Store | None = None
) -> FastAPI:
    """Build the app. A store that is not given is opened from the settings and closed at shutdown."""

    async def start(service: Service) -> None:
        shared = service.federation(given=federation or store)
        service.stack.enter_context(process_lock(settings.data_dir, "datamgmt"))
        check_restore_finished(settings.data_dir)
        manager = build(settings, service.store, shared, service.metrics, service.conditions, service.tracing)
        service.app.state.manager = manager
        service.stack.callback(manager.close)
        service.run(*manager.loops())

    return make_service(
        "datamgmt",
        DESCRIPTION,
        settings,
        start,
        routes=ROUTES,
        store=store,
    )
