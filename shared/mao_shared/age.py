"""How old an answer is: what was read from copies, because the federation's store did not answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

HEADER = "X-MAO-As-Of"
"""Of an answer that rests on copies: when they were true, ISO 8601 in UTC."""

REMOVED = "X-MAO-Removed-From"
"""Beside it where waiting does not help: the federation that has struck this node off."""


class Ages(list[datetime]):
    """When the copies that something rests on were true. `removed_from`: see REMOVED."""

    removed_from = ""


_noted: ContextVar[Ages | None] = ContextVar("mao_read_from_copies", default=None)


@contextmanager
def noting() -> Iterator[Ages]:
    """Within the block, `note` puts the ages into the list given."""
    moments = Ages()
    token = _noted.set(moments)
    try:
        yield moments
    finally:
        _noted.reset(token)


def note(as_of: datetime, *, removed_from: str = "") -> None:
    """Says that something was read from a copy that was true then."""
    moments = _noted.get()
    if moments is not None:
        moments.append(as_of)
        moments.removed_from = moments.removed_from or removed_from


def note_answer(headers: Mapping[str, str]) -> None:
    """Notes what the answer of another service rests on, if its headers say so."""
    moment = parse(headers.get(HEADER))
    if moment is not None:
        note(moment, removed_from=headers.get(REMOVED, ""))


def parse(text: str | None) -> datetime | None:
    """The moment in an X-MAO-As-Of; None for anything that is not one."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def headers_of(moments: Ages, now: datetime) -> dict[str, str]:
    """What an answer says that rests on copies of these ages (RFC 9111, 5.1 and 5.5); the oldest counts."""
    if not moments:
        return {}
    oldest = min(moments).astimezone(UTC)
    age = max(0, round((now - oldest).total_seconds()))
    removed = {REMOVED: moments.removed_from} if moments.removed_from else {}
    return removed | {
        HEADER: oldest.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "Age": str(age),
        "Warning": '110 - "Response is Stale"',
    }
