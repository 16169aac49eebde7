"""Pure: who has a dataset's branch on this node, and whether a step may have it next."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from mao_shared.models import Run
from mao_shared.states import HOLDS_DATASET, StepPhase

Place = tuple[bool, datetime, str]


def holder(
    runs: Iterable[Run],
    granted: Mapping[str, str],
    candidate: Run,
    index: int,
    held_back: Collection[str] = (),
) -> str | None:
    """Why this preparing step has to wait, in words; None when it may go on.

    One step at a time has a dataset, from the checkout of its workspace to its commit; see `place` for whose
    turn it is. A reproduction works on commits of its own and has none.
    `granted`: dataset → id of the run that this process is just preparing for, not yet in `runs`.
    `held_back`: runs that wait for a round. They stand in nobody's way.
    """
    dataset = candidate.steps[index].spec.output.name
    if granted.get(dataset, candidate.id) != candidate.id:
        return _words(dataset, granted[dataset])
    ahead = None
    for run in runs:
        if run.id == candidate.id or run.reproduces is not None:
            continue
        for at, step in enumerate(run.steps):
            if step.spec.output.name != dataset:
                continue
            if step.phase in HOLDS_DATASET:
                return _words(dataset, run.id)
            if step.phase is StepPhase.PREPARING and run.id not in held_back:
                ahead = ahead or (run.id if place(run, at) < place(candidate, index) else None)
    return None if ahead is None else _words(dataset, ahead)


def place(run: Run, index: int) -> Place:
    """Steps have a dataset in this order: those that observe before those that read ground truth, by age.

    Many of the latter may be due at once, when rounds that waited for a node are decided; no observation has
    to wait for all of these.
    """
    return run.steps[index].spec.reads_truth, run.created_at, run.id


def tick_before(runs: Iterable[Run], candidate: Run, index: int, held_back: Collection[str]) -> Run | None:
    """The run of an earlier tick that waits for the round which the same step of it reads, the last such one.

    A step is done in the order of its ticks, so that a node's branch and what it announces are in that order.
    """
    if candidate.scheduled_for is None or not held_back:
        return None
    name, found = candidate.steps[index].spec.name, None
    own = _tick(candidate)
    for run in runs:
        if run.id not in held_back or run.pipeline != candidate.pipeline or run.id == candidate.id:
            continue
        at = run.active_step()
        if at is None or run.steps[at].spec.name != name or run.scheduled_for is None:
            continue
        if _tick(run) < own and (found is None or _tick(found) < _tick(run)):
            found = run
    return found


def after_tick(before: Run) -> str:
    """Why a step waits behind that of an earlier tick, in words that end with what that one waits for."""
    at = before.active_step()
    waiting = None if at is None else before.steps[at].waiting
    why = (waiting or "").rpartition(": ")[2]
    return f"goes after the step's earlier tick, run {before.id}" + (f": {why}" if why else "")


def _tick(run: Run) -> tuple[datetime, str]:
    return run.scheduled_for or run.created_at, run.id


def _words(dataset: str, run: str) -> str:
    return f"{begins(dataset)} by run {run}"


def begins(dataset: str) -> str:
    """How the reason of a step that waits for a dataset begins."""
    return f"dataset {dataset} is in use"
