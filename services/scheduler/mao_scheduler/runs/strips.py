"""The last ticks of each pipeline as strips of letters, for the dashboard and for other nodes.

Nothing is read before the first request. Then the newest entries of the index are read once for each
pipeline, and later only runs that have changed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mao_scheduler.schedules.due import next_tick
from mao_scheduler.schedules.marks import TickMarks
from mao_shared.clock import Clock
from mao_shared.models import Enrolment, Run, RunBrief, Schedule, TickException, TickStrip
from mao_shared.models.federation import KEPT_EXCEPTIONS, MAX_TICKS
from mao_shared.models.run import time_in_id
from mao_shared.reconcile import Mirror
from mao_shared.runs.listing import past_runs_of
from mao_shared.runs.records import IndexedRun, RunRecords
from mao_shared.states import RunPhase

MAX_CHANGED = 20_000  # runs; with more changes since the last request, everything is read again
LIVE_PAGE = 500
DAY = timedelta(days=1)
_LETTERS = {
    RunPhase.SUCCEEDED: "s",
    RunPhase.FAILED: "f",
    RunPhase.MISSED: "m",
    RunPhase.LOST: "l",
    RunPhase.CANCELLED: "x",
    RunPhase.RUNNING: "r",
    RunPhase.QUEUED: "w",
}


@dataclass(frozen=True, slots=True)
class Tick:
    """What became of a tick. `count`: missed ticks that one record covers."""

    at: datetime
    run: str
    letter: str
    count: int = 1


def tick_of(run: Run | IndexedRun, late_after: timedelta) -> Tick | None:
    """Return what a run says of its tick, or of its request if it has none; None for a reproduction. Pure."""
    if run.trigger == "reproduce":
        return None
    at = run.scheduled_for or time_in_id(run.id)
    if at is None:
        return None
    letter = _LETTERS[run.phase]
    began = run.started_at
    if letter == "s" and run.trigger == "schedule" and began is not None and began - at > late_after:
        letter = "L"
    if run.quarantined:
        letter = "q"
    return Tick(at, run.id, letter, run.covers.count if run.covers else 1)


class PipelineTicks:
    """The newest ticks of one pipeline, each with its newest run."""

    def __init__(self) -> None:
        self._ticks: dict[datetime, Tick] = {}
        self._newest: list[Tick] | None = None

    def __len__(self) -> int:
        return len(self._ticks)

    def put(self, tick: Tick) -> bool:
        """Add or replace a tick; return True if anything changed. Of two runs of a tick the newer counts."""
        known = self._ticks.get(tick.at)
        if known is not None and (known.run > tick.run or known == tick):
            return False
        self._newest = None
        self._ticks[tick.at] = tick
        if len(self._ticks) > 2 * MAX_TICKS:
            for old in sorted(self._ticks)[:-MAX_TICKS]:
                del self._ticks[old]
        return True

    def remove(self, run: str) -> bool:
        """Forget a run that was removed; return True if it was known."""
        gone = [at for at, tick in self._ticks.items() if tick.run == run]
        for at in gone:
            del self._ticks[at]
            self._newest = None
        return bool(gone)

    def newest(self) -> list[Tick]:
        """Return the last ticks, oldest first; a record that covers several ticks is repeated."""
        if self._newest is not None:
            return self._newest
        found: list[Tick] = []
        for at in sorted(self._ticks, reverse=True):
            tick = self._ticks[at]
            found += [tick] * min(tick.count, MAX_TICKS - len(found))
            if len(found) == MAX_TICKS:
                break
        self._newest = found[::-1]
        return self._newest


def strip_of(node: str, pipeline: str, ticks: list[Tick], now: datetime) -> TickStrip:
    """Return the strip of these ticks, oldest first. Pure."""
    exceptions = [
        TickException(at=index, run=tick.run, tick=tick.at)
        for index, tick in enumerate(ticks)
        if tick.letter != "s"
    ]
    return TickStrip(
        node=node,
        pipeline=pipeline,
        marks="".join(tick.letter for tick in ticks),
        first=ticks[0].at if ticks else None,
        recent=sum(now - DAY < tick.at <= now for tick in ticks),
        exceptions=exceptions[-KEPT_EXCEPTIONS:],
        updated_at=now,
    )


@dataclass(slots=True)
class _Known:
    """What is known of a pipeline. `last`: its newest run; `loaded`: past runs have been read."""

    ticks: PipelineTicks = field(default_factory=PipelineTicks)
    last: RunBrief | None = None
    loaded: bool = False


class TickStrips:
    """The strips of this node's pipelines. `late_after`: seconds after its tick from which a run is late."""

    def __init__(
        self,
        node: str,
        runs: Mirror[Run],
        records: RunRecords,
        schedules: Mirror[Schedule],
        enrolments: Mirror[Enrolment],
        marks: TickMarks,
        late_after: float,
        clock: Clock,
    ) -> None:
        self._node = node
        self._runs = runs
        self._records = records
        self._schedules = schedules
        self._enrolments = enrolments
        self._marks = marks
        self._late_after = timedelta(seconds=late_after)
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._reads = False  # whether changes are followed: from the first request on
        self._changed: set[str] = set()
        self._lock = asyncio.Lock()
        runs.subscribe(self._note)

    def _note(self, name: str) -> None:
        if self._reads:
            self._changed.add(name)
            if len(self._changed) > MAX_CHANGED:
                self._forget()

    def _forget(self) -> None:
        self._reads = False
        self._known.clear()
        self._changed.clear()

    async def all(self) -> list[TickStrip]:
        """Return the strips of all enrolled pipelines, by name. Raises Unavailable."""
        names = sorted(name for name, _ in self._enrolments.items())
        async with self._lock:
            await self._catch_up()
            for name in names:
                await self._load(name)
            return [self._strip(name) for name in names]

    async def one(self, pipeline: str) -> TickStrip:
        """Return the strip of a pipeline. Raises Unavailable."""
        async with self._lock:
            await self._catch_up()
            await self._load(pipeline)
            return self._strip(pipeline)

    def _strip(self, pipeline: str) -> TickStrip:
        now = self._clock.now()
        known = self._known.get(pipeline) or _Known()
        schedules = [
            stored.record for _, stored in self._schedules.items() if stored.record.pipeline == pipeline
        ]
        return strip_of(self._node, pipeline, known.ticks.newest(), now).model_copy(
            update={
                "last": known.last,
                "next_tick": next_tick(schedules, self._marks.get, now),
                "paused": bool(schedules) and all(schedule.paused for schedule in schedules),
                "schedules": [_words(schedule) for schedule in schedules[:100]],
            }
        )

    async def _catch_up(self) -> None:
        """Read the runs that have changed, at first all that are not history."""
        if not self._reads:
            self._reads = True
            try:
                await self._read_live()
            except BaseException:
                self._forget()
                raise
        while self._changed:
            name = self._changed.pop()
            try:
                stored = self._runs.get(name) or await self._records.find(name)
            except BaseException:
                self._changed.add(name)
                raise
            if stored is not None:
                self._put(stored.record)
            else:
                for known in self._known.values():
                    known.ticks.remove(name)

    async def _read_live(self) -> None:
        cursor: str | None = None
        while True:
            page, cursor = await self._records.live_page(LIVE_PAGE, cursor)
            for live in page:
                self._put(live.run)
            if cursor is None:
                return

    async def _load(self, pipeline: str) -> None:
        """Read the past runs of a pipeline from the index, once."""
        known = self._known.setdefault(pipeline, _Known())
        if known.loaded:
            return
        past = await past_runs_of(self._records, pipeline, MAX_TICKS)
        for indexed in past:
            self._put_tick(known, indexed)
        if past and (known.last is None or known.last.id < past[0].id):
            stored = await self._records.find(past[0].id)
            known.last = None if stored is None else _brief(stored.record)
        known.loaded = True

    def _put(self, run: Run) -> None:
        known = self._known.setdefault(run.pipeline, _Known())
        if self._put_tick(known, run) and (known.last is None or known.last.id <= run.id):
            known.last = _brief(run)

    def _put_tick(self, known: _Known, run: Run | IndexedRun) -> bool:
        tick = tick_of(run, self._late_after)
        return tick is not None and known.ticks.put(tick)


def _brief(run: Run) -> RunBrief:
    """Return the run's summary without its commits, which a strip does not need."""
    return RunBrief.of(run).model_copy(update={"snapshots": {}})


def _words(schedule: Schedule) -> str:
    return f"{schedule.cron} {schedule.timezone}{' (paused)' if schedule.paused else ''}"
