"""Pure: the next document of a run, from the run, the runs before it and the time.

Phases and their owners are in mao_shared/states.py. The scheduler's part: a queued run starts, waits, is
skipped or replaces another; a step that ended hands over to the next one, is retried or ends the run; a run
that waits for ground truth yields its turn to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from mao_shared.models import Failure, Fault, Run, StepRun
from mao_shared.models.common import carry_unknown_fields
from mao_shared.models.run import PastAttempt
from mao_shared.states import RUN_ENDED, RunPhase, StepPhase

MAX_BACKOFF = 86400.0  # seconds
MAX_YIELDED = 1000  # runs of a pipeline without the turn, which wait for ground truth or catch up
FULL_RETRY = 30.0  # seconds until the number of such runs is checked again
YIELD_RETRY = 1.0  # seconds until it is checked again whether a step has to wait for ground truth


def must_yield(run: Run) -> bool:
    """Return True if a run waits before a step that reads ground truth, as the data manager reports it.

    The observations of the next ticks do not wait, whatever the reason (its round, its dataset, disk space).
    """
    index = run.active_step()
    if index is None or not may_yield(run):
        return False
    return run.steps[index].phase is StepPhase.PREPARING and run.steps[index].waiting is not None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a run.

    Attributes:
        run: the document to write, if any.
        replaced: ids of the runs to cancel first.
        retry_after: seconds until the next decision; None to wait for an event.
        yields: True if the run gives its turn back.
        holder: id of the run with the turn, if the decision depends on it.
    """

    run: Run | None = None
    replaced: Sequence[str] = ()
    retry_after: float | None = None
    yields: bool = False
    holder: str | None = None


NO_CHANGE = Decision()


def decide(run: Run, blockers: Sequence[Run], now: datetime, *, yielded: int = 0) -> Decision:
    """Decide the next document of a run.

    `blockers` are the run with the pipeline's turn and those queued earlier. `yielded` is the number of
    running runs of the pipeline that have given their turn back.
    """
    if run.phase is RunPhase.QUEUED:
        return _decide_queued(run, blockers, now, full=yielded >= MAX_YIELDED)
    if run.phase is RunPhase.RUNNING:
        return _decide_running(run, now, full=yielded >= MAX_YIELDED)
    return NO_CHANGE


def _decide_queued(run: Run, blockers: Sequence[Run], now: datetime, *, full: bool) -> Decision:
    if run.cancel is not None:
        return Decision(_end(run, RunPhase.CANCELLED, now, reason=_cancel_reason(run)))
    if not blockers:
        return Decision(start_run(run, now))
    other = blockers[0]
    overlap = run.overlap if run.trigger == "schedule" else "queue"
    holder = other.id if other.phase is RunPhase.RUNNING else None
    if overlap != "queue" and not full and may_yield(other):
        return Decision(retry_after=YIELD_RETRY)
    if overlap == "skip":
        limit = f", and {MAX_YIELDED} earlier ones wait for ground truth" if full else ""
        reason = f"Skipped: the run {other.id} of the same pipeline was still {other.phase}{limit}."
        missed = run.move(RunPhase.MISSED, finished_at=now, steps=[], missed="overlap", reason=reason)
        return Decision(missed, holder=holder)
    replaced = [  # a manual run that has not started is waited for
        blocker.id
        for blocker in (blockers if overlap == "replace" else ())
        if blocker.cancel is None and (blocker.phase is not RunPhase.QUEUED or blocker.trigger == "schedule")
    ]
    # Written once: to update it would mean one write per queued run whenever a run ends.
    reason = f"Waits for the run {other.id} of the same pipeline."
    waiting = run.model_copy(update={"reason": reason}) if run.reason is None else None
    return Decision(waiting, replaced, holder=holder)


def start_run(run: Run, now: datetime) -> Run:
    """Return the run as running, with its first step handed to the data manager."""
    started = run.move(RunPhase.RUNNING, started_at=now, reason=None)
    return started.with_step(0, started.steps[0].move(StepPhase.PREPARING, now))


def may_yield(run: Run) -> bool:
    """Return True if the next step of a running run may still have to wait for ground truth.

    A step in back-off does not count: the run is at work, and retries as its operator configured.
    """
    index = run.active_step() if run.phase is RunPhase.RUNNING else None
    if index is None or not run.steps[index].spec.reads_truth:
        return False
    step = run.steps[index]
    return step.phase is StepPhase.PREPARING or (step.phase is StepPhase.PENDING and step.not_before is None)


