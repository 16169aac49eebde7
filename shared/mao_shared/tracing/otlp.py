"""Sends spans by OpenTelemetry's protocol OTLP over HTTP; the only module that knows its SDK.

The exporter reads the other variables of the standard itself, such as OTEL_EXPORTER_OTLP_HEADERS,
OTEL_TRACES_SAMPLER and OTEL_RESOURCE_ATTRIBUTES.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_BSP_SCHEDULE_DELAY
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision

from mao_shared import __version__
from mao_shared.logs import Outage

from . import FinishedSpan, TraceContext, Tracing

SEND_PERIOD = 1.0  # seconds; a service that is killed loses the spans of so long
CLOSE_SECONDS = 1.0
_EPOCH = datetime.fromtimestamp(0, UTC)


class OtlpTracing(Tracing):
    """The traces of a service that has a collector. `endpoint`: its URL for traces."""

    def __init__(self, service: str, node: str, endpoint: str) -> None:
        self._endpoint = endpoint
        self._log, self._repeated = logging.getLogger(OTLPSpanExporter.__module__), _OncePerMinute()
        self._ids = _GivenIds()
        resource = Resource.create(
            {
                "service.namespace": "mao",
                "service.name": f"mao-{service}",
                "service.version": __version__,
                "service.instance.id": node,
            }
        )
        self.provider: TracerProvider = TracerProvider(
            resource=resource, id_generator=self._ids, shutdown_on_exit=False
        )
        self._tracer = self.provider.get_tracer("mao", __version__)

    def start(self) -> None:
        delay = None if OTEL_BSP_SCHEDULE_DELAY in os.environ else SEND_PERIOD * 1000
        self._log.addFilter(self._repeated)  # two lines for each batch while the collector is away
        exporter = OTLPSpanExporter(endpoint=self._endpoint)
        self.provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=delay))

    async def close(self) -> None:
        # In a thread that does not outlive the process, since a collector that hangs must not delay a stop.
        sending = threading.Thread(target=self.provider.shutdown, daemon=True)
        sending.start()
        await asyncio.to_thread(sending.join, CLOSE_SECONDS)
        self._log.removeFilter(self._repeated)

    def begin_request(self) -> TraceContext | None:
        return _place(trace.get_current_span().get_span_context())

    def describe_request(self, method: str, route: str, request_id: str) -> None:
        span = trace.get_current_span()
        if span.is_recording():
            span.update_name(f"{method} {route}")
            span.set_attributes({"http.route": route, "mao.request_id": request_id})

    def begin_trace(self, span_id: str) -> TraceContext | None:
        trace_id = self._ids.generate_trace_id()
        decided = self.provider.sampler.should_sample(None, trace_id, "run", trace.SpanKind.SERVER)
        return TraceContext(f"{trace_id:032x}", span_id, int(decided.decision is Decision.RECORD_AND_SAMPLE))

    def record(self, spans: Iterable[FinishedSpan]) -> None:
        for span in spans:
            self._record(span)

    def _record(self, span: FinishedSpan) -> None:
        own = span.context
        above = Context()
        if span.parent is not None:
            parent = trace.SpanContext(
                int(own.trace_id, 16),
                int(span.parent, 16),
                is_remote=True,
                trace_flags=trace.TraceFlags(own.flags),
            )
            above = trace.set_span_in_context(trace.NonRecordingSpan(parent), above)
        elif not own.sampled:
            return  # as the trace's beginning was decided
        with self._ids.given(own):
            made = self._tracer.start_span(
                span.name,
                above,
                trace.SpanKind.SERVER if span.is_request else trace.SpanKind.INTERNAL,
                span.attributes,
                start_time=_nanoseconds(span.start),
            )
        if span.error is not None:
            made.set_status(trace.Status(trace.StatusCode.ERROR, span.error))
        # Services write times by their own clocks, so that an end may be before its start.
        made.end(_nanoseconds(max(span.start, span.end)))


def _place(context: trace.SpanContext) -> TraceContext | None:
    if not context.is_valid:
        return None
    return TraceContext(f"{context.trace_id:032x}", f"{context.span_id:016x}", int(context.trace_flags))


def _nanoseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


class _GivenIds(RandomIdGenerator):
    """Random ids, but for spans whose place is known before they are made."""

    def __init__(self) -> None:
        self._given: TraceContext | None = None

    @contextmanager
    def given(self, context: TraceContext) -> Iterator[None]:
        """Within the block, which must not wait, the next span gets these ids."""
        self._given = context
        try:
            yield
        finally:
            self._given = None

    def generate_trace_id(self) -> int:
        return super().generate_trace_id() if self._given is None else int(self._given.trace_id, 16)

    def generate_span_id(self) -> int:
        return super().generate_span_id() if self._given is None else int(self._given.span_id, 16)


class _OncePerMinute(logging.Filter):
    """Lets the first of repeated lines pass, and one a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._outage = Outage()

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 (the library's signature)
        return self._outage.is_news()
