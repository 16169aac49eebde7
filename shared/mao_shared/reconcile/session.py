"""A lease that is held as long as its owner lives, with signals for holding and losing it.

granted ─► held ─► (no renewal within ttl) lost ─► still exists: held again
             └─► (the store reports its end) lost ─► granted again
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from mao_shared.errors import Unavailable
from mao_shared.logs import get_logger
from mao_shared.store import Store

from .loops import every

log = get_logger(__name__)
OnLease = Callable[[int], Awaitable[None]]


class Session:
    """Keeps a lease alive during the `async with` block, and requests a new one whenever it has ended.

    Entering does not wait for the store: `held` is set while a lease with the owner's keys exists, `lost`
    once it may have ended. Leaving revokes the lease, which deletes its keys.

    Args:
        ttl: seconds without renewal after which the keys of the lease are deleted.
        on_lease: called with each new lease, including the first, to create the owner's keys with it; called
            again if it raises. A key that is still attached to an earlier lease must be replaced.
        interval: seconds between renewals, also between attempts while the store is away; default ttl / 3.
    """

    def __init__(
        self, store: Store, ttl: int, on_lease: OnLease | None = None, *, interval: float | None = None
    ) -> None:
        self.lease: int | None = None
        self.held = asyncio.Event()
        self.lost = asyncio.Event()
        self._wake = asyncio.Event()
        self._store = store
        self._ttl = ttl
        self._on_lease = on_lease
        self._established = False  # the owner's keys are attached to the lease
        self._interval = ttl / 3 if interval is None else interval
        self._expiry: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._mark_lost()
        if self.lease is not None:
            with contextlib.suppress(Unavailable):  # it expires then
                await self._store.revoke(self.lease)

    async def _run(self) -> None:
        await every(self._interval, self._renew, name="session", wake=self._wake)

    async def _renew(self) -> None:
        """Renew without raising, since `restart_lease` could not shorten the back-off after an error."""
        try:
            await self._step()
        except Unavailable as error:
            log.warning("session.store_away", lease=self.lease, error=error.detail)
        except Exception:  # from the owner's callback; retried
            log.exception("session.owner_failed", lease=self.lease)

    def restart_lease(self) -> None:
        """Request a new lease at once, after a switch of the store; the old one expires."""
        self.lease = None
        self._mark_lost()
        self._wake.set()

    async def _step(self) -> None:
        """Renew the lease; take a new one if there is none or it has expired."""
        requested_at = asyncio.get_running_loop().time()
        renewed = self.lease is None or await self._store.keep_alive(self.lease)
        if self._wake.is_set():  # the response is from the former store
            return
        if not renewed:
            log.warning("session.lease_ended", lease=self.lease)
            self.lease = None
            self._mark_lost()
        if self.lease is None:
            granted = await self._store.grant(self._ttl)
            if self._wake.is_set():
                return
            self.lease, self._established = granted, False
        if not self._established:
            if self._on_lease is not None:
                await self._on_lease(self.lease)
            self._established = True
        if self._expiry is not None:
            self._expiry.cancel()
        # Measured from the request, since the store's ttl starts no earlier.
        self._expiry = asyncio.get_running_loop().call_at(requested_at + self._ttl, self._mark_lost)
        self.lost.clear()
        self.held.set()

    def _mark_lost(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self.held.clear()
        self.lost.set()
