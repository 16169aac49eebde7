"""Traces: what a request caused in all services and how long each part took (docs/decisions/0042-traces.md).

Off unless the environment names a collector. `otlp.py`, which knows OpenTelemetry, is imported only then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from mao_shared.errors import InvalidInput

TRACEPARENT_HEADER = "traceparent"
_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_SAMPLED = 0x01


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span's place: its trace, its id, and the trace's flags (W3C Trace Context, section 3.2)."""

    trace_id: str
    span_id: str
    flags: int = _SAMPLED

    @classmethod
    def parse(cls, traceparent: str | None) -> TraceContext | None:
        """Return the context that a `traceparent` names; None for an invalid one."""
        found = _TRACEPARENT.fullmatch(traceparent or "")
        return None if found is None else cls(found[1], found[2], int(found[3], 16))

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    @property
    def sampled(self) -> bool:
        """True if the spans of this trace are kept."""
        return bool(self.flags & _SAMPLED)

    def with_span(self, span_id: str) -> TraceContext:
        """Return the place of another span of this trace."""
        return replace(self, span_id=span_id)


@dataclass(frozen=True, slots=True)
class FinishedSpan:
    """A part of the work that is over.

    Attributes:
        context: its own place in the trace.
        parent: id of the span that caused it; None for the trace's first.
        attributes: by the names of OpenTelemetry's semantic conventions, or `mao.…`.
        error: why it failed; None if it did not.
        is_request: whether it is the service's part of what another one asked for, and no inner part.
    """

    name: str
    context: TraceContext
    parent: str | None
    start: datetime
    end: datetime
    attributes: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    error: str | None = None
    is_request: bool = False


class Tracing:
    """The traces of one service. This class is what a service has while traces are off: it records nothing.

    Attributes:
        provider: OpenTelemetry's tracer provider, for FastAPI's spans of requests; None while off.
    """

    provider: Any = None

    @property
    def is_on(self) -> bool:
        return self.provider is not None

    def start(self) -> None:
        """Start to send; spans that were recorded before are lost."""

    async def close(self) -> None:
        """Send what is left, for a second at most."""

    def begin_request(self) -> TraceContext | None:
        """Return the place of the current request's span, if it has one."""
        return None

    def describe_request(self, method: str, route: str, request_id: str) -> None:
        """Name the current request's span after its route, before the response starts."""

    def begin_trace(self, span_id: str) -> TraceContext | None:  # noqa: ARG002 (of the one that is on)
        """Return a new trace that begins with this span; None while off."""
        return None

    def record(self, spans: Iterable[FinishedSpan]) -> None:
        """Queue spans to be sent. Never blocks; when the queue is full, the oldest are dropped."""


def make_tracing(service: str, node: str, endpoint: str | None) -> Tracing:
    """Return the traces of a service; `endpoint`: the collector's URL for traces, None for none.

    Raises InvalidInput (`traces-not-installed`) if OpenTelemetry's SDK is not installed.
    """
    if endpoint is None:
        return Tracing()
    try:
        from .otlp import OtlpTracing
    except ModuleNotFoundError as error:
        raise InvalidInput(
            f"Traces are on, and the Python package of {error.name} is not installed.",
            code="traces-not-installed",
            next="Install mao-shared[traces], or unset OTEL_EXPORTER_OTLP_ENDPOINT.",
        ) from error
    return OtlpTracing(service, node, endpoint)
