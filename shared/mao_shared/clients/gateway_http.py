"""The HTTP half of the gateway client: connection, retries, pages, streams, wrong addresses, records."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from pydantic import BaseModel

from mao_shared import request_context
from mao_shared.errors import PeerUnavailable
from mao_shared.models.common import Record, UnreadableItem

from .responses import (
    WRONG_ADDRESS,
    check,
    outgoing_headers,
    parse_record,
    read_etag_revision,
    read_json,
    read_record_body,
    retry_attempts,
    unreachable,
)
from .services import CONNECT_TIMEOUT

M = TypeVar("M", bound=BaseModel)
Params = Mapping[str, Any] | None

StalenessCallback = Callable[[datetime, str], None]
"""Called for an answer from copies: their time, and the federation that removed the node (or ``)."""

LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0")  # noqa: S104
ATTEMPTS = 3  # of a repeatable call
PAGE = 500  # items
PROBE_TIMEOUT = 2.0  # seconds
_START_IT = "Start the node with 'make node' or 'make up', or name another with --url or MAO_URL."


def url_path(*parts: str) -> str:
    """A path of these parts: none of them, whatever a person typed, can lead to another call."""
    quoted = (quote(part, safe="") for part in parts)
    return "".join(f"/{part if part.strip('.') else part.replace('.', '%2E')}" for part in quoted)


def compact(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are not None."""
    return {key: value for key, value in fields.items() if value is not None}


def _verification(url: str) -> bool | ssl.SSLContext:
    """How certificates are judged; reading all of them takes longer than most calls, so only for https."""
    authority = os.environ.get("SSL_CERT_FILE")
    if url.startswith("https:") and authority and os.access(authority, os.R_OK):
        return ssl.create_default_context(cafile=authority)
    return url.startswith("https:")


class GatewayHttp:
    """Sends requests to one gateway. Arguments as for MaoClient; `options` of calls are httpx's."""

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
        self._unreadable: list[UnreadableItem] = []
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
                return self._send_once(method, path, headers, options)
        raise AssertionError("stamina either returns or raises")

    def _send_once(
        self, method: str, path: str, headers: dict[str, str], options: dict[str, Any]
    ) -> httpx.Response:
        try:
            response = self._http.request(method, path, headers=headers, **options)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        self._check_scheme(response)
        as_of = request_context.parse_as_of(response.headers.get(request_context.AS_OF_HEADER))
        if as_of is not None and self._on_stale is not None:
            self._on_stale(as_of, response.headers.get(request_context.REMOVED_HEADER, ""))
        return response

    def _check_scheme(self, response: httpx.Response) -> None:
        if not response.is_success and (found := explain_answer(self.url, response)):
            raise _wrong_address(*found)

    def call(self, method: str, path: str, model: type[M], **options: Any) -> M:
        """One call that answers a record."""
        return read_record_body(self.send(method, path, **options), model)

    def get(self, path: str, model: type[M], params: Params = None, **options: Any) -> M:
        """A record; parameters that are None are left out."""
        return self.call("GET", path, model, params=compact(params or {}), **options)

    def execute(self, method: str, path: str, **options: Any) -> None:
        """One call whose answer, if it is no error, is of no interest."""
        check(self.send(method, path, **options))

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

    def pages(self, path: str, model: type[M], params: Params = None) -> Iterator[M]:
        """All items of a list call, page by page as far as the caller reads."""
        query = {"limit": PAGE, **compact(params or {})}
        more = True
        while more:
            response = self.send("GET", path, params=query)
            document = read_json(response)
            yield from self._items(response, document, model)
            if more := bool(document.get("cursor")):
                query["cursor"] = document["cursor"]

    def items(self, path: str, model: type[M]) -> list[M]:
        """The items of a list that is never so long as to come in pages."""
        response = self.send("GET", path)
        return list(self._items(response, read_json(response), model))

    def _items(self, response: httpx.Response, document: dict[str, Any], model: type[M]) -> Iterator[M]:
        for item in document.get("unreadable", []):
            self._unreadable.append(parse_record(response, item, UnreadableItem))
        for item in document["items"]:
            yield parse_record(response, item, model)

    def take_unreadable(self) -> list[UnreadableItem]:
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


# Why a gateway was not reached though something listens there: http for https or the other way round, a
# certificate that is not trusted, a host name that does not resolve. Opens a connection of its own; blocks.

_WANTS_TLS = (  # what web servers answer to plain HTTP at a port for HTTPS: nginx, Apache, Go
    b"plain HTTP request was sent to HTTPS port",
    b"speaking plain HTTP to an SSL-enabled server port",
    b"sent an HTTP request to an HTTPS server",
)


