"""The run documents that ticks, summaries and people's requests begin with: pure."""

from __future__ import annotations

import hashlib
from datetime import datetime

from mao_shared.models.enrolment import Enrolment
from mao_shared.models.models_pipeline import Overlap
from mao_shared.models.run import MissedWhy, Run, StepRun, Trigger, tick_run_id
from mao_shared.models.schedule import Schedule
from mao_shared.states import RunPhase

from .due import Summary, Tick


def resolve(enrolment: Enrolment) -> list[StepRun]:
    """The steps of a new run, as the node has agreed to them."""
    return [StepRun(spec=step) for step in enrolment.steps]


def tick_run(schedule: Schedule, tick: Tick, enrolment: Enrolment | None, node: str, now: datetime) -> Run:
    """The document of a tick: queued, or missed with its reason.

    A tick that is caught up waits for its predecessors whatever the overlap policy: with `skip` only one
    of those asked for would run.
    """
    if tick.missed is not None:
        return _missed(schedule, tick.at, node, now, tick.missed, tick.reason or "")
    if enrolment is None:
        reason = f"The pipeline {schedule.pipeline!r} is no longer enrolled on this node."
        return _missed(schedule, tick.at, node, now, "not-enrolled", reason)
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
    """A run that waits for its turn, with the enrolment's steps resolved into it."""
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
        steps=resolve(enrolment),
        request_id=request_id,
    )


def summary_run(schedule: Schedule, summary: Summary, node: str, now: datetime) -> Run:
    """One missed record for many ticks; its id is none of theirs, so that each can still be run."""
    run = _missed(schedule, summary.covers.until, node, now, summary.missed, summary.reason)
    text = f"{schedule.id}\n{summary.covers.since.isoformat()}\n{summary.covers.until.isoformat()}"
    digest = hashlib.sha256(text.encode()).hexdigest()
    stem = run.id.rsplit("-", 1)[0]
    return run.model_copy(update={"id": f"{stem}-{digest[:8]}", "covers": summary.covers})


def _missed(
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
