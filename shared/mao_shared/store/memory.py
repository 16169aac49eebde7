"""In-memory twin of the etcd store: the same contract within one process, for tests."""

from __future__ import annotations

import asyncio
import itertools
from bisect import bisect_right
from collections.abc import AsyncGenerator, Sequence

from mao_shared.errors import Compacted

from .protocol import (
    Batch,
    Check,
    Delete,
    Entry,
    Event,
    Page,
    Put,
    StoreHealth,
    Write,
    check_limits,
    cursor_invalid,
    lease_ended,
    read_cursor,
    write_cursor,
)

_LEASES = itertools.count(1)  # lease ids are unique across stores, as in etcd


class MemoryStore:
    """A store in memory with its full history, so that watches can start after any revision."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = 0
        self._entries: dict[str, Entry] = {}
        self._history: list[Event] = []
        self._changed = asyncio.Condition()
        self._leases: dict[int, set[str]] = {}
        self._expiry: dict[int, tuple[int, asyncio.TimerHandle]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    async def list(
        self, prefix: str, *, limit: int | None = None, cursor: str | None = None, newest_first: bool = False
    ) -> Page:
        revision, after = (self.revision, None) if cursor is None else read_cursor(cursor, prefix)
        snapshot = self._at(revision)
        keys = sorted((key for key in snapshot if key.startswith(prefix)), reverse=newest_first)
        if after is not None:
            keys = [key for key in keys if (key < after if newest_first else key > after)]
        chosen = keys if limit is None else keys[:limit]
        more = len(chosen) < len(keys) and chosen
        cursor = write_cursor(revision, prefix, chosen[-1]) if more else None
        return Page([snapshot[key] for key in chosen], revision, cursor)

    def _at(self, revision: int) -> dict[str, Entry]:
        if revision < self.compacted:
            raise Compacted(self.compacted)
        if revision > self.revision:
            raise cursor_invalid()
        if revision == self.revision:
            return self._entries
        entries: dict[str, Entry] = {}
        for event in self._after(0, revision):
            _apply(entries, event)
        return entries

    def _after(self, revision: int, until: int) -> Sequence[Event]:
        start = bisect_right(self._history, revision, key=lambda event: event.revision)
        return self._history[start : bisect_right(self._history, until, key=lambda event: event.revision)]

    async def create(self, key: str, value: bytes, *, lease: int | None = None) -> int | None:
        return await self.transact([Check(key, 0)], [Put(key, value, lease)])

    async def replace(self, key: str, value: bytes, revision: int, *, lease: int | None = None) -> int | None:
        return await self.transact([Check(key, revision)], [Put(key, value, lease)])

    async def delete(self, key: str, revision: int | None = None) -> bool:
        async with self._changed:
            current = self._key_revision(key)
            if current == 0 or revision not in (None, current):
                return False
            self._commit([Delete(key)])
            return True

    async def transact(self, checks: Sequence[Check], writes: Sequence[Write]) -> int | None:
        check_limits(checks, writes)
        async with self._changed:
            if not all(self._holds(check) for check in checks):
                return None
            leases = {write.lease for write in writes if isinstance(write, Put) and write.lease is not None}
            if leases - self._leases.keys():
                raise lease_ended()
            self._commit(writes)
            return self.revision

    def _commit(self, writes: Sequence[Write]) -> None:
        """Apply the writes at one new revision and wake the watches; the caller holds the lock."""
        effective = [write for write in writes if isinstance(write, Put) or write.key in self._entries]
        if not effective:
            return
        self.revision += 1
        for write in effective:
            self._write(write)
        self._changed.notify_all()

    def _holds(self, check: Check) -> bool:
        if check.until is None:
            return self._key_revision(check.key) == check.revision
        in_range = (entry for key, entry in self._entries.items() if check.key <= key < check.until)
        return all(entry.revision == check.revision for entry in in_range)

    def _key_revision(self, key: str) -> int:
        entry = self._entries.get(key)
        return 0 if entry is None else entry.revision

    def _write(self, write: Write) -> None:
        entry = None
        if isinstance(write, Put):
            entry = Entry(write.key, write.value, self.revision, write.lease is not None)
        for keys in self._leases.values():
            keys.discard(write.key)
        if isinstance(write, Put) and write.lease is not None:
            self._leases[write.lease].add(write.key)
        event = Event(write.key, self.revision, entry)
        self._history.append(event)
        _apply(self._entries, event)

    async def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Batch, None]:
        while True:
            if after < self.compacted:
                raise Compacted(self.compacted)
            async with self._changed:
                while self.revision <= after:
                    await self._changed.wait()
                batch = [e for e in self._after(after, self.revision) if e.key.startswith(prefix)]
                after = self.revision
            if batch:
                yield batch

    def compact(self, revision: int) -> None:
        """Drop the history below `revision`, like etcd's automatic compaction."""
        self.compacted = revision

    async def grant(self, ttl: int) -> int:
        lease = next(_LEASES)
        self._leases[lease] = set()
        self._arm(lease, ttl)
        return lease

    def _arm(self, lease: int, ttl: int) -> None:
        handle = asyncio.get_running_loop().call_later(ttl, self._expire, lease)
        self._expiry[lease] = (ttl, handle)

    def _expire(self, lease: int) -> None:
        task = asyncio.get_running_loop().create_task(self.revoke(lease))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def keep_alive(self, lease: int) -> bool:
        if lease not in self._leases:
            return False
        ttl, handle = self._expiry[lease]
        handle.cancel()
        self._arm(lease, ttl)
        return True

    async def revoke(self, lease: int) -> None:
        async with self._changed:
            if lease in self._leases:
                self._expiry.pop(lease)[1].cancel()
                self._commit([Delete(key) for key in sorted(self._leases.pop(lease))])

    async def examine(self) -> StoreHealth:
        return StoreHealth(self.revision)

    async def defragment(self) -> None:
        return None

    async def ping(self) -> None:
        return None

    async def close(self) -> None:
        for _, handle in self._expiry.values():
            handle.cancel()


def _apply(entries: dict[str, Entry], event: Event) -> None:
    if event.entry is None:
        entries.pop(event.key, None)
    else:
        entries[event.key] = event.entry
