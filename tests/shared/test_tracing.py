"""Traces: contexts, what a service sends, what it says of a collector that is away."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from mao_shared.errors import InvalidInput
from mao_shared.settings import ServiceSettings, wrong_settings
from mao_shared.tracing import FinishedSpan, TraceContext, Tracing, make_tracing
from tests.support.collector import Collector, collector

TRACE, SPAN, ABOVE = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "b7ad6b7169203331"
NOON = datetime(2026, 1, 31, 12, 0, 0, 123_456, UTC)


@pytest.mark.parametrize("flags", ["00", "01", "03"])
def test_context_survives_its_header(flags: str) -> None:
    text = f"00-{TRACE}-{SPAN}-{flags}"
    context = TraceContext.parse(text)
    assert context is not None
    assert str(context) == text
    assert context.sampled == (flags != "00")
    assert context.with_span(ABOVE) == TraceContext(TRACE, ABOVE, int(flags, 16))


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "x",
        f"01-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_invalid_traceparent_is_no_context(text: str | None) -> None:
    assert TraceContext.parse(text) is None


@pytest.fixture
def received() -> Iterator[Collector]:
    with collector() as got:
        yield got


def span(**fields: Any) -> FinishedSpan:
    basis = {
        "name": "work",
        "context": TraceContext(TRACE, SPAN),
        "parent": ABOVE,
        "start": NOON,
        "end": NOON,
    }
    return FinishedSpan(**{**basis, **fields})


async def test_spans_arrive_as_they_were_recorded(received: Collector) -> None:
    tracing = make_tracing("runner", "node-1", f"{received.url}/v1/traces")
    tracing.start()
    end = NOON + timedelta(seconds=2)
    tracing.record([span(end=end, attributes={"mao.node": "node-1"}, error="tool-failed")])
    tracing.record([span(context=TraceContext(TRACE, ABOVE), parent=None, end=NOON - timedelta(days=1))])
    await tracing.close()  # sends what is left

    below, first = received.of(TRACE)
    assert (below.service, below.name, below.id, below.parent) == ("mao-runner", "work", SPAN, ABOVE)
    assert (below.start, below.end) == tuple(round(t.timestamp() * 1e6) * 1000 for t in (NOON, end))
    assert (below.failed, below.attributes) == (True, {"mao.node": "node-1"})
    assert (first.id, first.parent, first.failed) == (ABOVE, "", False)
    assert first.end == first.start  # by another service's clock, it ended before it began


async def test_spans_of_a_trace_that_is_not_sampled_are_not_sent(received: Collector) -> None:
    tracing = make_tracing("runner", "node-1", f"{received.url}/v1/traces")
    tracing.start()
    for parent in (ABOVE, None):
        tracing.record([span(context=TraceContext(TRACE, SPAN, 0), parent=parent)])
    await tracing.close()
    assert received.requests == 0


@pytest.mark.parametrize(("sampler", "sampled"), [("always_on", True), ("parentbased_always_off", False)])
def test_sampler_of_the_environment_decides_on_a_new_trace(
    monkeypatch: pytest.MonkeyPatch, sampler: str, sampled: bool
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    made = make_tracing("scheduler", "node-1", "http://127.0.0.1:9/v1/traces").begin_trace(SPAN)
    assert made is not None
    assert (made.span_id, made.sampled) == (SPAN, sampled)
    assert made == TraceContext.parse(str(made))


@pytest.mark.parametrize("answer", [503, 400, None])
async def test_collector_that_is_away_is_reported_once(
    received: Collector, answer: int | None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    url = "http://127.0.0.1:9" if answer is None else received.url  # nothing listens on the discard port
    received.answer = answer or 200
    with caplog.at_level(logging.WARNING, "opentelemetry.exporter"):
        tracing = make_tracing("runner", "node-1", f"{url}/v1/traces")
        tracing.start()
        for _ in range(3):
            tracing.record([span()])
            if answer == 400:  # not sent again, so that each span is a request
                received.wait_requests(received.requests + 1)
        await tracing.close()
    assert received.spans == []
    assert len(caplog.records) <= 1


def test_off_is_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mao_shared.tracing.otlp", None)
    off = make_tracing("runner", "node-1", None)
    assert type(off) is Tracing
    assert (off.is_on, off.begin_request(), off.begin_trace(SPAN)) == (False, None, None)
    off.record([span()])


def test_on_without_the_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mao_shared.tracing.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(InvalidInput) as refused:
        make_tracing("runner", "node-1", "http://127.0.0.1:4318/v1/traces")
    assert refused.value.code == "traces-not-installed"
    assert "mao-shared[traces]" in (refused.value.next or "")


# Settings


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "http://c:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c/otlp/"}, "https://c/otlp/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/t"}, "http://c/t"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/x"},
            "http://t/x",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"}, None),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, None),
    ],
)
def test_traces_are_on_where_the_standards_variables_name_a_collector(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], endpoint: str | None
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert ServiceSettings().traces_endpoint() == endpoint


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "grpc://c"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP",
        ),
    ],
)
def test_invalid_collector_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], named: str
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError) as refused:
        ServiceSettings()
    assert wrong_settings(refused.value).startswith(named)
