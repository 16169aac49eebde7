"""What the scheduler measures of runs that have ended."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mao_scheduler.metrics import SchedulerMetrics, phase_durations
from mao_shared.metrics import Metrics
from mao_shared.models import Run, StepRun
from mao_shared.states import RUN_ENDED, RunPhase, StepPhase

from .samples import START, run, step


def step_in(seconds: dict[StepPhase, float]) -> StepRun:
    """Return a step that entered each phase so many seconds after START."""
    times = {phase: START + timedelta(seconds=after) for phase, after in seconds.items()}
    return StepRun(spec=step(), phase=StepPhase.SUCCEEDED, times=times)


def ended(phase: RunPhase, **changes: object) -> Run:
    moved = {"phase": phase, "started_at": START, "finished_at": START + timedelta(seconds=20), **changes}
    return run().model_copy(update=moved)


def test_metrics_phase_durations_of_a_succeeded_step() -> None:
    entered = {StepPhase.PREPARING: 0.0, StepPhase.READY: 2.0, StepPhase.RUNNING: 3.5, StepPhase.SUCCEEDED: 9}
    assert phase_durations(step_in(entered)) == [
        (StepPhase.PREPARING, 2.0),
        (StepPhase.READY, 1.5),
        (StepPhase.RUNNING, 5.5),
    ]


@pytest.mark.parametrize("phase", [StepPhase.FAILED, StepPhase.CANCELLED, StepPhase.SKIPPED, StepPhase.LOST])
def test_metrics_phase_durations_end_with_any_outcome(phase: StepPhase) -> None:
    assert phase_durations(step_in({StepPhase.PREPARING: 0.0, phase: 4.0})) == [(StepPhase.PREPARING, 4.0)]


def test_metrics_phase_durations_of_clocks_that_differ() -> None:
    assert phase_durations(step_in({StepPhase.READY: 5.0, StepPhase.STARTING: 4.0})) == [(StepPhase.READY, 0)]


def test_metrics_every_outcome_starts_at_zero() -> None:
    metrics = Metrics()
    SchedulerMetrics(metrics)
    text = metrics.render().decode()
    for outcome in RUN_ENDED:
        assert f'mao_runs_total{{outcome="{outcome.value}"}} 0.0' in text


def test_metrics_count_outcome_duration_and_phases() -> None:
    metrics = Metrics()
    counted = SchedulerMetrics(metrics)
    counted.count(ended(RunPhase.FAILED, steps=[step_in({StepPhase.PREPARING: 0.0, StepPhase.FAILED: 4.0})]))
    counted.count(run())
    counted.count(ended(RunPhase.MISSED, started_at=None, finished_at=None))
    text = metrics.render().decode()
    assert 'mao_runs_total{outcome="failed"} 1.0' in text
    assert 'mao_runs_total{outcome="missed"} 1.0' in text
    assert 'mao_run_duration_seconds_sum{outcome="failed"} 20.0' in text
    assert 'mao_run_duration_seconds_count{outcome="missed"}' not in text
    assert 'mao_step_phase_duration_seconds_sum{phase="preparing"} 4.0' in text
