"""Metrics of the scheduler."""

from __future__ import annotations

from mao_shared.metrics import Metrics
from mao_shared.models import Run
from mao_shared.states import RUN_ENDED

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
        self.running = metrics.gauge("mao_runs_running", "Runs under way")
        self.queued = metrics.gauge("mao_runs_queued", "Runs that wait for their turn")

    def count(self, run: Run) -> None:
        """Count a run if it has ended; call it once per change of phase."""
        if run.phase in RUN_ENDED:
            self.runs.labels(run.phase.value).inc()
