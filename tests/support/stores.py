"""Memory stores that fail, named by their behaviour."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mao_shared.errors import MaoError, StoreUnavailable, StoreUnknown
from mao_shared.store import Check, Entry, Page, Write
from mao_shared.store.memory import MemoryStore


class UnavailableStore(MemoryStore):
    """Raise StoreUnavailable while `away` is set, or `error` if it is set; `calls` counts the attempts."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.calls = 0
        self.error: MaoError | None = None
        self.silent = asyncio.Event()  # while set, `get` never answers

    def _answer(self) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error
        if self.away:
            raise StoreUnavailable("The store is away.", next="Wait.")

    async def get(self, key: str) -> Entry | None:
        self._answer()
        if self.silent.is_set():
            await asyncio.Event().wait()
        return await super().get(key)

    async def list(
        self, prefix: str, *, limit: int | None = None, cursor: str | None = None, newest_first: bool = False
    ) -> Page:
        self._answer()
        return await super().list(prefix, limit=limit, cursor=cursor, newest_first=newest_first)

    async def delete(self, key: str, revision: int | None = None) -> bool:
        self._answer()
        return await super().delete(key, revision)

    async def transact(self, checks: Sequence[Check], writes: Sequence[Write]) -> int | None:
        self._answer()
        return await super().transact(checks, writes)

    async def grant(self, ttl: int) -> int:
        self._answer()
        return await super().grant(ttl)

    async def keep_alive(self, lease: int) -> bool:
        self._answer()
        return await super().keep_alive(lease)

    async def ping(self) -> None:
        self._answer()


class UnknownOutcomeStore(MemoryStore):
    """Raise StoreUnknown for the next `unsure` transactions, after applying them if `applies`."""

    def __init__(self, unsure: int = 0, *, applies: bool = True) -> None:
        super().__init__()
        self.unsure = unsure
        self.applies = applies

    async def transact(self, checks: Sequence[Check], writes: Sequence[Write]) -> int | None:
        if self.unsure == 0:
            return await super().transact(checks, writes)
        self.unsure -= 1
        if self.applies:
            await super().transact(checks, writes)
        raise StoreUnknown("The answer to a write got lost.", next="Read again.")
