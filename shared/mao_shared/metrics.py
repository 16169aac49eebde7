"""Metrics behind one helper; every app has a registry of its own, so that a test can make many apps."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

__all__ = ["CONTENT_TYPE", "Counter", "Gauge", "Histogram", "Metrics", "metrics_of"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
"""Buckets from a quick read to a long run of a tool."""


class Metrics:
    """Declares the metrics of one app. Names begin with `mao_`; units are base units in the name."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = self.histogram(
            "mao_http_request_seconds",
            "Time from a request to the start of its answer",
            ["method", "route", "status"],
            buckets=SECONDS[:11],
        )

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        """Something that only grows; `name` ends in `_total`."""
        return Counter(name, text, labels, registry=self.registry)

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        """Something that goes up and down."""
        return Gauge(name, text, labels, registry=self.registry)

    def histogram(
        self, name: str, text: str, labels: Sequence[str] = (), *, buckets: Sequence[float] = SECONDS
    ) -> Histogram:
        """A distribution; `buckets` are upper bounds in the metric's unit."""
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def render(self) -> bytes:
        """The text exposition of all metrics."""
        return generate_latest(self.registry)


def metrics_of(app: FastAPI) -> Metrics:
    """The metrics of an app that `make_service` made."""
    metrics = app.state.metrics
    if not isinstance(metrics, Metrics):
        raise TypeError("the app was not made by make_service")
    return metrics
