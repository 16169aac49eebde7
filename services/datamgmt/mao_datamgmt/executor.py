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
    """Nobody wants any more what waits for its turn."""

    default_code = "given-up"


class GitExecutor:
    """A remote that hangs keeps its own datasets busy and no others, up to `threads` of them.

    Reading for people has threads of its own, so that it goes on meanwhile; what the node itself reads has
    others, so that people who read for long do not hold it up.

    `attend`: looks at what a change raised while its datasets are still held; what to raise in its place.
    `changed`: are told the datasets of a change that went well, while they are held.
    """

    def __init__(self, threads: int) -> None:
        self._writers = ThreadPoolExecutor(threads, "git")
        self._readers = ThreadPoolExecutor(4, "git-read")
        self._people = ThreadPoolExecutor(4, "git-people")
        self.attend: Callable[[list[str], BaseException], Awaitable[Exception | None]] | None = None
        self.changed: list[Callable[[list[str]], Awaitable[None]]] = []
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def change(
        self, datasets: Iterable[str], call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs `call` while nothing else changes the clones of these datasets."""
        return await self.change_unless(asyncio.Event(), datasets, call, *args, **kwargs)

    async def change_unless(
        self,
        given_up: asyncio.Event,
        datasets: Iterable[str],
        call: Callable[P, T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """The same; raises GivenUp when the event is set while others still change these datasets."""
        async with AsyncExitStack() as held:
            names = sorted(set(datasets))  # always in one order, so that two cannot wait for each other
            await _unless(given_up, self._hold(names, held))
            try:
                done = await self.run(call, *args, **kwargs)
            except Exception as error:
                better = None if self.attend is None else await self.attend(names, error)
                if better is None:
                    raise
                raise better from error
            for told in self.changed:
                await told(names)
            return done

    async def _hold(self, names: list[str], held: AsyncExitStack) -> None:
        for name in names:
            await held.enter_async_context(self._locks[name])

    async def look_after(self, dataset: str) -> Exception | None:
        """What keeps a dataset from being in order, found by `attend`; None when it finds nothing wrong."""
        if self.attend is None:
            return None
        async with self._locks[dataset]:
            return await self.attend([dataset], OSError("something failed on it that does not tell why"))

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `call` in a writer's thread; for who holds the datasets."""
        return await asyncio.wrap_future(self._writers.submit(call, *args, **kwargs))

    async def read(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `call` beside all others; for short work of the node itself."""
        return await asyncio.wrap_future(self._readers.submit(call, *args, **kwargs))

    async def show(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `call`, which a person waits for, and which may read for long."""
        return await asyncio.wrap_future(self._people.submit(call, *args, **kwargs))

    async def stream(self, pieces: Iterator[Piece]) -> AsyncIterator[Piece]:
        """The pieces, each fetched in a reader's thread; none is held while the caller takes its time."""
        asked: asyncio.Future[Piece | None] | None = None
        try:
            while True:
                asked = asyncio.ensure_future(self.show(next, pieces, None))
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
        """Takes no more calls; those that run end by themselves."""
        for pool in (self._writers, self._readers, self._people):
            pool.shutdown(wait=False, cancel_futures=True)


async def _unless(given_up: asyncio.Event, waiting: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.ensure_future(each) for each in (waiting, given_up.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise Abandoned("The step is given up while others are at work on its dataset.")
        tasks[0].result()
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _close_after(done: asyncio.Future[Any], pieces: Iterator[Any]) -> None:
    if not done.cancelled():
        done.exception()  # nobody waits for it any more
    _close(pieces)


def _close(pieces: Iterator[Any]) -> None:
    if isinstance(pieces, Generator):
        pieces.close()
