"""Moves settled runs into the history, and removes old ones by count per pipeline and by age.

The provenance of removed runs stays in git, but only a tick's record shows that the tick was run. So the
record stays while any schedule of the pipeline may still decide the tick. Before it is removed, `TickHistory`
records up to when a backfill can no longer know which ticks were run.
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
from mao_shared.models import Run, Schedule, TickMark
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
    """How long ended runs are kept.

    Attributes:
        keep_runs: number per pipeline; missed runs are counted separately.
        keep_for: maximum age.
        settle_after: time after its end at which a run becomes history.
    """

    keep_runs: int
    keep_for: timedelta
    settle_after: timedelta = timedelta(minutes=10)


def expired_runs(
    runs: Iterable[IndexedRun], undecided: Mapping[str, datetime], policy: RetentionPolicy, now: datetime
) -> list[IndexedRun]:
    """Return the runs to remove (pure). `undecided`: see `undecided_since`."""
    groups: defaultdict[tuple[str, bool], list[IndexedRun]] = defaultdict(list)
    for run in runs:
        groups[run.pipeline, run.phase is RunPhase.MISSED].append(run)
    gone: list[IndexedRun] = []
    for group in groups.values():
        group.sort(key=lambda run: run.finished_at, reverse=True)
        old = (run for run in group[: policy.keep_runs] if now - run.finished_at > policy.keep_for)
        gone += [*old, *group[policy.keep_runs :]]
    return [run for run in gone if not is_undecided(run, undecided)]


def is_undecided(run: Run | IndexedRun, undecided: Mapping[str, datetime]) -> bool:
    """Return True if a schedule may still decide the run's tick (pure)."""
    since, tick = undecided.get(run.pipeline), _tick(run)
    return tick is not None and since is not None and tick > since


def _tick(run: Run | IndexedRun) -> datetime | None:
    """Return the tick whose record this is; None for a run that no schedule triggered."""
    return run.scheduled_for if run.trigger == "schedule" else None


def undecided_since(
    schedules: Iterable[Schedule], decided: Mapping[str, datetime], now: datetime
) -> dict[str, datetime]:
    """Return by pipeline the time after which due ticks may be undecided, if there are such ticks (pure).

    `decided` are the stored marks. Schedules of a pipeline that share a tick share its run.
    """
    since: dict[str, datetime] = {}
    for schedule in schedules:
        after = undecided_after(schedule, decided.get(schedule.id))
        try:
            following = schedule_cron(schedule).next(after)
            is_behind = following is not None and following <= decidable_until(schedule, now)
        except Exception:  # noqa: BLE001 (for example a zone unknown to this machine: it may be behind)
            is_behind = True
        if is_behind:
            since[schedule.pipeline] = min(after, since.get(schedule.pipeline, after))
    return since


def newest_ticks(runs: Iterable[Run | IndexedRun]) -> dict[str, datetime]:
    """Return by pipeline the newest tick that was run (pure)."""
    newest: dict[str, datetime] = {}
    for run in runs:
        tick = _tick(run)
        if tick is not None and run.phase is not RunPhase.MISSED:
            newest[run.pipeline] = max(tick, newest.get(run.pipeline, tick))
    return newest


