"""Protect a node from web pages: its services have no passwords, and browsers can reach loopback.

A page in the operator's browser can post to localhost, or rebind its own DNS name to it, after which the
browser treats a service as the page's own server. Rebound names are in the public DNS and so contain a dot;
Origin identifies the page, and `Sec-Fetch-Site` a cross-site request. The gateway adds its own rules
(`mao_gateway.auth`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Set
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from mao_shared.errors import Forbidden, MaoError

from .error_handlers import problem_response

READY = "/readyz"
OPEN_PATHS = frozenset({"/livez", READY})
"""Paths for supervisors and health checks, allowed under any host name."""
_USE_GATEWAY = "Call the node through its gateway."


def is_address(host: str) -> bool:
    """Return True if the host is an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def host_name(netloc: str) -> str:
    """Return the name in `name:port` or `[address]:port`, in lower case; empty if malformed."""
    try:
        return (urlsplit(f"//{netloc}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def called_host(headers: Headers) -> str:
    """Return the name in the Host header; empty if it is missing, repeated or malformed."""
    sent = headers.getlist("host")
    return host_name(sent[0]) if len(sent) == 1 else ""


def called_port(headers: Headers) -> int | None:
    """Return the port in the Host header; None without one."""
    try:
        return urlsplit(f"//{headers.get('host', '')}").port
    except ValueError:
        return None


def host_not_allowed(name: str, next_step: str) -> Forbidden:
    detail = (
        f"{name!r} is not a host name of this node." if name else "The Host header is missing or invalid."
    )
    return Forbidden(detail, code="host-not-allowed", next=next_step)


def check_origin(method: str, headers: Headers, hosts: Set[str], next_step: str) -> MaoError | None:
    """Return the error for a foreign Origin or cross-site request, or None; following links is allowed."""
    origin = headers.get("origin")
    if origin is not None and not _is_own(origin, headers.get("host", ""), hosts):
        detail = f"Requests from pages of {origin} are not allowed."
        return Forbidden(detail, code="origin-not-allowed", next=next_step)
    follows_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    if headers.get("sec-fetch-site") == "cross-site" and not follows_link:
        return Forbidden(
            "Requests from pages of other sites are not allowed.", code="cross-site", next=next_step
        )
    return None


def _is_own(origin: str, host: str, hosts: Set[str]) -> bool:
    netloc = origin.partition("://")[2].lower()
    return bool(netloc) and (netloc == host.lower() or host_name(netloc) in hosts)


def web_page_refusal(method: str, path: str, headers: Headers) -> MaoError | None:
    """Return the error for a web page's request to a service behind the gateway; None for other callers."""
    if path in OPEN_PATHS:
        return None
    name = called_host(headers)
    if not name or ("." in name and not is_address(name)):
        return host_not_allowed(name, _USE_GATEWAY)
    return check_origin(method, headers, frozenset(), _USE_GATEWAY)


class RefuseWebPages:
    """ASGI middleware of the services behind the gateway; see `web_page_refusal`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None
        if scope["type"] == "http":
            refusal = web_page_refusal(scope["method"], scope["path"], Headers(scope=scope))
        await (self.app if refusal is None else problem_response(refusal))(scope, receive, send)
