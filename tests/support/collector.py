"""An OpenTelemetry collector on loopback: takes spans by OTLP over HTTP and keeps them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue


@dataclass(frozen=True)
class Span:
    """A span as it arrived; ids in hexadecimal, `parent` empty for a trace's first span, times in ns."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    failed: bool
    attributes: Mapping[str, Any]


@dataclass
class Collector:
    """What has arrived. `answer`: the status of the responses; spans of those above 299 are not kept."""

    url: str = ""
    answer: int = 200
    spans: list[Span] = field(default_factory=list)
    requests: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def of(self, trace: str) -> list[Span]:
        """Return the spans of a trace."""
        with self.changed:
            return [span for span in self.spans if span.trace == trace]

    def wait(self, wanted: Callable[[list[Span]], object], trace: str, timeout: float = 30.0) -> list[Span]:
        """Wait until `wanted` holds for the spans of a trace, and return them. Raises TimeoutError."""

        def found() -> list[Span]:
            return [span for span in self.spans if span.trace == trace]

        with self.changed:
            if not self.changed.wait_for(lambda: wanted(found()), timeout):
                names = [(span.service, span.name) for span in found()]
                raise TimeoutError(f"these spans have arrived: {names}")
            return found()

    def wait_requests(self, count: int, timeout: float = 30.0) -> None:
        """Wait until `count` requests have arrived, whatever they were answered. Raises TimeoutError."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.requests >= count, timeout):
                raise TimeoutError(f"{self.requests} of {count} requests have arrived")


@contextmanager
def collector() -> Iterator[Collector]:
    """Serve `/v1/traces` on a free port of 127.0.0.1."""
    got = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            with got.changed:
                got.requests += 1
                if self.path != "/v1/traces" or self.headers["content-type"] != "application/x-protobuf":
                    status = 415
                elif (status := got.answer) < 300:
                    got.spans += _spans(body)
                got.changed.notify_all()
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        got.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield got
        finally:
            server.shutdown()
            thread.join()


def _spans(body: bytes) -> Iterator[Span]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = str(_attributes(resource.resource.attributes)["service.name"])
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    service=service,
                    name=span.name,
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    failed=span.status.code == span.status.STATUS_CODE_ERROR,
                    attributes=_attributes(span.attributes),
                )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair) for pair in pairs}


def _value(pair: KeyValue) -> Any:
    return getattr(pair.value, pair.value.WhichOneof("value") or "string_value")
