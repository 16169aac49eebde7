"""Where etcd listens, as people write it."""

from __future__ import annotations

import re

DEFAULT_PORT = 2379
_UNIX = re.compile(r"unix:///[^\s,]+")
_ENDPOINT = re.compile(r"(?:http://)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?/?")


def parse_endpoints(text: str) -> list[str]:
    """`host[:port][,…]` → `host:port` each; raises ValueError for anything else (TLS is not supported).

    `unix:///path` stays as it is: a socket, the way gRPC names it.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise ValueError("no etcd endpoint is given")
    return [_parse(part) for part in parts]


def _parse(part: str) -> str:
    if _UNIX.fullmatch(part):
        return part
    match = _ENDPOINT.fullmatch(part)
    if match is None:
        raise ValueError(f"{part!r} is not an etcd endpoint; write host:port, for example 127.0.0.1:2379")
    return f"{match[1]}:{match[2] or DEFAULT_PORT}"
