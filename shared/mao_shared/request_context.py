"""What follows a request through the services: its id, and how stale the data behind its answer is.

An answer is stale when it rests on the replica of the federation's records, since the federation does not
answer.
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
    """The caller's id when it is safe to log and forward, else a new one; current from now on."""
    request_id = sent if sent and _VALID_ID.fullmatch(sent) else secrets.token_hex(8)
    _request_id.set(request_id)
    return request_id


def current_request_id() -> str | None:
    """The id of the request that this task works for; None outside requests."""
    return _request_id.get()


AS_OF_HEADER = "X-MAO-As-Of"
"""Of an answer that rests on copies: when they were true, ISO 8601 in UTC."""
REMOVED_HEADER = "X-MAO-Removed-From"
"""Beside it where waiting does not help: the federation that has removed this node."""


class Staleness(list[datetime]):
    """When the copies that something rests on were true. `removed_from`: see REMOVED."""

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
    """Records that something was read from a copy that was true then."""
    moments = _noted.get()
    if moments is not None:
        moments.append(as_of)
        moments.removed_from = moments.removed_from or removed_from


def note_stale_answer(headers: Mapping[str, str]) -> None:
    """Notes what the answer of another service rests on, if its headers say so."""
    moment = parse_as_of(headers.get(AS_OF_HEADER))
    if moment is not None:
        note_stale(moment, removed_from=headers.get(REMOVED_HEADER, ""))


def parse_as_of(text: str | None) -> datetime | None:
    """The moment in an X-MAO-As-Of; None for anything that is not one."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def staleness_headers(moments: Staleness, now: datetime) -> dict[str, str]:
    """Headers of an answer that rests on copies of these times (RFC 9111, 5.1 and 5.5); the oldest counts."""
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