def _decide_running(run: Run, now: datetime, *, full: bool) -> Decision:
    index = run.current()
    if index is None:
        skipped = [step for step in run.steps if step.phase is StepPhase.SKIPPED]
        reason = "; ".join(f"Step {step.spec.name} was skipped: {step.waiting}" for step in skipped) or None
        return Decision(_end(run, RunPhase.SUCCEEDED, now, reason=reason))
    step = run.steps[index]
    if step.phase is StepPhase.PENDING and run.cancel is None:
        # A clock that was set back must not prolong the back-off.
        if step.not_before and step.times.get(StepPhase.PENDING, now) <= now < step.not_before:
            return Decision(retry_after=(step.not_before - now).total_seconds())
        return Decision(run.with_step(index, step.move(StepPhase.PREPARING, now)))
    if step.phase is StepPhase.PENDING:
        run = run.with_step(index, step.move(StepPhase.CANCELLED, now))
        return Decision(_end(run, RunPhase.CANCELLED, now, reason=_cancel_reason(run)))
    if step.phase is StepPhase.CANCELLED:
        return Decision(_end(run, RunPhase.CANCELLED, now, reason=_cancel_reason(run)))
    if step.phase in (StepPhase.FAILED, StepPhase.LOST):
        return _decide_failed(run, index, now)
    if not must_yield(run):
        return NO_CHANGE
    return Decision(retry_after=FULL_RETRY) if full else Decision(yields=True)


def _decide_failed(run: Run, index: int, now: datetime) -> Decision:
    step = run.steps[index]
    if run.cancel is not None:
        return Decision(_end(run, RunPhase.CANCELLED, now, reason=_cancel_reason(run)))
    if step.attempt >= step.spec.retry.attempts or _fault(step) not in step.spec.retry.on:
        phase = RunPhase.LOST if step.phase is StepPhase.LOST else RunPhase.FAILED
        return Decision(_end(run, phase, now, error=_failure(step)))
    past = PastAttempt(
        attempt=step.attempt, times=step.times, exit=step.exit, log_bytes=step.log_bytes, error=step.error
    )
    next_attempt = StepRun(
        spec=step.spec, phase=step.phase, attempt=step.attempt + 1, earlier=[*step.earlier, past]
    )
    fresh = carry_unknown_fields(step, next_attempt)
    not_before = now + timedelta(seconds=backoff(step))
    retried = fresh.move(StepPhase.PENDING, now, not_before=not_before)
    retried = retried.model_copy(update={"waiting": f"Retries after: {_failure(step).detail}"})
    return Decision(run.with_step(index, retried), retry_after=backoff(step))


def _fault(step: StepRun) -> Fault:
    if step.error is not None:
        return step.error.fault
    return "engine" if step.phase is StepPhase.LOST else "infrastructure"


def _failure(step: StepRun) -> Failure:
    if step.error is not None:
        return step.error
    detail = f"The step {step.spec.name!r} ended as {step.phase} without an error."
    return Failure(code=f"step-{step.phase}", detail=detail, fault=_fault(step))


def backoff(step: StepRun) -> float:
    """Return the seconds before the next attempt: doubled each time, at most a day."""
    return min(step.spec.retry.backoff * 2.0 ** (step.attempt - 1), MAX_BACKOFF)


def _end(
    run: Run, phase: RunPhase, now: datetime, *, error: Failure | None = None, reason: str | None = None
) -> Run:
    """Return the run as ended, with the steps that were not run as skipped."""
    steps = [
        step.move(StepPhase.SKIPPED, now) if step.phase is StepPhase.PENDING else step for step in run.steps
    ]
    return run.move(phase, finished_at=now, steps=steps, error=error, reason=reason)


def _cancel_reason(run: Run) -> str:
    return (run.cancel.reason if run.cancel else "") or "Cancelled."


def is_active(run: Run) -> bool:
    """Return True if the run has not ended; the scheduler's mirror keeps these."""
    return run.phase not in RUN_ENDED


def may_be_active(phase: object) -> bool:
    """Return True if a run may still be active although only the phase of its record can be read.

    A record without a phase is damaged: its pipeline continues without it.
    """
    return isinstance(phase, str) and phase not in RUN_ENDED and phase != RunPhase.QUEUED
