"""Fake services named by their behaviour, and a real server to run them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from mao_shared.service.app import server
from mao_shared.web.envelope import EventStreams

from .waiting import eventually

Messages = list[dict[str, Any]]


class RecordingService:
    """Answer every request with a description of it, and keep that in `seen`."""

    def __init__(self, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.status = status
        self.headers = headers or {}
        self.seen: Messages = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = await _read(receive)
        headers = [(name.decode(), value.decode()) for name, value in scope["headers"]]
        query = scope["query_string"].decode()
        raw_path = scope.get("raw_path", b"").decode()
        seen = {"method": scope["method"], "path": scope["path"], "raw_path": raw_path, "query": query}
        seen |= {"headers": headers, "body": body.decode()}
        self.seen.append(seen)
        await _answer(send, self.status, {"content-type": "application/json", **self.headers}, seen)


class SlowService:
    """Answer no request until `go` is set; `left` is set when the caller disconnects."""

    def __init__(self) -> None:
        self.reached, self.go, self.left = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        await _read(receive)
        self.reached.set()
        watching = asyncio.create_task(self._watch(receive))
        try:
            await self.go.wait()
            await _answer(send, 200, {"content-type": "application/json"}, {"slow": True})
        finally:
            watching.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()
        self.go.set()


class StreamingService:
    """Send the items of the queue `pieces` as server-sent events; None ends the stream."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.left = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        watching = asyncio.create_task(self._watch(receive))
        while (piece := await self.pieces.get()) is not None:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        watching.cancel()
        await send({"type": "http.response.body", "body": b""})

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()
        self.pieces.put_nowait(None)


class BreakingService:
    """Break the connection in the middle of the answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"100")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ConnectionError("the disk is gone")


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body


async def _answer(send: Send, status: int, headers: dict[str, str], document: Any) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": json.dumps(document).encode()})


class WithLifespan:
    """Add the lifespan that a server expects to a bare ASGI app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return


@asynccontextmanager
async def serving(app: ASGIApp, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """Run a fake or real service on a free port for the block, and yield its base URL."""
    streams = app.state.streams if isinstance(app, FastAPI) else EventStreams()
    running = server(app if isinstance(app, FastAPI) else WithLifespan(app), host, 0, streams)
    task = asyncio.create_task(running._serve())  # `serve` would take over the test's signal handlers
    try:
        await eventually(lambda: running.started)
        yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    finally:
        running.should_exit = True
        await asyncio.wait_for(task, 15)
