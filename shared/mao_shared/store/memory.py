"""The memory twin of the etcd store: the same contract within one process, for tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

from mao_shared.errors import Compacted, InvalidInput

from .protocol import Batch, Check, Delete, Entry, Event, Page, Put, Write


class MemoryStore:
    """Keeps every change, so that a watch can begin anywhere above the compacted revision."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = 0
        self._entries: dict[str, Entry] = {}
        self._history: list[Event] = []
        self._changed = asyncio.Condition()
        self._leases: dict[int, set[str]] = {}
        self._expiry: dict[int, tuple[int, asyncio.TimerHandle]] = {}

    async def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    async def list(
        self, prefix: str, *, limit: int | None = None, cursor: str | None = None, newest_first: bool = False
    ) -> Page:
        revision, after = _read_cursor(cursor, self.revision)
        if revision < self.compacted:
            raise Compacted(self.compacted)
        snapshot = self._at(revision)
        keys = sorted((key for key in snapshot if key.startswith(prefix)), reverse=newest_first)
        if after is not None:
            keys = [key for key in keys if (key < after if newest_first else key > after)]
        chosen = keys if limit is None else keys[:limit]
        more = len(chosen) < len(keys) and chosen
        return Page([snapshot[key] for key in chosen], revision, f"{revision}:{chosen[-1]}" if more else None)

    def _at(self, revision: int) -> dict[str, Entry]:
        if revision >= self.revision:
            return self._entries
        entries: dict[str, Entry] = {}
        for event in self._history:
            if event.revision > revision:
                break
            _apply(entries, event)
        return entries

    async def create(self, key: str, value: bytes, *, lease: int | None = None) -> int | None:
        return await self.transact([Check(key, 0)], [Put(key, value, lease)])

    async def replace(self, key: str, value: bytes, revision: int, *, lease: int | None = None) -> int | None:
        return await self.transact([Check(key, revision)], [Put(key, value, lease)])

    async def delete(self, key: str, revision: int | None = None) -> bool:
        entry = self._entries.get(key)
        if entry is None or (revision is not None and entry.revision != revision):
            return False
        return await self.transact([Check(key, entry.revision)], [Delete(key)]) is not None

    async def transact(self, checks: Sequence[Check], writes: Sequence[Write]) -> int | None:
        async with self._changed:
            if any(self._revision_of(check.key) != check.revision for check in checks):
                return None
            self.revision += 1
            for write in writes:
                self._write(write)
            self._changed.notify_all()
            return self.revision

    def _revision_of(self, key: str) -> int:
        entry = self._entries.get(key)
        return 0 if entry is None else entry.revision

    def _write(self, write: Write) -> None:
        entry = Entry(write.key, write.value, self.revision) if isinstance(write, Put) else None
        if entry is None and write.key not in self._entries:
            return
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
                batch = [e for e in self._history if e.revision > after and e.key.startswith(prefix)]
                after = self.revision
            if batch:
                yield batch

    def compact(self, revision: int) -> None:
        """Drops the history below `revision`, as an etcd that compacts by itself does."""
        self.compacted = revision

    async def grant(self, ttl: int) -> int:
        lease = len(self._leases) + 1
        self._leases[lease] = set()
        self._arm(lease, ttl)
        return lease

    def _arm(self, lease: int, ttl: int) -> None:
        loop = asyncio.get_running_loop()
        handle = loop.call_later(ttl, lambda: loop.create_task(self.revoke(lease)))
        self._expiry[lease] = (ttl, handle)

    async def keep_alive(self, lease: int) -> bool:
        if lease not in self._expiry:
            return False
        ttl, handle = self._expiry[lease]
        handle.cancel()
        self._arm(lease, ttl)
        return True

    async def revoke(self, lease: int) -> None:
        with contextlib.suppress(KeyError):
            self._expiry.pop(lease)[1].cancel()
            keys = self._leases[lease]
            if keys:
                await self.transact([], [Delete(key) for key in sorted(keys)])
            self._leases[lease] = set()

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


def _read_cursor(cursor: str | None, revision: int) -> tuple[int, str | None]:
    if cursor is None:
        return revision, None
    head, _, key = cursor.partition(":")
    if not head.isdigit() or not key:
        raise InvalidInput(
            "The cursor is not one that a list call gave.",
            code="cursor-invalid",
            next="Leave 'cursor' out to begin with the first page.",
        )
    return int(head), key
