"""The runs of a backup in the restored store: none of them makes a tool run again."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from mao_datamgmt.backup.runs import after_restore
from mao_scheduler.runs.lifecycle import decide
from mao_shared.models import Retry, Run, StepRun
from mao_shared.states import RUN_ENDED, RunPhase, StepPhase
from tests.datamgmt.world import BEGIN, run_of, step

BACKUP, RESTORED = BEGIN + timedelta(hours=1), BEGIN + timedelta(hours=5)
TOOL_AHEAD = (StepPhase.PENDING, StepPhase.PREPARING, StepPhase.READY, StepPhase.STARTING, StepPhase.RUNNING)


def in_phase(phase: StepPhase, name: str = "one") -> StepRun:
    """Make a step with five attempts for every kind of failure."""
    made = step(name, "data", Path("/remote"))
    spec = made.spec.model_copy(update={"retry": Retry(attempts=5, backoff=0)})
    return made.model_copy(update={"spec": spec, "phase": phase})


def running(*steps: StepRun, **changes: object) -> Run:
    run = run_of("r", step("one", "data", Path("/remote")))
    return run.model_copy(update={"steps": list(steps), **changes})


def restored(run: Run) -> Run:
    return after_restore(run, BACKUP, RESTORED)


def led_on(run: Run) -> Run:
    """Advance the run by the scheduler alone."""
    now: datetime = RESTORED
    while (decision := decide(run, [], now)).run is not None:
        run = decision.run
    return run


@pytest.mark.parametrize("phase", TOOL_AHEAD)
def test_after_restore_a_run_before_or_in_its_tool_is_lost(phase: StepPhase) -> None:
    run = led_on(restored(running(in_phase(phase))))
    assert (run.phase, run.steps[0].phase) == (RunPhase.LOST, StepPhase.LOST)
    assert run.error is not None
    assert run.error.code == "restored"
    assert "2026-01-31T13:00:00Z" in run.error.detail


@pytest.mark.parametrize("phase", [StepPhase.EXITED, StepPhase.PUBLISHING])
def test_after_restore_output_is_published(phase: StepPhase) -> None:
    run = restored(running(in_phase(phase), in_phase(StepPhase.PENDING, "two")))
    assert (run.phase, run.steps[0].phase, run.steps[1].phase) == ("running", phase, "lost")
    published = run.with_step(0, run.steps[0].model_copy(update={"phase": StepPhase.SUCCEEDED}))
    assert led_on(published).phase is RunPhase.LOST
    refused = run.with_step(0, run.steps[0].model_copy(update={"phase": StepPhase.FAILED}))
    assert led_on(refused).phase is RunPhase.FAILED


@pytest.mark.parametrize("phase", [StepPhase.FAILED, StepPhase.LOST])
def test_after_restore_no_step_is_retried(phase: StepPhase) -> None:
    assert led_on(restored(running(in_phase(phase)))).phase.value == phase.value


def test_after_restore_a_run_almost_ended_ends() -> None:
    run = restored(running(in_phase(StepPhase.SUCCEEDED), in_phase(StepPhase.SKIPPED, "two")))
    assert led_on(run).phase is RunPhase.SUCCEEDED


def test_after_restore_a_queued_tick_is_missed() -> None:
    run = running(in_phase(StepPhase.PENDING), phase=RunPhase.QUEUED, trigger="schedule", scheduled_for=BEGIN)
    found = restored(run)
    assert (found.phase, found.missed, found.steps) == (RunPhase.MISSED, "late", [])
    assert found.reason is not None
    assert "it is unknown" in found.reason


@pytest.mark.parametrize("trigger", ["manual", "dataset", "retry", "reproduce"])
def test_after_restore_a_queued_run_is_cancelled(trigger: str) -> None:
    run = restored(running(in_phase(StepPhase.PENDING), phase=RunPhase.QUEUED, trigger=trigger))
    assert run.phase is RunPhase.CANCELLED
    assert run.error is not None
    assert run.error.code == "restored"


@pytest.mark.parametrize("phase", sorted(RUN_ENDED))
def test_after_restore_ended_runs_stay(phase: RunPhase) -> None:
    run = running(in_phase(StepPhase.LOST), phase=phase)
    assert restored(run) is run


@pytest.mark.parametrize("phase", TOOL_AHEAD)
def test_after_restore_twice_changes_nothing(phase: StepPhase) -> None:
    once = restored(running(in_phase(phase), in_phase(StepPhase.PENDING, "two")))
    assert restored(once) == once
