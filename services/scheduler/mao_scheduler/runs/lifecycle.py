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

MAX_YIELDED = (
    1000  # runs of a pipeline that wait for rounds or catch up with them, beside the one at its turn
)

FULL_RETRY = 30.0  # seconds until it is asked again whether there are fewer of them
YIELD_RETRY = 1.0  # seconds until it is asked again whether a step that reads ground truth has to wait


def must_yield(run: Run) -> bool:
    """Whether a run has to wait before a step that reads ground truth, as the data manager says.

    For its round, for its dataset behind others that waited for theirs, for room on the disk: whatever it is,
    the observations of the next ticks do not wait with it.
    """
    index = run.active_step()
    if index is None or not may_yield(run):
        return False
    return run.steps[index].phase is StepPhase.PREPARING and run.steps[index].waiting is not None


@dataclass(frozen=True, slots=True)
class Decision:
    """`run`: the document to write, if any. `replaced`: ids of the runs that have to be cancelled first.

    `again`: seconds after which to decide anew, where no event will say so. `yields`: whether the run gives
    its turn back. `holder`: the run whose having the turn all of it rests on.
    """

    run: Run | None = None
    replaced: Sequence[str] = ()
    again: float | None = None
    yields: bool = False
    holder: str | None = None


NOTHING = Decision()


def decide(run: Run, blockers: Sequence[Run], now: datetime, *, beside: int = 0) -> Decision:
    """The run's next document. `blockers`: the run at the pipeline's turn, and those that waited earlier.

    `beside`: how many more runs of the pipeline are running, which have no turn any more.
    """
    if run.phase is RunPhase.QUEUED:
        return _decide_queued(run, blockers, now, full=beside >= MAX_YIELDED)
    if run.phase is RunPhase.RUNNING:
        return _decide_running(run, now, full=beside >= MAX_YIELDED)
    return NOTHING


def _decide_queued(run: Run, blockers: Sequence[Run], now: datetime, *, full: bool) -> Decision:
    if run.cancel is not None:
        return Decision(_end(run, RunPhase.CANCELLED, now, reason=_cancel_reason(run)))
    if not blockers:
        return Decision(start_run(run, now))
    other = blockers[0]
    overlap = run.overlap if run.trigger == "schedule" else "queue"
    holder = other.id if other.phase is RunPhase.RUNNING else None
    if overlap != "queue" and not full and may_yield(other):
        return Decision(again=YIELD_RETRY)
    if overlap == "skip":
        full_reason = _full_reason(full=full)
        reason = f"Skipped: the run {other.id} of the same pipeline was still {other.phase}{full_reason}."
        missed = run.move(RunPhase.MISSED, finished_at=now, steps=[], missed="overlap", reason=reason)
        return Decision(missed, holder=holder)
    replaced = [each.id for each in blockers if overlap == "replace" and _replaceable(each)]
    # Said once: to name the run that is now in the way would be a write a queued run at every end.
    reason = f"Waits its turn: the run {other.id} of the same pipeline was there first."
    waiting = run.model_copy(update={"reason": reason}) if run.reason is None else None
    return Decision(waiting, replaced, holder=holder)


def _full_reason(*, full: bool) -> str:
    return f", and {MAX_YIELDED} earlier ones wait for ground truth" if full else ""


def _replaceable(other: Run) -> bool:
    """What a person asked for and has not begun yet is waited for."""
    asked_for = other.phase is RunPhase.QUEUED and other.trigger != "schedule"
    return other.cancel is None and not asked_for


def start_run(run: Run, now: datetime) -> Run:
    """The run with its first step handed to the data manager."""
    begun = run.move(RunPhase.RUNNING, started_at=now, reason=None)
    return begun.with_step(0, begun.steps[0].move(StepPhase.PREPARING, now))


