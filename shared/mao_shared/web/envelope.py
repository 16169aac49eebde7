"""Middleware around every request: id, limits, metrics, log line, staleness, early rejections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mao_shared import request_context
from mao_shared.logs import bind, get_logger
from mao_shared.metrics import Metrics
from mao_shared.problems import MEDIA_TYPE, Problem, make_problem
from mao_shared.tracing import TRACEPARENT_HEADER, Tracing

from .operations import operation_headers

MAX_HEADER = 32 << 10  # bytes of a request's first line and headers
MAX_HEADERS = 100
MAX_TARGET = 16 << 10  # bytes of path and query


@dataclass(frozen=True, slots=True)
class Refusal:
    """Response to a request that is rejected unread; the connection is closed after it."""

    status: int
    code: str
    detail: str
    next: str

    def problem(self, request_id: str | None = None) -> Problem:
        return make_problem(self.status, self.code, self.detail, self.next, request_id)


_TALK_HTTP = "Send valid HTTP/1.1 (RFC 9112), as maoctl, curl and browsers do."
LATE = Refusal(
    408, "request-timeout", "The request was not received in time.", "Send it again, without pauses."
)
TOO_MUCH = Refusal(
    413,
    "body-too-large",
    "The request body is too large for this service.",
    "Send less at once, in larger chunks.",
)
TOO_MANY_CONNECTIONS = Refusal(
    503, "too-many-connections", "Too many connections are open.", "Close some, or try again later."
)
MALFORMED = Refusal(400, "request-malformed", "The request is malformed HTTP.", _TALK_HTTP)
TOO_LONG = Refusal(
    431,
    "header-too-large",
    f"The request's header is larger than {MAX_HEADER} bytes or has more than {MAX_HEADERS} lines.",
    "Send fewer or shorter headers; a browser sends all cookies of this host, clear them.",
)
NO_CODING = Refusal(501, "coding-not-supported", "The only transfer coding supported is chunked.", _TALK_HTTP)
TARGET_TOO_LONG = Refusal(
    414, "target-too-long", f"Path and query are longer than {MAX_TARGET} bytes.", "Send a shorter URL."
)
TWO_LENGTHS = Refusal(
    400, "length-ambiguous", "The request has both Content-Length and Transfer-Encoding.", _TALK_HTTP
)
OLD_CHUNKED = Refusal(400, "length-ambiguous", "HTTP/1.0 has no Transfer-Encoding.", _TALK_HTTP)
STREAMS = Refusal(
    503,
    "too-many-streams",
    "Too many event streams are open.",
    "Close some (pages of the dashboard, 'logs -f'), or try again later.",
)
BODIES = Refusal(
    503, "too-many-bodies", "Too many large request bodies are being received.", "Try again later."
)


def header_fault(version: str, target: int, headers: list[tuple[bytes, bytes]]) -> Refusal | None:
    """Return the refusal for an invalid header, or None. `target`: length of path and query in bytes."""
    if target > MAX_TARGET:
        return TARGET_TOO_LONG
    size = target + sum(len(name) + len(value) + 4 for name, value in headers)
    if len(headers) > MAX_HEADERS or size > MAX_HEADER:
        return TOO_LONG
    names = {name for name, _ in headers}
    if b"transfer-encoding" not in names:
        return None
    if b"content-length" in names:  # parsers may disagree on where the request ends
        return TWO_LENGTHS
    return OLD_CHUNKED if version == "1.0" else None


class BodyBudget:
    """Memory budget in bytes for large bodies; each request's free allowance is not counted."""

    SMALL = 64 << 10

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self, held: int, more: int) -> int:
        """Reserve `more` bytes for a body of `held` bytes; return the bytes charged, -1 without room."""
        large = max(0, held + more - self.SMALL) - max(0, held - self.SMALL)
        if large > self._left:
            return -1
        self._left -= large
        return large

    def give_back(self, size: int) -> None:
        self._left += size


