"""Forwards requests to the services and streams their responses; the only module with outgoing HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import Request
from starlette.responses import StreamingResponse

from mao_shared import request_context
from mao_shared.clients.responses import KEEPALIVE_SECONDS, unreachable
from mao_shared.clients.services import transport_for
from mao_shared.errors import NotFound, PeerUnavailable
from mao_shared.logs import blocked_imports
from mao_shared.tracing import TRACEPARENT_HEADER
from mao_shared.web.envelope import FORWARDED_KEY, CallerLeft
from mao_shared.web.operations import OPERATION_HEADER, OPERATION_KEY, SUBJECT_HEADER, read_operation

with blocked_imports("rich", "pygments"):
    import httpx

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_CHECKED_BY_AUTH = {"host", "origin", "sec-fetch-site", "sec-fetch-mode", "authorization", "cookie"}
"""Not forwarded, since the gateway is the service's caller."""
_NOT_FORWARDED = (
    HOP_BY_HOP
    | _CHECKED_BY_AUTH
    | {"content-length", "x-forwarded-host", request_context.REQUEST_ID_HEADER.lower(), TRACEPARENT_HEADER}
)
_NOT_RETURNED = HOP_BY_HOP | {
    "date",
    "server",
    request_context.REQUEST_ID_HEADER.lower(),
    OPERATION_HEADER.lower(),
    SUBJECT_HEADER.lower(),
}
_SEE_DOCS = "See /docs for all calls."
CONNECT_TIMEOUT = 2.0  # seconds
REPEATABLE = frozenset({"GET", "HEAD"})
SANDBOX = "default-src 'none'; sandbox; frame-ancestors 'none'"
"""A dataset's file that a browser renders as a page must not get the dashboard's rights."""
AsyncTransport = httpx.AsyncBaseTransport
RawHeaders = list[tuple[bytes, bytes]]


