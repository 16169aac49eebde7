"""Phases of runs and steps, and which service moves them where.

run    queued ─► running ─► succeeded | failed | cancelled | lost
       missed                       (a tick that was not run; a backfill queues it: missed ─► queued)

step   pending ─► preparing ─► ready ─► starting ─► running ─► exited ─► publishing ─► succeeded
       owner:
       scheduler  datamgmt     runner   runner      runner     datamgmt  datamgmt
       (any) ─► failed | cancelled                            (the container is gone) ─► lost
       failed | lost ─► pending                               (the scheduler retries)
       pending ─► skipped                                     (the run ended before it)
       preparing ─► skipped                                   (no ground truth to read in time)

Only the owner of a phase moves a step out of it, so it also handles a cancellation that arrives meanwhile.
"""

from __future__ import annotations

from enum import StrEnum


class RunPhase(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    MISSED = "missed"
    LOST = "lost"


class StepPhase(StrEnum):
    PENDING = "pending"
    PREPARING = "preparing"
    READY = "ready"
    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"
    PUBLISHING = "publishing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    LOST = "lost"


class Owner(StrEnum):
    SCHEDULER = "scheduler"
    DATAMGMT = "datamgmt"
    RUNNER = "runner"


_R, _S = RunPhase, StepPhase
RUN_TRANSITIONS: dict[RunPhase, frozenset[RunPhase]] = {
    _R.QUEUED: frozenset({_R.RUNNING, _R.CANCELLED, _R.MISSED}),
    _R.RUNNING: frozenset({_R.SUCCEEDED, _R.FAILED, _R.CANCELLED, _R.LOST}),
    _R.SUCCEEDED: frozenset(),
    _R.FAILED: frozenset(),
    _R.CANCELLED: frozenset(),
    _R.MISSED: frozenset({_R.QUEUED}),
    _R.LOST: frozenset(),
}
_STOPPED = frozenset({_S.FAILED, _S.CANCELLED})
STEP_TRANSITIONS: dict[StepPhase, frozenset[StepPhase]] = {
    _S.PENDING: frozenset({_S.PREPARING, _S.SKIPPED}) | _STOPPED,
    _S.PREPARING: frozenset({_S.READY, _S.SKIPPED}) | _STOPPED,
    _S.READY: frozenset({_S.STARTING}) | _STOPPED,
    _S.STARTING: frozenset({_S.RUNNING, _S.EXITED, _S.LOST}) | _STOPPED,
    _S.RUNNING: frozenset({_S.EXITED, _S.LOST}) | _STOPPED,
    _S.EXITED: frozenset({_S.PUBLISHING}) | _STOPPED,
    _S.PUBLISHING: frozenset({_S.SUCCEEDED}) | _STOPPED,
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset({_S.PENDING}),
    _S.CANCELLED: frozenset(),
    _S.SKIPPED: frozenset(),
    _S.LOST: frozenset({_S.PENDING}),
}
STEP_OWNER: dict[StepPhase, Owner] = {
    _S.PENDING: Owner.SCHEDULER,
    _S.PREPARING: Owner.DATAMGMT,
    _S.READY: Owner.RUNNER,
    _S.STARTING: Owner.RUNNER,
    _S.RUNNING: Owner.RUNNER,
    _S.EXITED: Owner.DATAMGMT,
    _S.PUBLISHING: Owner.DATAMGMT,
    _S.FAILED: Owner.SCHEDULER,  # retries it or ends the run
    _S.LOST: Owner.SCHEDULER,
}
RUN_ENDED = frozenset({_R.SUCCEEDED, _R.FAILED, _R.CANCELLED, _R.MISSED, _R.LOST})
STEP_ENDED = frozenset({_S.SUCCEEDED, _S.FAILED, _S.CANCELLED, _S.SKIPPED, _S.LOST})
# From the checkout of its workspace to its commit, a step has exclusive use of its output dataset.
HOLDS_DATASET = frozenset({_S.READY, _S.STARTING, _S.RUNNING, _S.EXITED, _S.PUBLISHING})


def check_step(before: StepPhase, after: StepPhase) -> None:
    """Raise ValueError for a transition that is not in the diagram, which is a bug in the caller."""
    if after not in STEP_TRANSITIONS[before]:
        raise ValueError(f"a step cannot go from {before} to {after}")


def check_run(before: RunPhase, after: RunPhase) -> None:
    """Raise ValueError for a transition that is not in the diagram, which is a bug in the caller."""
    if after not in RUN_TRANSITIONS[before]:
        raise ValueError(f"a run cannot go from {before} to {after}")
