"""Two schedulers started for one node by mistake: every tick still runs once."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support import main_job
from tests.support.git import bare_repository, git
from tests.support.main_job import Names
from tests.support.node import NativeNode, free_ports, native_node

pytestmark = [pytest.mark.docker, pytest.mark.etcd]


def second_scheduler(node: NativeNode) -> subprocess.Popen[bytes]:
    """The same program with the same settings on another port."""
    env = {
        **node.env,
        "MAO_PORT": str(free_ports(1)),
        "MAO_ETCD_ENDPOINTS": f"127.0.0.1:{node.port + 5}",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "mao_scheduler"],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_every_tick_runs_once(tmp_path: Path, tool_image: str) -> None:
    remote = bare_repository(tmp_path / "remote.git")
    names = Names("twice", "twice-data")
    with native_node(tmp_path, name="doubled") as node:
        other = second_scheduler(node)
        try:
            main_job.register(node, names, tool_image, str(remote))
            job = main_job.next_second_cron(node, names)
            runs = main_job.ended_runs_of(node, job["id"], 6)
        finally:
            other.terminate()
            other.wait(30)
        node.maoctl("job", "remove", job["id"], "--yes")

    ticks = Counter(run["scheduled_for"] for run in runs)
    assert set(ticks.values()) == {1}
    log = git(remote, "log", "--format=%B", node.name)
    for run in runs:
        if run["phase"] == "succeeded":
            assert log.count(f"MAO-Run: {run['id']}") == 1
