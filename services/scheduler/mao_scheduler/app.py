"""The scheduler's composition root."""

from __future__ import annotations

from fastapi import FastAPI

from mao_shared.clock import Clock, SystemClock
from mao_shared.service.app import Service, make_service
from mao_shared.store import Store

from .metrics import SchedulerMetrics
from .routes import api
from .scheduler import make_scheduler
from .settings import SchedulerSettings

DESCRIPTION = "Turns cron schedules into runs and leads each run through its steps."


def make_app(
    settings: SchedulerSettings, *, store: Store | None = None, clock: Clock | None = None
) -> FastAPI:
    """The scheduler's app. `store` serves as the node's and the federation's; closing it is the caller's."""

    async def start(service: Service) -> None:
        scheduler = make_scheduler(
            settings,
            service.store,
            service.federation(given=store),
            clock or SystemClock(),
            SchedulerMetrics(service.metrics),
            service.conditions,
        )
        service.app.state.scheduler = scheduler
        service.run(*scheduler.loops())

    routers = [api.runs_router, api.reproduce_router, api.jobs_router]
    return make_service("scheduler", DESCRIPTION, settings, start, routers=routers, store=store)
