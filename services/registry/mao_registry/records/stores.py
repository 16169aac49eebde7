"""Access to the registry's stores: typed records, guarded writes, waiting for a record."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from mao_shared import keys
from mao_shared.errors import Compacted, StoreUnknown
from mao_shared.federation import FederationStore
from mao_shared.models import Dataset, Enrolment, Member, Pipeline, Schedule, Tool, Trust
from mao_shared.reconcile import Backoff
from mao_shared.runs.records import RunRecords
from mao_shared.store import Check, Entry, Records, Store, Unreadable, Write, retry_lost
from mao_shared.store.records import R

OUTAGE_BACKOFF = Backoff(5.0, 5.0)  # seconds between attempts to watch a federation that does not answer
REREAD_PERIOD = 5.0  # seconds, since a watch on an etcd member that was just removed reports nothing


@dataclass(frozen=True)
class Repositories:
    """The records in the federation's store and in this node's own, which may be the same."""

    node: str
    federation: Store
    own: Store
    unreadable: Unreadable = field(default_factory=Unreadable)

    @property
    def one_store(self) -> bool:
        """True if one transaction can span the records of both stores."""
        shared = self.federation
        return shared.is_own if isinstance(shared, FederationStore) else shared is self.own

    @property
    def tools(self) -> Records[Tool]:
        return Records(self.federation, keys.registry_prefix("tools"), Tool, self.unreadable)

    @property
    def datasets(self) -> Records[Dataset]:
        return Records(self.federation, keys.registry_prefix("datasets"), Dataset, self.unreadable)

    @property
    def pipelines(self) -> Records[Pipeline]:
        return Records(self.federation, keys.registry_prefix("pipelines"), Pipeline, self.unreadable)

    @property
    def members(self) -> Records[Member]:
        return Records(self.federation, keys.members_prefix(), Member, self.unreadable)

    @property
    def enrolments(self) -> Records[Enrolment]:
        return Records(self.own, keys.enrolments_prefix(self.node), Enrolment, self.unreadable)

    @property
    def schedules(self) -> Records[Schedule]:
        return Records(self.own, keys.schedules_prefix(self.node), Schedule, self.unreadable)

    @property
    def runs(self) -> RunRecords:
        return RunRecords(self.own, self.node, self.unreadable)

    @property
    def trusts(self) -> Records[Trust]:
        return Records(self.own, keys.trusted_prefix(self.node), Trust, self.unreadable)


async def unknown_as_lost(write: Awaitable[int | None]) -> int | None:
    """Await a write; treat an unknown outcome as a lost race (None), after which the caller reads again."""
    try:
        return await write
    except StoreUnknown:
        return None


async def write_record(
    records: Records[R], name: str, record: R, checks: Sequence[Check], writes: Sequence[Write]
) -> int | None:
    """Run the transaction that writes `record`; return the new revision, or None for a lost race.

    After an unknown outcome the record is read again, and counts as written if it is equal.
    """
    try:
        return await records.store.transact(checks, writes)
    except StoreUnknown:
        stored = await records.get(name)
        if stored is not None and stored.record == record:
            return stored.revision
        raise


async def put_value(store: Store, key: str, value: bytes) -> int:
    """Set `key` to `value` unless it has this value already; return its revision."""

    async def attempt() -> int | None:
        current = await store.get(key)
        if current is None:
            return await store.create(key, value)
        if current.value == value:
            return current.revision
        return await store.replace(key, value, current.revision)

    return await retry_lost(attempt, key)


async def delete_key(store: Store, key: str) -> None:
    async def attempt() -> bool:
        await store.delete(key)
        return True

    await retry_lost(attempt, key)


async def delete_prefix(store: Store, prefix: str) -> None:
    for entry in (await store.list(prefix)).entries:
        await delete_key(store, entry.key)


async def replace_prefix(store: Store, prefix: str, entries: Iterable[Entry]) -> None:
    """Replace everything under `prefix` with these entries."""
    current = {entry.key: entry.value for entry in (await store.list(prefix)).entries}
    for entry in entries:
        if current.pop(entry.key, None) != entry.value:
            await put_value(store, entry.key, entry.value)
    for key in current:
        await delete_key(store, key)


async def mirror_prefix(source: Store, target: Store, prefix: str) -> list[Entry]:
    """Replace everything under `prefix` in `target` with the entries of `source`; return them."""
    entries = (await source.list(prefix)).entries
    await replace_prefix(target, prefix, entries)
    return entries


async def wait_for_record(records: Records[R], name: str, wanted: Callable[[R | None], bool]) -> R | None:
    """Wait until `wanted` returns True for the record (None if it does not exist); return the record."""
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
