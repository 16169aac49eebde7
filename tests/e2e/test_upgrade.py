"""A node is upgraded from the version before this one, and set back to it, while it collects."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support import main_job
from tests.support.git import bare_repository, git
from tests.support.main_job import Names
from tests.support.node import REPO, NativeNode
from tests.support.ports import free_ports

pytestmark = [pytest.mark.docker, pytest.mark.etcd]

PREVIOUS = "e7e27af"  # the last commit of the version before
PORTS_OF_PREVIOUS = 9


def packages(tree: Path) -> str:
    """PYTHONPATH of a checkout."""
    services = [f"services/{name}" for name in ("registry", "runner", "datamgmt", "scheduler", "gateway")]
    return os.pathsep.join(str(tree / each) for each in ("shared", "cli", "node", *services))


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout of the version before, out of this repository's history."""
    if subprocess.run(
        ["git", "-C", REPO, "cat-file", "-e", f"{PREVIOUS}^{{commit}}"], check=False
    ).returncode:
        pytest.skip(f"this clone has no commit {PREVIOUS}: fetch the whole history ('git fetch --unshallow')")
    tree = tmp_path_factory.mktemp("previous")
    archive = subprocess.run(["git", "-C", REPO, "archive", PREVIOUS], capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", tree], input=archive.stdout, check=True)
    return tree


@pytest.fixture
def node(tmp_path: Path, previous: Path) -> Iterator[NativeNode]:
    """A node of the version before, started; stopped at the end in whichever version it is then."""
    made = NativeNode(tmp_path, name="upgraded", env={"PYTHONPATH": packages(previous)})
    made.port = free_ports(PORTS_OF_PREVIOUS)
    made.env["MAO_GATEWAY_PORT"] = str(made.port)
    made.restart()
    try:
        yield made
    except BaseException:
        print("\n".join(made.log[-200:]))
        raise
    finally:
        made.stop()
        made.remove_containers()


def switch(node: NativeNode, tree: Path) -> None:
    node.stop()
    node.env["PYTHONPATH"] = packages(tree)
    node.restart()


def start_gated(node: NativeNode) -> tuple[str, str]:
    """Starts a run whose tool waits for its gate; the ids of the run and of its container."""
    run = node.http.post("/pipeline/run", json={"name": "gated"}).json()
    running = node.wait_run(run["id"], lambda r: r["steps"][0]["phase"] == "running")
    return run["id"], str(running["steps"][0]["container_id"])


def finish_gated(node: NativeNode, run_id: str, container: str) -> dict[str, Any]:
    """Opens the gate of a run; checks that it is still the container that was started, and how it ended."""
    now = node.http.get(f"/runs/{run_id}").json()
    assert now["steps"][0]["phase"] == "running"
    (node.data_dir / "workspaces" / run_id / "0.1" / "data" / "gate").write_text("open")
    ended = node.wait_run(run_id)
    step = ended["steps"][0]
    assert (ended["phase"], step["attempt"], step["container_id"]) == ("succeeded", 1, container), ended
    return ended


def runs_of(node: NativeNode, job: str) -> list[dict[str, Any]]:
    listed = node.http.get("/runs", params={"schedule": job, "limit": 1000})
    assert listed.is_success, listed.text
    items: list[dict[str, Any]] = listed.json()["items"]
    return items


def test_upgrade_and_back_keeps_runs_schedules_and_ticks(
    node: NativeNode, previous: Path, tmp_path: Path, tool_image: str, gated_tool_image: str
) -> None:
    """Previous → this → previous → this, with a run under way over each change and a tick every second."""
    remote = node.http.post("/bare-repo/init", json={"name": "gated-data"}).json()
    gated = Path(remote["path"]) if "path" in remote else bare_repository(tmp_path / "gated.git")
    main_job.register(node, Names("gated", "gated-data"), gated_tool_image, str(gated))
    main_job.register(
        node, Names("quick", "quick-data"), tool_image, str(bare_repository(tmp_path / "q.git"))
    )
    spec = {"cron": "* * * * * *", "seconds": True, "catch_up": "all", "overlap": "queue"}
    job = node.http.post("/pipeline/run", json={"name": "quick", **spec}).json()["id"]
    first = main_job.ended_runs_of(node, job, 1)[0]["scheduled_for"]

    ended = []
    for tree in (REPO, previous, REPO):
        run, container = start_gated(node)
        switch(node, tree)
        node.run_after(job, datetime.now().astimezone())
        ended.append(finish_gated(node, run, container)["id"])
    last = node.run_after(job, datetime.now().astimezone())["scheduled_for"]
    assert node.http.post(f"/jobs/{job}/pause").is_success

    ticks = Counter(run["scheduled_for"] for run in runs_of(node, job))
    assert set(ticks.values()) == {1}
    begin, end = datetime.fromisoformat(first), datetime.fromisoformat(last)
    due = {begin + timedelta(seconds=i) for i in range(int((end - begin).total_seconds()) + 1)}
    assert not due - {datetime.fromisoformat(text) for text in ticks}
    assert {run for run in ended if node.http.get(f"/runs/{run}").json()["phase"] == "succeeded"} == set(
        ended
    )
    messages = git(gated, "log", "--format=%B", node.name)
    assert [messages.count(f"MAO-Run: {run}") for run in ended] == [1, 1, 1]
