"""What a run brings to rounds: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mao_shared.models import Abstention, Announcement, ResolvedStep, Run, StepRun, round_id
from mao_shared.states import RUN_ENDED, RunPhase, StepPhase


@dataclass(frozen=True, slots=True)
class Due:
    """An announcement to make. `done_at`: since when there is something to say.

    `ready`: False while its commit is on this node only.
    """

    announcement: Announcement
    done_at: datetime
    ready: bool = True

    @property
    def place(self) -> tuple[str, str]:
        return self.announcement.dataset, self.announcement.round


def announcements(run: Run, enrolled: Sequence[ResolvedStep], now: datetime) -> list[Due]:
    """What is to be said for each step that has ended; nothing for a run that belongs to no tick.

    `enrolled`: the pipeline's steps, for a tick that was missed and has none itself.
    """
    if run.scheduled_for is None or run.reproduces is not None:
        return []
    if run.phase is RunPhase.MISSED:
        why = Abstention(reason="absent", detail=run.reason or "the tick was missed")
        return [Due(_of(run, step, now, abstains=why), _ended(run)) for step in enrolled]
    found = (_due(run, step, now) for step in run.steps)
    return [each for each in found if each is not None]


def _due(run: Run, step: StepRun, now: datetime) -> Due | None:
    if step.phase is StepPhase.SUCCEEDED:
        commit = step.snapshot or step.base_commit
        if commit is None:
            return None
        ready = step.pushed or step.snapshot is None  # what it was laid from is at the remote
        done_at = step.times.get(StepPhase.SUCCEEDED, run.created_at)
        return Due(_of(run, step.spec, now, commit=commit), done_at, ready)
    if run.phase not in RUN_ENDED and step.phase is not StepPhase.SKIPPED:
        return None
    return Due(_of(run, step.spec, now, abstains=_why(run, step)), _ended(run))


def _ended(run: Run) -> datetime:
    return run.finished_at or run.created_at


def _why(run: Run, step: StepRun) -> Abstention:
    error = step.error or run.error
    said = error.detail if error is not None else step.waiting or run.reason or ""
    detail = f"the step ended as {step.phase}" + (f": {said}" if said else "")
    return Abstention(reason="failed", detail=detail[:2000])


def _of(
    run: Run,
    step: ResolvedStep,
    now: datetime,
    *,
    commit: str | None = None,
    abstains: Abstention | None = None,
) -> Announcement:
    assert run.scheduled_for is not None  # noqa: S101 (the caller has looked)
    return Announcement(
        dataset=step.output.name,
        round=round_id(run.scheduled_for, run.pipeline, step.name),
        pipeline=run.pipeline,
        step=step.name,
        tick=run.scheduled_for,
        run=run.id,
        commit=commit,
        abstains=abstains,
        announced_at=now,
    )
