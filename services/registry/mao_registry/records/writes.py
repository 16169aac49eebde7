"""What a lost race means here: read again and decide again, a bounded number of times."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from mao_shared.errors import Conflict, StoreUnknown
from mao_shared.store import Check, Records, Write
from mao_shared.store.records import R

T = TypeVar("T")
ATTEMPTS = 10


async def until_decided(attempt: Callable[[], Awaitable[T | None]], what: str) -> T:
    """The first answer of `attempt` that is not None (a lost race); raises Conflict after ATTEMPTS."""
    for _ in range(ATTEMPTS):
        answer = await attempt()
        if answer is not None:
            return answer
    raise Conflict(
        f"Others kept changing {what} while this was decided, {ATTEMPTS} times in a row.",
        code="busy",
        next="Try again in a moment.",
    )


async def unknown_is_lost(write: Awaitable[int | None]) -> int | None:
    """Answers None for a write whose fate is unknown: for callers that read again and decide again."""
    try:
        return await write
    except StoreUnknown:
        return None


async def write_record(
    records: Records[R], name: str, record: R, checks: Sequence[Check], writes: Sequence[Write]
) -> int | None:
    """Runs the transaction that writes `record`; the new revision, or None for a lost race.

    A write that timed out is looked up: the record being there as wanted counts as written.
    """
    try:
        return await records.store.transact(checks, writes)
    except StoreUnknown:
        stored = await records.get(name)
        if stored is not None and stored.record == record:
            return stored.revision
        raise
