"""How old an answer is: what was read from copies, because the federation's store did not answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

HEADER = "X-MAO-As-Of"
"""Of an answer that rests on copies: when they were true, ISO 8601 in UTC."""

_noted: ContextVar[list[datetime] | None] = ContextVar("mao_read_from_copies", default=None)


@contextmanager
def noting() -> Iterator[list[datetime]]:
    """Within the block, `note` puts the ages into the list given."""
    moments: list[datetime] = []
    token = _noted.set(moments)
    try:
        yield moments
    finally:
        _noted.reset(token)


def note(as_of: datetime) -> None:
    """Says that something was read from a copy that was true then."""
    moments = _noted.get()
    if moments is not None:
        moments.append(as_of)


def note_answer(headers: Mapping[str, str]) -> None:
    """Notes what the answer of another service rests on, if its headers say so."""
    moment = parse(headers.get(HEADER))
    if moment is not None:
        note(moment)


def parse(text: str | None) -> datetime | None:
    """The moment in an X-MAO-As-Of; None for anything that is not one."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def headers_of(moments: Sequence[datetime], now: datetime) -> dict[str, str]:
    """What an answer says that rests on copies of these ages (RFC 9111, 5.1 and 5.5); the oldest counts."""
    if not moments:
        return {}
    oldest = min(moments).astimezone(UTC)
    age = max(0, round((now - oldest).total_seconds()))
    return {
        HEADER: oldest.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "Age": str(age),
        "Warning": '110 - "Response is Stale"',
    }
