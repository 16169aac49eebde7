"""Loops that go on whatever one of their items does: what every loop of every service is built of.

A `Guard` stands around the work on one item. An item that raises is set aside: its condition `item-failing`
(subject `<loop>/<item>`) says so until it works again, and it is tried again after a pause that grows. An
`Unavailable` says that something else is away, not that the item is at fault, so it is passed on to the loop.
`for_ever` is the loop itself: it calls a step again and again and survives what the step raises.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from .backoff import spread_pause
from .errors import MaoError, Unavailable
from .logs import Outage, get_logger

if TYPE_CHECKING:
    from .conditions import Conditions

log = get_logger(__name__)
T = TypeVar("T")
R = TypeVar("R")

ITEM_FAILING = "item-failing"
FIRST_PAUSE = 1.0  # seconds before the second try
LONGEST_PAUSE = 300.0  # seconds
NEXT_STEP = (
    "It is tried again by itself, and everything else goes on. Mend what 'detail' names; if it looks like a "
    "fault of MAO, report it with the lines of the service's log that name it."
)
DISK_STEP = (
    "It is tried again by itself, and everything else goes on. See that the node's disk has room and takes "
    "writes: maoctl doctor."
)
_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


class Guard:
    """The items of one loop that fail, with their pauses. For the event loop's thread.

    Args:
        loop: the loop's name as people are to read it.
        conditions: where failing items are shown; None shows them in the log only.
        first, most: seconds before the second try of an item, and at most.
    """

    def __init__(
        self,
        loop: str,
        conditions: Conditions | None = None,
        *,
        first: float = FIRST_PAUSE,
        most: float = LONGEST_PAUSE,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = loop
        self._conditions = conditions
        self._first, self._most = first, most
        self._seconds = seconds
        self._tries: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def is_failing(self, item: str) -> bool:
        return item in self._tries

    def waits(self, item: str) -> bool:
        """Whether the item has failed and its pause is not over."""
        return self._until.get(item, 0.0) > self._seconds()

    def item(self, item: str) -> _Item:
        """Around the work on one item: what it raises ends the block and no more, but for Unavailable."""
        return _Item(self, item)

    def failed(self, item: str, error: Exception) -> float:
        """Sets the item aside; seconds until it is to be tried again."""
        tries = self._tries[item] = self._tries.get(item, 0) + 1
        pause = spread_pause(self._first, tries, self._most)
        self._until[item] = self._seconds() + pause
        of_disk = isinstance(error, OSError) and error.errno in _OF_THE_DISK
        known = isinstance(error, MaoError) or of_disk
        log.warning(
            "item.failed", loop=self._loop, item=item, tries=tries, error=str(error), exc_info=not known
        )
        if self._conditions is not None:
            default = DISK_STEP if of_disk else NEXT_STEP
            next_step = (error.next if isinstance(error, MaoError) else None) or default
            what = error.detail if isinstance(error, MaoError) else f"{type(error).__name__}: {error}"
            self._conditions.report(
                ITEM_FAILING, self._subject(item), detail=what[:1000], next_step=next_step
            )
        return pause

    def worked(self, item: str) -> None:
        """Takes the item back; also for one that is gone."""
        if self._tries.pop(item, None) is not None:
            self._until.pop(item, None)
            if self._conditions is not None:
                self._conditions.clear(ITEM_FAILING, self._subject(item))

    def keep(self, items: set[str]) -> None:
        """Forgets all that are not among these: they are gone."""
        for item in self._tries.keys() - items:
            self.worked(item)

    def _subject(self, item: str) -> str:
        return f"{self._loop}/{item}"[:500] if item else self._loop


class _Item:
    def __init__(self, guard: Guard, name: str) -> None:
        self._guard = guard
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            self._guard.worked(self._name)
            return False
        if isinstance(error, Unavailable) or not isinstance(error, Exception):
            return False
        self._guard.failed(self._name, error)
        return True


class _Attempts:
    """The pauses between the attempts of one step; what goes wrong is told and shown."""

    def __init__(
        self, name: str, conditions: Conditions | None, away: float, longest_away: float, longest: float
    ) -> None:
        self._name = name
        self._guard = Guard(name, conditions, most=longest)
        self._outage = Outage()
        self._away, self._longest_away = away, longest_away
        self._tries = 0

    def failed(self, error: Exception) -> float:
        """Seconds until the next attempt."""
        if not isinstance(error, Unavailable):
            return self._guard.failed("", error)
        if self._outage.is_news():
            log.warning("loop.waits", loop=self._name, error=error.detail)
        self._tries += 1
        return spread_pause(self._away, self._tries, self._longest_away)

    def worked(self) -> None:
        self._outage.over()
        self._guard.worked("")
        self._tries = 0


async def for_ever(
    name: str,
    step: Callable[[], Awaitable[float | None]],
    *,
    period: float = 0.0,
    conditions: Conditions | None = None,
    away: float = 1.0,
    longest_away: float = 5.0,
    longest: float = 60.0,
) -> None:
    """Calls `step` until cancelled: again after the seconds that it returns, after `period` for None.

    While something is away (Unavailable) it is called again after `away` seconds, later more, up to
    `longest_away`; that is told once a minute. Any other exception is shown as a condition (subject: the
    loop's name), and it is tried again after a pause that grows up to `longest` seconds.
    """
    attempts = _Attempts(name, conditions, away, longest_away, longest)
    while True:
        try:
            pause = await step()
        except Exception as error:  # noqa: BLE001 (one step must not end the loop)
            pause = attempts.failed(error)
        else:
            attempts.worked()
        await asyncio.sleep(period if pause is None else pause)


async def until_done(
    name: str,
    step: Callable[[], Awaitable[R]],
    *,
    conditions: Conditions | None = None,
    away: float = 1.0,
    longest_away: float = 5.0,
    longest: float = 60.0,
) -> R:
    """What `step` returns, as soon as it does: whatever it raises, it is called again, as by `for_ever`."""
    attempts = _Attempts(name, conditions, away, longest_away, longest)
    while True:
        try:
            found = await step()
        except Exception as error:  # noqa: BLE001 (it begins again)
            await asyncio.sleep(attempts.failed(error))
        else:
            attempts.worked()
            return found


async def wait_at_most(event: asyncio.Event, seconds: float) -> None:
    """Returns when the event is set, or after the seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):  # wait_for may swallow a cancellation (Python 3.11)
            await event.wait()


async def in_halves(
    batch: Sequence[T], write: Callable[[Sequence[T]], Awaitable[R]]
) -> tuple[list[R], list[tuple[T, Exception]]]:
    """Writes a batch; what `write` said, and the items that cannot be written, each with the reason.

    A batch that fails for the fault of one item is halved until that item stands alone, so that the others go
    through. Raises Unavailable, which is nobody's fault: some may have been written.
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
