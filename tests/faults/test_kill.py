"""SIGKILL of any process during a run: the run ends once, with one commit and no container left."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import main_job
from tests.support.git import bare_repository, git
from tests.support.main_job import Names
from tests.support.node import NativeNode, native_node

pytestmark = [pytest.mark.docker, pytest.mark.etcd]
PROCESSES = ["registry", "scheduler", "runner", "datamgmt", "gateway", "etcd"]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeNode]:
    with native_node(tmp_path_factory.mktemp("faults"), name="faulty") as node:
        yield node


@pytest.fixture(scope="module")
def remote(node: NativeNode, gated_tool_image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enrol a pipeline whose tool waits for `gate` in its data folder, and return its dataset's remote."""
    path = bare_repository(tmp_path_factory.mktemp("remote") / "r.git")
    main_job.register(node, Names("gated", "gated-data"), gated_tool_image, str(path))
    return path


def containers_of(run_id: str) -> list[str]:
    done = subprocess.run(
        ["docker", "ps", "-aq", "--filter", f"label=mao.run={run_id}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.parametrize("victim", PROCESSES)
def test_kill_run_ends_once(node: NativeNode, remote: Path, victim: str) -> None:
    run = node.http.post("/pipeline/run", json={"name": "gated"}).json()
    running = node.wait_run(run["id"], lambda r: r["steps"][0]["phase"] == "running")
    assert running["steps"][0]["phase"] == "running"

    node.kill(victim)
    data = node.data_dir / "workspaces" / run["id"] / "0.1" / "data"
    (data / "gate").write_text("open")
    node.wait_ready()
    ended = node.wait_run(run["id"])

    assert ended["phase"] == "succeeded", ended
    assert ended["steps"][0]["attempt"] == 1
    assert git(remote, "log", "--format=%B", node.name).count(f"MAO-Run: {run['id']}") == 1
    node.wait_until_gone(run["id"])
    assert containers_of(run["id"]) == []
