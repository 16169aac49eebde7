"""Outages of etcd and of the engine: clear errors, no data loss, and work continues afterwards."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support import main_job
from tests.support.cuttable_socket import CuttableSocket
from tests.support.git import bare_repository
from tests.support.main_job import Names
from tests.support.node import native_node

pytestmark = [pytest.mark.docker, pytest.mark.etcd]
ENGINE = Path("/var/run/docker.sock")


def test_outage_of_etcd_is_reported_and_survived(tmp_path: Path) -> None:
    with native_node(tmp_path, name="no-store") as node:
        etcd = node.pid_of("etcd")
        os.kill(etcd, signal.SIGSTOP)
        try:
            answer = node.http.get("/registry/tools", timeout=60)
            ready = node.http.get("/readyz", timeout=60)
        finally:
            os.kill(etcd, signal.SIGCONT)
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (503, "store-unavailable"), problem
        assert problem["next"]
        assert "retry-after" in answer.headers
        assert ready.status_code == 503
        node.wait_ready()
        assert node.http.get("/registry/tools").status_code == 200


def test_outage_of_engine_is_reported_and_run_waits(tmp_path: Path, tool_image: str) -> None:
    engine = CuttableSocket(tmp_path / "engine.sock", ENGINE).join()
    env = {"DOCKER_HOST": f"unix://{engine.path}"}
    names = Names("patient", "patient-data")
    with native_node(tmp_path, name="no-engine", env=env) as node:
        main_job.register(node, names, tool_image, str(bare_repository(tmp_path / "remote.git")))
        engine.cut()
        answer = node.http.post("/images/resolve", json={"image": tool_image})
        assert (answer.status_code, answer.json()["code"]) == (503, "engine-unavailable"), answer.text
        assert answer.json()["next"]
        assert node.http.get("/readyz").status_code == 503

        run = node.http.post("/pipeline/run", json={"name": names.tool}).json()
        engine.join()
        assert node.wait_run(run["id"])["phase"] == "succeeded"
    engine.cut()
