"""Doubles of the gateway over real HTTP, named by how they behave."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

Json = dict[str, Any]
START_LIMIT = 10.0  # seconds


def sse(data: Any, event_id: str | None = None, event: str | None = None) -> str:
    """Return one server-sent event with `data` as JSON."""
    lines = [f"id: {event_id}"] if event_id else []
    lines += [f"event: {event}"] if event else []
    return "\n".join([*lines, f"data: {json.dumps(data)}", "", ""])


@dataclass
class Stream:
    """The events of one connection. `then`: `close` ends it, `break` aborts it, `hang` keeps it open."""

    pieces: list[str]
    then: str = "close"


@dataclass
class Call:
    """A received request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    text: str = ""  # of the body


@dataclass
class RememberingGateway:
    """Keeps records like a node, gives prepared answers, and records every call."""

    kept: dict[str, dict[str, Json]] = field(default_factory=dict)  # collection's path → name → record
    answers: dict[tuple[str, str], list[tuple[int, Any]]] = field(default_factory=dict)
    streams: dict[str, list[Stream]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    before: Callable[[Call], None] = lambda _call: None
    revision: int = 1
    as_of: str | None = None  # all answers rest on copies that were true then
    subscribed: threading.Event = field(default_factory=threading.Event)

    def keep(self, collection: str, *records: Json, key: str = "name") -> None:
        """Add records to a collection."""
        self.kept.setdefault(collection, {}).update({record[key]: record for record in records})

    def answer(self, method: str, path: str, body: Any, status: int = 200) -> None:
        """Set the next answer to a call, used before kept records; the last one is repeated."""
        self.answers.setdefault((method, path), []).append((status, body))

    def problem(self, method: str, path: str, status: int, code: str, **members: Any) -> None:
        """Set a problem document as the next answer to a call."""
        document = {"status": status, "code": code, "detail": f"It is {code}.", **members}
        self.answer(method, path, document, status)

    def stream(self, path: str, *connections: Stream) -> None:
        """Set the streams of successive connections to a path; the last one is repeated."""
        self.streams.setdefault(path, []).extend(connections)

    def called(self, method: str, path: str) -> list[Call]:
        return [call for call in self.calls if (call.method, call.path) == (method, path)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        body = await request.body()
        call = Call(
            request.method,
            scope["raw_path"].decode(),
            dict(request.query_params),
            dict(request.headers),
            json.loads(body) if body else None,
            body.decode(),
        )
        self.calls.append(call)
        self.before(call)
        response = self._streamed(call, receive) or self._told(call) or self._record(call)
        if self.as_of is not None:
            response.headers["X-MAO-As-Of"] = self.as_of
        await response(scope, receive, send)

    def _streamed(self, call: Call, receive: Receive) -> Response | None:
        waiting = self.streams.get(call.path)
        if not waiting or "event-stream" not in call.headers.get("accept", ""):
            return None
        stream = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return StreamingResponse(self._pieces(stream, receive), media_type="text/event-stream")

    async def _pieces(self, stream: Stream, receive: Receive) -> AsyncIterator[str]:
        for piece in stream.pieces:
            yield piece
        self.subscribed.set()
        if stream.then == "break":
            raise ConnectionAbortedError("as the test wants it")
        while stream.then == "hang" and (await receive())["type"] != "http.disconnect":
            pass

    def _told(self, call: Call) -> Response | None:
        told = self.answers.get((call.method, call.path))
        if not told:
            return None
        status, body = told.pop(0) if len(told) > 1 else told[0]
        if isinstance(body, str):
            return Response(body, status, media_type="text/plain")
        return JSONResponse(body, status, headers={"ETag": f'"{self.revision}"'})

    def _record(self, call: Call) -> Response:
        if call.path in self.kept or (call.method == "POST" and call.path.startswith("/registry/")):
            return self._collection(call, self.kept.setdefault(call.path, {}))
        collection, _, name = call.path.rpartition("/")
        records = self.kept.get(collection, {})
        if name not in records and call.method != "PUT":
            return _problem(404, "not-found", f"There is no {name!r}.")
        if "if-match" in call.headers and call.headers["if-match"] != f'"{self.revision}"':
            return _problem(412, "precondition-failed", "It was changed.")
        if call.method == "DELETE":
            del records[name]
            return JSONResponse({"removed": name, "detail": f"The record {name!r} is removed."})
        if call.method == "PUT":
            self.revision += 1
            records[name] = call.body
        return JSONResponse(records[name], headers={"ETag": f'"{self.revision}"'})

    def _collection(self, call: Call, records: dict[str, Json]) -> Response:
        if call.method == "GET":
            wanted = {key: value for key, value in call.query.items() if key in ("pipeline", "phase")}
            items = [r for r in records.values() if all(r.get(k) == v for k, v in wanted.items())]
            return JSONResponse({"items": items, "cursor": None})
        name = call.body["name"]
        if name in records:
            return _problem(409, "already-exists", f"{name} is taken.")
        records[name] = call.body
        return JSONResponse(call.body, 201, headers={"ETag": f'"{self.revision}"'})


def _problem(status: int, code: str, detail: str) -> Response:
    return JSONResponse({"status": status, "code": code, "detail": detail}, status)


class Served:
    """Serves a gateway on a free loopback port within a `with` block; `gateway` may be replaced."""

    def __init__(self, gateway: RememberingGateway) -> None:
        self.gateway = gateway
        config = uvicorn.Config(
            self._answer,
            host="127.0.0.1",
            port=0,
            log_config=None,
            log_level="critical",
            lifespan="off",
            ws="none",
            interface="asgi3",
        )
        self._server = uvicorn.Server(config)
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.gateway(scope, receive, send)

    def _serve(self) -> None:
        import asyncio

        async def serve() -> None:
            self._server.config.load()
            self._server.lifespan = self._server.config.lifespan_class(self._server.config)
            await self._server.startup()
            self._started.set()
            await self._server.main_loop()
            await self._server.shutdown()

        asyncio.run(serve())

    @property
    def url(self) -> str:
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def __enter__(self) -> Served:
        self._thread.start()
        if not self._started.wait(START_LIMIT):
            raise TimeoutError("the double of the gateway did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(START_LIMIT)
