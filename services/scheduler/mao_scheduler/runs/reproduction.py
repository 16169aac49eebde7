"""The run that repeats a step of an earlier one on the same input, to compare what comes out: pure."""

from __future__ import annotations

from datetime import datetime

from mao_shared.errors import Conflict, InvalidInput, NotFound
from mao_shared.models.enrolment import Enrolment
from mao_shared.models.models_pipeline import Retry
from mao_shared.models.run import Original, Run, StepRun
from mao_shared.states import StepPhase


def reproduction(
    run_id: str, old: Run, step_name: str | None, now: datetime, request_id: str | None = None
) -> Run:
    """A queued run of one step, with the image, command, commits and tick of the original.

    It is not published and holds no dataset, so it does not wait for other runs. Raises NotFound
    (`unknown-step`), InvalidInput (`step-needed`) or Conflict (`nothing-to-reproduce`).
    """
    step = _published(old, _chosen(old, step_name))
    spec = step.spec.model_copy(update={"retry": Retry()})  # somebody waits for the answer
    fresh = StepRun(spec=spec, base_commit=step.base_commit, input_commit=step.input_commit)
    original = Original(run=old.id, step=spec.name, snapshot=step.snapshot or "", attempt=step.attempt)
    return Run(
        id=run_id,
        pipeline=old.pipeline,
        node=old.node,
        trigger="reproduce",
        scheduled_for=old.scheduled_for,
        created_at=now,
        overlap="queue",
        steps=[fresh],
        request_id=request_id,
        reproduces=original,
    )


def _chosen(run: Run, name: str | None) -> StepRun:
    names = [step.spec.name for step in run.steps]
    if name is None and len(names) == 1:
        return run.steps[0]
    if name is None:
        raise InvalidInput(
            f"The run {run.id} has {len(names)} steps; say which one to reproduce.",
            code="step-needed",
            next=f"Name one of them with --step: {', '.join(names) or 'it has none'}.",
        )
    if name not in names:
        raise NotFound(
            f"The run {run.id} has no step {name!r}.",
            code="unknown-step",
            next=f"Its steps: {', '.join(names)}.",
        )
    return run.steps[names.index(name)]


def _published(run: Run, step: StepRun) -> StepRun:
    if step.phase is StepPhase.SUCCEEDED and step.snapshot and step.base_commit:
        return step
    why = "has published nothing" if step.phase is StepPhase.SUCCEEDED else f"is {step.phase}"
    raise Conflict(
        f"The step {step.spec.name!r} of run {run.id} {why}, so there is nothing to compare with.",
        code="nothing-to-reproduce",
        next=f"Run it again instead: maoctl run retry {run.id}",
    )


def check_agreed(asked: list[str], enrolment: Enrolment) -> None:
    """What went beyond the hardened default then has to be agreed to now; raises Conflict `not-agreed`."""
    lacking = [word for word in asked if word not in enrolment.agreed]
    if lacking:
        raise Conflict(
            f"The step needs what this node does not agree to any more: {', '.join(lacking)}.",
            code="not-agreed",
            next=f"Agree to it again: maoctl pipeline enrol {enrolment.pipeline} --agree '{lacking[0]}'",
        )
