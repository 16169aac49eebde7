"""The controller loop: list → watch → queue of keys → one worker a key, many keys at once.

A `Mirror` keeps the live records of one prefix in memory, by one list and one watch. A `Controller` calls
`reconcile(name)` for every record that changed. An event is only a hint: reconcile looks the record up in the
mirror, acts, and writes back guarded by the revision it saw, so that a stale look costs a lost race
and no more. A worker that raises is called again after a back-off, and shown as a condition until it works;
one that returns seconds is called again after these. A record that cannot be read is set aside: it stays as
it was last known, and nobody works on it until it can be read again or is gone.
(Pattern: kubernetes/client-go informers and work queues.)
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from .errors import Compacted, RecordUnreadable, StoreSwitched, Unavailable
from .logs import Outage, get_logger
from .loops import Guard
from .models.common import Record
from .store import Entry, Event, Records, Stored

if TYPE_CHECKING:
    from .conditions import Conditions

log = get_logger(__name__)
R = TypeVar("R", bound=Record)
Reconcile = Callable[[str], Awaitable[float | None]]

LIST_PAGE = 500
RELIST_DELAY = 0.5  # seconds between attempts to list while the store is away
MAX_RELIST_DELAY = 30.0  # seconds, when it is something else that goes wrong


class Mirror(Generic[R]):
    """The records under one prefix for which `keep` holds, as last seen; names are what follows the prefix.

    Subscribers are called with the name of every record that changed, kept or not; a listing (at the start
    and after a gap) tells only of those that are kept or no longer are. `synced` is set while what is known
    is a state of the store: not before the first listing, nor while another store is first listed.

    `unreadable`: the names of records that cannot be read now. What was known of them is kept, unless
    `drop_unreadable` says that it is worth nothing. A subscriber that raises keeps nobody from being told.
    """

    def __init__(
        self,
        records: Records[R],
        keep: Callable[[R], bool] = lambda _: True,
        *,
        relist_delay: float = RELIST_DELAY,
        drop_unreadable: bool = False,
        conditions: Conditions | None = None,
    ) -> None:
        self.records = records
        self.keep = keep
        self.synced = asyncio.Event()
        self.unreadable: set[str] = set()
        self._guard = Guard(f"mirror of {records.prefix}", conditions, most=MAX_RELIST_DELAY)
        self._relist_delay = relist_delay
        self._drop_unreadable = drop_unreadable
        self._kept: dict[str, Stored[R]] = {}
        self._subscribers: list[Callable[[str], None]] = []
        self._seen = 0  # all changes up to this revision are taken in
        self._ahead: dict[str, int] = {}  # name → revision of an own write above `_seen`

    def get(self, name: str) -> Stored[R] | None:
        return self._kept.get(name)

    def _name(self, key: str) -> str:
        return key.removeprefix(self.records.prefix)

    def items(self) -> list[tuple[str, Stored[R]]]:
        return list(self._kept.items())

    def is_set_aside(self, name: str) -> bool:
        """Whether what is known of the record is not what lies there now, since that cannot be read."""
        return name in self.unreadable and not self._drop_unreadable

    def subscribe(self, callback: Callable[[str], None]) -> None:
        self._subscribers.append(callback)

    def note(self, name: str, record: R, revision: int) -> None:
        """Takes over an own write at once, without waiting for its echo.

        A write that the mirror is past already is left aside: the record may have been changed or
        deleted since.
        """
        if revision > max(self._seen, self._ahead.get(name, 0)):
            self._ahead[name] = revision
            self._put(name, Stored(record, revision))

    async def run(self) -> None:
        """Keeps the mirror in step for ever; lists again after every gap."""
        outage = Outage()
        while True:
            try:
                await self._list()
                self.synced.set()
                outage.over()
                self._guard.worked("")
                await self._follow()
            except StoreSwitched:
                self._forget("mirror.store_switched")
            except Compacted:
                log.info("mirror.relist", prefix=self.records.prefix, seen=self._seen)
            except Unavailable as error:
                if outage.is_news():
                    log.warning("mirror.store_away", prefix=self.records.prefix, error=error.detail)
                await asyncio.sleep(self._relist_delay)
            except Exception as error:  # noqa: BLE001 (say a refusal: the service goes on with the rest)
                await asyncio.sleep(self._guard.failed("", error))

    async def _follow(self) -> None:
        watch = self.records.store.watch(self.records.prefix, after=self._seen)
        async with contextlib.aclosing(watch):
            async for batch in watch:
                for event in batch:
                    self._take(event)

    async def _list(self) -> None:
        names: set[str] = set()
        cursor = None
        while True:
            page = await self.records.store.list(self.records.prefix, limit=LIST_PAGE, cursor=cursor)
            if page.revision < self._seen:
                self._forget("mirror.store_set_back")
            for entry in page.entries:
                names.add(self._name(entry.key))
                self._take_listed(entry, page.revision)
            cursor = page.cursor
            if cursor is None:
                break
        for name in (self._kept.keys() | self.unreadable) - names:
            if not self._is_ahead(name, page.revision):
                self._drop(name)
        self._seen = page.revision
        self._ahead = {name: known for name, known in self._ahead.items() if known > self._seen}

    def _forget(self, why: str) -> None:
        """The store is another one, or an old state of it: what is known here compares with nothing there."""
        log.warning(why, prefix=self.records.prefix, seen=self._seen)
        self._seen = 0
        self.synced.clear()
        self._ahead.clear()
        for name in self._kept.keys() | self.unreadable:
            self._drop(name)

    def _take_listed(self, entry: Entry, revision: int) -> None:
        name = self._name(entry.key)
        known = self._kept.get(name)
        if self._is_ahead(name, revision) or (known is not None and known.revision == entry.revision):
            return
        stored = self._parse(entry)
        if stored is not None and (known is not None or self.keep(stored.record)):
            self._put(name, stored)
        elif stored is None:
            self._set_aside(name)

    def _take(self, event: Event) -> None:
        self._seen = max(self._seen, event.revision)
        name = self._name(event.key)
        if self._is_ahead(name, event.revision):
            return
        stored = None if event.entry is None else self._parse(event.entry)
        if stored is not None:
            self._put(name, stored)
        elif event.entry is None:
            self._drop(name)
        else:
            self._set_aside(name)

    def _is_ahead(self, name: str, revision: int) -> bool:
        """Whether an own write of the record is what was read at `revision`, or newer."""
        if self._ahead.get(name, 0) >= revision:
            return True
        self._ahead.pop(name, None)
        return False

    def _parse(self, entry: Entry) -> Stored[R] | None:
        """None for a record of another version or a broken one."""
        try:
            return self.records.parse(entry)
        except RecordUnreadable:
            return None

    def _put(self, name: str, stored: Stored[R]) -> None:
        self.unreadable.discard(name)
        if self.keep(stored.record):
            self._kept[name] = stored
        else:
            self._kept.pop(name, None)
        self._tell(name)

    def _set_aside(self, name: str) -> None:
        """Nobody is told while what is known stays: there is nothing to be done about it."""
        self.unreadable.add(name)
        if self._drop_unreadable and self._kept.pop(name, None) is not None:
            self._tell(name)

    def _drop(self, name: str) -> None:
        if name in self.unreadable:
            self.unreadable.discard(name)
            self.records.gone(self.records.prefix + name)
        self._kept.pop(name, None)
        self._tell(name)

    def _tell(self, name: str) -> None:
        for callback in self._subscribers:
            try:
                callback(name)
            except Exception as error:  # noqa: BLE001 (of one record: the others have to be taken in)
                self._guard.failed(name, error)
                return
        if self._guard.is_failing(name):
            self._guard.worked(name)


class WorkQueue:
    """Keys waiting for work, each at most once; a key that is being worked on waits until that ends."""

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
        """Adds the key after `seconds`, unless it is added or asked for earlier."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= loop.time() + seconds:
            return
        if timer is not None:
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self.add, key)

    async def take(self) -> str:
        """The next key that is ready; `done` has to follow."""
        while not self._ready:
            self._some.clear()
            await self._some.wait()
        key = self._ready.popleft()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: str) -> None:
        """Ends the work on a key; if it was added meanwhile, it is ready again."""
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def close(self) -> None:
        """Forgets everything; nobody may be at work any more."""
        for timer in self._timers.values():
            timer.cancel()
        for keys in (self._timers, self._ready, self._waiting, self._working, self._again):
            keys.clear()


