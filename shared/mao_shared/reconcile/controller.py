"""The controller: keys from any source → a queue → one worker per key, many keys concurrently.

`reconcile(key)` is called for every added key. A key is only a hint: reconcile reads the current state, acts,
and writes back guarded by the revision that it read, so that stale data only costs a lost race. If it raises,
it is called again after a back-off and a condition is reported until it succeeds; if it returns seconds, it
is called again after that time. (Pattern: kubernetes/sample-controller and controller-runtime.)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from mao_shared.errors import Unavailable
from mao_shared.logs import get_logger

from .loops import Backoff, Guard, every
from .mirror import Mirror

if TYPE_CHECKING:
    from mao_shared.conditions import Conditions

log = get_logger(__name__)
Reconcile = Callable[[str], Awaitable[float | None]]
BACKOFF = Backoff(0.2, 30.0)


class WorkQueue:
    """Queue of distinct keys; a key that is being processed becomes ready again only after that."""

    def __init__(self) -> None:
        self._ready: deque[str] = deque()
        self._waiting: set[str] = set()
        self._working: set[str] = set()
        self._again: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._some = asyncio.Event()

    def add(self, key: str) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.append(key)
            self._some.set()

    def add_later(self, key: str, seconds: float) -> None:
        """Add the key after `seconds`, unless it is added or due earlier."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= loop.time() + seconds:
            return
        if timer is not None:
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self.add, key)

    async def take(self) -> str:
        """Wait for the next ready key and return it; call `done` afterwards."""
        while not self._ready:
            self._some.clear()
            await self._some.wait()
        key = self._ready.popleft()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: str) -> None:
        """Mark a key as processed; if it was added meanwhile, it is ready again."""
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def close(self) -> None:
        """Discard all keys; no key may be in process."""
        for timer in self._timers.values():
            timer.cancel()
        for keys in (self._timers, self._ready, self._waiting, self._working, self._again):
            keys.clear()


class Controller:
    """Calls `reconcile` for each key that is added; see the module's docstring.

    Args:
        name: of the loop, shown in the conditions of failing keys.
        reconcile: returns seconds until the key is processed again; None: only when it is added again.
        workers: maximum number of keys processed concurrently; with one, keys keep their order.
        list_keys: returns further keys to process at the start and at every resync, besides mirrored records.
        resync: seconds between listings of all keys, in case hints are lost; None: only at the start.
        backoff: after reconcile raised; Unavailable is retried separately, since the key is not at fault.
    """

    def __init__(
        self,
        name: str,
        reconcile: Reconcile,
        *,
        workers: int = 64,
        list_keys: Callable[[], Awaitable[Iterable[str]]] | None = None,
        resync: float | None = 300.0,
        backoff: Backoff = BACKOFF,
        conditions: Conditions | None = None,
    ) -> None:
        self._name = name
        self._reconcile = reconcile
        self._workers = workers
        self._list_keys = list_keys
        self._resync = resync
        self._backoff = backoff
        self._conditions = conditions
        self._guard = Guard(name, conditions)
        self._queue = WorkQueue()
        self._failures: dict[str, int] = {}
        self._mirrors: list[Mirror[Any]] = []
        self._synced: list[asyncio.Event] = []

    def watches(self, mirror: Mirror[Any], key_of: Callable[[str], str | None] | None = None) -> Controller:
        """Add the name of each record that changes, or the key that `key_of` returns for it (None: no key).

        The controller starts when the mirror has synced. Without `key_of`, all of the mirror's records are
        added at each resync, and unreadable records are skipped until they are readable or deleted.
        """
        self._synced.append(mirror.synced)
        if key_of is None:
            self._mirrors.append(mirror)
            mirror.subscribe(self.add)
            return self

        def changed(name: str) -> None:
            if (key := key_of(name)) is not None:
                self.add(key)

        mirror.subscribe(changed)
        return self

    def add(self, key: str) -> None:
        """Process the key now, or right after it is done if it is in process.

        Shortens a back-off, but not to zero, since the change may come from the failed attempt itself.
        """
        if key in self._failures:
            self._queue.add_later(key, self._backoff.initial)
        else:
            self._queue.add(key)

    def add_later(self, key: str, seconds: float) -> None:
        """Process the key after `seconds`, unless it is added or due earlier."""
        self._queue.add_later(key, seconds)

    async def run(self) -> None:
        """Process keys until cancelled; the mirrors' `run` must run in the background."""
        for synced in self._synced:
            await synced.wait()
        self._add_mirrored()
        resync = every(
            self._resync,
            self._add_all,
            name=self._name,
            initial_delay=self._resync if self._list_keys is None else 0.0,
            conditions=self._conditions,
        )
        slots = asyncio.Semaphore(self._workers)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(resync)  # concurrently: processing must not wait for a failing listing
                while True:
                    await slots.acquire()
                    key = await self._queue.take()
                    group.create_task(self._work(key, slots))
        finally:
            self._queue.close()

    def _add_mirrored(self) -> None:
        for mirror in self._mirrors:
            for name, _ in mirror.items():
                self.add(name)

    async def _add_all(self) -> None:
        self._add_mirrored()
        if self._list_keys is not None:
            for key in await self._list_keys():
                self.add(key)

    async def _work(self, key: str, slots: asyncio.Semaphore) -> None:
        try:
            set_aside = any(mirror.is_set_aside(key) for mirror in self._mirrors)
            again = None if set_aside else await self._reconcile(key)
        except Exception as error:  # noqa: BLE001 (one key must not stop the others)
            self._retry(key, error)
        else:
            self._failures.pop(key, None)
            self._guard.succeeded(key)
            if again is not None:
                self._queue.add_later(key, again)
        finally:
            slots.release()
            self._queue.done(key)

    def _retry(self, key: str, error: Exception) -> None:
        tries = self._failures[key] = self._failures.get(key, 0) + 1
        pause = self._backoff.pause(tries)
        if isinstance(error, Unavailable):
            log.warning(
                "reconcile.waits",
                loop=self._name,
                key=key,
                tries=tries,
                pause=round(pause, 2),
                error=error.detail,
            )
        else:
            self._guard.failed(key, error)
        self._queue.add_later(key, pause)
