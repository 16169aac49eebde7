"""Moves settled runs into the history, and removes old ones by count per pipeline and by age.

What is removed from etcd still has its provenance in git, but only a tick's record says that the tick was
run. So the record stays while any schedule of the pipeline may still decide the tick; before it goes,
`TickHistory` records how far back a backfill can no longer tell.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from mao_scheduler.schedules.due import decidable_until, schedule_cron, undecided_after
from mao_scheduler.schedules.marks import TickHistory
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError, RecordUnreadable, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models.run import Run
from mao_shared.models.schedule import Schedule, TickMark
from mao_shared.reconcile import Guard, every, in_halves
from mao_shared.runs.records import (
    MOVED_AT_ONCE,
    REMOVED_AT_ONCE,
    IndexedRun,
    LiveRun,
    RunRecords,
    is_settled,
)
from mao_shared.states import RUN_ENDED, RunPhase
from mao_shared.store import Records

log = get_logger(__name__)
R = TypeVar("R")
RUNS_PER_PAGE = 100  # documents per page
INDEX_PER_PAGE = 500  # index entries per page
FIRST_DELAY = 60.0  # seconds after the start
_BEFORE_ALL = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """`keep_runs`: ended runs kept per pipeline, missed ones counted separately; `keep_for`: their age.

    `settle_after`: time after its end when a run becomes history.
    """

    keep_runs: int
    keep_for: timedelta
    settle_after: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class EndedRun:
    """What retention needs to know of a run.

    `tick`: the tick that has this record; None for a manual run, whatever time it is for. `past`: its index
    entry if it is history.
    """

    name: str
    revision: int
    pipeline: str
    missed: bool
    finished_at: datetime
    tick: datetime | None
    past: IndexedRun | None = None


def expired_runs(
    runs: Iterable[EndedRun], undecided: Mapping[str, datetime], policy: RetentionPolicy, now: datetime
) -> list[EndedRun]:
    """Pure: the runs to remove. `undecided`: see `undecided_since`."""
    groups: defaultdict[tuple[str, bool], list[EndedRun]] = defaultdict(list)
    for run in runs:
        groups[run.pipeline, run.missed].append(run)
    gone: list[EndedRun] = []
    for group in groups.values():
        group.sort(key=lambda run: run.finished_at, reverse=True)
        old = (run for run in group[: policy.keep_runs] if now - run.finished_at > policy.keep_for)
        gone += [*old, *group[policy.keep_runs :]]
    return [run for run in gone if not is_undecided(run, undecided)]


def is_undecided(run: EndedRun, undecided: Mapping[str, datetime]) -> bool:
    """Pure: whether a schedule may still decide the run's tick."""
    since = undecided.get(run.pipeline)
    return run.tick is not None and since is not None and run.tick > since


def undecided_since(
    schedules: Iterable[Schedule], decided: Mapping[str, datetime], now: datetime
) -> dict[str, datetime]:
    """Pure: for pipelines with due ticks not known to be decided, the time after which these ticks are.

    `decided`: the stored marks. Schedules of a pipeline that share a tick share its run.
    """
    found: dict[str, datetime] = {}
    for schedule in schedules:
        after = undecided_after(schedule, decided.get(schedule.id))
        if _is_behind(schedule, after, now):
            found[schedule.pipeline] = min(after, found.get(schedule.pipeline, after))
    return found


def _is_behind(schedule: Schedule, after: datetime, now: datetime) -> bool:
    try:
        following = schedule_cron(schedule).next(after)
    except Exception:  # noqa: BLE001 (such as a zone unknown to this machine: it may be behind)
        return True
    return following is not None and following <= decidable_until(schedule, now)


def newest_ticks(gone: Iterable[EndedRun]) -> dict[str, datetime]:
    """Pure: by pipeline, the newest tick that was run and whose record is removed."""
    found: dict[str, datetime] = {}
    for run in gone:
        if run.tick is not None and not run.missed:
            found[run.pipeline] = max(run.tick, found.get(run.pipeline, run.tick))
    return found


