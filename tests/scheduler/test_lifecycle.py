"""The next document of a run, one table row per situation."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from mao_scheduler.runs.lifecycle import NO_CHANGE, backoff, decide
from mao_shared.models import CancelRequest, Exit, Failure, Fault, Overlap, Retry, Run
from mao_shared.states import RunPhase, StepPhase

from .samples import START, run

NOW = START + timedelta(minutes=1)
CANCEL = CancelRequest(requested_at=START, reason="enough")
P = StepPhase


def running(*phases: StepPhase, retry: Retry | None = None, **changes: Any) -> Run:
    """Return a running run whose steps are in these phases."""
    made = run(steps=len(phases), retry=retry, phase=RunPhase.RUNNING, started_at=START, **changes)
    steps = [step.model_copy(update={"phase": phase}) for step, phase in zip(made.steps, phases, strict=True)]
    return made.model_copy(update={"steps": steps})


def failing(phase: StepPhase, fault: Fault, *, attempt: int = 1, retry: Retry | None = None) -> Run:
    """Return a run of two steps of which the first has failed or was lost."""
    error = Failure(code="tool-failed", detail="The tool exited with 1.", fault=fault)
    made = running(phase, P.PENDING, retry=retry)
    failed = made.steps[0].model_copy(
        update={
            "attempt": attempt,
            "error": error,
            "exit": Exit(code=1),
            "container_id": "c1",
            "base_commit": "b",
        }
    )
    return made.with_step(0, failed)


def phases(found: Run | None) -> list[str]:
    assert found is not None
    return [found.phase, *(step.phase for step in found.steps)]


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (run(), ["running", "preparing"]),
        (run(steps=2), ["running", "preparing", "pending"]),
        (running(P.SUCCEEDED, P.PENDING), ["running", "succeeded", "preparing"]),
        (running(P.SUCCEEDED, P.SUCCEEDED), ["succeeded", "succeeded", "succeeded"]),
        (failing(P.FAILED, "tool"), ["failed", "failed", "skipped"]),
        (failing(P.LOST, "engine"), ["lost", "lost", "skipped"]),
        (failing(P.FAILED, "infrastructure"), ["failed", "failed", "skipped"]),
        # cancelled in a phase that the scheduler owns
        (run(steps=2, cancel=CANCEL), ["cancelled", "skipped", "skipped"]),
        (running(P.PENDING, P.PENDING, cancel=CANCEL), ["cancelled", "cancelled", "skipped"]),
        (running(P.SUCCEEDED, P.PENDING, cancel=CANCEL), ["cancelled", "succeeded", "cancelled"]),
        (running(P.FAILED, P.PENDING, cancel=CANCEL), ["cancelled", "failed", "skipped"]),
        # cancelled by the owner of the phase
        (running(P.CANCELLED, P.PENDING, cancel=CANCEL), ["cancelled", "cancelled", "skipped"]),
        # publishing is not interrupted: what is done is done
        (running(P.SUCCEEDED, cancel=CANCEL), ["succeeded", "succeeded"]),
    ],
)
def test_decide_next_document(before: Run, expected: list[str]) -> None:
    after = decide(before, [], NOW).run
    assert phases(after) == expected
    assert after is not None
    assert (after.finished_at == NOW) == (after.phase not in ("queued", "running"))


@pytest.mark.parametrize(
    "phase",
    [P.PREPARING, P.READY, P.STARTING, P.RUNNING, P.EXITED, P.PUBLISHING],
    ids=lambda phase: phase.value,
)
@pytest.mark.parametrize("cancel", [None, CANCEL])
def test_decide_ignores_phases_of_other_services(phase: StepPhase, cancel: CancelRequest | None) -> None:
    assert decide(running(phase, P.PENDING, cancel=cancel), [], NOW) == NO_CHANGE


@pytest.mark.parametrize("phase", ["succeeded", "failed", "cancelled", "missed", "lost"])
def test_decide_ended_run_stays_ended(phase: str) -> None:
    assert decide(run(phase=phase), [], NOW) == NO_CHANGE


def test_decide_step_error_becomes_run_error() -> None:
    after = decide(failing(P.FAILED, "tool"), [], NOW).run
    assert after is not None
    assert after.error == after.steps[0].error


def test_decide_lost_step_without_error_blames_engine() -> None:
    after = decide(running(P.LOST), [], NOW).run
    assert after is not None
    assert after.error is not None
    assert (after.error.code, after.error.fault) == ("step-lost", "engine")


def test_decide_retry_clears_attempt_and_waits() -> None:
    retry = Retry(attempts=3, backoff=30)
    found = decide(failing(P.FAILED, "tool", retry=retry), [], NOW)
    assert phases(found.run) == ["running", "pending", "pending"]
    assert found.retry_after == 30
    assert found.run is not None
    step = found.run.steps[0]
    assert (step.attempt, step.not_before) == (2, NOW + timedelta(seconds=30))
    assert (step.exit, step.error, step.container_id, step.base_commit) == (None, None, None, None)
    assert step.waiting == "Retries after: The tool exited with 1."
    early = decide(found.run, [], NOW + timedelta(seconds=10))
    assert (early.run, early.retry_after) == (None, 20)
    set_back = decide(found.run, [], NOW - timedelta(days=1)).run  # a clock set back does not prolong it
    on_time = decide(found.run, [], NOW + timedelta(seconds=30)).run
    assert phases(set_back) == phases(on_time)
    assert phases(on_time) == ["running", "preparing", "pending"]
    assert on_time is not None
    assert on_time.steps[0].waiting is None


def test_decide_retry_keeps_times_and_errors_of_earlier_attempts() -> None:
    retry = Retry(attempts=3, backoff=30)
    now = NOW
    found = failing(P.FAILED, "tool", retry=retry)
    for attempt in (1, 2):
        failed = found.steps[0]
        retried = decide(found, [], now).run
        assert retried is not None
        past = retried.steps[0].earlier[attempt - 1]
        assert (past.attempt, past.times, past.error) == (attempt, failed.times, failed.error)
        again = retried.steps[0].model_copy(update={"phase": P.FAILED, "error": failed.error})
        found = retried.with_step(0, again)
    assert len(found.steps[0].earlier) == 2


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 30), (2, 60), (3, 120), (19, 86400)])
def test_backoff_doubles_up_to_a_day(attempt: int, seconds: float) -> None:
    retry = Retry(attempts=20, backoff=30)
    assert backoff(failing(P.FAILED, "tool", attempt=attempt, retry=retry).steps[0]) == seconds


@pytest.mark.parametrize(
    ("phase", "fault", "on", "attempt", "again"),
    [
        (P.FAILED, "tool", ["tool"], 1, True),
        (P.FAILED, "tool", ["engine", "infrastructure"], 1, False),
        (P.LOST, "engine", ["engine"], 1, True),
        (P.LOST, "engine", ["tool"], 1, False),
        (P.FAILED, "infrastructure", ["infrastructure"], 1, True),
        (P.FAILED, "tool", ["tool"], 2, False),
    ],
)
def test_decide_retries_configured_faults_only(
    phase: StepPhase, fault: Fault, on: list[Fault], attempt: int, again: bool
) -> None:
    before = failing(phase, fault, attempt=attempt, retry=Retry(attempts=2, on=on))
    after = decide(before, [], NOW).run
    assert after is not None
    assert (after.phase is RunPhase.RUNNING) == again


OTHER = run("r0", phase=RunPhase.RUNNING)


@pytest.mark.parametrize("overlap", ["skip", "queue", "replace"])
def test_decide_manual_run_waits_under_any_policy(overlap: Overlap) -> None:
    found = decide(run(overlap=overlap), [OTHER], NOW)
    assert phases(found.run) == ["queued", "pending"]
    assert found.replaced == []
    assert found.run is not None
    assert "r0" in (found.run.reason or "")
    assert decide(found.run, [OTHER], NOW).run is None  # said once
    started = decide(found.run, [], NOW).run
    assert phases(started) == ["running", "preparing"]
    assert started is not None
    assert started.reason is None


def test_decide_skip_names_blocking_run() -> None:
    after = decide(run(trigger="schedule", overlap="skip"), [OTHER], NOW).run
    assert after is not None
    assert (after.phase, after.missed, after.steps) == (RunPhase.MISSED, "overlap", [])
    assert after.reason == "Skipped: the run r0 of the same pipeline was still running."


def test_decide_queue_waits() -> None:
    found = decide(run(trigger="schedule", overlap="queue"), [OTHER], NOW)
    assert phases(found.run) == ["queued", "pending"]
    assert found.replaced == []


def test_decide_replace_cancels_once_and_waits() -> None:
    cancelling = run("r00", phase=RunPhase.RUNNING, cancel=CANCEL)
    by_hand = run("r000")
    found = decide(run(trigger="schedule", overlap="replace"), [cancelling, OTHER, by_hand], NOW)
    assert phases(found.run) == ["queued", "pending"]
    assert found.replaced == ["r0"]
