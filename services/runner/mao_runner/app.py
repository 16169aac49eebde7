"""The runner's composition root."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI

from mao_shared.host.data_dir import process_lock
from mao_shared.service.app import Service, make_service
from mao_shared.store import Store

from .drivers import open_driver
from .drivers.protocol import Driver
from .metrics import engine_observer
from .routes import ROUTES
from .runner import Runner
from .settings import RunnerSettings

DESCRIPTION = "Runs the steps of runs as containers on this node's engine, and keeps their logs."


def make_app(
    settings: RunnerSettings, *, store: Store | None = None, driver: Driver | None = None
) -> FastAPI:
    """Make the app. `store` and `driver` replace etcd and the engine in tests; the caller closes them.

    Raises InvalidInput for settings that cannot be used.
    """
    settings.operators()  # invalid settings end the process before it serves

    async def start(service: Service) -> None:
        used_driver = driver or open_driver(
            settings.engine, settings.engine_timeout, engine_observer(service.metrics)
        )
        if driver is None:
            service.stack.push_async_callback(used_driver.close)
        runner = service.app.state.runner = await asyncio.to_thread(
            Runner,
            settings,
            service.store,
            used_driver,
            service.metrics,
            conditions=service.conditions,
            tracing=service.tracing,
        )
        service.stack.push_async_callback(runner.close)
        service.stack.enter_context(process_lock(settings.data_dir, "runner"))
        service.needs("engine", runner.driver.ping)
        service.needs("data directory", runner.check_hostdir)
        service.run(runner.run())

    return make_service("runner", DESCRIPTION, settings, start, routes=ROUTES, store=store)
