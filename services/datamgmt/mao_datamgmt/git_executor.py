"""Where blocking git calls run: in bounded threads, one writer at a time for a dataset."""

from __future__ import annotations

import asyncio
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

    A remote that hangs blocks the writers of its own datasets and of no others, up to `threads` of them.

    Queries of people have threads of their own, and so have the node's own reads: neither blocks the other.

    `on_error`: gets what a write raised while its datasets are still locked; what to raise in its place.
    `on_change`: called with the datasets of a write that succeeded, while they are locked.
    """

    def __init__(self, threads: int) -> None:
        self._writers = ThreadPoolExecutor(threads, "git")
        self._readers = ThreadPoolExecutor(4, "git-read")
        self._people = ThreadPoolExecutor(4, "git-people")
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
        """Run `call` as `write` does; raise Abandoned if `cancelled` is set while others still write."""
        async with AsyncExitStack() as held:
            names = sorted(set(datasets))  # always in one order, so that two cannot wait for each other
            await _unless(cancelled, self._lock_all(names, held))
            try:
                done = await self.run(call, *args, **kwargs)
            except Exception as error:
                better = None if self.on_error is None else await self.on_error(names, error)
                if better is None:
                    raise
                raise better from error
            for listener in self.on_change:
                await listener(names)
            return done

    async def _lock_all(self, names: list[str], held: AsyncExitStack) -> None:
        for name in names:
            await held.enter_async_context(self._locks[name])

    async def inspect(self, dataset: str) -> Exception | None:
        """Run `on_error` on a dataset; return the error that it finds, or None."""
        if self.on_error is None:
            return None
        async with self._locks[dataset]:
            return await self.on_error([dataset], OSError("an operation on it failed without a reason"))

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `call` in a writer's thread, for a caller that has locked the datasets."""
        return await asyncio.wrap_future(self._writers.submit(call, *args, **kwargs))

    async def read(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `call` beside all others; for short reads of the node itself."""
        return await asyncio.wrap_future(self._readers.submit(call, *args, **kwargs))

    async def query(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `call`, which may take long; for requests of people, and for analysis."""
        return await asyncio.wrap_future(self._people.submit(call, *args, **kwargs))

    async def stream(self, pieces: Iterator[Piece]) -> AsyncIterator[Piece]:
        """Yield the pieces, each fetched in a thread of `query`; a slow caller holds no thread."""
        asked: asyncio.Future[Piece | None] | None = None
        try:
            while True:
                asked = asyncio.ensure_future(self.query(next, pieces, None))
                piece = await asyncio.shield(asked)
                if piece is None:
                    return
                yield piece
        finally:
            if asked is not None and not asked.done():  # the caller went away while a piece was read
                asked.add_done_callback(lambda done: _close_after(done, pieces))
            else:
                _close(pieces)

    def close(self) -> None:
        """Accept no more calls; running ones finish."""
        for pool in (self._writers, self._readers, self._people):
            pool.shutdown(wait=False, cancel_futures=True)


async def _unless(cancelled: asyncio.Event, waiting: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.ensure_future(work) for work in (waiting, cancelled.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise Abandoned("The step was cancelled while others were writing to its dataset.")
        tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _close_after(done: asyncio.Future[Any], pieces: Iterator[Any]) -> None:
    if not done.cancelled():
        done.exception()  # nobody waits for it any more
    _close(pieces)


def _close(pieces: Iterator[Any]) -> None:
    if isinstance(pieces, Generator):
        pieces.close()