def may_yield(run: Run) -> bool:
    """Whether it is still open if a run at work has to wait for ground truth: its next step has not begun.

    A back-off is none of that: the run is at its tick's work, and tries again as its operator wants it.
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
        return NOTHING
    return Decision(again=FULL_RETRY) if full else Decision(yields=True)


def _decide_pending(run: Run, index: int, now: datetime) -> Decision:
    step = run.steps[index]
    if run.cancel is not None:
        cancelled = run.with_step(index, step.move(StepPhase.CANCELLED, now))
        return Decision(_end(cancelled, RunPhase.CANCELLED, now, reason=_cancel_reason(run)))
    if step.not_before is not None and _in_backoff(step, now):
        return Decision(again=(step.not_before - now).total_seconds())
    return Decision(run.with_step(index, step.move(StepPhase.PREPARING, now)))


def _in_backoff(step: StepRun, now: datetime) -> bool:
    """Whether its back-off goes on; a clock that was set back behind its beginning must not prolong it."""
    began = step.times.get(StepPhase.PENDING, now)
    return step.not_before is not None and began <= now < step.not_before


def _decide_failed(run: Run, index: int, now: datetime) -> Decision:
    step = run.steps[index]
    if run.cancel is not None:
        return Decision(_end(run, RunPhase.CANCELLED, now, reason=_cancel_reason(run)))
    if _may_retry(step):
        again = _next_attempt(step, now)
        return Decision(run.with_step(index, again), again=backoff(step))
    phase = RunPhase.LOST if step.phase is StepPhase.LOST else RunPhase.FAILED
    return Decision(_end(run, phase, now, error=_failure(step)))


def _fault(step: StepRun) -> Fault:
    if step.error is not None:
        return step.error.fault
    return "engine" if step.phase is StepPhase.LOST else "infrastructure"


def _failure(step: StepRun) -> Failure:
    if step.error is not None:
        return step.error
    detail = f"The step {step.spec.name!r} ended as {step.phase} without saying why."
    return Failure(code=f"step-{step.phase}", detail=detail, fault=_fault(step))


def _may_retry(step: StepRun) -> bool:
    retry = step.spec.retry
    return step.attempt < retry.attempts and _fault(step) in retry.on


def backoff(step: StepRun) -> float:
    """Seconds before the next attempt: doubled each time, at most a day."""
    return min(step.spec.retry.backoff * 2.0 ** (step.attempt - 1), MAX_BACKOFF)


def _next_attempt(step: StepRun, now: datetime) -> StepRun:
    """The step as pending again, with nothing left of the attempt that failed but the reason to wait."""
    fresh = carry_unknown_fields(step, StepRun(spec=step.spec, phase=step.phase, attempt=step.attempt + 1))
    waiting = f"Tries again after: {_failure(step).detail}"
    not_before = now + timedelta(seconds=backoff(step))
    return fresh.move(StepPhase.PENDING, now, not_before=not_before).model_copy(update={"waiting": waiting})


def _end(
    run: Run, phase: RunPhase, now: datetime, *, error: Failure | None = None, reason: str | None = None
) -> Run:
    """The run ended, with the steps that will not be run marked as skipped."""
    steps = [
        step.move(StepPhase.SKIPPED, now) if step.phase is StepPhase.PENDING else step for step in run.steps
    ]
    return run.move(phase, finished_at=now, steps=steps, error=error, reason=reason)


def _skipped_reason(run: Run) -> str | None:
    """What a run that went well left out, and why."""
    said = [f"Step {s.spec.name} was skipped: {s.waiting}" for s in run.steps if s.phase is StepPhase.SKIPPED]
    return "; ".join(said) or None


def _cancel_reason(run: Run) -> str:
    return (run.cancel.reason if run.cancel else "") or "Cancelled."


def is_active(run: Run) -> bool:
    """Which runs the scheduler's mirror keeps."""
    return run.phase not in RUN_ENDED


def may_be_active(phase: object) -> bool:
    """Whether a run may still be at work whose record cannot be read but for its phase.

    A record without any phase is damaged: its pipeline goes on without it.
    """
    return isinstance(phase, str) and phase not in RUN_ENDED and phase != RunPhase.QUEUED
