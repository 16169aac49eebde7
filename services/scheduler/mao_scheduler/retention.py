"""Removes old run records, by count a pipeline and by age. What leaves etcd has its provenance in git.

Only a tick's record says that the tick has been run. So it stays while any schedule of the pipeline may still
decide the tick, and before it goes it is noted how far back a backfill can no longer tell.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import RecordUnreadable
from mao_shared.logs import get_logger
from mao_shared.loops import Guard, for_ever, in_halves
from mao_shared.models.run import Run
from mao_shared.models.schedule import Forgotten, Schedule, TickMark
from mao_shared.states import RUN_ENDED, RunPhase
from mao_shared.store import Check, Delete, Records, Stored

from .due import cron_of, first_undecided, horizon

log = get_logger(__name__)

PAGE = 500
BATCH = 64
_BEFORE_ALL = datetime(1, 1, 1, tzinfo=UTC)


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


def choose(
    runs: Iterable[EndedRun], undecided: Mapping[str, datetime], policy: Policy, now: datetime
) -> list[EndedRun]:
    """The runs that may go. `undecided`: see `undecided_since`."""
    groups: defaultdict[tuple[str, bool], list[EndedRun]] = defaultdict(list)
    for run in runs:
        groups[run.pipeline, run.missed].append(run)
    gone: list[EndedRun] = []
    for group in groups.values():
        group.sort(key=lambda run: run.finished_at, reverse=True)
        old = (run for run in group[: policy.keep_runs] if now - run.finished_at > policy.keep_for)
        gone += [*old, *group[policy.keep_runs :]]
    return [run for run in gone if not _needed(run, undecided.get(run.pipeline))]


def _needed(run: EndedRun, undecided_since: datetime | None) -> bool:
    return (
        run.scheduled_for is not None and undecided_since is not None and run.scheduled_for > undecided_since
    )


def undecided_since(
    schedules: Iterable[Schedule], decided: Mapping[str, datetime], now: datetime
) -> dict[str, datetime]:
    """For pipelines with ticks that are due and not known to be decided: the moment after which these lie.

    Pure. `decided`: the stored marks. Two schedules of a pipeline that meet in a tick share its run.
    """
    found: dict[str, datetime] = {}
    for schedule in schedules:
        after = first_undecided(schedule, decided.get(schedule.id))
        if _is_behind(schedule, after, now):
            found[schedule.pipeline] = min(after, found.get(schedule.pipeline, after))
    return found


def _is_behind(schedule: Schedule, after: datetime, now: datetime) -> bool:
    try:
        following = cron_of(schedule).next(after)
    except Exception:  # noqa: BLE001 (say a zone that this machine no longer knows: nobody can tell)
        return True
    return following is not None and following <= horizon(schedule, now)


def forgotten_by(gone: Iterable[EndedRun]) -> dict[str, datetime]:
    """The newest ticks by pipeline that were run and whose records go: pure."""
    found: dict[str, datetime] = {}
    for run in gone:
        if run.scheduled_for is not None and not run.missed:
            found[run.pipeline] = max(run.scheduled_for, found.get(run.pipeline, run.scheduled_for))
    return found


class Retention:
    """Applies the policy every `interval` seconds. `run` works until cancelled."""

    def __init__(
        self,
        runs: Records[Run],
        schedules: Records[Schedule],
        ticks: Records[TickMark],
        forgotten: Records[Forgotten],
        policy: Policy,
        interval: float,
        clock: Clock,
        conditions: Conditions | None = None,
    ) -> None:
        self._conditions = conditions
        self._guard = Guard("retention", conditions)
        self._runs = runs
        self._schedules = schedules
        self._ticks = ticks
        self._forgotten = forgotten
        self._policy = policy
        self._interval = interval
        self._clock = clock

    async def run(self) -> None:
        await asyncio.sleep(self._interval)
        await for_ever("retention", self._sweep, period=self._interval, conditions=self._conditions)

    async def _sweep(self) -> None:
        await self.sweep()

    async def sweep(self) -> int:
        """Removes what may go; how many that were. What one pipeline cannot do keeps no other from it."""
        runs = await self._ended_runs()
        page = await self._schedules.page()
        now = self._clock.now()
        undecided = undecided_since((each.record for each in page.items), await self._decided(), now)
        for each in page.unreadable:  # nobody can say what of its ticks are decided: all its runs stay
            undecided[each.key.removeprefix(self._schedules.prefix).rpartition("-")[0]] = _BEFORE_ALL
        gone = choose(runs, undecided, self._policy, now)
        for pipeline, until in forgotten_by(gone).items():
            with self._guard.item(pipeline):
                await self._forget(pipeline, until)
        failing = {run.pipeline for run in gone if self._guard.is_failing(run.pipeline)}
        gone = [run for run in gone if run.pipeline not in failing]
        removed = 0
        for at in range(0, len(gone), BATCH):
            counts, failed = await in_halves(gone[at : at + BATCH], self._remove)
            removed += sum(counts)
            for run, error in failed:
                self._guard.failed(run.name, error)
                failing.add(run.name)
        self._guard.keep(failing)
        if removed:
            log.info("retention.removed", runs=removed)
        return removed

    async def _ended_runs(self) -> list[EndedRun]:
        cursor = None
        found: list[EndedRun] = []
        while True:
            page = await self._runs.page(PAGE, cursor)
            found += [run for stored in page.items if (run := _ended(stored)) is not None]
            cursor = page.cursor
            if cursor is None:
                return found

    async def _decided(self) -> dict[str, datetime]:
        """Without those that cannot be read: then what the schedule has decided counts as undecided."""
        page = await self._ticks.store.list(self._ticks.prefix)
        decided: dict[str, datetime] = {}
        for entry in page.entries:
            with suppress(RecordUnreadable):
                name = entry.key.removeprefix(self._ticks.prefix)
                decided[name] = self._ticks.parse(entry).record.decided_until
        return decided

    async def _forget(self, pipeline: str, until: datetime) -> None:
        while True:
            stored = await self._forgotten.get(pipeline)
            if stored is not None and stored.record.until >= until:
                return
            if stored is None:
                written = await self._forgotten.create(pipeline, Forgotten(until=until))
            else:
                moved = stored.record.model_copy(update={"until": until})
                written = await self._forgotten.replace(pipeline, moved, stored.revision)
            if written is not None:
                return

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
    )