class Controller(Generic[R]):
    """Calls `reconcile` for the records of a mirror; see the module's docstring.

    Args:
        concurrency: how many names are worked on at the same time.
        resync: seconds after which every kept record is looked at again, against lost hints.
        backoff: seconds before the second try of a name that raised; doubled up to `max_backoff`.
        name: of the loop, where a name that fails is shown.
    """

    def __init__(
        self,
        mirror: Mirror[R],
        reconcile: Reconcile,
        *,
        concurrency: int = 64,
        resync: float = 300,
        backoff: float = 0.2,
        max_backoff: float = 30,
        name: str = "controller",
        conditions: Conditions | None = None,
    ) -> None:
        self.mirror = mirror
        self.queue = WorkQueue()
        self._reconcile = reconcile
        self._concurrency = concurrency
        self._resync = resync
        self._backoff = backoff
        self._max_backoff = max_backoff
        self._guard = Guard(name, conditions, first=backoff, most=max_backoff)
        self._failures: dict[str, int] = {}
        mirror.subscribe(self._changed)

    def _changed(self, key: str) -> None:
        """A change cuts a back-off short; not to nothing, since it may be the echo of the failed pass."""
        if key in self._failures:
            self.queue.add_later(key, self._backoff)
        else:
            self.queue.add(key)

    async def run(self) -> None:
        """Works until cancelled; the mirror's own `run` has to run beside it."""
        await self.mirror.synced.wait()
        self._add_all()
        slots = asyncio.Semaphore(self._concurrency)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._resync_for_ever())
                while True:
                    await slots.acquire()
                    key = await self.queue.take()
                    group.create_task(self._work(key, slots))
        finally:
            self.queue.close()

    async def _work(self, key: str, slots: asyncio.Semaphore) -> None:
        try:
            again = None if self.mirror.is_set_aside(key) else await self._reconcile(key)
        except Exception as error:  # noqa: BLE001 (a worker's fault must not stop the others)
            self._retry(key, error)
        else:
            self._failures.pop(key, None)
            self._guard.worked(key)
            if again is not None:
                self.queue.add_later(key, again)
        finally:
            slots.release()
            self.queue.done(key)

    def _retry(self, key: str, error: Exception) -> None:
        """Unavailable means that something which the record needs is away: that is no fault of the record."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        pause = min(self._backoff * 2 ** min(count - 1, 32), self._max_backoff)
        pause *= 0.5 + random.random() / 2  # noqa: S311 (jitter)
        if isinstance(error, Unavailable):
            log.warning("reconcile.waits", key=key, tries=count, pause=round(pause, 2), error=error.detail)
        else:
            self._guard.failed(key, error)
        self.queue.add_later(key, pause)

    async def _resync_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._resync)
            self._add_all()

    def _add_all(self) -> None:
        for name, _ in self.mirror.items():
            self.queue.add(name)
