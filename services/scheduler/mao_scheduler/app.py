"""Composition root of the scheduler: opens the stores, starts the loops, serves the routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI

from mao_shared.clock import Clock, SystemClock
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

from .metrics import SchedulerMetrics
from .routes import jobs, reproduce, runs
from .settings import SchedulerSettings
from .wiring import build

DESCRIPTION = "Turns cron schedules into runs and leads each run through its steps."


def make_app(
    settings: SchedulerSettings, *, store: Store | None = None, clock: Clock | None = None
) -> FastAPI:
    """The scheduler's app. `store` serves as the node's and the federation's; closing it is the caller's."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            node_store = store or await _opened(stack, settings.etcd_endpoints)
            federation = federation_store(settings, node_store, given=store)
            stack.push_async_callback(federation.close)
            metrics = SchedulerMetrics(metrics_of(app))
            scheduler = build(
                settings, node_store, federation, clock or SystemClock(), metrics, conditions_of(app)
            )
            app.state.scheduler = scheduler
            looks = condition_loops("scheduler", settings, node_store, scheduler.conditions)
            await stack.enter_async_context(background(federation.run(), *scheduler.loops(), *looks))
            yield

    return make_service(
        "scheduler",
        DESCRIPTION,
        routers=[runs.router, reproduce.router, jobs.router],
        lifespan=lifespan,
        readiness=_readiness,
    )


async def _opened(stack: AsyncExitStack, endpoints: str) -> Store:
    store = open_store(endpoints)
    stack.push_async_callback(store.close)
    return store


def _readiness(app: FastAPI) -> Readiness:
    return {"store": app.state.scheduler.store.ping}
