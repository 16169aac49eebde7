"""Where blocking git calls run: in a bounded set of threads, one at a time for a dataset."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Works:
    """A remote that hangs keeps its own datasets busy and no others, up to `threads` of them.

    Reading for people has threads of its own, so that it goes on meanwhile; what the node itself reads has
    others, so that people who read for long do not hold it up.
    """

    def __init__(self, threads: int) -> None:
        self._writers = ThreadPoolExecutor(threads, "git")
        self._readers = ThreadPoolExecutor(4, "git-read")
        self._people = ThreadPoolExecutor(4, "git-people")
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def change(
        self, datasets: Iterable[str], call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs `call` while nothing else changes the clones of these datasets."""
        async with AsyncExitStack() as held:
            for name in sorted(set(datasets)):  # always in one order, so that two cannot wait for each other
                await held.enter_async_context(self._locks[name])
            return await asyncio.wrap_future(self._writers.submit(call, *args, **kwargs))

    async def read(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `call` beside all others; for short work of the node itself."""
        return await asyncio.wrap_future(self._readers.submit(call, *args, **kwargs))

    async def show(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `call`, which a person waits for, and which may read for long."""
        return await asyncio.wrap_future(self._people.submit(call, *args, **kwargs))

    def close(self) -> None:
        """Takes no more calls; those that run end by themselves."""
        for pool in (self._writers, self._readers, self._people):
            pool.shutdown(wait=False, cancel_futures=True)
