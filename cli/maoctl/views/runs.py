"""Tables of runs, steps, jobs and checks, and the summary of a run."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from mao_shared.states import RunPhase, StepPhase
from maoctl.output import Column, Document, TableView
from maoctl.text import one_line, plain, relative, short_commit, took

if TYPE_CHECKING:
    from mao_shared import models
    from mao_shared.models import check, run

_STARTED = (StepPhase.PREPARING, StepPhase.READY, StepPhase.STARTING, StepPhase.RUNNING)
_ENDED = (StepPhase.SUCCEEDED, StepPhase.FAILED, StepPhase.CANCELLED, StepPhase.LOST)
_DONE = (StepPhase.SUCCEEDED, StepPhase.SKIPPED)
_VOTED = re.compile(r"ground-truth is for (\d+) nodes to agree on, it is not moved by one")


def _error(run: models.Run) -> run.Failure | None:
    """Return the run's error, or that of a step that is being retried."""
    return run.error or next((step.error for step in run.steps if step.error), None)


def _reason(run: models.Run, _now: datetime) -> str:
    error = _error(run)
    waiting = next((step.waiting for step in run.steps if step.waiting), None)
    why = (error.detail if error else None) or run.reason or waiting or ""
    return one_line(_reword_vote(why) if run.phase is RunPhase.SUCCEEDED else why)


def _reword_vote(reason: str) -> str:
    """Reword that ground truth is decided by a vote, which is not a fault of a successful run."""
    return _VOTED.sub(r"for \1 nodes to vote", reason)


def _step_duration(step: models.StepRun, now: datetime) -> str:
    start = next((step.times[phase] for phase in _STARTED if phase in step.times), None)
    end = next((step.times[phase] for phase in _ENDED if phase in step.times), None)
    return took(start, end, now)


def _step_note(step: models.StepRun, _now: datetime) -> str:
    not_pushed = "not pushed yet" if step.snapshot and not step.pushed else ""
    why = (step.error.detail if step.error else None) or step.waiting or not_pushed
    return one_line(_reword_vote(why) if step.phase is StepPhase.SUCCEEDED else why)


def _exit(step: models.StepRun, _now: datetime) -> str:
    if step.exit is None:
        return ""
    word = "out of memory" if step.exit.oom else "timed out" if step.exit.timed_out else ""
    return f"{step.exit.code} {word}".rstrip()


def _seconds(run: models.Run) -> float | None:
    """Return how long a run took; None if it has not ended."""
    if run.started_at is None or run.finished_at is None:
        return None
    return (run.finished_at - run.started_at).total_seconds()


RUN: TableView[models.Run] = TableView(
    "run",
    [
        Column("ID", lambda run, _: run.id, keep_whole=True),
        Column("PIPELINE", lambda run, _: run.pipeline, wide=True),
        Column("PHASE", lambda run, _: run.phase, keep_whole=True),
        Column(
            "STEPS",
            lambda run, _: f"{sum(step.phase in _DONE for step in run.steps)}/{len(run.steps)}",
            spare=3,
        ),
        Column("TRIGGER", lambda run, _: run.trigger, spare=2),
        Column(
            "AGE",
            lambda run, now: relative(run.created_at, now),
            keep_whole=True,
            sort=lambda run: run.created_at,
        ),
        Column(
            "DURATION",
            lambda run, now: took(run.started_at, run.finished_at, now),
            keep_whole=True,
            sort=_seconds,
            spare=1,
        ),
        Column("TICK", lambda run, _: run.scheduled_for, wide=True, keep_whole=True),
        Column("NODE", lambda run, _: run.node, wide=True),
        Column("REASON", _reason),
    ],
    lambda run: run.id,
    lambda run: run.scheduled_for or run.created_at,
)


def _current_step(run: models.Run, _now: datetime) -> str:
    index = run.current()
    return "" if index is None else run.steps[index].spec.name


ACTIVE_RUN: TableView[models.Run] = TableView(
    "run",
    [
        Column("RUN", lambda run, _: run.id, keep_whole=True),
        Column("PHASE", lambda run, _: run.phase, keep_whole=True),
        Column("STEP", _current_step),
        Column("DURATION", lambda run, now: took(run.started_at, run.finished_at, now), keep_whole=True),
        Column("WAITING FOR", _reason),
    ],
    lambda run: run.id,
    lambda run: run.scheduled_for or run.created_at,
)
STEP: TableView[models.StepRun] = TableView(
    "step",
    [
        Column("STEP", lambda step, _: step.spec.name, keep_whole=True),
        Column("TOOL", lambda step, _: step.spec.tool, spare=3),
        Column("DATASET", lambda step, _: step.spec.output.name),
        Column("PHASE", lambda step, _: step.phase, keep_whole=True),
        Column("ATTEMPT", lambda step, _: step.attempt, spare=2),
        Column("DURATION", _step_duration, keep_whole=True),
        Column("EXIT", _exit),
        Column("SNAPSHOT", lambda step, _: short_commit(step.snapshot), keep_whole=True, spare=1),
        Column("IMAGE", lambda step, _: step.spec.image.pinned, wide=True),
        Column("NOTE", _step_note),
    ],
    lambda step: step.spec.name,
)


@dataclass(frozen=True)
class StepCheck:
    """The result of a data check of a step."""

    step: str
    result: check.CheckResult


