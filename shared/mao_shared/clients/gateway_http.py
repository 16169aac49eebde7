"""The HTTP side of MaoClient: connection, retries, pages, streams, records, wrong addresses."""

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

from mao_shared import __version__, request_context
from mao_shared.errors import PeerUnavailable
from mao_shared.models.common import Record, UnreadableItem

from .responses import (
    KEEPALIVE_SECONDS,
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
"""Takes the time of the copies that a stale response is made of, and the federation that removed the node."""

LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0")  # noqa: S104
PAGE_SIZE = 500  # items
PROBE_TIMEOUT = 2.0  # seconds
_START_NODE = "Start the node with 'make node' or 'make up', or name another with --url or MAO_URL."


def url_path(*parts: str) -> str:
    """Return the URL path of these parts, quoted so that no part can reach another endpoint."""
    quoted = (quote(part, safe="") for part in parts)
    return "".join(f"/{part if part.strip('.') else part.replace('.', '%2E')}" for part in quoted)


def compact(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are not None."""
    return {key: value for key, value in fields.items() if value is not None}


class GatewayHttp:
    """HTTP connection to one gateway. Arguments as for MaoClient; `options` of calls are httpx's."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        timeout: float,
        attempts: int,
        transport: httpx.BaseTransport | None,
        on_stale: StalenessCallback | None,
        agent: str,
    ) -> None:
        self.url = url.rstrip("/")
        self._on_stale = on_stale
        self._token = token
        self._unreadable: list[UnreadableItem] = []
        self._attempts = attempts
        is_https = self.url.startswith("https:")
        verify: bool | ssl.SSLContext = is_https  # loading certificates takes longer than most calls
        authority = os.environ.get("SSL_CERT_FILE")
        if is_https and authority and os.access(authority, os.R_OK):
            verify = ssl.create_default_context(cafile=authority)
        self._http = httpx.Client(
            base_url=self.url,
            headers={"User-Agent": f"{agent}/{__version__}"},
            timeout=httpx.Timeout(timeout, connect=CONNECT_TIMEOUT),
            limits=httpx.Limits(keepalive_expiry=KEEPALIVE_SECONDS),
            transport=transport,
            verify=verify,
            trust_env=httpx.URL(self.url).host not in LOOPBACK,  # no proxy on loopback
        )

    def close(self) -> None:
        self._http.close()

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request and return the response; an idempotent one is retried while nothing answers."""
        headers = {**outgoing_headers(self._token), **options.pop("headers", {})}
        for attempt in retry_attempts(method, self._attempts):
            with attempt:
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
        """Send a request and return the response as a record."""
        return read_record_body(self.send(method, path, **options), model)

    def get(self, path: str, model: type[M], params: Params = None, **options: Any) -> M:
        """Get a record; parameters that are None are omitted."""
        return self.call("GET", path, model, params=compact(params or {}), **options)

    def execute(self, method: str, path: str, **options: Any) -> None:
        """Send a request and ignore the response unless it is an error."""
        check(self.send(method, path, **options))

    @contextmanager
    def stream(
        self, path: str, params: dict[str, Any], *, headers: dict[str, str] | None = None, **options: Any
    ) -> Iterator[httpx.Response]:
        """Send a GET request and yield the response before its body is read."""
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
        """Yield the items of a list; pages are fetched as the caller reads on."""
        query = {"limit": PAGE_SIZE, **compact(params or {})}
        more = True
        while more:
            response = self.send("GET", path, params=query)
            document = read_json(response)
            yield from self._items(response, document, model)
            if more := bool(document.get("cursor")):
                query["cursor"] = document["cursor"]

    def items(self, path: str, model: type[M]) -> list[M]:
        """Return the items of a list without pages."""
        response = self.send("GET", path)
        return list(self._items(response, read_json(response), model))

    def _items(self, response: httpx.Response, document: dict[str, Any], model: type[M]) -> Iterator[M]:
        for item in document.get("unreadable", []):
            self._unreadable.append(parse_record(response, item, UnreadableItem))
        for item in document["items"]:
            yield parse_record(response, item, model)

    def take_unreadable(self) -> list[UnreadableItem]:
        """Return and forget the unreadable items of the lists fetched since the last call."""
        found, self._unreadable = self._unreadable, []
        return found

    def _unreachable(self, error: httpx.TransportError) -> PeerUnavailable:
        if found := explain_failure(self.url, error):
            return _wrong_address(*found)
        return unreachable("gateway", self.url, error, _START_NODE)


def _wrong_address(why: str, next_step: str) -> PeerUnavailable:
    return PeerUnavailable(
        f"The gateway service is not reachable: {why}.", code=WRONG_ADDRESS, next=next_step, service="gateway"
    )


# Diagnosis of a failed connection: http in place of https or the reverse, an untrusted certificate, a host
# name that does not resolve. Opens another connection, and blocks.

_WANTS_TLS = (  # answers of nginx, Apache and Go to plain HTTP on an HTTPS port
    b"plain HTTP request was sent to HTTPS port",
    b"speaking plain HTTP to an SSL-enabled server port",
    b"sent an HTTP request to an HTTPS server",
)


def explain_failure(url: str, error: httpx.TransportError) -> tuple[str, str] | None:
    """Return what is wrong with `url`, and the next step; None if nothing more is known than `error` says."""
    parts = urlsplit(url)
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return f"the host name {parts.hostname} cannot be resolved", _use("the right host name")
    if refused := next((cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError)), None):
        return (
            f"the certificate of {url} is not trusted: {refused.verify_message}",
            "Trust its authority (SSL_CERT_FILE=FILE maoctl …), or use the host name in the certificate.",
        )
    if parts.scheme == "https" and any(isinstance(cause, ssl.SSLError) for cause in causes):
        if not _speaks_plain(parts.hostname or "", parts.port or 443):
            return None
        return f"what answers at {url} speaks plain HTTP, not HTTPS", _use("http" + url.removeprefix("https"))
    broke_off = isinstance(error, httpx.RemoteProtocolError | httpx.NetworkError)
    if parts.scheme == "http" and broke_off and not isinstance(error, httpx.ConnectError):
        return _use_https(url) if _speaks_tls(parts.hostname or "", parts.port or 80) else None
    return None


def explain_answer(url: str, response: httpx.Response) -> tuple[str, str] | None:
    """Like `explain_failure`, for the response of a web server that requires HTTPS; None for any other."""
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


def _speaks_plain(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=PROBE_TIMEOUT) as connection:
            connection.sendall(f"GET /livez HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return connection.recv(5) == b"HTTP/"
    except OSError:
        return False


def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent or trusted
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
    """A record with the revision of its ETag, for `If-Match` of the next write."""

    record: R
    revision: int | None


class Resource(Generic[R]):
    """Records of one kind under one path.

    Writes with a `revision` raise PreconditionFailed if the record has another one by then.
    """

    def __init__(self, http: GatewayHttp, path: str, model: type[R]) -> None:
        self.path = path
        self.http = http
        self.model = model

    def list(self) -> Iterator[R]:
        """Yield the records by name; pages are fetched as the caller reads on."""
        return self.http.pages(self.path, self.model)

    def get(self, name: str) -> Versioned[R]:
        return self._versioned(self.http.send("GET", self.at(name)))

    def create(self, record: R, *, idempotency_key: str | None = None) -> Versioned[R]:
        """Create a record. Raises AlreadyExists if the name is taken."""
        headers = compact({"Idempotency-Key": idempotency_key})
        body = record.model_dump(mode="json", exclude_none=True)
        return self._versioned(self.http.send("POST", self.path, json=body, headers=headers))

    def replace(self, name: str, record: R, revision: int | None = None) -> Versioned[R]:
        body = record.model_dump(mode="json", exclude_none=True)
        return self._versioned(self.http.send("PUT", self.at(name), json=body, headers=_guard(revision)))

    def delete(self, name: str, revision: int | None = None) -> None:
        """Delete a record. Raises StillReferenced if others refer to it."""
        self.http.execute("DELETE", self.at(name), headers=_guard(revision))

    def at(self, name: str, *more: str) -> str:
        """Return the URL path of a record, or of a resource below it."""
        return self.path + url_path(name, *more)

    def _versioned(self, response: httpx.Response) -> Versioned[R]:
        return Versioned(read_record_body(response, self.model), read_etag_revision(response))


def _guard(revision: int | None) -> dict[str, str]:
    return {} if revision is None else {"If-Match": f'"{revision}"'}
