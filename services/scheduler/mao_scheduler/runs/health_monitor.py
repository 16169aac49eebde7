"""Follows the runs of this node, and writes the alarms and pings that they lead to.

The state of a pipeline and the alarms about it are one transaction. After a restart, the runs that are not in
the history yet are judged again, which changes nothing for those that were; `caught_up` is set then, and only
then runs are moved to the history.
"""

from __future__ import annotations

import asyncio
import functools
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta

from mao_shared import keys
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import Unavailable
from mao_shared.logs import get_logger
from mao_shared.models import Alarm, Run
from mao_shared.models.notification import Heartbeat, PipelineHealth
from mao_shared.reconcile import Controller, Mirror, every
from mao_shared.runs.records import RunRecords
from mao_shared.service.alarms import alarm_writes
from mao_shared.states import RUN_ENDED, RunPhase
from mao_shared.store import Check, Put, Records, Unreadable, Write, dump, retry_lost

from .health import Change, judge, judge_late, late_runs, pings

log = get_logger(__name__)

LATE_PERIOD = 30.0  # seconds between checks for late runs
RESYNC = 3600.0  # seconds
PAGE = 100  # runs
MAX_REMEMBERED = 20_000  # ended runs that are not read again when they are written or moved


class HealthMonitor:
    """Judges runs while `run` runs. `late_after`: seconds after its tick from which a run is late."""

    def __init__(
        self,
        active: Mirror[Run],
        runs: RunRecords,
        clock: Clock,
        late_after: float,
        no_tick_due: asyncio.Event,
        unreadable: Unreadable | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        self._active, self._runs, self._clock = active, runs, clock
        self._late_after = timedelta(seconds=late_after)
        self._no_tick_due = no_tick_due
        self._conditions = conditions
        self._store, node = runs.store, runs.node
        self._node = node
        self._health_records = Records(
            runs.store, keys.pipeline_healths_prefix(node), PipelineHealth, unreadable
        )
        self._alarms = Records(runs.store, keys.alarms_prefix(node), Alarm, unreadable)
        self._healths = Mirror(self._health_records, conditions=conditions)
        self._heartbeats = Mirror(
            Records(runs.store, keys.heartbeats_prefix(node), Heartbeat, unreadable), conditions=conditions
        )
        self.caught_up = asyncio.Event()
        self._to_catch_up: set[str] = set()
        self._judged: OrderedDict[str, None] = OrderedDict()
        self._controller = Controller(
            "run-health",
            self._reconcile,
            workers=1,
            list_keys=self._list_runs,
            resync=RESYNC,
            conditions=conditions,
        )
        for mirror in (active, self._healths, self._heartbeats):
            self._controller.watches(mirror, lambda _: None)
        active.subscribe(self._run_changed)

    async def run(self) -> None:
        """Judge until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._healths.run())
            group.create_task(self._heartbeats.run())
            group.create_task(self._controller.run())
            group.create_task(
                every(
                    LATE_PERIOD,
                    self.check_late,
                    name="late-runs",
                    initial_delay=LATE_PERIOD,
                    conditions=self._conditions,
                )
            )

    def _run_changed(self, run_id: str) -> None:
        active = self._active.get(run_id)
        if active is None:
            if run_id not in self._judged:
                self._controller.add(run_id)
            return
        self._judged.pop(run_id, None)  # a missed tick that is run later
        if self._wants_start(active.record):
            self._controller.add(run_id)

    async def _list_runs(self) -> list[str]:
        """Return the runs to judge: running ones to ping about, and ended ones in the order of their end.

        Those in the history were judged before.
        """
        found: list[Run] = []
        cursor: str | None = ""
        while cursor is not None:
            page, cursor = await self._runs.live_page(PAGE, cursor or None)
            found += [live.run for live in page if live.run.phase in RUN_ENDED or self._wants_start(live.run)]
        found.sort(key=lambda run: (run.finished_at or run.created_at, run.id))
        names = [run.id for run in found if run.id not in self._judged]
        if not self.caught_up.is_set():
            self._to_catch_up = set(names)
            self._note_caught_up("")
        return names

    def _wants_start(self, run: Run) -> bool:
        return run.phase is RunPhase.RUNNING and self._heartbeats.get(run.pipeline) is not None

    def _note_caught_up(self, run_id: str) -> None:
        self._to_catch_up.discard(run_id)
        if not self._to_catch_up:
            self.caught_up.set()

    async def _reconcile(self, run_id: str) -> float | None:
        await self._no_tick_due.wait()
        try:
            await self._judge(run_id)
        except Unavailable:
            raise
        except Exception:
            self._note_caught_up(run_id)  # one failing run must not keep the history waiting
            raise
        self._note_caught_up(run_id)
        return None

    async def _judge(self, run_id: str) -> None:
        stored = self._active.get(run_id) or await self._runs.find(run_id)
        if stored is None:
            return
        run, now = stored.record, self._clock.now()
        if (heartbeat := self._heartbeats.get(run.pipeline)) is not None:
            for ping in pings(run, heartbeat.record.created_at, now):
                await self._store.create(keys.message(self._node, ping.id), dump(ping))
        await self._apply(run.pipeline, lambda health: judge(health, run, self._clock.now()))
        if run.phase in RUN_ENDED:
            self._judged[run_id] = None
            if len(self._judged) > MAX_REMEMBERED:
                self._judged.popitem(last=False)

    async def check_late(self) -> None:
        """Raise and end the alarms about runs that did not start in time."""
        await self._healths.synced.wait()
        now = self._clock.now()
        late = late_runs((stored.record for _, stored in self._active.items()), now, self._late_after)
        open_alarms = {name for name, stored in self._healths.items() if stored.record.late is not None}
        for pipeline in sorted(late.keys() | open_alarms):
            await self._apply(pipeline, functools.partial(judge_late, late=late.get(pipeline), now=now))

    async def _apply(self, pipeline: str, decide: Callable[[PipelineHealth], Change | None]) -> None:
        """Write what `decide` changes in one transaction; it is called again after a lost race."""
        mirrored = self._healths.get(pipeline)
        known = PipelineHealth(pipeline=pipeline) if mirrored is None else mirrored.record
        if decide(known) is None:
            return

        async def attempt() -> bool | None:
            stored = await self._health_records.get(pipeline)
            before = PipelineHealth(pipeline=pipeline) if stored is None else stored.record
            change = decide(before)
            if change is None:
                return True
            checks, writes = await self._alarm_changes(change)
            key = self._health_records.prefix + pipeline
            checks.append(Check(key, 0 if stored is None else stored.revision))
            revision = await self._store.transact(checks, [Put(key, dump(change.health)), *writes])
            if revision is None:
                return None
            self._healths.note(pipeline, change.health, revision)
            for alarm in change.raised:
                log.warning("alarm.raised", alarm=alarm.id, kind=alarm.kind, detail=alarm.detail)
            return True

        await retry_lost(attempt, f"the state of the pipeline {pipeline!r}")

    async def _alarm_changes(self, change: Change) -> tuple[list[Check], list[Write]]:
        """Return the checks and writes for the alarms; an alarm that is gone is not written again."""
        checks: list[Check] = []
        writes: list[Write] = []
        for alarm in change.raised:
            key = self._alarms.prefix + alarm.id
            if await self._store.get(key) is None:
                checks.append(Check(key, 0))
                writes += await alarm_writes(self._store, self._node, key, alarm, self._clock.now())
        for alarm_id, fields in sorted(change.changed.items()):
            stored = await self._alarms.find(alarm_id)
            if stored is not None:
                key = self._alarms.prefix + alarm_id
                checks.append(Check(key, stored.revision))
                writes.append(Put(key, dump(stored.record.model_copy(update=dict(fields)))))
        return checks, writes