def explain_failure(url: str, error: httpx.TransportError) -> tuple[str, str] | None:
    """What is wrong with `url`, and the next step; None when `error` says all that is known."""
    parts = urlsplit(url)
    causes = _causes(error)
    if any(isinstance(each, socket.gaierror) for each in causes):
        return f"the host name {parts.hostname} cannot be resolved", _use("the right host name")
    if refused := next((each for each in causes if isinstance(each, ssl.SSLCertVerificationError)), None):
        return (
            f"the certificate of {url} is not trusted: {refused.verify_message}",
            "Trust its authority (SSL_CERT_FILE=FILE maoctl …), or use the host name in the certificate.",
        )
    if parts.scheme == "https" and any(isinstance(each, ssl.SSLError) for each in causes):
        if not _speaks_plain(parts.hostname or "", parts.port or 443):
            return None
        return f"what answers at {url} speaks plain HTTP, not HTTPS", _use("http" + url.removeprefix("https"))
    broke_off = isinstance(error, httpx.RemoteProtocolError | httpx.NetworkError)
    if parts.scheme == "http" and broke_off and not isinstance(error, httpx.ConnectError):
        return _use_https(url) if _speaks_tls(parts.hostname or "", parts.port or 80) else None
    return None


def explain_answer(url: str, response: httpx.Response) -> tuple[str, str] | None:
    """The same for the answer of a web server that requires HTTPS; None for any other."""
    target = response.headers.get("location", "")
    if response.is_redirect and url.startswith("http:") and target.startswith("https:"):
        return _use_https(url, target.removesuffix(str(response.request.url.raw_path, "ascii")).rstrip("/"))
    if response.status_code == 400 and any(words in response.content for words in _WANTS_TLS):
        return _use_https(url)
    return None


def _use_https(url: str, other: str | None = None) -> tuple[str, str]:
    other = other or "https" + url.removeprefix("http")
    return f"what answers at {url} speaks HTTPS, not plain HTTP", _use(other)


def _use(what: str) -> str:
    return f"Use {what} in --url or MAO_URL."


def _causes(error: BaseException) -> list[BaseException]:
    """The error and what led to it, each once."""
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found:
        found.append(cause)
        cause = cause.__cause__ or cause.__context__
    return found


def _speaks_plain(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=PROBE_TIMEOUT) as connection:
            connection.sendall(f"GET /livez HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return connection.recv(5) == b"HTTP/"
    except OSError:
        return False


def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent, nothing believed
    try:
        with (
            socket.create_connection((host, port), timeout=PROBE_TIMEOUT) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return True
    except (OSError, ValueError):
        return False


# Records

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Versioned(Generic[R]):
    """A record with the revision of its ETag, the guard of the next write."""

    record: R
    revision: int | None


class Resource(Generic[R]):
    """Records of one kind under one path. `revision` guards a write: PreconditionFailed if it is old."""

    def __init__(self, http: GatewayHttp, path: str, model: type[R]) -> None:
        self.path = path
        self.http = http
        self.model = model

    def list(self) -> Iterator[R]:
        """In order of their names, page by page as far as the caller reads."""
        return self.http.pages(self.path, self.model)

    def get(self, name: str) -> Versioned[R]:
        return self._versioned(self.http.send("GET", self.at(name)))

    def create(self, record: R, *, idempotency_key: str | None = None) -> Versioned[R]:
        """Raises AlreadyExists when the name is taken."""
        headers = compact({"Idempotency-Key": idempotency_key})
        body = record.model_dump(mode="json", exclude_none=True)
        return self._versioned(self.http.send("POST", self.path, json=body, headers=headers))

    def replace(self, name: str, record: R, revision: int | None = None) -> Versioned[R]:
        body = record.model_dump(mode="json", exclude_none=True)
        return self._versioned(self.http.send("PUT", self.at(name), json=body, headers=_guard(revision)))

    def delete(self, name: str, revision: int | None = None) -> None:
        """Raises StillReferenced with who refers to it."""
        self.http.execute("DELETE", self.at(name), headers=_guard(revision))

    def at(self, name: str, *more: str) -> str:
        """The path of a record, or of what is below it."""
        return self.path + url_path(name, *more)

    def _versioned(self, response: httpx.Response) -> Versioned[R]:
        return Versioned(read_record_body(response, self.model), read_etag_revision(response))


def _guard(revision: int | None) -> dict[str, str]:
    return {} if revision is None else {"If-Match": f'"{revision}"'}
