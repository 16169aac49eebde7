"""Pure: who has a dataset's branch on this node, and whether a step may have it next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mao_shared.models import Run
from mao_shared.states import HOLDS_DATASET, StepPhase


def holder(runs: Iterable[Run], granted: Mapping[str, str], candidate: Run, index: int) -> str | None:
    """Why this preparing step has to wait, in words; None when it may go on.

    One step at a time has a dataset, from the checkout of its workspace to its commit; the oldest run first.
    A reproduction works on commits of its own and has none.
    `granted`: dataset → id of the run that this process is just preparing for, not yet in `runs`.
    """
    dataset = candidate.steps[index].spec.output.name
    if granted.get(dataset, candidate.id) != candidate.id:
        return _words(dataset, granted[dataset])
    ahead = None
    for run in runs:
        if run.id == candidate.id or run.reproduces is not None:
            continue
        phases = {step.phase for step in run.steps if step.spec.output.name == dataset}
        if phases & HOLDS_DATASET:
            return _words(dataset, run.id)
        if StepPhase.PREPARING in phases and _age(run) < _age(candidate):
            ahead = ahead or run.id
    return None if ahead is None else _words(dataset, ahead)


def _age(run: Run) -> tuple[object, str]:
    return (run.created_at, run.id)


def _words(dataset: str, run: str) -> str:
    return f"dataset {dataset} is in use by run {run}"
