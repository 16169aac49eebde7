"""Runs blocking git calls in thread pools, with one writer at a time for each dataset."""

from __future__ import annotations

import asyncio
import contextvars
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any, ParamSpec, TypeVar

from mao_shared.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")
Piece = TypeVar("Piece", bytes, bytes | memoryview)


class Abandoned(Unavailable):
    """The write was cancelled while it waited for its turn."""

    default_code = "given-up"


class GitExecutor:
    """Runs blocking git calls in threads, and locks datasets for writing.

    A hanging remote blocks only the writers of its own datasets, until all `threads` are in use.

    Queries by people and the node's own reads have separate threads, so neither blocks the other.

    `on_error` is called with the error of a write while its datasets are locked, and may return another error
    to raise. The functions in `on_change` are called with the datasets of a successful write while they are
    locked.
    """

    def __init__(self, threads: int) -> None:
        self._writers = ThreadPoolExecutor(threads, "git")
        self._readers = ThreadPoolExecutor(4, "git-read")
        self._queries = ThreadPoolExecutor(4, "git-people")
        self.on_error: Callable[[list[str], BaseException], Awaitable[Exception | None]] | None = None
        self.on_change: list[Callable[[list[str]], Awaitable[None]]] = []
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def write(
        self, datasets: Iterable[str], call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `call` while nothing else writes to the clones of these datasets."""
        return await self.write_unless(asyncio.Event(), datasets, call, *args, **kwargs)

    async def write_unless(
        self,
        cancelled: asyncio.Event,
        datasets: Iterable[str],
        call: Callable[P, T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run `call` like `write`; raise Abandoned if `cancelled` is set while waiting for other writers."""
        async with AsyncExitStack() as held:
            names = sorted(set(datasets))  # always locked in the same order, which prevents deadlocks
            await _run_unless(cancelled, self._lock_all(names, held))
            try:
                result = await self.run(call, *args, **kwargs)
            except Exception as error:
                replacement = None if self.on_error is None else await self.on_error(names, error)
                if replacement is None:
                    raise
                raise replacement from error
            for listener in self.on_change:
                await listener(names)
            return result

    async def _lock_all(self, names: list[str], held: AsyncExitStack) -> None:
        for name in names:
            await held.enter_async_context(self._locks[name])

    async def inspect(self, dataset: str) -> Exception | None:
        """Run `on_error` on a dataset; return the error that it finds, or None."""
        if self.on_error is None:
            return None
        async with self._locks[dataset]:
            return await self.on_error([dataset], OSError("an operation on it failed for an unknown reason"))

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `call` in a writer thread, for a caller that holds the locks of the datasets."""
        context = contextvars.copy_context()  # progress is reported to the request
        return await asyncio.wrap_future(self._writers.submit(lambda: context.run(call, *args, **kwargs)))

    async def read(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `call` without a lock; for short reads by the node itself."""
        return await asyncio.wrap_future(self._readers.submit(call, *args, **kwargs))

    async def query(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `call`, which may take long, without a lock; for requests by people, and for analysis."""
        return await asyncio.wrap_future(self._queries.submit(call, *args, **kwargs))

    async def stream(self, pieces: Iterator[Piece]) -> AsyncIterator[Piece]:
        """Yield the pieces, each read in a thread of `query`; a slow caller occupies no thread."""
        pending: asyncio.Future[Piece | None] | None = None
        try:
            while True:
                pending = asyncio.ensure_future(self.query(next, pieces, None))
                piece = await asyncio.shield(pending)
                if piece is None:
                    return
                yield piece
        finally:
            if pending is not None and not pending.done():  # the caller stopped while a piece was read
                pending.add_done_callback(lambda result: _close_after(result, pieces))
            else:
                _close(pieces)

    def close(self) -> None:
        """Accept no more calls; running ones finish."""
        for pool in (self._writers, self._readers, self._queries):
            pool.shutdown(wait=False, cancel_futures=True)


async def _run_unless(cancelled: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.ensure_future(work) for work in (work, cancelled.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise Abandoned("The step was cancelled while others were writing to its dataset.")
        tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _close_after(result: asyncio.Future[Any], pieces: Iterator[Any]) -> None:
    if not result.cancelled():
        result.exception()  # mark the exception as retrieved
    _close(pieces)


def _close(pieces: Iterator[Any]) -> None:
    if isinstance(pieces, Generator):
        pieces.close()
