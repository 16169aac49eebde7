"""The metrics of a running node's services, as Prometheus gets them."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mao_shared.settings import SERVICES
from tests.support import main_job
from tests.support.git import bare_repository
from tests.support.main_job import Names
from tests.support.node import NativeNode
from tests.support.promtool import promtool

pytestmark = [pytest.mark.docker, pytest.mark.etcd]


def test_metrics_of_a_run_pass_promtool(node: NativeNode, tool_image: str, tmp_path: Path) -> None:
    names = Names("measured-tool", "measured-data")
    main_job.register(node, names, tool_image, str(bare_repository(tmp_path / "remote.git")))
    before = sample(node, "scheduler", "mao_runs_total", outcome="succeeded")
    run = main_job.run_once(node, names)
    assert run["phase"] == "succeeded", run

    assert sample(node, "scheduler", "mao_runs_total", outcome="succeeded") == before + 1
    for phase in ("preparing", "ready", "starting", "running", "exited", "publishing"):
        assert sample(node, "scheduler", "mao_step_phase_duration_seconds_count", phase=phase) >= 1, phase
    for service in (*SERVICES, "gateway"):
        assert sample(node, service, "mao_store_request_duration_seconds_count", operation="read") >= 1
    for operation in ("create", "start"):
        assert sample(node, "runner", "mao_engine_request_duration_seconds_count", operation=operation) >= 1

    for service in (*SERVICES, "gateway"):
        done = promtool("check", "metrics", text=exposition(node, service))
        assert (done.returncode, done.stdout + done.stderr) == (0, ""), service


def exposition(node: NativeNode, service: str) -> str:
    answer = node.http.get("/metrics" if service == "gateway" else f"/services/{service}/metrics")
    assert answer.status_code == 200
    return answer.text


def sample(node: NativeNode, service: str, name: str, **labels: str) -> float:
    """Return the value of the sample with these labels, 0 if it does not exist."""
    for family in text_string_to_metric_families(exposition(node, service)):
        for found in family.samples:
            if found.name == name and labels.items() <= found.labels.items():
                return float(found.value)
    return 0.0
