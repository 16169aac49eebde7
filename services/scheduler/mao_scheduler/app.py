"""The scheduler's composition root."""

from __future__ import annotations

from fastapi import FastAPI

from mao_shared.clock import Clock, SystemClock
from mao_shared.service.app import Service, make_service
from mao_shared.store import Store

from .metrics import SchedulerMetrics
from .routes import ROUTES
from .scheduler import make_scheduler
from .settings import SchedulerSettings

DESCRIPTION = "Turns cron schedules into runs and takes each run through its steps."


def make_app(
    settings: SchedulerSettings, *, store: Store | None = None, clock: Clock | None = None
) -> FastAPI:
    """Make the app. A given `store` is used as node and federation store; the caller closes it."""

    async def start(service: Service) -> None:
        scheduler = make_scheduler(
            settings,
            service.store,
            service.federation(given=store),
            clock or SystemClock(),
            SchedulerMetrics(service.metrics),
            service.conditions,
            service.tracing,
        )
        service.app.state.scheduler = scheduler
        service.run(*scheduler.loops())

    return make_service("scheduler", DESCRIPTION, settings, start, routes=ROUTES, store=store)
