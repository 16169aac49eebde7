"""Removes old run records, by count a pipeline and by age. What leaves etcd has its provenance in git.

A tick's record must outlive the mark that it stands for: while the stored mark is older than the tick, the
tick may be decided again, and only its record says that it has been.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from mao_shared.clock import Clock
from mao_shared.errors import Unavailable
from mao_shared.logs import get_logger
from mao_shared.models.run import Run
from mao_shared.models.schedule import TickMark
from mao_shared.states import RUN_ENDED, RunPhase
from mao_shared.store import Check, Delete, Records, Stored

log = get_logger(__name__)

PAGE = 500
BATCH = 64


@dataclass(frozen=True, slots=True)
class Policy:
    """`keep_runs`: ended runs kept a pipeline (missed ones counted apart). `keep_for`: their age at most."""

    keep_runs: int
    keep_for: timedelta


@dataclass(frozen=True, slots=True)
class EndedRun:
    """What the choice needs to know of a run."""

    name: str
    revision: int
    pipeline: str
    missed: bool
    finished_at: datetime
    scheduled_for: datetime | None
    schedule: str | None


def choose(
    runs: Iterable[EndedRun],
    decided: Mapping[str, datetime],
    scheduled: frozenset[str],
    policy: Policy,
    now: datetime,
) -> list[EndedRun]:
    """The runs that may go. `decided`: the stored marks; `scheduled`: ids of the schedules there are."""
    groups: defaultdict[tuple[str, bool], list[EndedRun]] = defaultdict(list)
    for run in runs:
        groups[run.pipeline, run.missed].append(run)
    gone: list[EndedRun] = []
    for group in groups.values():
        group.sort(key=lambda run: run.finished_at, reverse=True)
        old = (run for run in group[: policy.keep_runs] if now - run.finished_at > policy.keep_for)
        gone += [*old, *group[policy.keep_runs :]]
    return [run for run in gone if not _needed(run, decided, scheduled)]


def _needed(run: EndedRun, decided: Mapping[str, datetime], scheduled: frozenset[str]) -> bool:
    if run.schedule is None or run.scheduled_for is None or run.schedule not in scheduled:
        return False
    mark = decided.get(run.schedule)
    return mark is None or run.scheduled_for > mark


class Retention:
    """Applies the policy every `interval` seconds. `run` works until cancelled."""

    def __init__(
        self,
        runs: Records[Run],
        ticks: Records[TickMark],
        schedules_prefix: str,
        policy: Policy,
        interval: float,
        clock: Clock,
    ) -> None:
        self._runs = runs
        self._ticks = ticks
        self._schedules_prefix = schedules_prefix
        self._policy = policy
        self._interval = interval
        self._clock = clock

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self.sweep()
            except Unavailable as error:
                log.warning("retention.store_away", error=error.detail)

    async def sweep(self) -> int:
        """Removes what may go; how many that were."""
        runs = await self._ended_runs()
        scheduled = await self._scheduled()
        decided = await self._decided()
        gone = choose(runs, decided, scheduled, self._policy, self._clock.now())
        removed = 0
        for at in range(0, len(gone), BATCH):
            removed += await self._remove(gone[at : at + BATCH])
        if removed:
            log.info("retention.removed", runs=removed)
        return removed

    async def _ended_runs(self) -> list[EndedRun]:
        cursor = None
        found: list[EndedRun] = []
        while True:
            page = await self._runs.page(PAGE, cursor, skip_unreadable=True)
            found += [run for stored in page.items if (run := _ended(stored)) is not None]
            cursor = page.cursor
            if cursor is None:
                return found

    async def _decided(self) -> dict[str, datetime]:
        page = await self._ticks.store.list(self._ticks.prefix)
        return {
            entry.key.removeprefix(self._ticks.prefix): self._ticks.parse(entry).record.decided_until
            for entry in page.entries
        }

    async def _scheduled(self) -> frozenset[str]:
        page = await self._ticks.store.list(self._schedules_prefix)
        return frozenset(entry.key.removeprefix(self._schedules_prefix) for entry in page.entries)

    async def _remove(self, runs: Sequence[EndedRun]) -> int:
        """In one transaction; one by one when a record has changed meanwhile."""
        keys = [self._runs.prefix + run.name for run in runs]
        checks = [Check(key, run.revision) for key, run in zip(keys, runs, strict=True)]
        if await self._runs.store.transact(checks, [Delete(key) for key in keys]) is not None:
            return len(runs)
        return sum([await self._runs.delete(run.name, run.revision) for run in runs])


def _ended(stored: Stored[Run]) -> EndedRun | None:
    run = stored.record
    if run.phase not in RUN_ENDED:
        return None
    return EndedRun(
        name=run.id,
        revision=stored.revision,
        pipeline=run.pipeline,
        missed=run.phase is RunPhase.MISSED,
        finished_at=run.finished_at or run.created_at,
        scheduled_for=run.scheduled_for,
        schedule=run.schedule,
    )