class Proxy:
    """Forwards requests to services by name.

    Args:
        urls: service → base URL, or `unix:///path` of its socket.
        transports: service → transport, for tests.
    """

    def __init__(
        self, urls: Mapping[str, str], transports: Mapping[str, AsyncTransport] | None = None
    ) -> None:
        self._urls = dict(urls)
        limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=20, keepalive_expiry=KEEPALIVE_SECONDS
        )
        connections = {name: transport_for(url, limits) for name, url in self._urls.items()}
        self._clients = {
            name: httpx.AsyncClient(
                base_url=base, transport=(transports or {}).get(name) or transport, trust_env=False
            )
            for name, (base, transport) in connections.items()
        }
        for client in self._clients.values():
            client.headers.clear()  # the caller's own are forwarded, such as Accept-Encoding

    async def close(self) -> None:
        await asyncio.gather(*(client.aclose() for client in self._clients.values()))

    async def get_json(self, service: str, path: str, timeout: float) -> tuple[int, Any]:
        """GET a path; return status and JSON document (None if it is not JSON). Raises PeerUnavailable."""
        try:
            response = await self._clients[service].get(path, timeout=timeout, headers=_own_headers())
        except httpx.TransportError as error:
            raise self._unreachable(service, error) from error
        try:
            return response.status_code, response.json()
        except ValueError:
            return response.status_code, None

    async def call(
        self,
        service: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        timeout: float,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send a request of the gateway's own; `body`: a JSON document. Raises PeerUnavailable."""
        client = self._clients[service]
        outgoing = client.build_request(
            method,
            path,
            params=query,
            json=body,
            headers={"Accept": "application/json"} | _own_headers() | dict(headers or {}),
            timeout=httpx.Timeout(timeout, connect=CONNECT_TIMEOUT),
        )
        response = await self._send(service, outgoing)
        try:
            await response.aread()
        except httpx.TransportError as error:
            raise self._unreachable(service, error) from error
        finally:
            await response.aclose()
        return response

    async def forward(
        self, request: Request, service: str, *, path: str | None = None, timeout: float
    ) -> StreamingResponse:
        """Forward a request and stream the response. `timeout`: seconds without a byte.

        Raises PeerUnavailable. When the caller disconnects, the gateway disconnects from the service.
        """
        body = await request.body()  # at most 1 MiB, which the middleware ensures
        # The service gets no credentials, but the host name that the caller used, for URLs in its responses.
        own = [(name.encode(), value.encode()) for name, value in _own_headers().items()]
        sent = {name.lower(): value for name, value in request.headers.raw}
        if b"host" in sent:
            own.append((b"x-forwarded-host", sent.get(b"x-forwarded-host", sent[b"host"])))
        outgoing = self._clients[service].build_request(
            request.method,
            self._clients[service].base_url.copy_with(raw_path=_target(request, path)),
            content=body or None,
            headers=_without(request.headers.raw, _NOT_FORWARDED) + own,
            timeout=httpx.Timeout(timeout, connect=CONNECT_TIMEOUT),
        )
        request.scope[FORWARDED_KEY] = service
        upstream = await self._unless_left(request, self._send(service, outgoing))
        request.scope[OPERATION_KEY] = read_operation(upstream.headers)
        answer = StreamingResponse(_body(upstream), upstream.status_code)
        answer.raw_headers = [
            (name.lower(), value) for name, value in _without(upstream.headers.raw, _NOT_RETURNED)
        ]
        return answer

    async def _send(self, service: str, outgoing: httpx.Request) -> httpx.Response:
        client = self._clients[service]
        try:
            return await client.send(outgoing, stream=True)
        except (httpx.ReadError, httpx.RemoteProtocolError) as error:
            if outgoing.method not in REPEATABLE:
                raise self._unreachable(service, error) from error
        except httpx.TransportError as error:
            raise self._unreachable(service, error) from error
        try:  # the idle connection may have been closed by a restart of the service
            return await client.send(outgoing, stream=True)
        except httpx.TransportError as error:
            raise self._unreachable(service, error) from error

    @staticmethod
    async def _unless_left(request: Request, sending: Coroutine[Any, Any, httpx.Response]) -> httpx.Response:
        """Wait until the response starts. Raises CallerLeft if the caller disconnects first."""
        answer = asyncio.create_task(sending)

        async def wait_for_disconnect() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        disconnect = asyncio.create_task(wait_for_disconnect())
        try:
            await asyncio.wait({answer, disconnect}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise CallerLeft
            return await answer
        finally:
            disconnect.cancel()
            answer.cancel()

    def _unreachable(self, service: str, error: httpx.TransportError) -> PeerUnavailable:
        next_step = f"Run 'maoctl doctor' and see the log of {service}; if it is starting, try again."
        return unreachable(service, self._urls[service], error, next_step)


def _target(request: Request, path: str | None) -> bytes:
    """Return path and query as sent, so that an escaped slash in a name stays escaped."""
    raw = path.encode() if path else request.scope.get("raw_path") or request.url.path.encode()
    if any(unquote_to_bytes(part) in (b".", b"..") for part in raw.split(b"/")):
        raise NotFound("invalid path: it contains '.' or '..'.", code="no-such-route", next=_SEE_DOCS)
    query = request.scope.get("query_string", b"")
    return bytes(raw + b"?" + query if query else raw)


async def _body(upstream: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in upstream.aiter_raw():
            yield piece
    finally:
        await upstream.aclose()


def _own_headers() -> dict[str, str]:
    """Return the request's id and, if it is traced, the gateway's span as the parent of the service's."""
    current, traceparent = request_context.current_request_id(), request_context.current_traceparent()
    headers = {request_context.REQUEST_ID_HEADER: current} if current else {}
    return headers | ({TRACEPARENT_HEADER: traceparent} if traceparent else {})


def _without(headers: RawHeaders, dropped: Iterable[str]) -> RawHeaders:
    """Return the headers without `dropped` and the hop-by-hop headers that Connection names."""
    lists = [value.decode("latin-1") for name, value in headers if name.lower() == b"connection"]
    for_one_hop = {part.strip().lower() for text in lists for part in text.split(",")}
    names = {name.encode("latin-1") for name in {*dropped, *for_one_hop}}
    return [(name, value) for name, value in headers if name.lower() not in names]
