"""Fixtures: the data manager's app and its HTTP API."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from fastapi import FastAPI

from mao_datamgmt.app import make_app
from mao_shared.store.memory import MemoryStore

from .world import settings_for

T = TypeVar("T")


class Api:
    """The app called without a network; calls block."""

    def __init__(self, runner: asyncio.Runner, client: httpx.AsyncClient, app: FastAPI) -> None:
        self.app = app
        self._runner = runner
        self._client = client

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self._runner.run(self._client.get(path, **options))

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the app's event loop."""
        return self._runner.run(call)

    def put(self, path: str, **options: Any) -> httpx.Response:
        return self._runner.run(self._client.put(path, **options))

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self._runner.run(self._client.post(path, **options))


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with api_on(tmp_path, MemoryStore()) as api:
        yield api


@contextmanager
def api_on(root: Path, store: MemoryStore) -> Iterator[Api]:
    """Run the app on a store that the test can write to."""
    app = make_app(settings_for(root), store=store)
    stack = AsyncExitStack()
    with asyncio.Runner() as runner:
        runner.run(stack.enter_async_context(app.router.lifespan_context(app)))
        transport = httpx.ASGITransport(app)
        client = httpx.AsyncClient(transport=transport, base_url="http://datamgmt")
        yield Api(runner, runner.run(stack.enter_async_context(client)), app)
        runner.run(stack.aclose())
