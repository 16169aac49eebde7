"""The traces of a running node: one run is one trace over all services, even if the node is killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mao_shared.settings import SERVICES
from tests.support.collector import Collector, Span, collector
from tests.support.git import bare_repository
from tests.support.node import NativeNode, native_node

pytestmark = [pytest.mark.docker, pytest.mark.etcd]
CALLER = "00f067aa0ba902b7"
FIRST, SECOND, LATER = (digit * 32 for digit in "abc")
PHASES = ["preparing", "ready", "starting", "running", "exited", "publishing"]


@pytest.fixture(scope="module")
def received() -> Iterator[Collector]:
    with collector() as got:
        yield got


@pytest.fixture(scope="module")
def traced(received: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeNode]:
    """A node that sends its traces to the collector, and logs JSON and every import."""
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": received.url,
        "MAO_LOG_FORMAT": "json",
        "PYTHONPROFILEIMPORTTIME": "1",
    }
    with native_node(tmp_path_factory.mktemp("traced"), name="traced", env=env) as node:
        yield node


def post(node: NativeNode, trace: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """POST as part of a trace of the caller's."""
    answer = node.http.post(path, json=body, headers={"traceparent": f"00-{trace}-{CALLER}-01"})
    assert answer.status_code < 300, answer.text
    return dict(answer.json())


def enrol(node: NativeNode, trace: str, name: str, image: str, remote: Path) -> None:
    """Register a tool and a dataset, and enrol the pipeline of the two."""
    post(node, trace, "/registry/tools", {"name": name, "image": image})
    post(node, trace, "/registry/datasets", {"name": f"{name}-data", "body": {"master": str(remote)}})
    post(node, trace, "/pipeline/init", {"tool": name, "dataset": f"{name}-data"})


def orphans(spans: list[Span]) -> list[Span]:
    """Return the spans whose parent has not arrived."""
    known = {"", CALLER, *(span.id for span in spans)}
    return [span for span in spans if span.parent not in known]


def names(spans: list[Span]) -> list[str]:
    return [span.name for span in sorted(spans, key=lambda span: span.start)]


def is_whole(spans: list[Span]) -> bool:
    """Return True once the run's own span, those of all phases and all parents have arrived."""
    found = names(spans)
    return {*PHASES} <= {*found} and any(name.startswith("RUN ") for name in found) and not orphans(spans)


def test_run_is_one_trace_over_five_services(
    traced: NativeNode, received: Collector, tool_image: str, tmp_path: Path
) -> None:
    enrol(traced, FIRST, "traced", tool_image, bare_repository(tmp_path / "remote.git"))
    run = post(traced, FIRST, "/pipeline/run", {"name": "traced"})
    assert traced.wait_run(run["id"])["phase"] == "succeeded"

    spans = received.wait(is_whole, FIRST)
    assert "" not in {span.parent for span in spans}
    assert {span.service for span in spans} == {f"mao-{name}" for name in (*SERVICES, "gateway")}
    by_id = {span.id: span for span in spans}
    assert len(by_id) == len(spans)  # none twice
    [whole] = [span for span in spans if span.name == "RUN traced"]
    assert (whole.attributes["cicd.pipeline.run.id"], whole.failed) == (run["id"], False)
    assert whole.attributes["cicd.pipeline.result"] == "success"
    asked = by_id[whole.parent]
    assert (asked.service, asked.name) == ("mao-scheduler", "POST /pipeline/run")
    assert by_id[asked.parent].service == "mao-gateway"
    assert by_id[asked.parent].name == "POST /pipeline/run"
    [step] = [span for span in spans if span.parent == whole.id]
    assert (step.service, step.name, step.attributes["process.exit.code"]) == ("mao-scheduler", "traced", 0)
    phases = sorted((span for span in spans if span.parent == step.id), key=lambda span: span.start)
    assert [span.name for span in phases] == PHASES
    assert [span.service.removeprefix("mao-") for span in phases] == (
        ["datamgmt", *["runner"] * 3, "datamgmt", "datamgmt"]
    )
    assert step.start == phases[0].start
    assert step.end == phases[-1].end
    asked_of = {span.service for span in spans if by_id.get(span.parent, span).service == "mao-registry"}
    assert asked_of >= {"mao-runner", "mao-datamgmt"}  # which pinned the image and cloned the dataset
    moved = [line for line in traced.log if run["id"] in line and '"run.moved"' in line]
    assert moved
    assert all(f'"trace_id": "{FIRST}"' in line for line in moved)


