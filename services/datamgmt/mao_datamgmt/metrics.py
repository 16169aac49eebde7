"""Prometheus metrics of the data manager."""

from __future__ import annotations

from mao_shared.metrics import Metrics
from mao_shared.models import StepRun
from mao_shared.models.round import ROUND_ENDED


class DataMetrics:
    """The metrics of one app."""

    def __init__(self, metrics: Metrics) -> None:
        self.outcomes = metrics.counter(
            "mao_datamgmt_outcomes_total", "Steps that left the data manager", ["phase", "code"]
        )
        self.prepare_seconds = metrics.histogram(
            "mao_datamgmt_prepare_seconds", "Time to fetch datasets and check out a workspace"
        )
        self.publish_seconds = metrics.histogram(
            "mao_datamgmt_publish_seconds", "Time to check, commit and push a step's output"
        )
        self.late_pushes = metrics.counter(
            "mao_datamgmt_late_pushes_total", "Pushes that were retried after a failure", ["outcome"]
        )
        self.unpushed = metrics.gauge(
            "mao_datamgmt_unpushed_datasets", "Datasets with commits not yet pushed to their remote"
        )
        self.unpushed_commits = metrics.gauge(
            "mao_datamgmt_unpushed_commits",
            "Commits that only this node has, at the last attempt",
            ["dataset"],
        )
        self.unpushed_age = metrics.gauge(
            "mao_datamgmt_unpushed_age_seconds", "Age of the oldest of these commits", ["dataset"]
        )
        self.waiting = metrics.gauge("mao_datamgmt_steps_waiting", "Steps that wait for a dataset")
        self.external_waiting = metrics.gauge(
            "mao_datamgmt_external_waiting", "Values of external programs that wait to be committed"
        )
        self.free_bytes = metrics.gauge(
            "mao_datamgmt_disk_free_bytes", "Free space on the file system of the data directory"
        )

        self.rounds = metrics.counter("mao_rounds_total", "Rounds that ended, by outcome", ["outcome"])
        for outcome in ROUND_ENDED:  # rates need a first value of 0
            self.rounds.labels(outcome)
        self.alarms = metrics.gauge("mao_alarms_open", "Alarms neither acknowledged nor over", ["kind"])

    def forget_outbox(self, dataset: str) -> None:
        """Remove the metrics of a dataset that is no longer on this node."""
        self.unpushed_commits.remove(dataset)
        self.unpushed_age.remove(dataset)

    def count(self, step: StepRun) -> None:
        """Count a step that this service has finished."""
        self.outcomes.labels(step.phase.value, step.error.code if step.error else "").inc()
