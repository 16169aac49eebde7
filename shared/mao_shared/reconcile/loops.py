"""Loops that survive failures of their items, with back-off, and background tasks.

`every` calls a step repeatedly; `follow` passes on the changes under a prefix; `until_done` repeats a step
until it returns. A `Guard` wraps the work on one item of a loop. If an item raises, its condition
`item-failing` (subject `<loop>/<item>`) is reported until it succeeds, and it is retried with growing pauses.
`Unavailable` means that a dependency is down and not that the item fails, so it is raised to the loop.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from mao_shared.errors import Compacted, MaoError, Unavailable
from mao_shared.logs import Outage, get_logger

if TYPE_CHECKING:
    from mao_shared.conditions import Conditions
    from mao_shared.store import Batch, Store


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between attempts: initial and maximum seconds, as stamina's `wait_initial` and `wait_max`.

    The pause doubles after each attempt, plus a random jitter of up to `initial`, so that many nodes do not
    reconnect to one server at once.
    """

    initial: float = 1.0
    maximum: float = 60.0

    def pause(self, tries: int, chance: float | None = None) -> float:
        """Return the pause in seconds after `tries` attempts. `chance`: from 0 to 1, default random."""
        jitter = self.initial * (random.random() if chance is None else chance)  # noqa: S311 (no secret)
        return min(self.maximum, self.initial * 2.0 ** min(tries - 1, 64) + jitter)


log = get_logger(__name__)


def end_process() -> None:
    """Stop this process gracefully, so that its supervisor restarts it."""
    os.kill(os.getpid(), signal.SIGTERM)