def step_checks(run: models.Run) -> list[StepCheck]:
    """Return the results of the data checks of all steps."""
    return [StepCheck(step.spec.name, result) for step in run.steps for result in step.checks]


STEP_CHECK: TableView[StepCheck] = TableView(
    "check-result",
    [
        Column("STEP", lambda found, _: found.step, spare=1),
        Column("CHECK", lambda found, _: found.result.name, keep_whole=True),
        Column("RESULT", lambda found, _: "passed" if found.result.passed else "failed", keep_whole=True),
        Column("ON FAILURE", lambda found, _: found.result.on_failure, keep_whole=True),
        Column("DETAIL", lambda found, _: found.result.detail, fold=True),
    ],
    lambda found: f"{found.step}/{found.result.name}",
)


def _compared(run: models.Run) -> str:
    """Return the result of a reproduction as counts of files."""
    found = next((step.reproduced for step in run.steps if step.reproduced), None)
    if found is None:
        return ""
    kinds = {"different": found.different, "missing": found.missing, "extra": found.extra}
    counts = [f"{len(paths)} {kind}" for kind, paths in kinds.items() if paths]
    return ", ".join([f"{found.identical} identical", *counts])


def _quarantined(run: models.Run) -> str:
    """Return the snapshots that are quarantined, with the command that shows each."""
    waiting = [step for step in run.steps if step.quarantine and step.quarantine.state == "waiting"]
    return "; ".join(
        f"maoctl dataset quarantine show {step.spec.output.name} {short_commit(step.quarantine.commit)}"
        for step in waiting
        if step.quarantine is not None
    )


def run_facts(run: models.Run, now: datetime) -> list[tuple[str, str]]:
    """Return the summary of a run as names and values."""
    error = _error(run)
    cancelled = run.cancel and (run.cancel.reason or run.cancel.requested_at)
    facts = {
        "run": run.id,
        "pipeline": run.pipeline,
        "node": run.node,
        "phase": run.phase,
        "trigger": run.trigger,
        "tick": run.scheduled_for,
        "job": run.schedule,
        "retry of": run.retry_of,
        "reproduces": run.reproduces and run.reproduces.run,
        "compared": _compared(run),
        "quarantined": _quarantined(run),
        "created": run.created_at,
        "duration": took(run.started_at, run.finished_at, now),
        "reason": run.reason,
        "cancelled": cancelled,
        "error": error and error.detail,
        "fault": error and error.fault,
        "next": error and error.next,
    }
    return [(name, plain(value)) for name, value in facts.items()]


VERIFICATION: TableView[run.Verification] = TableView(
    "verification",
    [
        Column("RUN", lambda found, _: found.run, keep_whole=True),
        Column("OK", lambda found, _: found.ok),
        Column("FILES", lambda found, _: found.files),
        Column("BYTES", lambda found, _: found.bytes),
    ],
    lambda found: found.run,
)


JOB: TableView[models.Job] = TableView(
    "job",
    [
        Column("ID", lambda job, _: job.id, keep_whole=True),
        Column("PIPELINE", lambda job, _: job.pipeline, spare=3),
        Column("CRON", lambda job, _: job.cron, keep_whole=True),
        Column("TIMEZONE", lambda job, _: job.timezone, spare=1),
        Column("STATE", lambda job, _: "paused" if job.paused else "active"),
        Column("NEXT", lambda job, now: relative(job.next, now), keep_whole=True, sort=lambda job: job.next),
        Column("LAST PHASE", lambda job, _: job.last and job.last.phase),
        Column(
            "AGE",
            lambda job, now: relative(job.created_at, now),
            keep_whole=True,
            sort=lambda job: job.created_at,
            spare=2,
        ),
        Column("CATCH UP", lambda job, _: job.catch_up, wide=True),
        Column("DEADLINE", lambda job, _: job.start_deadline, wide=True),
        Column("OVERLAP", lambda job, _: job.overlap, wide=True),
    ],
    lambda job: job.id,
    lambda job: job.created_at,
)
SCHEDULE: TableView[models.Schedule] = TableView(
    "job", [Column("ID", lambda schedule, _: schedule.id)], lambda schedule: schedule.id
)


def time_facts(times: Iterable[datetime], now: datetime, zone: str) -> list[tuple[str, str]]:
    """Return future times on the clock of a zone, in UTC if it is not known here; each with how far away."""
    try:
        clock: tzinfo = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError):
        clock = UTC
    return [(_on_clock(time, clock), relative(time, now)) for time in times]


def _on_clock(time: datetime, clock: tzinfo) -> str:
    there = time.astimezone(clock)
    return f"{plain(time) if there.tzname() == 'UTC' else there.isoformat()} {there:%a}"


@dataclass(frozen=True)
class CheckRow:
    """The result of a check. `state`: ok, failed or another word; `next`: what to do about it."""

    name: str
    state: str
    detail: str
    next: str

    def document(self) -> Document:
        return asdict(self)


CHECK: TableView[CheckRow] = TableView(
    "check",
    [
        Column("CHECK", lambda check, _: check.name, keep_whole=True),
        Column("STATE", lambda check, _: check.state, keep_whole=True),
        Column("DETAIL", lambda check, _: check.detail, fold=True),
        Column("NEXT", lambda check, _: check.next, fold=True),
    ],
    lambda check: check.name,
)
