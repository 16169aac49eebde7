"""The HTTP half of the gateway client: connection, token, retries, pages, streams, resources.

The HTTP half of `gateway.MaoClient`: connection, token, retries, pages, streams.

Why a gateway was not reached though something listens there: http for https or the other way round, a
certificate that is not trusted, a name that nobody knows. Looks itself, over a connection of its own. Blocks.

The five calls that every kind of record has.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlsplit

import httpx

from mao_shared import request_context
from mao_shared.errors import PeerUnavailable
from mao_shared.models import Record
from mao_shared.models.common import STORED

from .responses import (
    WRONG_ADDRESS,
    check,
    json_of,
    outgoing_headers,
    record_of,
    retry_attempts,
    revision_of,
    unreachable,
)
from .services import CONNECT_TIMEOUT

StalenessCallback = Callable[[datetime, str], None]


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
        on_stale: StalenessCallback | None,
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
        for attempt in retry_attempts(method, self._attempts):
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
        raise _wrong_address(*found)

    def _tell_age(self, response: httpx.Response) -> None:
        as_of = request_context.parse_as_of(response.headers.get(request_context.AS_OF_HEADER))
        if as_of is not None and self._on_stale is not None:
            self._on_stale(as_of, response.headers.get(request_context.REMOVED_HEADER, ""))

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
        if found := explain_failure(self.url, error):
            return _wrong_address(*found)
        return unreachable("gateway", self.url, error, _START_IT)


def _wrong_address(why: str, next_step: str) -> PeerUnavailable:
    return PeerUnavailable(
        f"The gateway service is not reachable: {why}.", code=WRONG_ADDRESS, next=next_step, service="gateway"
    )


_TIMEOUT = 2.0  # seconds

_WANTS_TLS = (  # what web servers answer to plain HTTP at a port for HTTPS: nginx, Apache, Go
    b"plain HTTP request was sent to HTTPS port",
    b"speaking plain HTTP to an SSL-enabled server port",
    b"sent an HTTP request to an HTTPS server",
)


def explain_failure(url: str, error: httpx.TransportError) -> tuple[str, str] | None:
    """What is wrong with `url`, and the next step; None when nothing more can be told than `error` says."""
    parts = urlsplit(url)
    causes = _causes(error)
    if any(isinstance(each, socket.gaierror) for each in causes):
        return f"the name {parts.hostname} is not known to this machine", _use("the right host's name")
    if refused := next((each for each in causes if isinstance(each, ssl.SSLCertVerificationError)), None):
        return (
            f"the certificate of {url} is not trusted: {refused.verify_message}",
            "Have its authority trusted (SSL_CERT_FILE=FILE maoctl …), or name the host as it is certified.",
        )
    if parts.scheme == "https" and any(isinstance(each, ssl.SSLError) for each in causes):
        return _speaks_http(url) if _speaks_plain(parts.hostname or "", parts.port or 443) else None
    if parts.scheme == "http" and isinstance(error, httpx.RemoteProtocolError | httpx.NetworkError):
        refused_at_once = isinstance(error, httpx.ConnectError)
        return (
            None
            if refused_at_once or not _speaks_tls(parts.hostname or "", parts.port or 80)
            else _speaks_https(url)
        )
    return None


def explain_answer(url: str, response: httpx.Response) -> tuple[str, str] | None:
    """The same for an answer of a web server that wants HTTPS; None for any other."""
    target = response.headers.get("location", "")
    if response.is_redirect and url.startswith("http:") and target.startswith("https:"):
        return _speaks_https(url, _without_path(target, str(response.request.url.raw_path, "ascii")))
    if response.status_code == 400 and any(words in response.content for words in _WANTS_TLS):
        return _speaks_https(url)
    return None


def _speaks_http(url: str) -> tuple[str, str]:
    other = "http" + url.removeprefix("https")
    return f"what answers at {url} speaks plain HTTP, not HTTPS", _use(other)


def _speaks_https(url: str, other: str | None = None) -> tuple[str, str]:
    other = other or "https" + url.removeprefix("http")
    return f"what answers at {url} speaks HTTPS, not plain HTTP", _use(other)


def _use(what: str) -> str:
    return f"Use {what} in --url or MAO_URL."


def _without_path(target: str, path: str) -> str:
    return target.removesuffix(path).rstrip("/")


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in found:
        found.append(at)
        at = at.__cause__ or at.__context__
    return found


def _speaks_plain(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT) as connection:
            connection.sendall(f"GET /livez HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return connection.recv(5) == b"HTTP/"
    except OSError:
        return False


def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent, nothing believed
    try:
        with (
            socket.create_connection((host, port), timeout=_TIMEOUT) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return True
    except (OSError, ValueError):
        return False


R = TypeVar("R", bound=Record)


def compact(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that are not None."""
    return {key: value for key, value in fields.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Versioned(Generic[R]):
    """A record with the revision of its ETag, the guard of the next write."""

    record: R
    revision: int | None


class Resource(Generic[R]):
    """Records of one kind under one path. `revision` guards a write: PreconditionFailed if it is old."""

    def __init__(self, http: GatewayHttp, path: str, model: type[R]) -> None:
        self.path = path
        self._http = http
        self._model = model

    def list(self) -> Iterator[R]:
        """In order of their names, page by page as far as the caller reads."""
        for item in self._http.pages(self.path):
            yield self._model.model_validate(item, context=STORED)

    def get(self, name: str) -> Versioned[R]:
        return self._versioned(self._http.send("GET", self._at(name)))

    def create(self, record: R, *, idempotency_key: str | None = None) -> Versioned[R]:
        """Raises AlreadyExists when the name is taken."""
        headers = compact({"Idempotency-Key": idempotency_key})
        body = record.model_dump(mode="json", exclude_none=True)
        return self._versioned(self._http.send("POST", self.path, json=body, headers=headers))

    def replace(self, name: str, record: R, revision: int | None = None) -> Versioned[R]:
        body = record.model_dump(mode="json", exclude_none=True)
        response = self._http.send("PUT", self._at(name), json=body, headers=_guard(revision))
        return self._versioned(response)

    def delete(self, name: str, revision: int | None = None) -> None:
        """Raises StillReferenced with who refers to it."""
        check(self._http.send("DELETE", self._at(name), headers=_guard(revision)))

    def _at(self, name: str) -> str:
        return f"{self.path}/{quote(name, safe='')}"

    def _versioned(self, response: httpx.Response) -> Versioned[R]:
        return Versioned(record_of(response, self._model), revision_of(response))


def _guard(revision: int | None) -> dict[str, str]:
    return {} if revision is None else {"If-Match": f'"{revision}"'}
