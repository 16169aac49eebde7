"""Waiting for what another node does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from mao_shared.errors import Compacted
from mao_shared.store import Records
from mao_shared.store.records import R

LOOK_AGAIN = 5.0  # seconds; a watch on a member of etcd that has just been taken off says nothing


async def wait_until(records: Records[R], name: str, wanted: Callable[[R | None], bool]) -> R | None:
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
            async with asyncio.timeout(LOOK_AGAIN), contextlib.aclosing(watch) as changes:
                await anext(changes)
