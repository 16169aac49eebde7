"""Composition of a service: the inputs of its parts, and the order of their start and close."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from mao_shared.errors import StoreUnavailable
from mao_shared.federation import FederationStore
from mao_shared.service.app import Service, make_service
from mao_shared.settings import ServiceSettings
from mao_shared.store.memory import MemoryStore
from tests.support.waiting import eventually


def app_of(start: Callable[[Service], Awaitable[None]], store: MemoryStore, folder: Path) -> FastAPI:
    settings = ServiceSettings(data_dir=folder, node="node-1")
    return make_service("toolbox", "A test.", settings, start, routes=[], store=store)


async def ready(app: FastAPI) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://toolbox") as client:
        return await client.get("/readyz")


async def test_service_loops_run_once_all_parts_are_made_and_end_before_these_close(tmp_path: Path) -> None:
    happened: list[str] = []

    async def loop() -> None:
        happened.append("loop runs")
        try:
            await asyncio.Event().wait()
        finally:
            happened.append("loop ends")

    async def start(service: Service) -> None:
        service.stack.callback(happened.append, "first part closed")
        service.run(loop())
        await asyncio.sleep(0)
        service.stack.callback(happened.append, "second part closed")
        happened.append("parts made")

    app = app_of(start, MemoryStore(), tmp_path)
    async with app.router.lifespan_context(app):
        await eventually(lambda: "loop runs" in happened)
    ends = ["loop ends", "second part closed", "first part closed"]
    assert happened == ["parts made", "loop runs", *ends]


async def test_service_whose_start_fails_closes_what_it_has_made(tmp_path: Path) -> None:
    closed: list[str] = []

    async def loop() -> None:
        raise AssertionError("it must not run")

    async def start(service: Service) -> None:
        service.stack.callback(closed.append, "part")
        service.run(loop())
        raise ValueError("wrong settings")

    app = app_of(start, MemoryStore(), tmp_path)
    with pytest.raises(ValueError, match="wrong settings"):
        async with app.router.lifespan_context(app):
            raise AssertionError("it must not start")
    assert closed == ["part"]


async def test_service_is_ready_when_its_store_and_all_that_it_needs_answer(tmp_path: Path) -> None:
    engine_away = True

    async def engine() -> None:
        if engine_away:
            raise StoreUnavailable("The engine is away.")

    async def start(service: Service) -> None:
        service.needs("engine", engine)

    app = app_of(start, MemoryStore(), tmp_path)
    async with app.router.lifespan_context(app):
        answer = await ready(app)
        assert (answer.status_code, answer.json()["checks"]["store"]) == (503, "ok")
        engine_away = False
        assert (await ready(app)).status_code == 200


async def test_service_federation_store_is_the_given_one_and_is_closed(tmp_path: Path) -> None:
    given, found = MemoryStore(), list[FederationStore]()

    async def start(service: Service) -> None:
        found.append(service.federation(given=given))

    app = app_of(start, MemoryStore(), tmp_path)
    async with app.router.lifespan_context(app):
        await given.create("/mao/x", b"1")
        entry = await found[0].get("/mao/x")
    assert entry is not None
    assert entry.value == b"1"


async def test_service_looks_after_its_store_and_raises_alarms(tmp_path: Path) -> None:
    """The service's own code does not mention either."""
    store = MemoryStore()

    async def away() -> None:
        raise StoreUnavailable("etcd is away.")

    store.ping = away  # type: ignore[method-assign]

    async def start(service: Service) -> None:
        service.probes.clear()

    app = app_of(start, store, tmp_path)
    async with app.router.lifespan_context(app):
        conditions = app.state.service.conditions
        await eventually(lambda: [condition.name for condition in conditions.current()] == ["store"])
