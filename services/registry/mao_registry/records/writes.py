"""Guarded writes that are retried after a lost race, and idempotent writes of single keys.

What a lost race means here: read again and decide again, a bounded number of times.

Writes that may be given again: whatever is there before, afterwards it is as wanted.

Waiting for what another node does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from mao_shared.errors import Compacted, Conflict, StoreUnknown
from mao_shared.store import Check, Entry, Records, Store, Stored, Write
from mao_shared.store.records import R

T = TypeVar("T")

ATTEMPTS = 10


async def retry_lost_races(attempt: Callable[[], Awaitable[T | None]], what: str) -> T:
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


async def unknown_as_lost(write: Awaitable[int | None]) -> int | None:
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


async def put_value(store: Store, key: str, value: bytes) -> int:
    """Lets `key` hold `value`; its revision, an old one when it held that already."""

    async def attempt() -> int | None:
        there = await store.get(key)
        if there is not None and there.value == value:
            return there.revision
        if there is None:
            return await unknown_as_lost(store.create(key, value))
        return await unknown_as_lost(store.replace(key, value, there.revision))

    return await retry_lost_races(attempt, key)


async def delete_key(store: Store, key: str) -> None:
    """Lets `key` be absent."""

    async def attempt() -> bool | None:
        try:
            await store.delete(key)
        except StoreUnknown:
            return None
        return True

    await retry_lost_races(attempt, key)


async def delete_prefix(store: Store, prefix: str) -> None:
    """Lets nothing begin with `prefix`."""
    for entry in (await store.list(prefix)).entries:
        await delete_key(store, entry.key)


async def update_record(
    records: Records[R], name: str, change: Callable[[R | None], R | None]
) -> Stored[R] | None:
    """Replaces a record by what `change` makes of it (None: it stays as it is); the record as it is then.

    What `change` raises for a record that must not be changed goes through.
    """

    async def attempt() -> tuple[Stored[R] | None] | None:
        there = await records.get(name)
        wanted = change(there.record if there else None)
        if wanted is None or (there is not None and wanted == there.record):
            return (there,)
        if there is None:
            revision = await unknown_as_lost(records.create(name, wanted))
        else:
            revision = await unknown_as_lost(records.replace(name, wanted, there.revision))
        return None if revision is None else (Stored(wanted, revision),)

    (stored,) = await retry_lost_races(attempt, records.prefix + name)
    return stored


async def mirror_prefix(source: Store, target: Store, prefix: str) -> list[Entry]:
    """Lets `target` hold under `prefix` what `source` holds, no more and no less; what was in `source`."""
    wanted = (await source.list(prefix)).entries
    there = {entry.key: entry.value for entry in (await target.list(prefix)).entries}
    for entry in wanted:
        if there.pop(entry.key, None) != entry.value:
            await put_value(target, entry.key, entry.value)
    for key in there:
        await delete_key(target, key)
    return wanted


REREAD_PERIOD = 5.0  # seconds; a watch on a member of etcd that has just been taken off says nothing


async def wait_for_record(records: Records[R], name: str, wanted: Callable[[R | None], bool]) -> R | None:
    """The record when `wanted` holds of it (None: it is gone), however long that takes."""
    key = records.prefix + name
    while True:
        revision = (await records.store.list(key, limit=1)).revision
        stored = await records.get(name)
        record = stored.record if stored else None
        if wanted(record):
            return record
        with contextlib.suppress(TimeoutError, Compacted):
            watch = records.store.watch(key, after=revision)
            async with asyncio.timeout(REREAD_PERIOD), contextlib.aclosing(watch) as changes:
                await anext(changes)
