"""Every tick runs once even with two schedulers on one node."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support import main_job
from tests.support.git import bare_repository, git
from tests.support.main_job import Names
from tests.support.node import NativeNode, native_node
from tests.support.ports import free_ports

pytestmark = [pytest.mark.docker, pytest.mark.etcd]


@contextmanager
def second_scheduler(node: NativeNode) -> Iterator[httpx.Client]:
    """Run a second scheduler with the same settings on another port for the block."""
    port = str(free_ports(1))
    env = {**node.env, "MAO_PORT": port, "MAO_ETCD_ENDPOINTS": node.etcd}
    process = subprocess.Popen(
        [sys.executable, "-m", "mao_scheduler"],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", transport=httpx.HTTPTransport(retries=10), timeout=30
        ) as client:
            assert client.get("/readyz").status_code == 200
            yield client
            assert process.poll() is None
    finally:
        process.terminate()
        process.wait(30)


def ticks_written(metrics: str) -> float:
    """Return the number of ticks for which a scheduler created runs, by its metrics."""
    return float(re.findall(r"^mao_tick_lateness_seconds_count (\S+)$", metrics, re.MULTILINE)[0])


def test_two_schedulers_every_tick_runs_once(tmp_path: Path, tool_image: str) -> None:
    remote = bare_repository(tmp_path / "remote.git")
    names = Names("twice", "twice-data")
    with native_node(tmp_path, name="doubled") as node:
        with second_scheduler(node) as other:
            main_job.register(node, names, tool_image, str(remote))
            job = main_job.schedule_every_two_seconds(node, names)
            runs = main_job.ended_runs_of(node, job["id"], 4)
            with node.service("scheduler") as scheduler:
                first = scheduler.get("/metrics").text
            written = ticks_written(first) + ticks_written(other.get("/metrics").text)
            records = node.http.get("/runs", params={"schedule": job["id"], "limit": 1000}).json()["items"]
        node.maoctl("job", "remove", job["id"], "--yes")

    ticks = Counter(run["scheduled_for"] for run in runs)
    assert set(ticks.values()) == {1}
    assert 4 <= written <= len(records)  # no tick was recorded by both
    log = git(remote, "log", "--format=%B", node.name)
    for run in runs:
        if run["phase"] == "succeeded":
            assert log.count(f"MAO-Run: {run['id']}") == 1