class RunRetention:
    """Moves and removes runs every `interval` seconds; waits while `no_tick_due` is not set."""

    def __init__(
        self,
        runs: RunRecords,
        schedules: Records[Schedule],
        ticks: Records[TickMark],
        tick_history: TickHistory,
        policy: RetentionPolicy,
        interval: float,
        clock: Clock,
        no_tick_due: asyncio.Event,
        conditions: Conditions | None = None,
    ) -> None:
        self._conditions = conditions
        self._guard = Guard("retention", conditions)
        self._runs = runs
        self._schedules = schedules
        self._ticks = ticks
        self._tick_history = tick_history
        self._policy = policy
        self._interval = interval
        self._clock = clock
        self._no_tick_due = no_tick_due
        self._failing: set[str] = set()

    async def run(self) -> None:
        async def step() -> None:
            await self.sweep()

        first = min(FIRST_DELAY, self._interval)
        await every(self._interval, step, name="retention", initial_delay=first, conditions=self._conditions)

    async def sweep(self) -> int:
        """Number of runs removed. A failing run or pipeline does not affect the others."""
        now = self._clock.now()
        undecided = await self._undecided(now)
        self._failing = set()
        ended = await self._settle(undecided, now)
        cursor: str | None = ""
        while cursor is not None:
            page, cursor = await self._runs.index_page(INDEX_PER_PAGE, cursor or None)
            ended += [_ended_in_history(each) for each in page]
        removed = await self._remove(expired_runs(ended, undecided, self._policy, now))
        self._guard.keep(self._failing)
        if removed:
            log.info("retention.removed", runs=removed)
        return removed

    async def _undecided(self, now: datetime) -> dict[str, datetime]:
        page = await self._schedules.page()
        undecided = undecided_since((each.record for each in page.items), await self._decided(), now)
        for each in page.unreadable:  # it is unknown which of its ticks are decided: all its runs stay
            undecided[each.key.removeprefix(self._schedules.prefix).rpartition("-")[0]] = _BEFORE_ALL
        return undecided

    async def _decided(self) -> dict[str, datetime]:
        """The stored marks; ticks of a schedule whose mark cannot be read count as undecided."""
        page = await self._ticks.store.list(self._ticks.prefix)
        decided: dict[str, datetime] = {}
        for entry in page.entries:
            with suppress(RecordUnreadable):
                name = entry.key.removeprefix(self._ticks.prefix)
                decided[name] = self._ticks.parse(entry).record.decided_until
        return decided

    async def _settle(self, undecided: Mapping[str, datetime], now: datetime) -> list[EndedRun]:
        """Moves settled runs into the history; returns the ended runs that stay."""
        stays: list[EndedRun] = []
        moved = 0
        cursor: str | None = ""
        while cursor is not None:
            await self._no_tick_due.wait()
            page, cursor = await self._runs.live_page(RUNS_PER_PAGE, cursor or None)
            settled = []
            for each in page:
                ended = _ended(each)
                if is_settled(each.run, now, self._policy.settle_after) and not is_undecided(
                    ended, undecided
                ):
                    settled.append(each)
                elif each.run.phase in RUN_ENDED:
                    stays.append(ended)
            moved += await self._move(settled)
        if moved:
            log.info("retention.moved", runs=moved)
        return stays

    async def _move(self, runs: Sequence[LiveRun]) -> int:
        runs = await self._record_first(runs, [_ended(each) for each in runs], self._tick_history.note_moved)
        moved = 0
        for at in range(0, len(runs), MOVED_AT_ONCE):
            await self._no_tick_due.wait()
            counts, failed = await in_halves(runs[at : at + MOVED_AT_ONCE], self._runs.move)
            moved += sum(counts)
            for run, error in failed:
                self._set_aside(run.run.id, error)
        return moved

    async def _remove(self, gone: Sequence[EndedRun]) -> int:
        gone = await self._record_first(gone, gone, self._tick_history.note_removed)
        past = [each.past for each in gone if each.past is not None]
        removed = 0
        for at in range(0, len(past), REMOVED_AT_ONCE):
            await self._no_tick_due.wait()
            counts, failed = await in_halves(past[at : at + REMOVED_AT_ONCE], self._runs.remove)
            removed += sum(counts)
            for indexed, error in failed:
                self._set_aside(indexed.id, error)
        for run in (each for each in gone if each.past is None):
            try:
                removed += await self._runs.delete(run.name, run.revision)
            except Unavailable:
                raise
            except MaoError as error:
                self._set_aside(run.name, error)
        return removed

    async def _record_first(
        self,
        runs: Sequence[R],
        ended: Sequence[EndedRun],
        record: Callable[[str, datetime], Awaitable[None]],
    ) -> list[R]:
        """The runs of those pipelines whose tick history could be written before."""
        for pipeline, until in newest_ticks(ended).items():
            with self._guard.item(pipeline):
                await record(pipeline, until)
        failing = {each.pipeline for each in ended if self._guard.is_failing(each.pipeline)}
        self._failing |= failing
        return [run for run, each in zip(runs, ended, strict=True) if each.pipeline not in failing]

    def _set_aside(self, name: str, error: Exception) -> None:
        self._guard.failed(name, error)
        self._failing.add(name)


def _ended(live: LiveRun) -> EndedRun:
    run = live.run
    return EndedRun(
        name=run.id,
        revision=live.entry.revision,
        pipeline=run.pipeline,
        missed=run.phase is RunPhase.MISSED,
        finished_at=run.finished_at or run.created_at,
        tick=_tick(run),
    )


def _ended_in_history(run: IndexedRun) -> EndedRun:
    return EndedRun(
        name=run.id,
        revision=run.revision,
        pipeline=run.pipeline,
        missed=run.phase is RunPhase.MISSED,
        finished_at=run.finished_at,
        tick=_tick(run),
        past=run,
    )


def _tick(run: Run | IndexedRun) -> datetime | None:
    return run.scheduled_for if run.trigger == "schedule" else None
