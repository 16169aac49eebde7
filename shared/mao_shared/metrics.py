"""Prometheus metrics; each app has its own registry, so that tests can create several apps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from fastapi import FastAPI
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mao_shared import __version__

from .models.node import Condition

__all__ = ["CONTENT_TYPE", "Counter", "Gauge", "Histogram", "Metrics", "metrics_of"]
CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
"""Histogram buckets in seconds, from a fast read to a long run of a tool."""
disable_created_metrics()  # type: ignore[no-untyped-call]  # a second gauge for each counter, which nothing reads


class Metrics:
    """Metrics of one app.

    Names start with `mao_` and end in the base unit; labels take few values, none of them free text.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = self.histogram(
            "mao_http_request_duration_seconds",
            "Time from a request to the start of its answer",
            ["method", "route", "status"],
            buckets=SECONDS[:11],
        )
        self._store_calls = self.histogram(
            "mao_store_request_duration_seconds",
            "Time of one call of the node's etcd",
            ["operation"],
            buckets=SECONDS[:11],
        )
        version = self.gauge("mao_build_info", "1; the label tells the version", ["version"])
        version.labels(__version__).set(1)

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        """Declare a counter; `name` ends in `_total`."""
        return Counter(name, text, labels, registry=self.registry)

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        """Declare a gauge."""
        return Gauge(name, text, labels, registry=self.registry)

    def histogram(
        self, name: str, text: str, labels: Sequence[str] = (), *, buckets: Sequence[float] = SECONDS
    ) -> Histogram:
        """Declare a histogram; `buckets` are upper bounds in the metric's unit."""
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def observe_store(self, operation: str, seconds: float) -> None:
        """Count a call of the node's store; `operation` is `read` or `write`."""
        self._store_calls.labels(operation).observe(seconds)

    def add_conditions(self, current: Callable[[], Iterable[Condition]]) -> None:
        """Export the current conditions as metrics."""
        self.registry.register(_ConditionCollector(current))

    def render(self) -> bytes:
        """Return the text exposition of all metrics."""
        return generate_latest(self.registry)


class _ConditionCollector(Collector):
    """Exports `mao_condition`, 1 for each open condition (bounded), and `mao_conditions`, their number."""

    def __init__(self, current: Callable[[], Iterable[Condition]]) -> None:
        self._current = current

    def collect(self) -> Iterator[Metric]:
        each_one = GaugeMetricFamily(
            "mao_condition", "An open condition", labels=["name", "subject", "state"]
        )
        count = GaugeMetricFamily("mao_conditions", "Number of open conditions", labels=["state"])
        counted = {"degraded": 0, "failed": 0}
        for condition in self._current():
            each_one.add_metric([condition.name, condition.subject, condition.state], 1)
            counted[condition.state] = counted.get(condition.state, 0) + 1
        for state, number in counted.items():
            count.add_metric([state], number)
        yield from (each_one, count)


def metrics_of(app: FastAPI) -> Metrics:
    """Return the metrics of an app created by `make_service`; raises TypeError for other apps."""
    metrics = app.state.metrics
    if not isinstance(metrics, Metrics):
        raise TypeError("the app was not created by make_service")
    return metrics
