"""The context of a request across services: its id, its trace, and how stale its answer is.

An answer is stale if it comes from the replica because the federation does not answer.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

REQUEST_ID_HEADER = "X-Request-ID"
_VALID_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_request_id: ContextVar[str | None] = ContextVar("mao_request_id", default=None)


def accept_request_id(sent: str | None) -> str:
    """Make the caller's id current if it is safe to log and forward, otherwise a new one; return it."""
    request_id = sent if sent and _VALID_ID.fullmatch(sent) else secrets.token_hex(8)
    _request_id.set(request_id)
    return request_id


def current_request_id() -> str | None:
    """Return the id of the request that this task works for; None outside requests."""
    return _request_id.get()


@contextmanager
def numbered_request() -> Iterator[str]:
    """Within the block, what this task sends has a new request id, which is returned."""
    token = _request_id.set(request_id := secrets.token_hex(8))
    try:
        yield request_id
    finally:
        _request_id.reset(token)


_traceparent: ContextVar[str | None] = ContextVar("mao_traceparent", default=None)


def set_traceparent(traceparent: str | None) -> None:
    """Make a span's place in its trace current, which is sent with the calls that this task makes."""
    _traceparent.set(traceparent)


def current_traceparent() -> str | None:
    """Return the place of the span that this task works for; None without one."""
    return _traceparent.get()


AS_OF_HEADER = "X-MAO-As-Of"
"""Header of a stale answer: the time of the copies that it comes from, ISO 8601 in UTC."""
REMOVED_HEADER = "X-MAO-Removed-From"
"""Header of a stale answer: the federation that has removed this node, if one has."""


class Staleness(list[datetime]):
    """The ages of the copies that an answer comes from. `removed_from`: see REMOVED_HEADER."""

    removed_from = ""


_noted: ContextVar[Staleness | None] = ContextVar("mao_read_from_copies", default=None)


@contextmanager
def track_staleness() -> Iterator[Staleness]:
    """Within the block, `note_stale` adds to the list that is returned."""
    moments = Staleness()
    token = _noted.set(moments)
    try:
        yield moments
    finally:
        _noted.reset(token)


def note_stale(as_of: datetime, *, removed_from: str = "") -> None:
    """Record that something was read from a copy of this age."""
    moments = _noted.get()
    if moments is not None:
        moments.append(as_of)
        moments.removed_from = moments.removed_from or removed_from


def note_stale_answer(headers: Mapping[str, str]) -> None:
    """Record the staleness that the headers of another service's answer declare."""
    moment = parse_as_of(headers.get(AS_OF_HEADER))
    if moment is not None:
        note_stale(moment, removed_from=headers.get(REMOVED_HEADER, ""))


def parse_as_of(text: str | None) -> datetime | None:
    """Return the time in an X-MAO-As-Of header; None if it is invalid."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def staleness_headers(moments: Staleness, now: datetime) -> dict[str, str]:
    """Return the headers of a stale answer (RFC 9111, 5.1 and 5.5); the oldest copy counts."""
    if not moments:
        return {}
    oldest = min(moments).astimezone(UTC)
    age = max(0, round((now - oldest).total_seconds()))
    removed = {REMOVED_HEADER: moments.removed_from} if moments.removed_from else {}
    return removed | {
        AS_OF_HEADER: oldest.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "Age": str(age),
        "Warning": '110 - "Response is Stale"',
    }
