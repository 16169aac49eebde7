"""The id that follows a request through logs, problem documents and calls to other services."""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar

HEADER = "X-Request-ID"
_SANE = re.compile(r"[A-Za-z0-9._-]{1,128}")
_current: ContextVar[str | None] = ContextVar("mao_request_id", default=None)


def accept(sent: str | None) -> str:
    """The caller's id when it is safe to log and forward, else a new one; current from now on."""
    request_id = sent if sent and _SANE.fullmatch(sent) else secrets.token_hex(8)
    _current.set(request_id)
    return request_id


def current() -> str | None:
    """The id of the request that this task works for; None outside requests."""
    return _current.get()