@asynccontextmanager
async def background(
    *coroutines: Coroutine[Any, Any, Any], on_failure: Callable[[], None] = end_process
) -> AsyncIterator[None]:
    """Run the coroutines as tasks during the block and cancel them at its end.

    `on_failure` is called once for each that ends with an exception; ending without one is fine.
    """

    def ended(task: asyncio.Task[Any]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.critical("background.failed", task=task.get_name(), exc_info=error)
        on_failure()

    tasks = [
        asyncio.create_task(coroutine, name=getattr(coroutine, "__qualname__", None))
        for coroutine in coroutines
    ]
    for task in tasks:
        task.add_done_callback(ended)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


T = TypeVar("T")
R = TypeVar("R")
Exceptions = type[Exception] | tuple[type[Exception], ...]
ITEM_FAILING = "item-failing"
UNAVAILABLE_BACKOFF = Backoff(1.0, 5.0)  # while a dependency of a loop is unavailable
STORE_BACKOFF = Backoff(0.5, 0.5)  # for watches and listings of the node's own store
FAILURE_BACKOFF = Backoff(1.0, 60.0)  # after a step that failed for another reason
_RETRIED = "It is retried automatically, and everything else continues."
NEXT_STEP = (
    f"{_RETRIED} Fix what 'detail' names; if it looks like a bug in MAO, report it with the lines of the "
    "service's log that name it."
)
DISK_STEP = f"{_RETRIED} Check that the node's disk has free space and is writable: maoctl doctor"
_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


class Guard:
    """The failing items of one loop, with their pauses. Use it from the event loop's thread.

    Args:
        loop: the loop's name, for people.
        conditions: where failing items are reported; None: in the log only.
        backoff: of a failing item.
    """

    def __init__(
        self,
        loop: str,
        conditions: Conditions | None = None,
        backoff: Backoff = Backoff(1.0, 300.0),
        *,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = loop
        self._conditions = conditions
        self._backoff = backoff
        self._seconds = seconds
        self._tries: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def is_failing(self, item: str) -> bool:
        return item in self._tries

    def waits(self, item: str) -> bool:
        """Return True if the item has failed and its pause is not over."""
        return self._until.get(item, 0.0) > self._seconds()

    def item(self, item: str) -> _GuardedItem:
        """Return a context manager for one item; it suppresses all exceptions except Unavailable."""
        return _GuardedItem(self, item)

    def failed(self, item: str, error: Exception) -> float:
        """Record a failure of the item; return the seconds until its next attempt."""
        tries = self._tries[item] = self._tries.get(item, 0) + 1
        pause = self._backoff.pause(tries)
        self._until[item] = self._seconds() + pause
        of_disk = getattr(error, "errno", None) in _OF_THE_DISK  # an OSError, or derived from one
        is_expected = isinstance(error, MaoError) or of_disk
        log.warning(
            "item.failed", loop=self._loop, item=item, tries=tries, error=str(error), exc_info=not is_expected
        )
        if self._conditions is not None:
            default = DISK_STEP if of_disk else NEXT_STEP
            next_step = (error.next if isinstance(error, MaoError) else None) or default
            what = error.detail if isinstance(error, MaoError) else f"{type(error).__name__}: {error}"
            self._conditions.report(
                ITEM_FAILING, self._subject(item), detail=what[:1000], next_step=next_step
            )
        return pause

    def succeeded(self, item: str) -> None:
        """Clear the item's failure, also if the item no longer exists."""
        if self._tries.pop(item, None) is not None:
            self._until.pop(item, None)
            if self._conditions is not None:
                self._conditions.clear(ITEM_FAILING, self._subject(item))

    def keep(self, items: set[str]) -> None:
        """Forget all other items, which no longer exist."""
        for item in self._tries.keys() - items:
            self.succeeded(item)

    def _subject(self, item: str) -> str:
        return f"{self._loop}/{item}"[:500] if item else self._loop


class _GuardedItem:
    """Context manager of one item; type checkers assume that those from contextlib suppress nothing."""

    def __init__(self, guard: Guard, name: str) -> None:
        self._guard = guard
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            self._guard.succeeded(self._name)
            return False
        if isinstance(error, Unavailable) or not isinstance(error, Exception):
            return False
        self._guard.failed(self._name, error)
        return True


class _Attempts:
    """Pauses between the attempts of one step; failures are logged and reported."""

    def __init__(
        self,
        name: str,
        conditions: Conditions | None,
        away: Backoff,
        failing: Backoff,
        outages: Exceptions = Unavailable,
    ) -> None:
        self._name = name
        self._guard = Guard(name, conditions, failing)
        self._outage = Outage()
        self._away = away
        self._outages = outages
        self._tries = 0

    def failed(self, error: Exception) -> float:
        """Return the seconds until the next attempt."""
        if not isinstance(error, self._outages):
            return self._guard.failed("", error)
        if self._outage.is_news():
            detail, step = getattr(error, "detail", str(error)), getattr(error, "next", None)
            log.warning("loop.waits", loop=self._name, error=detail, next=step)
        self._tries += 1
        return self._away.pause(self._tries)

    def started(self) -> None:
        """Record that a long-running step has started; an outage is not over until it has run for a while."""
        self._guard.succeeded("")
        self._tries = 0

    def succeeded(self) -> None:
        self._outage.over()
        self.started()


async def every(
    period: float | None,
    step: Callable[[], Awaitable[float | None]],
    *,
    name: str,
    wake: asyncio.Event | None = None,
    initial_delay: float | None = 0.0,
    debounce: float = 0.0,
    conditions: Conditions | None = None,
    away: Backoff = UNAVAILABLE_BACKOFF,
    failing: Backoff = FAILURE_BACKOFF,
    outages: Exceptions = Unavailable,
) -> NoReturn:
    """Call `step` until cancelled: again after the seconds that it returns, or after `period` for None.

    `wake` ends the pause early; it is cleared before each call, so setting it during a call triggers the next
    one. `debounce`: seconds between `wake` and the call, to collect further changes. `period` None: only when
    woken; `initial_delay` None: the first call too waits for `wake`.

    Exceptions from the step do not end the loop, and `wake` does not shorten the back-off after them. Outages
    (`outages`) are logged once a minute; other exceptions are reported as the condition `item-failing`, with
    the loop's name as subject.
    """
    attempts = _Attempts(name, conditions, away, failing, outages)
    if initial_delay != 0.0:
        await _until(wake, initial_delay)
    while True:
        if debounce:
            await asyncio.sleep(debounce)
        if wake is not None:
            wake.clear()
        try:
            wanted = await step()
        except Exception as error:  # noqa: BLE001 (one step must not end the loop)
            await asyncio.sleep(attempts.failed(error))
        else:
            attempts.succeeded()
            await _until(wake, period if wanted is None else wanted)


async def _until(wake: asyncio.Event | None, seconds: float | None) -> None:
    """Wait for `seconds` (None: for ever), or until `wake` is set."""
    if seconds is not None and (wake is None or seconds <= 0.0):
        await asyncio.sleep(seconds)
    else:
        await wait_at_most(wake or asyncio.Event(), seconds)


async def follow(
    store: Store,
    prefix: str,
    take: Callable[[Batch], object],
    *,
    name: str,
    start: Callable[[], Awaitable[int]] | None = None,
    on_gap: Callable[[MaoError], object] | None = None,
    conditions: Conditions | None = None,
    away: Backoff = UNAVAILABLE_BACKOFF,
    failing: Backoff = FAILURE_BACKOFF,
    outages: Exceptions = Unavailable,
) -> NoReturn:
    """Pass all changes under `prefix` to `take` until cancelled; start again after every gap and outage.

    `start` reads the current state and returns its revision; `take` then gets all later changes in order,
    each batch once. Without `start`, `take` first gets an empty batch, which means that anything may have
    changed. `on_gap` is called with the reason if the store has dropped its history (Compacted) or was
    replaced (StoreSwitched). Exceptions are handled as in `every`; `take` must not block.
    """
    attempts = _Attempts(name, conditions, away, failing, outages)

    async def newest() -> int:
        revision = (await store.list(prefix, limit=1)).revision
        take([])
        return revision

    begin = start or newest
    while True:
        try:
            after = await begin()
            attempts.started()
            async with aclosing(store.watch(prefix, after=after)) as batches:
                async for batch in batches:
                    take(batch)
        except Compacted as gap:
            if on_gap is not None:
                on_gap(gap)
        except Exception as error:  # noqa: BLE001 (one step must not end the loop)
            await asyncio.sleep(attempts.failed(error))


async def until_done(
    step: Callable[[], Awaitable[R]],
    *,
    name: str,
    conditions: Conditions | None = None,
    away: Backoff = UNAVAILABLE_BACKOFF,
    failing: Backoff = FAILURE_BACKOFF,
    outages: Exceptions = Unavailable,
) -> R:
    """Call `step` until it returns instead of raising; return its result. Back-off as in `every`."""
    attempts = _Attempts(name, conditions, away, failing, outages)
    while True:
        try:
            found = await step()
        except Exception as error:  # noqa: BLE001 (one step must not end the loop)
            await asyncio.sleep(attempts.failed(error))
        else:
            attempts.succeeded()
            return found


async def wait_at_most(event: asyncio.Event, seconds: float | None) -> None:
    """Wait until the event is set, for at most `seconds` (None: for ever)."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):  # wait_for may swallow a cancellation (Python 3.11)
            await event.wait()


async def in_halves(
    batch: Sequence[T], write: Callable[[Sequence[T]], Awaitable[R]]
) -> tuple[list[R], list[tuple[T, Exception]]]:
    """Write a batch; return the results of `write`, and the items that failed, each with its exception.

    A failing batch is halved until the failing items are isolated, so that the others are written. Raises
    Unavailable, which no item causes: some items may have been written.
    """
    try:
        return [await write(batch)], []
    except Unavailable:
        raise
    except Exception as error:  # noqa: BLE001 (of one of the items)
        if len(batch) == 1:
            return [], [(batch[0], error)]
    middle = len(batch) // 2
    first, first_failed = await in_halves(batch[:middle], write)
    second, second_failed = await in_halves(batch[middle:], write)
    return first + second, first_failed + second_failed