log = get_logger(__name__)
FORWARDED_KEY = "mao.passed_on"
"""Key in a request's scope: another service responds to it and logs it."""
CLIENT_LEFT = 499  # in metrics and logs only, as in nginx
_QUIET_ROUTES = frozenset({"/livez", "/readyz", "/metrics"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BODIES_AT_ONCE = 32 << 20  # total bytes of all large bodies
_STREAMS_AT_ONCE = 128


class CallerLeft(Exception):
    """The client has disconnected: no response can be sent."""


class EventStreams:
    """The open server-sent event streams, which end at once when the server stops."""

    def __init__(self, most: int = _STREAMS_AT_ONCE) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._most = most
        self.closing = False

    @property
    def full(self) -> bool:
        return len(self._tasks) >= self._most

    def add(self, task: asyncio.Task[Any] | None) -> None:
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        self.closing = True
        for task in list(self._tasks):
            task.cancel()


class Exchange:
    """One request and its response."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        streams: EventStreams,
        room: BodyBudget,
        tracing: Tracing,
    ) -> None:
        self.scope = scope
        self.id = request_context.accept_request_id(
            Headers(scope=scope).get(request_context.REQUEST_ID_HEADER)
        )
        self.trace = tracing.begin_request()
        request_context.set_traceparent(None if self.trace is None else str(self.trace))
        self.status: int | None = None
        self.seconds = 0.0
        self.is_stream = False
        self.from_copies = request_context.Staleness()  # age of the copies that the response is based on
        self._began = time.perf_counter()
        self._task = asyncio.current_task()  # `send` may be called from a child task
        self._receive, self._send = receive, send
        self._streams = streams
        self._room = room
        self._tracing = tracing
        self._held = self._shared = 0  # bytes of the body, and how many of them were charged
        self._body_left = 0
        self.client_left = False  # the client disconnected before the response
        self.refused = False  # too many event streams are open

    @property
    def route(self) -> str:
        """The route's path template; `(none)` for requests without a route."""
        path = getattr(self.scope.get("route"), "path", None)
        return path if isinstance(path, str) else "(none)"

    def log_facts(self) -> dict[str, str]:
        """Return the fields that all log lines about this request have."""
        return {"request_id": self.id} | ({} if self.trace is None else {"trace_id": self.trace.trace_id})

    def limit_body(self, most: int) -> None:
        """Make `receive` raise HTTPException 413 past `most` bytes."""
        self._body_left = most
        declared = Headers(scope=self.scope).get("content-length", "0")
        if declared.isascii() and declared.isdigit() and (len(declared) > 18 or int(declared) > most):
            self._body_left = -1

    async def receive(self) -> Message:
        if self._body_left >= 0:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.client_left = self.client_left or self.status is None
            size = len(message.get("body", b""))
            self._body_left -= size
            taken = self._room.take(self._held, size)
            if taken < 0:
                raise HTTPException(BODIES.status, BODIES.code)
            self._held += size
            self._shared += taken
            if self._body_left >= 0:
                return message
        raise HTTPException(413)

    def end(self) -> None:
        self._room.give_back(self._shared)

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers[request_context.REQUEST_ID_HEADER] = self.id
            headers.update(request_context.staleness_headers(self.from_copies, datetime.now(UTC)))
            is_stream = headers.get("content-type", "").startswith("text/event-stream")
            if is_stream and self._streams.full:
                self.refused = True
                await self.answer(STREAMS.problem(self.id), retry=True)
                if self._task is not None:
                    self._task.cancel()
                await asyncio.Event().wait()  # until the task is cancelled
            headers.update(operation_headers(self.scope))
            self.status = message["status"]
            if self.trace is not None:
                self._tracing.describe_request(self.scope["method"], self.route, self.id)
            self.seconds = time.perf_counter() - self._began
            if self.status == 413:
                headers["Connection"] = "close"  # the rest of the body is not read
            self.is_stream = is_stream
            if self.is_stream:
                self._streams.add(self._task)
        await self._send(message)

    async def answer(self, problem: Problem, *, close: bool = False, retry: bool = False) -> None:
        body = problem.encode()
        headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
        headers += [(b"connection", b"close")] if close else []
        headers += [(b"retry-after", b"2")] if retry else []
        await self.send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def end_stream(self) -> None:
        """End the body properly, so that the client reconnects instead of reporting an error."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def is_untraced(scope: MutableMapping[str, Any]) -> bool:
    """Return True for a read that its caller does not trace: polling would hide what the traces are about."""
    reads = scope.get("method", "GET") in ("GET", "HEAD")
    return reads and not any(name == TRACEPARENT_HEADER.encode() for name, _ in scope["headers"])


class Envelope:
    """ASGI middleware; see the module's docstring. `max_body` is in bytes."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        service: str,
        metrics: Metrics,
        streams: EventStreams,
        max_body: int,
        tracing: Tracing,
    ) -> None:
        self.app = app
        self.service = service
        self.metrics = metrics
        self.streams = streams
        self.max_body = max_body
        self.tracing = tracing
        self.room = BodyBudget(_BODIES_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, self.streams, self.room, self.tracing)
        with bind(**exchange.log_facts()), request_context.track_staleness() as exchange.from_copies:
            try:
                await self._run(exchange)
            finally:
                exchange.end()
                self._record(exchange)

    async def _run(self, exchange: Exchange) -> None:
        scope = exchange.scope
        target = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
        fault = header_fault(str(scope.get("http_version", "1.1")), target, scope["headers"])
        if fault is not None:
            await exchange.answer(fault.problem(exchange.id), close=True)
            return
        exchange.limit_body(self.max_body)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if exchange.refused:
                return
            if not (exchange.is_stream and self.streams.closing):
                raise
            await exchange.end_stream()
        except (CallerLeft, ClientDisconnect):
            exchange.client_left = True
        except Exception:
            log.exception("http.failed", method=scope["method"], path=scope["path"])
            if exchange.status is not None:
                raise  # the response has started, so only closing the connection remains
            detail = f"The {self.service} service failed unexpectedly; see its log."
            where = f"Look for request_id={exchange.id} in the log of {self.service}, and report it."
            await exchange.answer(make_problem(500, "internal", detail, where, exchange.id))

    def _record(self, exchange: Exchange) -> None:
        status = CLIENT_LEFT if exchange.client_left else exchange.status or CLIENT_LEFT
        route = exchange.route
        method = exchange.scope["method"]
        counted = method if method in _METHODS else "OTHER"
        self.metrics.requests.labels(counted, route, status).observe(exchange.seconds)
        ordinary = method == "GET" or FORWARDED_KEY in exchange.scope
        quiet = route in _QUIET_ROUTES or (ordinary and status < 500)
        (log.debug if quiet else log.info)(
            "http.request",
            method=method,
            path=exchange.scope["path"],
            status=status,
            ms=round(exchange.seconds * 1000, 1),
        )
