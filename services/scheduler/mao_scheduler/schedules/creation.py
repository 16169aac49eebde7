"""Writes many new run documents at once, each only if it is absent.

Batches of one transaction each are three times as fast as single puts. A batch in which one record is there
already is written one by one instead; one that fails for the fault of one record is halved until that record
stands alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from mao_shared.models.run import Run
from mao_shared.reconcile import Mirror, in_halves
from mao_shared.runs.run_records import RunRecords
from mao_shared.store import Put

from .ahead import NewRun

BATCH_OPERATIONS = 64  # with two checks each at most
BATCH_BYTES = 400_000
CONCURRENCY = 8  # transactions under way at the same time


@dataclass(slots=True)
class Created:
    """`runs`: those that were new. `failed`: ids of those that cannot be written, with the reason."""

    runs: list[Run] = field(default_factory=list)
    failed: dict[str, Exception] = field(default_factory=dict)


class RunCreator:
    """Creates run documents and tells the mirror of those that were new."""

    def __init__(self, runs: Mirror[Run], records: RunRecords) -> None:
        self._runs = runs
        self._records = records
        self._slots = asyncio.Semaphore(CONCURRENCY)

    async def create(self, documents: Iterable[NewRun]) -> Created:
        """Creates what is absent, of several of one id the first. Raises Unavailable: some may be written."""
        tasks: list[asyncio.Task[Created]] = []
        try:
            for batch in _batches(self._puts(documents)):
                tasks.append(asyncio.create_task(self._batch(batch)))
                await asyncio.sleep(0)  # so that it is sent while the next one is put together
        finally:
            results = await asyncio.gather(*tasks, return_exceptions=True)  # none is left behind in flight
        created = Created()
        for result in results:
            if isinstance(result, BaseException):
                raise result
            created.runs += result.runs
            created.failed |= result.failed
        return created

    def _puts(self, documents: Iterable[NewRun]) -> Iterator[tuple[Run, Put]]:
        prefix = self._records.prefix
        seen: set[str] = set()  # schedules that meet in a tick have one run there
        for each in documents:
            if each.run.id not in seen:
                seen.add(each.run.id)
                yield each.run, Put(prefix + each.run.id, each.value)

    async def _batch(self, batch: Sequence[tuple[Run, Put]]) -> Created:
        async with self._slots:
            written, failed = await in_halves(batch, self._write_some)
        return Created(
            [run for runs in written for run in runs], {run.id: error for (run, _), error in failed}
        )

    async def _write_some(self, batch: Sequence[tuple[Run, Put]]) -> list[Run]:
        if await self._write(batch):
            return [run for run, _ in batch]
        if len(batch) == 1:
            return []
        return [run for run, put in batch if await self._write([(run, put)])]

    async def _write(self, batch: Sequence[tuple[Run, Put]]) -> bool:
        checks = self._records.absent(*(run.id for run, _ in batch))
        revision = await self._records.store.transact(checks, [put for _, put in batch])
        if revision is None:
            return False
        for run, _ in batch:
            self._runs.note(run.id, run, revision)
        return True


def _batches(puts: Iterable[tuple[Run, Put]]) -> Iterator[list[tuple[Run, Put]]]:
    batch: list[tuple[Run, Put]] = []
    size = 0
    for run, put in puts:
        if batch and (len(batch) == BATCH_OPERATIONS or size + len(put.value) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((run, put))
        size += len(put.value)
    if batch:
        yield batch
