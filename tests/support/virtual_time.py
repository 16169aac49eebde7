"""Virtual time: when the event loop has only a timer to wait for, its clock jumps to that timer.

It applies to all tests in `FOLDERS` and to modules with `pytestmark = pytest.mark.virtual_time`. Time passes
normally while a socket or a process's pipe is open, and stands still while a thread works, so that no
deadline depends on the speed of the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest

from mao_shared.clock import SystemClock

MARK = "virtual_time"
FOLDERS = ("tests/datamgmt/rounds/",)


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that advances the loop's clock instead of waiting for a timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now = time.monotonic()  # the loop's clock
        self.threads = 0  # number of threads working for the loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or not timeout or timeout < 0:
            return ready or super().select(timeout)
        if self.threads:
            return super().select(timeout)  # and no time passes
        began, only_the_loops_own = time.monotonic(), len(self.get_map()) == 1  # the socket that wakes it
        if not only_the_loops_own:
            ready = super().select(timeout)
        self.now += time.monotonic() - began if ready else timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock skips idle time and stands still otherwise."""

    latest: ClassVar[VirtualTimeLoop | None] = None

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        self._began, self._began_at = self._jumping.now, datetime.now(UTC)
        super().__init__(self._jumping)
        VirtualTimeLoop.latest = self

    def time(self) -> float:
        return self._jumping.now

    @classmethod
    def time_of_day(cls) -> datetime:
        """Return the time of day by the newest loop, or the real one; thread-safe."""
        loop = cls.latest
        if loop is None:
            return datetime.now(UTC)
        return loop._began_at + timedelta(seconds=loop.time() - loop._began)

    def wait_for_thread(self, work: Future[Any]) -> None:
        """Stop the clock until `work` is done and the loop has been notified."""
        self._jumping.threads += 1
        work.add_done_callback(self._in_the_thread)

    def _in_the_thread(self, _: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.call_soon_threadsafe(self._thread_is_done)

    def _thread_is_done(self) -> None:
        self._jumping.threads -= 1


def _is_virtual(item: pytest.Item) -> bool:
    return item.get_closest_marker(MARK) is not None or item.nodeid.startswith(FOLDERS)


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"loop": VirtualTimeLoop if _is_virtual(item) else asyncio.new_event_loop}


@pytest.fixture(autouse=True)
def clock_of_the_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let SystemClock follow the loop's clock, and stop that while a thread works."""
    if not _is_virtual(request.node):
        yield
        return
    plain = asyncio.wrap_future

    def wrap_future(work: Future[Any], **options: Any) -> asyncio.Future[Any]:
        wrapped = plain(work, **options)
        loop = wrapped.get_loop()
        if isinstance(loop, VirtualTimeLoop) and isinstance(work, Future):
            loop.wait_for_thread(work)  # its callback runs after that of `wrapped`
        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        for module in (asyncio, asyncio.futures):
            patch.setattr(module, "wrap_future", wrap_future)
        patch.setattr(SystemClock, "now", lambda _: VirtualTimeLoop.time_of_day())
        yield