class RunRetention:
    """Moves and removes runs every `interval` seconds, while `no_tick_due` is set.

    It starts when `after` is set: when all runs that have ended are judged (`health_monitor.py`).
    """

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
        *,
        after: asyncio.Event | None = None,
    ) -> None:
        self._conditions = conditions
        self._after = after
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

        if self._after is not None:
            await self._after.wait()
        first = min(FIRST_DELAY, self._interval)
        await every(self._interval, step, name="retention", initial_delay=first, conditions=self._conditions)

    async def sweep(self) -> int:
        """Move and remove runs; return the number removed. A failing run or pipeline affects no other."""
        now = self._clock.now()
        undecided = await self._read_undecided(now)
        self._failing = set()
        live = await self._settle(undecided, now)
        history: list[IndexedRun] = []
        cursor: str | None = ""
        while cursor is not None:
            page, cursor = await self._runs.index_page(INDEX_PER_PAGE, cursor or None)
            history += page
        gone = expired_runs([*live, *history], undecided, self._policy, now)
        failing = await self._record_newest(gone, self._tick_history.note_removed)
        gone = [run for run in gone if run.pipeline not in failing]
        live_keys = {(run.id, run.revision) for run in live}
        past_gone = [run for run in gone if (run.id, run.revision) not in live_keys]
        live_gone = [run for run in gone if (run.id, run.revision) in live_keys]
        removed = await self._in_batches(past_gone, REMOVED_AT_ONCE, self._runs.remove, lambda run: run.id)
        for run in live_gone:
            try:
                removed += await self._runs.delete(run.id, run.revision)
            except Unavailable:
                raise
            except MaoError as error:
                self._set_aside(run.id, error)
        self._guard.keep(self._failing)
        if removed:
            log.info("retention.removed", runs=removed)
        return removed

    async def _read_undecided(self, now: datetime) -> dict[str, datetime]:
        """Read schedules and marks; the ticks of unreadable ones count as undecided, so their runs stay."""
        page = await self._schedules.page()
        decided: dict[str, datetime] = {}
        for entry in (await self._ticks.store.list(self._ticks.prefix)).entries:
            with suppress(RecordUnreadable):
                name = entry.key.removeprefix(self._ticks.prefix)
                decided[name] = self._ticks.parse(entry).record.decided_until
        undecided = undecided_since((stored.record for stored in page.items), decided, now)
        for unreadable in page.unreadable:
            name = unreadable.key.removeprefix(self._schedules.prefix)
            undecided[name.rpartition("-")[0]] = _BEFORE_ALL
        return undecided

    async def _settle(self, undecided: Mapping[str, datetime], now: datetime) -> list[IndexedRun]:
        """Move settled runs into the history; return the ended runs that stay."""
        stays: list[IndexedRun] = []
        moved = 0
        cursor: str | None = ""
        while cursor is not None:
            await self._no_tick_due.wait()
            page, cursor = await self._runs.live_page(RUNS_PER_PAGE, cursor or None)
            settled = []
            for live in page:
                is_over = is_settled(live.run, now, self._policy.settle_after)
                if is_over and not is_undecided(live.run, undecided):
                    settled.append(live)
                elif live.run.phase in RUN_ENDED:
                    stays.append(index_live(live))
            failing = await self._record_newest([live.run for live in settled], self._tick_history.note_moved)
            moved += await self._in_batches(
                [live for live in settled if live.run.pipeline not in failing],
                MOVED_AT_ONCE,
                self._runs.move,
                lambda live: live.run.id,
            )
        if moved:
            log.info("retention.moved", runs=moved)
        return stays

    async def _record_newest(
        self, runs: Sequence[Run | IndexedRun], record: Callable[[str, datetime], Awaitable[None]]
    ) -> set[str]:
        """Record the newest ticks in the tick history; return the pipelines whose runs have to stay."""
        for pipeline, until in newest_ticks(runs).items():
            with self._guard.item(pipeline):
                await record(pipeline, until)
        failing = {run.pipeline for run in runs if self._guard.is_failing(run.pipeline)}
        self._failing |= failing
        return failing

    async def _in_batches(
        self,
        runs: Sequence[R],
        size: int,
        change: Callable[[Sequence[R]], Awaitable[int]],
        run_id: Callable[[R], str],
    ) -> int:
        """Call `change` with batches while no tick is due; return the number of runs it changed."""
        changed = 0
        for at in range(0, len(runs), size):
            await self._no_tick_due.wait()
            counts, failed = await in_halves(runs[at : at + size], change)
            changed += sum(counts)
            for run, error in failed:
                self._set_aside(run_id(run), error)
        return changed

    def _set_aside(self, name: str, error: Exception) -> None:
        self._guard.failed(name, error)
        self._failing.add(name)


def index_live(live: LiveRun) -> IndexedRun:
    """Return the index entry of an ended run that is not history yet."""
    run = live.run
    return IndexedRun(
        id=run.id,
        pipeline=run.pipeline,
        phase=run.phase,
        revision=live.entry.revision,
        trigger=run.trigger,
        schedule=run.schedule,
        scheduled_for=run.scheduled_for,
        finished_at=run.finished_at or run.created_at,
        covers=run.covers,
    )
