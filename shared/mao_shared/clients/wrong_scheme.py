"""Why a gateway was not reached though something listens there: http for https or the other way round, a
certificate that is not trusted, a name that nobody knows. Looks itself, over a connection of its own. Blocks.
"""

from __future__ import annotations

import socket
import ssl
from urllib.parse import urlsplit

import httpx

_TIMEOUT = 2.0  # seconds
_WANTS_TLS = (  # what web servers answer to plain HTTP at a port for HTTPS: nginx, Apache, Go
    b"plain HTTP request was sent to HTTPS port",
    b"speaking plain HTTP to an SSL-enabled server port",
    b"sent an HTTP request to an HTTPS server",
)


def explain(url: str, error: httpx.TransportError) -> tuple[str, str] | None:
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
        return _plain(url) if _speaks_plain(parts.hostname or "", parts.port or 443) else None
    if parts.scheme == "http" and isinstance(error, httpx.RemoteProtocolError | httpx.NetworkError):
        refused_at_once = isinstance(error, httpx.ConnectError)
        return (
            None if refused_at_once or not _speaks_tls(parts.hostname or "", parts.port or 80) else _tls(url)
        )
    return None


def explain_answer(url: str, response: httpx.Response) -> tuple[str, str] | None:
    """The same for an answer of a web server that wants HTTPS; None for any other."""
    target = response.headers.get("location", "")
    if response.is_redirect and url.startswith("http:") and target.startswith("https:"):
        return _tls(url, _without_path(target, str(response.request.url.raw_path, "ascii")))
    if response.status_code == 400 and any(words in response.content for words in _WANTS_TLS):
        return _tls(url)
    return None


def _plain(url: str) -> tuple[str, str]:
    other = "http" + url.removeprefix("https")
    return f"what answers at {url} speaks plain HTTP, not HTTPS", _use(other)


def _tls(url: str, other: str | None = None) -> tuple[str, str]:
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
