"""What the runs of a backup are in the restored store: nothing of them makes a tool run once more."""

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
    """A step that may be tried five times, whoever is at fault."""
    made = step(name, "data", Path("/remote"))
    spec = made.spec.model_copy(update={"retry": Retry(attempts=5, backoff=0)})
    return made.model_copy(update={"spec": spec, "phase": phase})


def running(*steps: StepRun, **changes: object) -> Run:
    run = run_of("r", step("one", "data", Path("/remote")))
    return run.model_copy(update={"steps": list(steps), **changes})


def restored(run: Run) -> Run:
    return after_restore(run, BACKUP, RESTORED)


def led_on(run: Run) -> Run:
    """As the scheduler leads it on while the others play no part."""
    now: datetime = RESTORED
    while (decision := decide(run, [], now)).run is not None:
        run = decision.run
    return run


@pytest.mark.parametrize("phase", TOOL_AHEAD)
def test_a_run_whose_tool_was_ahead_or_at_work_is_lost_and_not_tried_again(phase: StepPhase) -> None:
    run = led_on(restored(running(in_phase(phase))))
    assert (run.phase, run.steps[0].phase) == (RunPhase.LOST, StepPhase.LOST)
    assert run.error is not None
    assert run.error.code == "restored"
    assert "2026-01-31T13:00:00Z" in run.error.detail


@pytest.mark.parametrize("phase", [StepPhase.EXITED, StepPhase.PUBLISHING])
def test_what_a_tool_has_left_is_published_and_the_next_tool_is_not_run(phase: StepPhase) -> None:
    run = restored(running(in_phase(phase), in_phase(StepPhase.PENDING, "two")))
    assert (run.phase, run.steps[0].phase, run.steps[1].phase) == ("running", phase, "lost")
    published = run.with_step(0, run.steps[0].model_copy(update={"phase": StepPhase.SUCCEEDED}))
    assert led_on(published).phase is RunPhase.LOST
    refused = run.with_step(0, run.steps[0].model_copy(update={"phase": StepPhase.FAILED}))
    assert led_on(refused).phase is RunPhase.FAILED


@pytest.mark.parametrize("phase", [StepPhase.FAILED, StepPhase.LOST])
def test_a_step_that_was_to_be_tried_again_is_not(phase: StepPhase) -> None:
    assert led_on(restored(running(in_phase(phase)))).phase.value == phase.value


def test_a_run_that_was_all_but_ended_ends_as_it_would_have() -> None:
    run = restored(running(in_phase(StepPhase.SUCCEEDED), in_phase(StepPhase.SKIPPED, "two")))
    assert led_on(run).phase is RunPhase.SUCCEEDED


def test_a_waiting_tick_is_missed_so_that_it_can_be_backfilled() -> None:
    run = running(in_phase(StepPhase.PENDING), phase=RunPhase.QUEUED, trigger="schedule", scheduled_for=BEGIN)
    found = restored(run)
    assert (found.phase, found.missed, found.steps) == (RunPhase.MISSED, "late", [])
    assert found.reason is not None
    assert "nobody knows" in found.reason


@pytest.mark.parametrize("trigger", ["manual", "dataset", "retry", "reproduce"])
def test_what_waited_for_another_reason_is_cancelled_with_the_reason(trigger: str) -> None:
    run = restored(running(in_phase(StepPhase.PENDING), phase=RunPhase.QUEUED, trigger=trigger))
    assert run.phase is RunPhase.CANCELLED
    assert run.error is not None
    assert run.error.code == "restored"


@pytest.mark.parametrize("phase", sorted(RUN_ENDED))
def test_what_had_ended_stays_to_the_letter(phase: RunPhase) -> None:
    run = running(in_phase(StepPhase.LOST), phase=phase)
    assert restored(run) is run


@pytest.mark.parametrize("phase", TOOL_AHEAD)
def test_doing_it_twice_is_doing_it_once(phase: StepPhase) -> None:
    once = restored(running(in_phase(phase), in_phase(StepPhase.PENDING, "two")))
    assert restored(once) == once
