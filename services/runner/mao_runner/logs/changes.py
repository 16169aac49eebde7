"""Wakes those who wait for something to happen to a run, without polling."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Listener:
    """What has happened since it was last looked at. Everything counts as changed at first."""

    def __init__(self) -> None:
        self.grew = True  # a log has
        self.moved = True  # the run document has
        self._woken = asyncio.Event()

    def wake(self, *, moved: bool) -> None:
        self.moved = self.moved or moved
        self.grew = True
        self._woken.set()

    async def wait(self, seconds: float) -> bool:
        """Whether something happened within so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True


class Changes:
    """Who listens to which run."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[Listener]] = {}

    @contextmanager
    def listen(self, run: str) -> Iterator[Listener]:
        listener = Listener()
        self._listeners.setdefault(run, set()).add(listener)
        try:
            yield listener
        finally:
            self._listeners[run].discard(listener)
            if not self._listeners[run]:
                del self._listeners[run]

    def moved(self, run: str) -> None:
        """The run's document changed."""
        for listener in self._listeners.get(run, ()):
            listener.wake(moved=True)

    def grew(self, run: str) -> None:
        """One of the run's logs grew."""
        for listener in self._listeners.get(run, ()):
            listener.wake(moved=False)
