"""Passes requests on to the services, streaming what they answer; the only place with HTTP outwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import Request
from starlette.responses import StreamingResponse

from mao_shared import request_context
from mao_shared.clients.responses import unreachable
from mao_shared.clients.services import transport_for
from mao_shared.errors import NotFound, PeerUnavailable
from mao_shared.logs import blocked_imports
from mao_shared.web.envelope import PASSED_ON, CallerLeft

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
_JUDGED = {"host", "origin", "sec-fetch-site", "sec-fetch-mode", "authorization", "cookie"}
"""What `auth` has looked at; to a service the gateway is the caller."""
_NOT_SENT = (
    HOP_BY_HOP | _JUDGED | {"content-length", "x-forwarded-host", request_context.REQUEST_ID_HEADER.lower()}
)
_NOT_RETURNED = HOP_BY_HOP | {"date", "server", request_context.REQUEST_ID_HEADER.lower()}
_SEE_DOCS = "See /docs for all calls."
CONNECT_TIMEOUT = 2.0  # seconds
REPEATABLE = frozenset({"GET", "HEAD"})
SANDBOX = "default-src 'none'; sandbox; frame-ancestors 'none'"
"""A file of a dataset that a browser takes for a page must not act in the dashboard's name."""
AsyncTransport = httpx.AsyncBaseTransport
RawHeaders = list[tuple[bytes, bytes]]


class Proxy:
    """Forwards to services by name.

    Args:
        urls: service → base URL, or `unix:///path` of its socket.
        transports: service → transport, for tests.
    """

    def __init__(
        self, urls: Mapping[str, str], transports: Mapping[str, AsyncTransport] | None = None
    ) -> None:
        self._urls = dict(urls)
        # Idle connections go before the services close them (5 s), or a request may meet a closing one.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=3)
        ways = {name: transport_for(url, limits) for name, url in self._urls.items()}
        self._clients = {
            name: httpx.AsyncClient(
                base_url=base, transport=(transports or {}).get(name) or way, trust_env=False
            )
            for name, (base, way) in ways.items()
        }
        for client in self._clients.values():
            client.headers.clear()  # the caller's own go through, such as Accept-Encoding

    async def close(self) -> None:
        await asyncio.gather(*(client.aclose() for client in self._clients.values()))

    async def get_json(self, service: str, path: str, timeout: float) -> tuple[int, Any]:
        """Status and JSON document (None if it is none) of a GET; raises PeerUnavailable."""
        try:
            response = await self._clients[service].get(path, timeout=timeout, headers=_request_id())
        except httpx.TransportError as error:
            raise self._away(service, error) from error
        try:
            return response.status_code, response.json()
        except ValueError:
            return response.status_code, None

    async def forward(
        self, request: Request, service: str, *, path: str | None = None, silence: float
    ) -> StreamingResponse:
        """The service's answer as it comes. `silence`: seconds without a byte after which it counts as dead.

        Raises PeerUnavailable. When the caller goes away, the service's connection is closed.
        """
        # At most 1 MiB (the envelope sees to it), and complete before anything is done.
        body = await request.body()
        outgoing = self._clients[service].build_request(
            request.method,
            self._clients[service].base_url.copy_with(raw_path=_target(request, path)),
            content=body or None,
            headers=_forwarded(request.headers.raw),
            timeout=httpx.Timeout(silence, connect=CONNECT_TIMEOUT),
        )
        request.scope[PASSED_ON] = service
        upstream = await self._unless_left(request, self._send(service, outgoing))
        answer = StreamingResponse(_body(upstream), upstream.status_code)
        answer.raw_headers = _returned(upstream.headers.raw)
        return answer

    async def _send(self, service: str, outgoing: httpx.Request) -> httpx.Response:
        client = self._clients[service]
        try:
            return await client.send(outgoing, stream=True)
        except (httpx.ReadError, httpx.RemoteProtocolError) as error:
            if outgoing.method not in REPEATABLE:
                raise self._away(service, error) from error
        except httpx.TransportError as error:
            raise self._away(service, error) from error
        try:  # once more: the service was restarted under an idle connection
            return await client.send(outgoing, stream=True)
        except httpx.TransportError as error:
            raise self._away(service, error) from error

    @staticmethod
    async def _unless_left(request: Request, sending: Coroutine[Any, Any, httpx.Response]) -> httpx.Response:
        """Waits for the answer to begin, but no longer than the caller does."""
        answer = asyncio.create_task(sending)
        leaving = asyncio.create_task(_left(request))
        try:
            await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise CallerLeft
            return await answer
        finally:
            leaving.cancel()
            answer.cancel()

    def _away(self, service: str, error: httpx.TransportError) -> PeerUnavailable:
        next_step = f"Run 'maoctl doctor'; the log of {service} says more. It may be starting: try again."
        return unreachable(service, self._urls[service], error, next_step)


def _target(request: Request, path: str | None) -> bytes:
    """Path and query as they were sent: an escaped slash in a name must not become a real one."""
    raw = path.encode() if path else request.scope.get("raw_path") or request.url.path.encode()
    if any(unquote_to_bytes(part) in (b".", b"..") for part in raw.split(b"/")):
        raise NotFound("A path with '.' or '..' leads nowhere.", code="no-such-route", next=_SEE_DOCS)
    query = request.scope.get("query_string", b"")
    return bytes(raw + b"?" + query if query else raw)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _body(upstream: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in upstream.aiter_raw():
            yield piece
    finally:
        await upstream.aclose()


def _request_id() -> dict[str, str]:
    current = request_context.current_request_id()
    return {request_context.REQUEST_ID_HEADER: current} if current else {}


def _named(headers: RawHeaders) -> set[str]:
    """The headers that Connection names: they concern one hop only."""
    lists = [value.decode("latin-1") for name, value in headers if name.lower() == b"connection"]
    return {part.strip().lower() for text in lists for part in text.split(",")}


def _without(headers: RawHeaders, dropped: Iterable[str]) -> RawHeaders:
    names = {name.encode("latin-1") for name in {*dropped, *_named(headers)}}
    return [(name, value) for name, value in headers if name.lower() not in names]


def _forwarded(headers: RawHeaders) -> RawHeaders:
    """What the service gets. Tokens are the gateway's affair and go no further.

    By what name the caller knows the node is told for answers that hold addresses.
    """
    own = [(name.encode(), value.encode()) for name, value in _request_id().items()]
    names = {name.lower(): value for name, value in headers}
    if b"host" in names:
        own.append((b"x-forwarded-host", names.get(b"x-forwarded-host", names[b"host"])))
    return _without(headers, _NOT_SENT) + own


def _returned(headers: RawHeaders) -> RawHeaders:
    return [(name.lower(), value) for name, value in _without(headers, _NOT_RETURNED)]
