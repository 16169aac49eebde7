"""The audit log: every call that changes something, in the node's store, kept for a limited time.

An entry is written before the caller gets the response. While the store does not answer, entries wait in
memory; they are also in the gateway's log (`audit.waits`), which a crash does not lose.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from mao_shared import keys
from mao_shared.clock import Clock, SystemClock
from mao_shared.errors import Unavailable
from mao_shared.keys import newest_first
from mao_shared.logs import get_logger
from mao_shared.models import Listing
from mao_shared.models.audit import AuditEntry
from mao_shared.models.common import unreadable_items
from mao_shared.reconcile import every
from mao_shared.store import Delete, Records, Store, Unreadable
from mao_shared.store.protocol import MAX_OPERATIONS

log = get_logger(__name__)
WRITE_TIMEOUT = 1.0  # seconds that a response waits for its entry
PRUNE_PERIOD = 3600.0  # seconds
MAX_WAITING = 1000  # entries in memory
MAX_PAGES = 20  # read for one call with filters


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """What a listing is about. `failed`: True for status 400 and above, False for the others."""

    actor: str | None = None
    action: str | None = None
    subject: str | None = None
    failed: bool | None = None
    since: datetime | None = None
    until: datetime | None = None

    def matches(self, entry: AuditEntry) -> bool:
        """Return True for an entry to list. `action` may be an operation id, or its part before the dot."""
        action = entry.action or ""
        return (
            self.actor in (None, entry.actor)
            and self.action in (None, action, action.partition(".")[0])
            and self.subject in (None, entry.subject)
            and self.failed in (None, entry.status >= 400)
            and (self.since is None or entry.at >= self.since)
            and (self.until is None or entry.at <= self.until)
        )


class AuditLog:
    """The audit log of one node. Its `run` must run in the background.

    Args:
        keep: maximum number of entries.
        keep_for: their maximum age.
    """

    def __init__(
        self,
        node: str,
        store: Store,
        *,
        keep: int,
        keep_for: timedelta,
        clock: Clock | None = None,
        unreadable: Unreadable | None = None,
    ) -> None:
        self._store = store
        self._records = Records(store, keys.audit_prefix(node), AuditEntry, unreadable)
        self._keep, self._keep_for = keep, keep_for
        self._clock = clock or SystemClock()
        self._waiting: deque[AuditEntry] = deque()
        self._arrived = asyncio.Event()
        self._prune_at = self._clock.now()

    async def record(self, entry: AuditEntry) -> None:
        """Write an entry, or keep it in memory until the store answers again. Raises nothing."""
        try:
            async with asyncio.timeout(WRITE_TIMEOUT):
                await self._write(entry)
        except (Unavailable, TimeoutError):
            if len(self._waiting) >= MAX_WAITING:
                self._waiting.popleft()
            self._waiting.append(entry)
            log.warning("audit.waits", **entry.model_dump(mode="json", exclude_none=True))
            self._arrived.set()
        except Exception:  # the response must not be lost with its entry
            log.exception("audit.not_written", **entry.model_dump(mode="json", exclude_none=True))

    async def run(self) -> None:
        """Write the entries that wait and remove old ones, until cancelled."""
        await every(PRUNE_PERIOD, self._step, name="audit", wake=self._arrived)

    async def flush(self) -> None:
        """Write the entries that wait, if the store answers."""
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(WRITE_TIMEOUT):
                await self._write_waiting()

    async def page(self, wanted: AuditFilter, limit: int, cursor: str | None) -> Listing[AuditEntry]:
        """Return a page, the newest entries first. With a filter it may be short although more follow."""
        found = Listing[AuditEntry](items=[])
        for _ in range(MAX_PAGES):
            page = await self._records.page(limit - len(found.items), cursor)
            entries = [stored.record for stored in page.items]
            found.items += filter(wanted.matches, entries)
            found.unreadable += unreadable_items(page.unreadable)
            cursor = page.cursor
            if wanted.since is not None and entries and entries[-1].at < wanted.since:
                cursor = None  # the others are older
            if cursor is None or len(found.items) >= limit:
                break
        return found.model_copy(update={"cursor": cursor})

    async def prune(self) -> int:
        """Remove entries beyond the number and the age to keep; return how many."""
        oldest = newest_first(f"{self._clock.now() - self._keep_for:%Y%m%dT%H%M%S}")
        names: list[str] = []
        cursor: str | None = None
        while True:
            page = await self._store.list(self._records.prefix, limit=1000, cursor=cursor)
            names += [entry.key.removeprefix(self._records.prefix) for entry in page.entries]
            cursor = page.cursor
            if cursor is None:
                break
        expired = [name for index, name in enumerate(names) if index >= self._keep or name > oldest]
        for start in range(0, len(expired), MAX_OPERATIONS):
            batch = expired[start : start + MAX_OPERATIONS]
            await self._store.transact([], [Delete(self._records.prefix + name) for name in batch])
        return len(expired)

    async def _step(self) -> None:
        await self._write_waiting()
        if self._clock.now() >= self._prune_at:
            removed = await self.prune()
            self._prune_at = self._clock.now() + timedelta(seconds=PRUNE_PERIOD)
            if removed:
                log.info("audit.pruned", entries=removed)

    async def _write_waiting(self) -> None:
        while self._waiting:
            await self._write(self._waiting[0])
            self._waiting.popleft()

    async def _write(self, entry: AuditEntry) -> None:
        await self._records.create(newest_first(entry.id), entry)  # None: an unconfirmed write was applied
