"""Pure: the next document of a run, from the run, the runs before it and the time.

Phases and their owners are in mao_shared/states.py. The scheduler's part: a queued run starts, waits, is
skipped or replaces another; a step that ended hands over to the next one, is retried or ends the run; a run
that waits for ground truth yields its turn to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from mao_shared.models.common import carry_unknown_fields
from mao_shared.models.pipeline import Fault
from mao_shared.models.run import Failure, Run, StepRun
from mao_shared.states import RUN_ENDED, RunPhase, StepPhase

MAX_BACKOFF = 86400.0  # seconds

MAX_YIELDED = 1000  # runs of a pipeline without turn: they wait for ground truth or catch up

FULL_RETRY = 30.0  # seconds until their number is checked again
YIELD_RETRY = 1.0  # seconds until it is checked again whether a step has to wait for ground truth


def must_yield(run: Run) -> bool:
    """Whether a run waits before a step that reads ground truth, according to the data manager.

    Whatever the reason (its round, its dataset, disk space), the observations of the next ticks do not wait.
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
        replaced: ids of the runs to be cancelled first.
        retry_after: seconds after which to decide again, if no event will tell.
        yields: whether the run gives its turn back.
        holder: id of the run with the turn, if the decision depends on that.
    """

    run: Run | None = None
    replaced: Sequence[str] = ()
    retry_after: float | None = None
    yields: bool = False
    holder: str | None = None


NO_CHANGE = Decision()


def decide(run: Run, blockers: Sequence[Run], now: datetime, *, yielded: int = 0) -> Decision:
    """The next document of a run.

    `blockers`: the run with the pipeline's turn, and those queued earlier. `yielded`: number of running runs
    of the pipeline that have given their turn back.
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
    replaced = [each.id for each in blockers if overlap == "replace" and _replaceable(each)]
    # Written once: to name the current blocker would be one write per queued run at every end of a run.
    reason = f"Waits for the run {other.id} of the same pipeline."
    waiting = run.model_copy(update={"reason": reason}) if run.reason is None else None
    return Decision(waiting, replaced, holder=holder)


def _replaceable(other: Run) -> bool:
    """A manual run that has not started is waited for, not replaced."""
    is_manual = other.phase is RunPhase.QUEUED and other.trigger != "schedule"
    return other.cancel is None and not is_manual


def start_run(run: Run, now: datetime) -> Run:
    """The run as running, with its first step handed to the data manager."""
    started = run.move(RunPhase.RUNNING, started_at=now, reason=None)
    return started.with_step(0, started.steps[0].move(StepPhase.PREPARING, now))


def may_yield(run: Run) -> bool:
    """Whether it is undecided if a running run has to wait for ground truth: its next step has not started.

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
        return Decision(_end(run, RunPhase.SUCCEEDED, now, reason=_skipped_reason(run)))
    step = run.steps[index]
    if step.phase is StepPhase.PENDING:
        return _decide_pending(run, index, now)
    if step.phase is StepPhase.CANCELLED:
        return Decision(_end(run, RunPhase.CANCELLED, now, reason=_cancel_reason(run)))
    if step.phase in (StepPhase.FAILED, StepPhase.LOST):
        return _decide_failed(run, index, now)
    if not must_yield(run):
        return NO_CHANGE
    return Decision(retry_after=FULL_RETRY) if full else Decision(yields=True)


def _decide_pending(run: Run, index: int, now: datetime) -> Decision:
    step = run.steps[index]
    if run.cancel is not None:
        cancelled = run.with_step(index, step.move(StepPhase.CANCELLED, now))
        return Decision(_end(cancelled, RunPhase.CANCELLED, now, reason=_cancel_reason(run)))
    if step.not_before is not None and _in_backoff(step, now):
        return Decision(retry_after=(step.not_before - now).total_seconds())
    return Decision(run.with_step(index, step.move(StepPhase.PREPARING, now)))


def _in_backoff(step: StepRun, now: datetime) -> bool:
    """Whether its back-off continues; a clock that was set back must not prolong it."""
    started = step.times.get(StepPhase.PENDING, now)
    return step.not_before is not None and started <= now < step.not_before


def _decide_failed(run: Run, index: int, now: datetime) -> Decision:
    step = run.steps[index]
    if run.cancel is not None:
        return Decision(_end(run, RunPhase.CANCELLED, now, reason=_cancel_reason(run)))
    retry = step.spec.retry
    if step.attempt < retry.attempts and _fault(step) in retry.on:
        retried = _next_attempt(step, now)
        return Decision(run.with_step(index, retried), retry_after=backoff(step))
    phase = RunPhase.LOST if step.phase is StepPhase.LOST else RunPhase.FAILED
    return Decision(_end(run, phase, now, error=_failure(step)))


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
    """Seconds before the next attempt: doubled each time, at most a day."""
    return min(step.spec.retry.backoff * 2.0 ** (step.attempt - 1), MAX_BACKOFF)


def _next_attempt(step: StepRun, now: datetime) -> StepRun:
    """The step as pending again, without anything of the failed attempt but its error."""
    fresh = carry_unknown_fields(step, StepRun(spec=step.spec, phase=step.phase, attempt=step.attempt + 1))
    waiting = f"Retries after: {_failure(step).detail}"
    not_before = now + timedelta(seconds=backoff(step))
    return fresh.move(StepPhase.PENDING, now, not_before=not_before).model_copy(update={"waiting": waiting})


def _end(
    run: Run, phase: RunPhase, now: datetime, *, error: Failure | None = None, reason: str | None = None
) -> Run:
    """The run as ended, with steps that were not run as skipped."""
    steps = [
        step.move(StepPhase.SKIPPED, now) if step.phase is StepPhase.PENDING else step for step in run.steps
    ]
    return run.move(phase, finished_at=now, steps=steps, error=error, reason=reason)


def _skipped_reason(run: Run) -> str | None:
    """The steps that a successful run skipped, and why."""
    reasons = [
        f"Step {s.spec.name} was skipped: {s.waiting}" for s in run.steps if s.phase is StepPhase.SKIPPED
    ]
    return "; ".join(reasons) or None


def _cancel_reason(run: Run) -> str:
    return (run.cancel.reason if run.cancel else "") or "Cancelled."


def is_active(run: Run) -> bool:
    """Whether the run has not ended; the scheduler's mirror keeps these."""
    return run.phase not in RUN_ENDED


def may_be_active(phase: object) -> bool:
    """Whether a run may still be active of whose record only the phase can be read.

    A record without a phase is damaged: its pipeline continues without it.
    """
    return isinstance(phase, str) and phase not in RUN_ENDED and phase != RunPhase.QUEUED
