"""The async client that services use for each other."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel

from mao_shared import age
from mao_shared.errors import PeerUnavailable

from .responses import check, json_of, outgoing_headers, record_of, tries, unreachable

M = TypeVar("M", bound=BaseModel)

CONNECT_TIMEOUT = 2.0  # seconds
_UNIX = "unix://"
_KEEP = httpx.Limits(max_keepalive_connections=4, keepalive_expiry=30)


def reach(url: str, limits: httpx.Limits) -> tuple[str, httpx.AsyncHTTPTransport]:
    """How a service is called: the base URL of its paths, and the way there.

    `unix:///path/registry.sock`: HTTP over that socket, where Host is `localhost`; others stay as they are.
    """
    secure = url.startswith("https:")  # else a TLS context of 1 MB for nothing
    if url.startswith(_UNIX):
        return "http://localhost", httpx.AsyncHTTPTransport(
            uds=url.removeprefix(_UNIX), limits=limits, verify=False
        )
    # No proxy from the environment: one for the internet is not for calls within a node.
    return url, httpx.AsyncHTTPTransport(limits=limits, verify=secure, trust_env=False)


class ServiceClient:
    """Calls one service; problem documents become the exceptions of `errors.py`.

    Args:
        base_url: of the service, such as `http://127.0.0.1:8083` or `unix:///run/mao/runner.sock`.
        timeout: seconds that an answer may take.
        attempts: how often a repeatable call is tried while the service does not answer.
        transport: for tests, such as `httpx.ASGITransport(app)`.
    """

    service = "service"

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float = 10,
        attempts: int = 3,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._attempts = attempts
        base, way = reach(self.base_url, _KEEP)
        self._http = httpx.AsyncClient(
            base_url=base,
            timeout=httpx.Timeout(timeout, connect=CONNECT_TIMEOUT),
            transport=transport or way,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def readiness(self) -> dict[str, Any]:
        """The document of `/readyz`, ready or not; raises PeerUnavailable when nothing answers."""
        response = await self._send("GET", "/readyz", {})
        document = response.json() if response.content else {}
        return document if isinstance(document, dict) else {}

    async def json(self, method: str, path: str, **options: Any) -> Any:
        """The answer's JSON. `options` are httpx's: json, params, headers, timeout."""
        return json_of(await self._send_stubbornly(method, path, options))

    async def record(self, method: str, path: str, model: type[M], **options: Any) -> M:
        """The answer as a record; options as for `json`."""
        return record_of(await self._send_stubbornly(method, path, options), model)

    async def response(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer as it is, when it is none of an error; options as for `json`."""
        response = await self._send_stubbornly(method, path, options)
        check(response)
        return response

    async def _send_stubbornly(self, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
        async for attempt in tries(method, self._attempts):
            with attempt:
                return await self._send(method, path, options)
        raise AssertionError("stamina either returns or raises")

    async def _send(self, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
        options = {**options, "headers": {**outgoing_headers(), **options.get("headers", {})}}
        try:
            response = await self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        age.note_answer(response.headers)
        return response

    def _unreachable(self, error: httpx.TransportError) -> PeerUnavailable:
        next_step = f"Run 'maoctl doctor' and look at the log of {self.service}; it may be starting."
        return unreachable(self.service, self.base_url, error, next_step)
