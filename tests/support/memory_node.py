"""A whole node in one process: all services on one memory store behind the gateway, without sockets."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from mao_shared.settings import SERVICES
from mao_shared.store.memory import MemoryStore
from tests.gateway.conftest import OperatorCalls
from tests.runner.doubles import PromptDriver

NODE = "node-1"
_documents: dict[str, dict[str, Any]] = {}  # service → its OpenAPI document, which is slow to make
UNUSED = "http://127.0.0.1:9"  # nothing listens on the discard port


@dataclass(frozen=True)
class MemoryNode:
    """A running node; `client` calls the gateway.

    The services cannot reach each other, so requests that need this are answered with 503.
    """

    client: httpx.AsyncClient
    apps: dict[str, FastAPI]
    store: MemoryStore

    def operations(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Return method, path and OpenAPI description of every operation of every service."""
        found = []
        for name in self.apps:
            for path, item in self.document(name)["paths"].items():
                found += [(method.upper(), path, operation) for method, operation in item.items()]
        return found

    def document(self, name: str) -> dict[str, Any]:
        """The OpenAPI document of a service."""
        if name not in _documents:
            _documents[name] = self.apps[name].openapi()
        return _documents[name]


@asynccontextmanager
async def memory_node(root: Path) -> AsyncIterator[MemoryNode]:
    store = MemoryStore()
    urls = {f"{name}_url": UNUSED for name in SERVICES}
    apps: dict[str, FastAPI] = {}
    async with AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        for name in SERVICES:
            more = {"driver": PromptDriver()} if name == "runner" else {}
            made = _make_app(name, root, store, urls, **more)
            await stack.enter_async_context(made.router.lifespan_context(made))
            apps[name] = made
        transports = {name: httpx.ASGITransport(app) for name, app in apps.items()}
        gateway = apps["gateway"] = _make_app(
            "gateway", root, store, urls, transports=transports, callers=OperatorCalls()
        )
        await stack.enter_async_context(gateway.router.lifespan_context(gateway))
        client = httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url="http://localhost:8080")
        await stack.enter_async_context(client)
        yield MemoryNode(client, apps, store)


def _make_app(name: str, root: Path, store: MemoryStore, urls: dict[str, str], **more: Any) -> FastAPI:
    module = importlib.import_module(f"mao_{name}.settings")
    kinds = [k for k in vars(module).values() if getattr(k, "__module__", "") == module.__name__]
    (kind,) = [k for k in kinds if isinstance(k, type) and k.__name__.endswith("Settings")]
    settings = kind(node=NODE, data_dir=root / "node", **urls)
    app = importlib.import_module(f"mao_{name}.app").make_app(settings, store=store, **more)
    assert isinstance(app, FastAPI)
    return app
