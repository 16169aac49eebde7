"""A run's contributions to rounds, as tables."""

from __future__ import annotations

from typing import Any

import pytest

from mao_datamgmt.rounds.pending import pending_announcements
from mao_shared.models import DatasetRef, Failure, Original, ResolvedStep, Run, StepRun, round_id
from mao_shared.states import RunPhase, StepPhase
from tests.datamgmt.world import IMAGE

from .test_decide import TICK, X, Y

OUTPUT = DatasetRef(name="data", master="/x", branch="a")
SPEC = ResolvedStep(name="collect", tool="collect", image=IMAGE, output=OUTPUT)


def a_run(phase: RunPhase, *steps: StepRun, **changes: Any) -> Run:
    fields = {"id": "run", "pipeline": "crawl", "node": "a", "trigger": "schedule", "created_at": TICK}
    return Run(**{**fields, "phase": phase, "scheduled_for": TICK, "steps": list(steps), **changes})


def a_step(phase: StepPhase, **changes: Any) -> StepRun:
    return StepRun(spec=SPEC, phase=phase, **changes)


DONE = a_step(StepPhase.SUCCEEDED, snapshot=X, base_commit=Y, pushed=True)


def test_pending_snapshot_has_common_round_id() -> None:
    [due] = pending_announcements(a_run(RunPhase.RUNNING, DONE), [], TICK)
    assert due.key == ("data", round_id(TICK, "crawl", "collect"))
    assert (due.announcement.commit, due.ready) == (X, True)


@pytest.mark.parametrize(
    ("step", "commit", "ready"),
    [
        (a_step(StepPhase.SUCCEEDED, snapshot=X, pushed=False), X, False),
        (a_step(StepPhase.SUCCEEDED, base_commit=Y), Y, True),
    ],
    ids=["not-pushed", "wrote-nothing"],
)
def test_pending_commit_and_readiness(step: StepRun, commit: str, ready: bool) -> None:
    [due] = pending_announcements(a_run(RunPhase.SUCCEEDED, step), [], TICK)
    assert (due.announcement.commit, due.ready) == (commit, ready)


def test_pending_failure_abstains_with_reason() -> None:
    error = Failure(code="tool-failed", detail="exit code 3", fault="tool")
    failed = a_step(StepPhase.FAILED, error=error)
    assert pending_announcements(a_run(RunPhase.RUNNING, failed), [], TICK) == []  # it may be tried again
    [due] = pending_announcements(a_run(RunPhase.FAILED, failed), [], TICK)
    assert due.announcement.abstains is not None
    assert due.announcement.abstains.reason == "failed"
    assert due.announcement.abstains.detail == "the step ended as failed: exit code 3"


def test_pending_skipped_step_abstains() -> None:
    [due] = pending_announcements(
        a_run(RunPhase.RUNNING, a_step(StepPhase.SKIPPED, waiting="no truth")), [], TICK
    )
    assert due.announcement.commit is None


def test_pending_missed_tick_abstains_for_every_step() -> None:
    [due] = pending_announcements(a_run(RunPhase.MISSED, reason="Too late."), [SPEC], TICK)
    assert due.announcement.abstains is not None
    assert (due.announcement.abstains.reason, due.announcement.abstains.detail) == ("absent", "Too late.")


def test_pending_nothing_without_tick() -> None:
    original = Original(run="run", step="collect", snapshot=X)
    assert pending_announcements(a_run(RunPhase.SUCCEEDED, DONE, scheduled_for=None), [], TICK) == []
    assert pending_announcements(a_run(RunPhase.SUCCEEDED, DONE, reproduces=original), [], TICK) == []