def test_trace_of_a_run_survives_a_kill_of_the_node(
    traced: NativeNode, received: Collector, gated_tool_image: str, tmp_path: Path
) -> None:
    enrol(traced, SECOND, "gated", gated_tool_image, bare_repository(tmp_path / "remote.git"))
    run = post(traced, SECOND, "/pipeline/run", {"name": "gated"})
    traced.wait_run(run["id"], lambda found: found["steps"][0]["phase"] == "running")
    received.wait(lambda spans: names(spans)[-5:] == [*["POST /pipeline/run"] * 2, *PHASES[:3]], SECOND)

    traced.kill_all()
    (traced.data_dir / "workspaces" / run["id"] / "0.1" / "data" / "gate").write_text("open")
    traced.restart()
    assert traced.wait_run(run["id"])["phase"] == "succeeded"

    spans = received.wait(is_whole, SECOND)
    assert "" not in {span.parent for span in spans}
    assert len({span.id for span in spans}) == len(spans)
    assert {span.service for span in spans} == {f"mao-{name}" for name in (*SERVICES, "gateway")}
    assert [name for name in names(spans) if name in PHASES] == PHASES


def test_trace_of_a_tick_begins_with_its_run(
    traced: NativeNode, received: Collector, tool_image: str, tmp_path: Path
) -> None:
    enrol(traced, LATER, "ticking", tool_image, bare_repository(tmp_path / "remote.git"))
    job = post(traced, LATER, "/pipeline/run", {"name": "ticking", "cron": "*/2 * * * * *", "seconds": True})
    with received.changed:
        before = {span.trace for span in received.spans}
        received.changed.wait_for(
            lambda: [s for s in received.spans if s.name == "RUN ticking" and s.trace not in before], 60
        )
        [first, *_] = [span for span in received.spans if span.name == "RUN ticking"]
    traced.http.delete(f"/jobs/{job['id']}")

    spans = received.wait(is_whole, first.trace)
    assert first.parent == ""
    assert first.attributes["mao.run.trigger"] == "schedule"
    assert [name for name in names(spans) if name in PHASES] == PHASES


def test_what_nobody_traces_is_not_traced(traced: NativeNode, received: Collector) -> None:
    """Reads without a `traceparent`, such as all polling, begin no trace."""
    quiet = [("GET", "/status"), ("GET", "/runs"), ("GET", "/readyz"), ("HEAD", "/")]
    for method, path in quiet:
        traced.http.request(method, path)
    other = "d" * 32
    traced.http.get("/runs", headers={"traceparent": f"00-{other}-{CALLER}-01"})
    spans = received.wait(lambda spans: len(spans) >= 2, other)
    assert {(span.service, span.name) for span in spans} == {
        ("mao-gateway", "GET /runs"),
        ("mao-scheduler", "GET /runs"),
    }
    first = {span.name.partition(" ")[0] for span in received.spans if span.parent == ""}
    assert first.isdisjoint({"GET", "HEAD"})
    unsampled = "e" * 32
    traced.http.get("/runs", headers={"traceparent": f"00-{unsampled}-{CALLER}-00"})
    assert received.of(unsampled) == []


def sdk_imports(node: NativeNode) -> list[str]:
    """Return the imports of OpenTelemetry's SDK and exporter that the node's processes have logged."""
    found = ("opentelemetry.sdk", "opentelemetry.exporter")
    return [line for line in node.log if "import time:" in line and any(name in line for name in found)]


def test_sdk_is_imported_only_while_traces_are_on(traced: NativeNode, tmp_path: Path) -> None:
    env = {
        "PYTHONPROFILEIMPORTTIME": "1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "",
        "FASTAPI_OTEL_AUTO_CONFIGURE": "true",
    }
    with native_node(tmp_path, name="untraced", env=env) as node:
        answer = node.http.get("/runs", headers={"traceparent": f"00-{FIRST}-{CALLER}-01"})
        assert answer.status_code == 200
        assert [line for line in node.log if "import time:" in line and "mao_datamgmt" in line]
        assert sdk_imports(node) == []
    assert len(sdk_imports(traced)) > len(SERVICES)
