"""The components of the scheduler and how they are connected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from fastapi import Request

from mao_shared import keys
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.models import Enrolment, Record, Run, Schedule, TickMark
from mao_shared.models.run import Turn
from mao_shared.models.schedule import Forgotten, Remembered
from mao_shared.reconcile import Mirror, recheck_unreadable
from mao_shared.runs.records import RunRecords
from mao_shared.store import Records, Store, Unreadable
from mao_shared.tracing import Tracing

from .defrag import Defragmenter
from .enrolments import EnrolmentLookup
from .metrics import SchedulerMetrics
from .runs.commands import RunCommands
from .runs.controller import RunController
from .runs.health_monitor import HealthMonitor
from .runs.lifecycle import is_active
from .runs.peer_runs import RunPublisher
from .runs.retention import RetentionPolicy, RunRetention
from .runs.strips import TickStrips
from .runs.stuck import StuckStepMonitor
from .runs.turns import Turns
from .schedules.backfill import Backfill
from .schedules.jobs import JobCommands
from .schedules.marks import TickHistory, TickMarks
from .schedules.timer import Timer
from .settings import SchedulerSettings

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Scheduler:
    """The connected components; `app.state.scheduler` while the app runs."""

    node: str
    store: Store
    clock: Clock
    conditions: Conditions
    unreadable: Unreadable
    schedules: Mirror[Schedule]
    enrolments: Mirror[Enrolment]
    run_mirror: Mirror[Run]
    timer: Timer
    controller: RunController
    retention: RunRetention
    runs: RunCommands
    jobs: JobCommands
    enrolment_lookup: EnrolmentLookup
    backfill: Backfill
    publisher: RunPublisher
    strips: TickStrips
    stuck: StuckStepMonitor
    health: HealthMonitor
    defragmenter: Defragmenter

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Return the loops that run as long as the service."""
        return [
            self.schedules.run(),
            self.enrolments.run(),
            self.run_mirror.run(),
            self.controller.run(),
            self.timer.run(),
            self.retention.run(),
            self.publisher.run(),
            self.stuck.run(),
            self.health.run(),
            self.defragmenter.run(),
            recheck_unreadable(self.unreadable),
        ]


def make_scheduler(
    settings: SchedulerSettings,
    store: Store,
    federation: Store,
    clock: Clock,
    metrics: SchedulerMetrics,
    conditions: Conditions | None = None,
    tracing: Tracing | None = None,
) -> Scheduler:
    """Create and connect the components; nothing runs yet."""
    node = settings.node
    conditions = conditions or Conditions(clock)
    unreadable = Unreadable(conditions)

    def make_mirror(records: Records[R], keep: Callable[[R], bool] = lambda _: True) -> Mirror[R]:
        return Mirror(records, keep, conditions=conditions)

    schedules = make_mirror(Records(store, keys.schedules_prefix(node), Schedule, unreadable))
    enrolments = make_mirror(Records(store, keys.enrolments_prefix(node), Enrolment, unreadable))
    runs = RunRecords(store, node, unreadable)
    mirror = make_mirror(runs, is_active)
    ticks = Records(store, keys.ticks_prefix(node), TickMark, unreadable)
    forgotten = Records(store, keys.forgotten_prefix(node), Forgotten, unreadable)
    history = TickHistory(forgotten, Records(store, keys.remembered_prefix(node), Remembered, unreadable))
    marks = TickMarks(ticks, conditions)
    lookup = EnrolmentLookup(enrolments.records, federation)
    turns = Turns(Records(store, keys.turns_prefix(node), Turn, unreadable), mirror)
    no_tick_due = asyncio.Event()
    no_tick_due.set()
    timer = Timer(
        node, schedules, enrolments, mirror, marks, clock, metrics, no_tick_due, forgotten, runs, conditions
    )
    jobs = JobCommands(node, schedules, runs, marks, lookup, clock, timer.record_pause)
    health = HealthMonitor(mirror, runs, clock, settings.late_after, no_tick_due, unreadable, conditions)
    policy = RetentionPolicy(
        settings.keep_runs, timedelta(days=settings.keep_days), timedelta(seconds=settings.settle_after)
    )
    strips = TickStrips(node, mirror, runs, schedules, enrolments, marks, settings.late_after, clock)
    return Scheduler(
        node=node,
        store=store,
        clock=clock,
        conditions=conditions,
        unreadable=unreadable,
        schedules=schedules,
        enrolments=enrolments,
        run_mirror=mirror,
        timer=timer,
        controller=RunController(mirror, turns, clock, metrics, no_tick_due, conditions, tracing),
        retention=RunRetention(
            runs,
            schedules.records,
            ticks,
            history,
            policy,
            settings.retention_interval,
            clock,
            no_tick_due,
            conditions,
            after=health.caught_up,
        ),
        runs=RunCommands(mirror, runs, lookup, clock),
        jobs=jobs,
        enrolment_lookup=lookup,
        backfill=Backfill(node, jobs, mirror, runs, history, lookup, clock),
        publisher=RunPublisher(
            node,
            mirror,
            runs,
            schedules,
            enrolments,
            marks,
            federation,
            clock,
            conditions,
            unreadable,
            strips,
        ),
        strips=strips,
        stuck=StuckStepMonitor(mirror, conditions, clock, settings.stuck_after),
        health=health,
        defragmenter=Defragmenter(store, timer.next_due, clock, conditions),
    )


async def get_scheduler(request: Request) -> Scheduler:
    """Return the scheduler of the app that serves this request (FastAPI dependency)."""
    scheduler = request.app.state.scheduler
    if not isinstance(scheduler, Scheduler):
        raise TypeError("the app was not made by make_app")
    return scheduler
