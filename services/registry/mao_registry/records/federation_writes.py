"""Writes that may be given again: whatever is there before, afterwards it is as wanted."""

from __future__ import annotations

from collections.abc import Callable

from mao_shared.errors import StoreUnknown
from mao_shared.store import Entry, Records, Store, Stored
from mao_shared.store.records import R

from .writes import unknown_is_lost, until_decided


async def ensure(store: Store, key: str, value: bytes) -> int:
    """Lets `key` hold `value`; its revision, an old one when it held that already."""

    async def attempt() -> int | None:
        there = await store.get(key)
        if there is not None and there.value == value:
            return there.revision
        if there is None:
            return await unknown_is_lost(store.create(key, value))
        return await unknown_is_lost(store.replace(key, value, there.revision))

    return await until_decided(attempt, key)


async def drop(store: Store, key: str) -> None:
    """Lets `key` be absent."""

    async def attempt() -> bool | None:
        try:
            await store.delete(key)
        except StoreUnknown:
            return None
        return True

    await until_decided(attempt, key)


async def drop_prefix(store: Store, prefix: str) -> None:
    """Lets nothing begin with `prefix`."""
    for entry in (await store.list(prefix)).entries:
        await drop(store, entry.key)


async def edit(records: Records[R], name: str, change: Callable[[R | None], R | None]) -> Stored[R] | None:
    """Replaces a record by what `change` makes of it (None: it stays as it is); the record as it is then.

    What `change` raises for a record that must not be changed goes through.
    """

    async def attempt() -> tuple[Stored[R] | None] | None:
        there = await records.get(name)
        wanted = change(there.record if there else None)
        if wanted is None or (there is not None and wanted == there.record):
            return (there,)
        if there is None:
            revision = await unknown_is_lost(records.create(name, wanted))
        else:
            revision = await unknown_is_lost(records.replace(name, wanted, there.revision))
        return None if revision is None else (Stored(wanted, revision),)

    (stored,) = await until_decided(attempt, records.prefix + name)
    return stored


async def mirror(source: Store, target: Store, prefix: str) -> list[Entry]:
    """Lets `target` hold under `prefix` what `source` holds, no more and no less; what was in `source`."""
    wanted = (await source.list(prefix)).entries
    there = {entry.key: entry.value for entry in (await target.list(prefix)).entries}
    for entry in wanted:
        if there.pop(entry.key, None) != entry.value:
            await ensure(target, entry.key, entry.value)
    for key in there:
        await drop(target, key)
    return wanted
