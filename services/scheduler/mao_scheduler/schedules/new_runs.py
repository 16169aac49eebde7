"""New run documents: created for ticks and requests, prepared ahead of a tick, written in batches.

Documents are prepared ahead so that a thousand runs of one tick are written in time. Batches of one
transaction each are three times as fast as single puts.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from mao_shared.models import Enrolment, Overlap, Run, Schedule, StepRun, Trigger, format_time, tick_run_id
from mao_shared.models.run import MissedWhy
from mao_shared.reconcile import Mirror, in_halves
from mao_shared.runs.records import RunRecords
from mao_shared.states import RunPhase
from mao_shared.store import Put, Stored, dump

from .cron import Cron
from .due import BacklogSummary, Tick


def resolved_steps(enrolment: Enrolment) -> list[StepRun]:
    """Return the steps of a new run, as the node agreed to them."""
    return [StepRun(spec=step) for step in enrolment.steps]


def tick_run(schedule: Schedule, tick: Tick, enrolment: Enrolment | None, node: str, now: datetime) -> Run:
    """Return the document of a tick: queued, or missed with its reason.

    A tick that is caught up queues behind its predecessors whatever the overlap policy, since with `skip`
    only one of them would run.
    """
    if tick.missed is not None:
        return _missed_run(schedule, tick.at, node, now, tick.missed, tick.reason or "")
    if enrolment is None:
        reason = f"The pipeline {schedule.pipeline!r} is no longer enrolled on this node."
        return _missed_run(schedule, tick.at, node, now, "not-enrolled", reason)
    overlap = "queue" if tick.caught_up else schedule.overlap or enrolment.overlap
    return queued_run(
        tick_run_id(schedule.pipeline, node, tick.at),
        enrolment,
        now,
        "schedule",
        overlap=overlap,
        scheduled_for=tick.at,
        schedule=schedule.id,
    )


def queued_run(
    run_id: str,
    enrolment: Enrolment,
    now: datetime,
    trigger: Trigger,
    *,
    overlap: Overlap = "queue",
    scheduled_for: datetime | None = None,
    schedule: str | None = None,
    retry_of: str | None = None,
    request_id: str | None = None,
) -> Run:
    """Return a queued run with the steps of the enrolment."""
    return Run(
        id=run_id,
        pipeline=enrolment.pipeline,
        node=enrolment.node,
        trigger=trigger,
        scheduled_for=scheduled_for,
        schedule=schedule,
        retry_of=retry_of,
        created_at=now,
        overlap=overlap,
        steps=resolved_steps(enrolment),
        request_id=request_id,
    )


def summary_run(schedule: Schedule, summary: BacklogSummary, node: str, now: datetime) -> Run:
    """Return one missed record for many ticks; its id differs from theirs, so that each can still be run."""
    run = _missed_run(schedule, summary.covers.until, node, now, summary.missed, summary.reason)
    text = f"{schedule.id}\n{summary.covers.since.isoformat()}\n{summary.covers.until.isoformat()}"
    digest = hashlib.sha256(text.encode()).hexdigest()
    stem = run.id.rsplit("-", 1)[0]
    return run.model_copy(update={"id": f"{stem}-{digest[:8]}", "covers": summary.covers})


def _missed_run(
    schedule: Schedule, tick: datetime, node: str, now: datetime, missed: MissedWhy, reason: str
) -> Run:
    return Run(
        id=tick_run_id(schedule.pipeline, node, tick),
        pipeline=schedule.pipeline,
        node=node,
        trigger="schedule",
        phase=RunPhase.MISSED,
        scheduled_for=tick,
        schedule=schedule.id,
        created_at=now,
        finished_at=now,
        missed=missed,
        reason=reason,
    )


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run document and its stored form."""

    run: Run
    value: bytes


@dataclass(frozen=True, slots=True)
class PreparedTick:
    """The document of a future tick, as if created at the tick; `following` is the next tick after it."""

    tick: datetime
    document: NewRun
    following: datetime | None
    enrolment_revision: int

    def document_at(self, now: datetime) -> NewRun:
        """Return the document as created at `now`. Replacing the time is faster than serialising."""
        run = self.document.run.model_copy(update={"created_at": now})
        return NewRun(run, self.document.value.replace(_created_at_json(self.tick), _created_at_json(now), 1))


def prepare_tick(
    schedule: Schedule, cron: Cron, enrolment: Stored[Enrolment], tick: datetime, node: str
) -> PreparedTick:
    """Return the document of a future tick that will be on time."""
    run = tick_run(schedule, Tick(tick), enrolment.record, node, tick)
    return PreparedTick(tick, NewRun(run, dump(run)), cron.next(tick), enrolment.revision)


@lru_cache(maxsize=64)
def _created_at_json(moment: datetime) -> bytes:
    return f'"created_at":"{format_time(moment)}"'.encode()


BATCH_OPERATIONS = 64  # with two checks each at most
BATCH_BYTES = 400_000
CONCURRENCY = 8  # transactions under way at the same time


@dataclass(slots=True)
class CreationResult:
    """`runs` are those that were new; `failed` has the errors of those that cannot be written, by id."""

    runs: list[Run] = field(default_factory=list)
    failed: dict[str, Exception] = field(default_factory=dict)


class RunCreator:
    """Writes new run documents and adds them to the mirror.

    A batch that contains an existing record is written one record at a time; a batch that fails because of
    one record is halved until that record is alone.
    """

    def __init__(self, runs: Mirror[Run], records: RunRecords) -> None:
        self._runs = runs
        self._records = records
        self._slots = asyncio.Semaphore(CONCURRENCY)

    async def create(self, documents: Iterable[NewRun]) -> CreationResult:
        """Create absent runs, the first of several with one id. Raises Unavailable; some may be written."""
        tasks: list[asyncio.Task[CreationResult]] = []
        try:
            for batch in _batches(documents, self._records.prefix):
                tasks.append(asyncio.create_task(self._batch(batch)))
                await asyncio.sleep(0)  # sends it while the next batch is assembled
        finally:
            results = await asyncio.gather(*tasks, return_exceptions=True)  # no write is left in flight
        created = CreationResult()
        for result in results:
            if isinstance(result, BaseException):
                raise result
            created.runs += result.runs
            created.failed |= result.failed
        return created

    async def _batch(self, batch: Sequence[tuple[Run, Put]]) -> CreationResult:
        async with self._slots:
            written, failed = await in_halves(batch, self._write_some)
        return CreationResult(
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


def _batches(documents: Iterable[NewRun], prefix: str) -> Iterator[list[tuple[Run, Put]]]:
    batch: list[tuple[Run, Put]] = []
    size = 0
    seen: set[str] = set()  # schedules that share a tick have one run
    for document in documents:
        run, value = document.run, document.value
        if run.id in seen:
            continue
        seen.add(run.id)
        if batch and (len(batch) == BATCH_OPERATIONS or size + len(value) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((run, Put(prefix + run.id, value)))
        size += len(value)
    if batch:
        yield batch
