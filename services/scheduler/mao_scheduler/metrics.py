"""Metrics of the scheduler."""

from __future__ import annotations

from itertools import pairwise

from mao_shared.metrics import Metrics
from mao_shared.models import Run
from mao_shared.models.run import StepRun
from mao_shared.states import RUN_ENDED, StepPhase

_LATENESS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)  # seconds


class SchedulerMetrics:
    """The scheduler's metrics, declared once per app."""

    def __init__(self, metrics: Metrics) -> None:
        self.lateness = metrics.histogram(
            "mao_tick_lateness_seconds",
            "From a tick that was not missed to its durable run record",
            buckets=_LATENESS,
        )
        self.runs = metrics.counter("mao_runs_total", "Runs that ended, by outcome", ["outcome"])
        self.durations = metrics.histogram(
            "mao_run_duration_seconds", "From the start of a run to its end", ["outcome"]
        )
        self.phases = metrics.histogram(
            "mao_step_phase_duration_seconds",
            "Time that the last attempt of an ended run's step was in a phase",
            ["phase"],
        )
        for outcome in RUN_ENDED:  # rates need a first value of 0
            self.runs.labels(outcome.value)
        self.running = metrics.gauge("mao_runs_running", "Runs under way")
        self.queued = metrics.gauge("mao_runs_queued", "Runs that wait for their turn")

    def count(self, run: Run) -> None:
        """Count a run if it has ended; call it once per change of phase."""
        if run.phase not in RUN_ENDED:
            return
        self.runs.labels(run.phase.value).inc()
        if run.started_at is not None and run.finished_at is not None:
            seconds = (run.finished_at - run.started_at).total_seconds()
            self.durations.labels(run.phase.value).observe(max(0.0, seconds))
        for step in run.steps:
            for phase, seconds in phase_durations(step):
                self.phases.labels(phase.value).observe(seconds)


def phase_durations(step: StepRun) -> list[tuple[StepPhase, float]]:
    """Return the seconds that a step was in each phase that it has left, in the order of the phases.

    Services write the times by their own clocks, so that a difference may be negative; it counts as 0.
    """
    entered = [(phase, step.times[phase]) for phase in StepPhase if phase in step.times]
    return [
        (phase, max(0.0, (until - since).total_seconds())) for (phase, since), (_, until) in pairwise(entered)
    ]
