"""What becomes of runs that were under way in a backup: pure.

Nobody knows how they went on: their tool may have run to its end after the backup was taken, and its
commit may be at the remote, or be lost with the machine. So no tool is started for them again, and no step
is tried again. What the tool had already left is published; the datasets' history corrects the rest.
"""

from __future__ import annotations

from datetime import datetime

from mao_shared.models import Failure, Run, StepRun
from mao_shared.models.restored import RESTORED, unknown_since
from mao_shared.states import RUN_ENDED, RunPhase, StepPhase

_DONE = (StepPhase.SUCCEEDED, StepPhase.SKIPPED, StepPhase.FAILED, StepPhase.CANCELLED, StepPhase.LOST)
_LEFT = (StepPhase.EXITED, StepPhase.PUBLISHING)


def failure(backup_at: datetime) -> Failure:
    return Failure(
        code=RESTORED,
        detail=f"{unknown_since(backup_at)}; it is not run again by itself.",
        next="See what the dataset has of it (maoctl dataset log); run it again if it is wanted.",
        fault="infrastructure",
    )


def after_restore(run: Run, backup_at: datetime, restored_at: datetime) -> Run:
    """The run as it goes into the restored store."""
    if run.phase in RUN_ENDED:
        return run
    if run.phase is RunPhase.QUEUED:
        return _not_begun(run, backup_at, restored_at)
    steps = [_step(step, backup_at, restored_at) for step in run.steps]
    changed = run.model_copy(update={"steps": steps})
    index = changed.current()
    if index is None or steps[index].phase in (*_LEFT, StepPhase.CANCELLED):
        return changed  # goes on to its end, without any tool
    why = steps[index].error or failure(backup_at)
    ended = RunPhase.LOST if steps[index].phase is StepPhase.LOST else RunPhase.FAILED
    return changed.model_copy(update={"phase": ended, "finished_at": restored_at, "error": why})


def _not_begun(run: Run, backup_at: datetime, restored_at: datetime) -> Run:
    if run.trigger == "schedule":
        missed = run.model_copy(update={"phase": RunPhase.MISSED, "finished_at": restored_at})
        return missed.model_copy(
            update={"missed": "late", "reason": f"{unknown_since(backup_at)}.", "steps": []}
        )
    why = failure(backup_at)
    steps = [_moved(step, StepPhase.SKIPPED, restored_at) for step in run.steps]
    ended = run.model_copy(update={"phase": RunPhase.CANCELLED, "finished_at": restored_at})
    return ended.model_copy(update={"error": why, "reason": why.detail, "steps": steps})


def _step(step: StepRun, backup_at: datetime, restored_at: datetime) -> StepRun:
    kept = _no_further_try(step)
    if step.phase in (*_DONE, *_LEFT):
        return kept
    return _moved(kept, StepPhase.LOST, restored_at).model_copy(update={"error": failure(backup_at)})


def _moved(step: StepRun, phase: StepPhase, now: datetime) -> StepRun:
    """In a phase that the diagram may not lead to: this is no move, but what the store begins with."""
    times = {**step.times, phase: now}
    return step.model_copy(update={"phase": phase, "times": times, "waiting": None, "not_before": None})


def _no_further_try(step: StepRun) -> StepRun:
    retry = step.spec.retry.model_copy(update={"attempts": min(step.attempt, step.spec.retry.attempts)})
    return step.model_copy(update={"spec": step.spec.model_copy(update={"retry": retry})})
