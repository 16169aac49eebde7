"""The HTTP half of `gateway.MaoClient`: connection, token, retries, pages, streams."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import httpx

from mao_shared import age
from mao_shared.errors import PeerUnavailable

from .responses import WRONG_ADDRESS, check, json_of, outgoing_headers, tries, unreachable
from .services import CONNECT_TIMEOUT
from .wrong_scheme import explain, explain_answer

Stale = Callable[[datetime, str], None]
"""Told of an answer from copies: when they were true, and the federation that has removed the node or ``."""

LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0")  # noqa: S104
ATTEMPTS = 3  # of a repeatable call
PAGE = 500  # items
_START_IT = "Start the node with 'make node' or 'make up', or name another with --url or MAO_URL."


def _verification(url: str) -> bool | ssl.SSLContext:
    """How certificates are judged; reading all of them takes longer than most calls, so only for https."""
    authority = os.environ.get("SSL_CERT_FILE")
    if url.startswith("https:") and authority and os.access(authority, os.R_OK):
        return ssl.create_default_context(cafile=authority)
    return url.startswith("https:")


class GatewayHttp:
    """Sends requests to one gateway. Arguments as for MaoClient."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        timeout: float,
        attempts: int,
        transport: httpx.BaseTransport | None,
        on_stale: Stale | None,
    ) -> None:
        self.url = url.rstrip("/")
        self._on_stale = on_stale
        self._token = token
        self._unreadable: list[dict[str, Any]] = []
        self._attempts = attempts
        self._http = httpx.Client(
            base_url=self.url,
            timeout=httpx.Timeout(timeout, connect=CONNECT_TIMEOUT),
            transport=transport,
            verify=_verification(self.url),
            trust_env=httpx.URL(self.url).host not in LOOPBACK,  # no proxy between us and ourselves
        )

    def close(self) -> None:
        self._http.close()

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One call; a repeatable one is tried again while the gateway does not answer."""
        headers = {**outgoing_headers(self._token), **options.pop("headers", {})}
        for attempt in tries(method, self._attempts):
            with attempt:
                return self._once(method, path, headers, options)
        raise AssertionError("stamina either returns or raises")

    def _once(
        self, method: str, path: str, headers: dict[str, str], options: dict[str, Any]
    ) -> httpx.Response:
        try:
            response = self._http.request(method, path, headers=headers, **options)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        self._check_scheme(response)
        self._tell_age(response)
        return response

    def _check_scheme(self, response: httpx.Response) -> None:
        if response.is_success or (found := explain_answer(self.url, response)) is None:
            return
        raise _not_so(*found)

    def _tell_age(self, response: httpx.Response) -> None:
        as_of = age.parse(response.headers.get(age.HEADER))
        if as_of is not None and self._on_stale is not None:
            self._on_stale(as_of, response.headers.get(age.REMOVED, ""))

    @contextmanager
    def stream(
        self, path: str, params: dict[str, Any], *, headers: dict[str, str] | None = None, **options: Any
    ) -> Iterator[httpx.Response]:
        """A GET whose body is read piece by piece."""
        headers = {**outgoing_headers(self._token), **(headers or {})}
        try:
            with self._http.stream("GET", path, params=params, headers=headers, **options) as response:
                if not response.is_success:
                    response.read()
                    self._check_scheme(response)
                check(response)
                yield response
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def pages(self, path: str, params: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """All items of a list call, page by page as far as the caller reads."""
        query = {"limit": PAGE, **(params or {})}
        while True:
            document = json_of(self.send("GET", path, params=query))
            self._unreadable += document.get("unreadable", [])
            yield from document["items"]
            if not document.get("cursor"):
                return
            query["cursor"] = document["cursor"]

    def one_page(self, path: str) -> list[dict[str, Any]]:
        """The items of a list that is never so long as to come in pages."""
        document = json_of(self.send("GET", path))
        self._unreadable += document.get("unreadable", [])
        return list(document["items"])

    def take_unreadable(self) -> list[dict[str, Any]]:
        """What the lists since the last call named as not readable."""
        found, self._unreadable = self._unreadable, []
        return found

    def _unreachable(self, error: httpx.TransportError) -> PeerUnavailable:
        if found := explain(self.url, error):
            return _not_so(*found)
        return unreachable("gateway", self.url, error, _START_IT)


def _not_so(why: str, next_step: str) -> PeerUnavailable:
    return PeerUnavailable(
        f"The gateway service is not reachable: {why}.", code=WRONG_ADDRESS, next=next_step, service="gateway"
    )
