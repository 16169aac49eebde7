"""Metrics of the runner."""

from __future__ import annotations

from collections.abc import Callable

from mao_shared.metrics import Metrics


def engine_observer(metrics: Metrics) -> Callable[[str, float], None]:
    """Declare the time of calls of the engine; return a function that counts one, with its seconds."""
    calls = metrics.histogram(
        "mao_engine_request_duration_seconds", "Time of one call of the container engine", ["operation"]
    )
    return lambda operation, seconds: calls.labels(operation).observe(seconds)


class RunnerMetrics:
    """The runner's metrics, declared once per app."""

    def __init__(self, metrics: Metrics) -> None:
        self.running = metrics.gauge("mao_runner_steps_running", "Steps that hold a slot")
        self.waiting = metrics.gauge("mao_runner_steps_waiting", "Steps that wait for a slot")
        self.starts = metrics.counter("mao_runner_starts_total", "Containers started")
        self.outcomes = metrics.counter(
            "mao_runner_outcomes_total", "Steps that left the runner", ["phase", "code"]
        )
        self.start_seconds = metrics.histogram(
            "mao_runner_start_seconds", "Time from a step being ready to its container running"
        )
        self.leftovers = metrics.counter("mao_runner_leftovers_total", "Containers removed as leftovers")

    def count_steps(self, running: int, waiting: int) -> None:
        """Set the numbers of steps that hold a slot and that wait for one."""
        self.running.set(running)
        self.waiting.set(waiting)
