"""Pure: what a run that started, ended or was missed means for its pipeline, and for the alarms about it.

An alarm is raised when a pipeline's state changes (a run failed, a tick was missed, a run is late), is kept
up to date while that lasts, and ends when it is over. Runs are judged by the time of their end, each once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from mao_shared.models import Alarm, Run, format_time
from mao_shared.models.notification import (
    RUN_FAILED,
    RUN_LATE,
    RUN_MISSED,
    Message,
    PipelineHealth,
    message_id,
)
from mao_shared.states import RUN_ENDED, STEP_ENDED, RunPhase, StepPhase

from .lifecycle import may_yield

CLOCK_SLACK = timedelta(minutes=1)  # a judgement from further in the future was made by a wrong clock
MAX_PING_AGE = timedelta(hours=1)  # later, a ping would say that something was well which may not be
_FAILED = (RunPhase.FAILED, RunPhase.LOST)
_BEGUN = frozenset({StepPhase.STARTING, StepPhase.RUNNING, StepPhase.EXITED})


@dataclass(frozen=True, slots=True)
class Change:
    """The new state of a pipeline, with the alarms to raise, and the fields to change in open ones by id."""

    health: PipelineHealth
    raised: list[Alarm] = field(default_factory=list)
    changed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def judge(health: PipelineHealth, run: Run, now: datetime) -> Change | None:
    """Return what a run changes; None for nothing, as for a run that was judged before."""
    if run.reproduces is not None:
        return None
    if run.phase not in RUN_ENDED or run.finished_at is None:
        return None
    if _was_judged(health, run.id, run.finished_at, now):
        return None
    if run.phase in _FAILED:
        return _failed(health, run, run.finished_at)
    if run.phase is RunPhase.MISSED:
        return None if run.missed == "paused" else _missed(health, run, run.finished_at)
    again = _runs_again(health, run)
    if run.phase is not RunPhase.SUCCEEDED or not health.failures:
        return again
    before = health if again is None else again.health
    changed = dict(again.changed) if again is not None else {}
    if health.failing is not None:
        changed[health.failing] = {"over": run.finished_at}
    recovered = before.model_copy(update={"failures": 0, "failing": None, **_mark(run, run.finished_at)})
    return Change(recovered, changed=changed)


def _was_judged(health: PipelineHealth, run_id: str, ended: datetime, now: datetime) -> bool:
    if health.judged_at is None or health.judged is None:
        return False
    if health.judged_at > now + CLOCK_SLACK:
        return run_id == health.judged
    return (ended, run_id) <= (health.judged_at, health.judged)


def _mark(run: Run, ended: datetime) -> dict[str, Any]:
    return {"judged_at": ended, "judged": run.id}


def _runs_again(health: PipelineHealth, run: Run) -> Change | None:
    """End the alarm about missed ticks by a run that ended without a tick being missed since its start.

    So a schedule that is too fast for its pipeline, where every other tick is missed, has one alarm.
    """
    if health.missed_at is None or run.started_at is None or run.started_at < health.missed_at:
        return None
    after = health.model_copy(update={"missed": 0, "missing": None, "missed_at": None})
    return Change(after, changed={health.missing: {"over": run.finished_at}} if health.missing else {})


def _failed(health: PipelineHealth, run: Run, ended: datetime) -> Change:
    again = _runs_again(health, run)
    before = health if again is None else again.health
    changed = dict(again.changed) if again is not None else {}
    failures = before.failures + 1
    detail = _failure_text(run, failures)
    if health.failing is not None:
        changed[health.failing] = {"count": failures, "detail": detail}
        after = before.model_copy(update={"failures": failures, **_mark(run, ended)})
        return Change(after, changed=changed)
    failed = [step for step in run.steps if step.phase in (StepPhase.FAILED, StepPhase.LOST)]
    alarm = Alarm(
        id=f"{run.id}.{RUN_FAILED}",
        kind=RUN_FAILED,
        node=run.node,
        raised_at=ended,
        pipeline=run.pipeline,
        step=failed[0].spec.name if failed else None,
        run=run.id,
        dataset=failed[0].spec.output.name if failed else None,
        detail=detail,
        service="scheduler",
        next=(run.error.next if run.error else None) or f"See it: maoctl run show {run.id}",
        count=failures,
    )
    after = before.model_copy(update={"failures": failures, "failing": alarm.id, **_mark(run, ended)})
    return Change(after, [alarm], changed)


def _failure_text(run: Run, failures: int) -> str:
    reason = run.error.detail if run.error is not None else run.reason or "no reason is known."
    how = "was lost" if run.phase is RunPhase.LOST else "failed"
    row = f" ({failures} in a row)" if failures > 1 else ""
    return f"Run {run.id} of pipeline {run.pipeline} {how}{row}: {reason}"


def _missed(health: PipelineHealth, run: Run, ended: datetime) -> Change:
    missed = health.missed + (run.covers.count if run.covers is not None else 1)
    tick = format_time(run.scheduled_for) if run.scheduled_for is not None else run.id
    ticks = "A tick" if missed == 1 else f"{missed} ticks"
    last = tick if missed == 1 else f"the last one {tick}"
    detail = f"{ticks} of pipeline {run.pipeline} did not run, {last}: {run.reason or run.missed}"
    update = {"missed": missed, "missed_at": ended, **_mark(run, ended)}
    if health.missing is not None:
        fields = {"count": missed, "detail": detail}
        return Change(health.model_copy(update=update), changed={health.missing: fields})
    alarm = Alarm(
        id=f"{run.id}.{RUN_MISSED}",
        kind=RUN_MISSED,
        node=run.node,
        raised_at=ended,
        pipeline=run.pipeline,
        run=run.id,
        detail=detail,
        service="scheduler",
        next=f"Run missed ticks later: maoctl job backfill {run.schedule}" if run.schedule else None,
        count=missed,
    )
    return Change(health.model_copy(update={**update, "missing": alarm.id}), [alarm])


# Late runs


def late_runs(runs: Iterable[Run], now: datetime, patience: timedelta) -> dict[str, Run]:
    """Return by pipeline the oldest scheduled run whose tool has not started in time.

    A run that waits for ground truth is not late: it waits for other nodes as its pipeline says.
    """
    late: dict[str, Run] = {}
    for run in runs:
        if run.trigger != "schedule" or run.scheduled_for is None or run.reproduces is not None:
            continue
        if now - max(run.scheduled_for, run.created_at) <= patience or _has_begun(run) or may_yield(run):
            continue
        known = late.get(run.pipeline)
        if known is None or (run.created_at, run.id) < (known.created_at, known.id):
            late[run.pipeline] = run
    return late


def _has_begun(run: Run) -> bool:
    first = run.steps[0] if run.steps else None
    if first is None or first.attempt > 1 or first.phase in STEP_ENDED:
        return True
    return not _BEGUN.isdisjoint(first.times)


def judge_late(health: PipelineHealth, late: Run | None, now: datetime) -> Change | None:
    """Return what the oldest late run of a pipeline (None: no run is late) changes; None for nothing."""
    if late is None:
        if health.late is None:
            return None
        return Change(health.model_copy(update={"late": None}), changed={health.late: {"over": now}})
    if health.late is not None or late.scheduled_for is None:
        return None
    waiting = late.reason or (late.steps[0].waiting if late.steps else None)
    alarm = Alarm(
        id=f"{late.id}.{RUN_LATE}",
        kind=RUN_LATE,
        node=late.node,
        raised_at=now,
        pipeline=late.pipeline,
        run=late.id,
        dataset=late.steps[0].spec.output.name if late.steps else None,
        detail=f"The run {late.id} of pipeline {late.pipeline}, due at {format_time(late.scheduled_for)}, "
        f"has not started its tool yet{f': {waiting}' if waiting else '.'}",
        service="scheduler",
        next=f"See it: maoctl run show {late.id}",
    )
    return Change(health.model_copy(update={"late": alarm.id}), [alarm])


# Heartbeats


def pings(run: Run, since: datetime, now: datetime) -> list[Message]:
    """Return the pings about a run, those about events after `since`, when the heartbeat was set.

    A cancelled run counts as failed, and so does one whose output was quarantined: nothing was published. A
    missed tick is not reported; that no ping comes is what the receiver watches for.
    """
    if run.reproduces is not None:
        return []
    events: list[tuple[str, datetime | None]] = [("start", run.started_at)]
    if run.started_at is not None and run.phase is not RunPhase.RUNNING:
        is_well = run.phase is RunPhase.SUCCEEDED and not any(step.quarantine for step in run.steps)
        events.append(("success" if is_well else "fail", run.finished_at))
    return [
        Message(
            id=message_id(run.id, run.pipeline, event),
            channel=run.pipeline,
            event=event,
            about=run.id,
            created_at=at,
        )
        for event, at in events
        if at is not None and at >= since and now - at <= MAX_PING_AGE
    ]
