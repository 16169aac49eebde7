"""The runner's composition root."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from mao_shared.exclusive import only_process
from mao_shared.service import (
    Readiness,
    background,
    condition_loops,
    conditions_of,
    make_service,
    metrics_of,
)
from mao_shared.store import Store, open_store

from .drivers import Driver
from .drivers.docker import DockerDriver
from .routes import router
from .runner import Runner
from .settings import RunnerSettings

DESCRIPTION = "Runs the steps of runs as containers on this node's engine, and keeps their logs."


def make_app(
    settings: RunnerSettings, *, store: Store | None = None, driver: Driver | None = None
) -> FastAPI:
    """The app; `store` and `driver` replace etcd and Docker in tests, and stay the caller's to close.

    Raises InvalidInput for settings that cannot be used.
    """

    settings.operators()  # wrong settings end the process before it serves

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        used_store = store or open_store(settings.etcd_endpoints)
        used_driver = driver or DockerDriver(timeout=settings.engine_timeout)
        conditions = conditions_of(app)
        runner = await asyncio.to_thread(
            Runner, settings, used_store, used_driver, metrics_of(app), conditions=conditions
        )
        app.state.store, app.state.runner = used_store, runner
        try:
            with only_process(settings.data_dir, "runner"):
                looks = condition_loops("runner", settings, used_store, conditions)
                async with background(runner.run(), *looks):
                    yield
        finally:
            await runner.close()
            if driver is None:
                await used_driver.close()
            if store is None:
                await used_store.close()

    return make_service("runner", DESCRIPTION, routers=[router], lifespan=lifespan, readiness=_readiness)


def _readiness(app: FastAPI) -> Readiness:
    runner: Runner = app.state.runner
    return {
        "store": app.state.store.ping,
        "engine": runner.driver.ping,
        "data directory": runner.check_hostdir,
    }
