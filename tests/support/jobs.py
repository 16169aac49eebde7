"""A small record type with a store, a mirror and controllers, to test the controller loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from mao_shared.errors import Compacted
from mao_shared.models.common import Record
from mao_shared.reconcile import Backoff, Controller, Mirror
from mao_shared.store import Batch, Records
from mao_shared.store.memory import MemoryStore

from .stores import UnavailableStore
from .waiting import eventually

SECONDS = 5.0
QUICK = 0.005  # seconds
NEVER = 3600.0


class Job(Record):
    n: int = 0
    over: bool = False


class Gate:
    """Wrap a store's watch so that it can be paused, or ended with Compacted."""

    def __init__(self, store: MemoryStore) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.gap = False
        self._watch = store.watch
        store.watch = self.watch  # type: ignore[method-assign]

    async def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Batch, None]:
        async for batch in self._watch(prefix, after=after):
            await self.open.wait()
            if self.gap:
                self.gap = False
                raise Compacted(after)
            yield batch


class JobBench:
    """A store with jobs, and a mirror of those that are not over."""

    def __init__(self) -> None:
        self.store = UnavailableStore()
        self.gate = Gate(self.store)
        self.jobs = Records(self.store, "/jobs/", Job)
        self.mirror = Mirror(self.jobs, keep=lambda job: not job.over, away=Backoff(QUICK, QUICK))
        self.told: list[str] = []
        self.mirror.subscribe(self.told.append)
        self.tasks: list[asyncio.Task[None]] = []

    async def make(self, *names: str) -> int:
        """Create jobs and return the revision of the last one."""
        revisions = [await self.jobs.create(name, Job()) for name in names]
        assert revisions[-1] is not None
        return revisions[-1]

    async def change(self, name: str, job: Job) -> int:
        old = await self.jobs.get(name)
        assert old is not None
        revision = await self.jobs.replace(name, job, old.revision)
        assert revision is not None
        return revision

    async def start_mirror(self) -> None:
        self.tasks.append(asyncio.create_task(self.mirror.run()))
        await asyncio.wait_for(self.mirror.synced.wait(), SECONDS)

    def start(self, work: Callable[[str], Awaitable[float | None]], **options: Any) -> Controller:
        """Start the mirror and a controller; by default its backoff is short and it does not resync."""
        settings = {"backoff": Backoff(QUICK, 4 * QUICK), "resync": None} | options
        controller = Controller("jobs", work, **settings).watches(self.mirror)
        self.tasks += [asyncio.create_task(self.mirror.run()), asyncio.create_task(controller.run())]
        return controller

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks.clear()

    def names(self) -> set[str]:
        return {name for name, _ in self.mirror.items()}

    async def caught_up(self) -> None:
        """Wait until the mirror has seen every write so far."""
        await self.make(f"mark-{self.store.revision}")
        name = f"mark-{self.store.revision - 1}"
        await eventually(lambda: name in self.names())
        await self.jobs.delete(name)
        await eventually(lambda: name not in self.names())
