"""Stores that wrap a real one and misbehave, named after their behaviour."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from mao_shared.errors import StoreUnavailable
from mao_shared.store import Batch, Check, Entry, Page, Put, Store, Write


class StoreThatDiesAfter:
    """A store that accepts a number of writes and answers none after that, as for a killed process."""

    def __init__(self, store: Store, writes: int) -> None:
        self._store = store
        self._left = writes

    def _write(self) -> None:
        if self._left == 0:
            raise StoreUnavailable("The store has died.")
        self._left -= 1

    async def get(self, key: str) -> Entry | None:
        return await self._store.get(key)

    async def list(
        self, prefix: str, *, limit: int | None = None, cursor: str | None = None, newest_first: bool = False
    ) -> Page:
        return await self._store.list(prefix, limit=limit, cursor=cursor, newest_first=newest_first)

    async def create(self, key: str, value: bytes, *, lease: int | None = None) -> int | None:
        return await self.transact([Check(key, 0)], [Put(key, value, lease)])

    async def replace(self, key: str, value: bytes, revision: int, *, lease: int | None = None) -> int | None:
        return await self.transact([Check(key, revision)], [Put(key, value, lease)])

    async def delete(self, key: str, revision: int | None = None) -> bool:
        self._write()
        return await self._store.delete(key, revision)

    async def transact(self, checks: Sequence[Check], writes: Sequence[Write]) -> int | None:
        self._write()
        return await self._store.transact(checks, writes)

    def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Batch, None]:
        return self._store.watch(prefix, after=after)

    async def grant(self, ttl: int) -> int:
        return await self._store.grant(ttl)

    async def keep_alive(self, lease: int) -> bool:
        return await self._store.keep_alive(lease)

    async def revoke(self, lease: int) -> None:
        await self._store.revoke(lease)

    async def ping(self) -> None:
        await self._store.ping()

    async def close(self) -> None:
        await self._store.close()
