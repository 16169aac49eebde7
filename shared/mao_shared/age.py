"""How old an answer is: what was read from copies, because the federation's store did not answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime

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
