"""A server that records request bodies, and clients that send raw bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel
from starlette.responses import StreamingResponse

from mao_shared.service.app import make_api, server
from mao_shared.web.api_pages import make_routes
from mao_shared.web.limits import ConnectionLimits, LimitedProtocol

from .waiting import eventually

HOST = b"Host: localhost\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


class Body(BaseModel):
    name: str


class Toolbox:
    """A service with one route of each kind; `seen` holds the bodies it received."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.go = asyncio.Event()
        self.sent = 0
        router = APIRouter()

        @router.post("/model")
        async def model(body: Body) -> str:
            return body.name

        @router.post("/raw")
        async def raw(request: Request) -> int:
            self.seen.append(await request.body())
            return len(self.seen[-1])

        @router.get("/slow")
        async def slow() -> str:
            await self.go.wait()
            return "done"

        @router.get("/ticks", response_class=EventSourceResponse)
        async def ticks() -> AsyncIterator[dict[str, int]]:
            yield {"tick": 1}
            await asyncio.Event().wait()

        @router.get("/flood")
        async def flood() -> StreamingResponse:
            async def pieces() -> AsyncIterator[bytes]:
                while True:
                    self.sent += 1 << 16
                    yield b"x" * (1 << 16)
                    await asyncio.sleep(0)

            return StreamingResponse(pieces())

        self.app = make_api(
            "toolbox",
            "A test.",
            routes=make_routes("toolbox", [router]),
            lifespan=_no_lifespan,
            readiness=lambda _: {},
        )


@asynccontextmanager
async def _no_lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield


class Client:
    """A connection that sends raw bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *parts: bytes) -> Client:
        self.writer.write(b"".join(parts))
        await self.writer.drain()
        return self

    async def head(self) -> tuple[int, dict[str, str]]:
        text = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)).decode("latin-1")
        first, *lines = text.strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return int(first.split()[1]), headers

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        status, headers = await self.head()
        return status, headers, await self.reader.readexactly(int(headers["content-length"]))

    async def refused(self) -> tuple[int, str]:
        """Return status and code of a problem answer, after which the connection must close."""
        status, headers, body = await self.answer()
        assert (headers["content-type"], headers["connection"]) == ("application/problem+json", "close")
        problem = json.loads(body)
        assert problem["status"] == status
        assert problem["next"]
        await self.ended()
        return status, problem["code"]

    async def ended(self) -> None:
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(self.reader.read(), 20) == b""

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


class Site:
    """A running server for a `Toolbox`, and the clients connected to it."""

    def __init__(self, toolbox: Toolbox, slots: Any, port: int) -> None:
        self.toolbox, self.slots, self.port = toolbox, slots, port
        self.clients: list[Client] = []

    async def connect(self) -> Client:
        self.clients.append(Client(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.clients[-1]

    async def lives(self) -> bool:
        client = await self.connect()
        await client.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        status = (await client.answer())[0]
        await client.close()
        return status == 200


@asynccontextmanager
async def serve(**limits: Any) -> AsyncIterator[Site]:
    toolbox = Toolbox()
    running = server(toolbox.app, "127.0.0.1", 0, toolbox.app.state.streams, ConnectionLimits(**limits))
    task = asyncio.create_task(running._serve())
    await eventually(lambda: running.started)
    protocol = running.config.http_protocol_class
    assert issubclass(protocol, LimitedProtocol)
    site = Site(toolbox, protocol.slots, running.servers[0].sockets[0].getsockname()[1])
    try:
        yield site
    finally:
        for client in site.clients:
            await client.close()
        running.should_exit = True
        await asyncio.wait_for(task, 30)
