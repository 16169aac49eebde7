"""Backup and restore of a native node after the loss of its data: nothing is missing or runs twice."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mao_datamgmt.backup.archive import verify_backup
from tests.support import main_job
from tests.support.git import bare_repository, git
from tests.support.main_job import Names
from tests.support.node import NativeNode

pytestmark = [pytest.mark.docker, pytest.mark.etcd]
EVERY_TWO_SECONDS = {"cron": "*/2 * * * * *", "seconds": True, "catch_up": "all", "start_deadline": 1}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NativeNode]:
    node = NativeNode(tmp_path, name="saved")
    try:
        yield node.start()
    finally:
        print("\n".join(node.log[-100:]))
        node.stop()
        node.remove_containers()


def runs_of(node: NativeNode) -> dict[str, dict[str, Any]]:
    found = json.loads(node.maoctl("run", "list", "--limit", "1000", "-o", "json").stdout)
    items = found["items"] if isinstance(found, dict) else found
    assert len({run["id"] for run in items}) == len(items)
    return {run["id"]: run for run in items}


def commits_of(remote: Path, branch: str = "saved") -> Counter[str]:
    """Count a remote branch's commits by run."""
    said = git(remote, "log", "--format=%(trailers:key=MAO-Run,valueonly,separator=%x2C)", branch)
    return Counter(line for line in said.splitlines() if line)


def lose_the_machine(node: NativeNode) -> None:
    """Stop the node and delete all its data."""
    node.stop()
    node.remove_containers()
    shutil.rmtree(node.data_dir)


def test_backup_history_ticks_and_unpushed_commits_survive_machine(
    node: NativeNode, tmp_path: Path, tool_image: str
) -> None:
    there, away = bare_repository(tmp_path / "there.git"), bare_repository(tmp_path / "away.git")
    main_job.register(node, Names("t", "d"), tool_image, str(there))
    main_job.register(node, Names("u", "e"), tool_image, str(away))
    own = node.http.post("/bare-repo/init", json={"name": "own"}).json()["master"]
    main_job.register(node, Names("v", "own"), tool_image, own)
    assert main_job.run_once(node, Names("t", "d"))["phase"] == "succeeded"
    assert main_job.run_once(node, Names("v", "own"))["phase"] == "succeeded"
    away.rename(tmp_path / "gone.git")
    unpushed = main_job.run_once(node, Names("u", "e"))
    assert (unpushed["phase"], unpushed["steps"][0]["pushed"]) == ("succeeded", False)
    job = node.http.post("/pipeline/run", json={"name": "t", **EVERY_TWO_SECONDS}).json()
    main_job.ended_runs_of(node, job["id"], 2)
    before = runs_of(node)

    folder = tmp_path / "backups"
    folder.mkdir()
    node.maoctl("node", "backup", str(folder))
    [backup] = folder.iterdir()
    assert backup.name.startswith("mao-saved-")
    assert backup.stat().st_mode & 0o777 == 0o600
    main_job.ended_runs_of(node, job["id"], len(before) + 2)  # runs that are newer than the backup
    node.http.post(f"/jobs/{job['id']}/pause")
    last = runs_of(node)
    lose_the_machine(node)
    node.maoctl("node", "restore", str(backup))
    node.restart()

    node.http.post(f"/jobs/{job['id']}/pause")
    wait_until_looked_up(node, failing={"e"})
    after = runs_of(node)
    ended = {name: run for name, run in before.items() if run["phase"] not in ("queued", "running")}
    assert {name: after[name] for name in ended} == ended
    for name, run in last.items():
        if run["phase"] == "succeeded":
            assert after[name]["phase"] == "succeeded", after[name]
            assert after[name]["steps"][0]["snapshot"] == run["steps"][0]["snapshot"]
    assert set(commits_of(there).values()) == {1}
    by_tick = Counter(run["scheduled_for"] for run in after.values() if run.get("schedule"))
    assert set(by_tick.values()) == {1}
    unknown = [run for run in after.values() if run.get("missed") == "late"]
    assert all("restored from the backup" in run["reason"] for run in unknown)

    (tmp_path / "gone.git").rename(away)
    node.maoctl("dataset", "push", "e")
    assert commits_of(away) == {unpushed["id"]: 1}
    assert git(Path(own), "rev-parse", "saved") == last_commit(after, "v")
    assert main_job.run_once(node, Names("v", "own"))["phase"] == "succeeded"
    assert "store-reset" not in node.maoctl("doctor", check=False).stdout


def last_commit(runs: dict[str, dict[str, Any]], pipeline: str) -> str:
    [run] = [r for r in runs.values() if r["pipeline"] == pipeline]
    return str(run["steps"][0]["snapshot"])


def wait_until_looked_up(node: NativeNode, failing: set[str]) -> None:
    """Wait until every dataset but `failing` was queried for commits newer than the backup."""

    def are_looked_up() -> bool:
        restored = etcdctl(node, "get", "--print-value-only", "/mao/nodes/saved/restored")
        return set(json.loads(restored)["open"]) == failing if failing else '"open":[]' in restored

    eventually_true(are_looked_up)


def etcdctl(node: NativeNode, *words: str) -> str:
    done = subprocess.run(
        ["etcdctl", "--endpoints", node.etcd, *words], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_backup_killed_restore_is_resumed_and_nothing_starts_before(
    node: NativeNode, tmp_path: Path, tool_image: str
) -> None:
    main_job.register(node, Names("t", "d"), tool_image, str(bare_repository(tmp_path / "there.git")))
    assert main_job.run_once(node, Names("t", "d"))["phase"] == "succeeded"
    backup = tmp_path / "backup.tar.gz"
    node.maoctl("node", "backup", str(backup))
    before = runs_of(node)
    while_it_runs = node.maoctl("node", "restore", str(backup), check=False)
    assert (while_it_runs.returncode, "already running" in while_it_runs.stderr) == (5, True), (
        while_it_runs.stderr
    )
    node.stop()
    stopped = tmp_path / "stopped.tar.gz"
    node.maoctl("node", "backup", str(stopped))  # which starts the node's etcd
    assert verify_backup(stopped)[0].tips == verify_backup(backup)[0].tips
    there = node.maoctl("node", "restore", str(backup), check=False)
    assert (there.returncode, "--replace" in there.stderr) == (5, True), there.stderr

    with killed_when(node.data_dir / "restore.json") as restoring:
        restoring("node", "restore", "--replace", str(backup), env=node.env)
    started = subprocess.run([sys.executable, "-m", "mao_node"], env=node.env, capture_output=True, text=True)
    assert (started.returncode, "has not finished" in started.stderr) == (1, True), started.stderr
    node.maoctl("node", "restore", "--replace", str(backup))
    node.restart()
    assert runs_of(node) == before
    [aside] = (node.data_dir / "replaced").iterdir()
    assert (aside / "datasets" / "d.git" / "HEAD").is_file()
    assert main_job.run_once(node, Names("t", "d"))["phase"] == "succeeded"


@contextlib.contextmanager
def killed_when(sign: Path) -> Iterator[Callable[..., None]]:
    """Run maoctl and kill its process group as soon as the file `sign` exists."""

    def run(*words: str, env: dict[str, str]) -> None:
        argv = [sys.executable, "-m", "maoctl", *words]
        process = subprocess.Popen(argv, env=env, start_new_session=True)
        eventually_true(sign.exists)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    yield run


def eventually_true(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def told(node: NativeNode) -> list[str]:
    items = node.http.get("/conditions").json()["items"]
    return [condition["subject"] for condition in items if condition["name"] == "backup"]


def test_backup_periodic_backups_and_a_failure_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    node = NativeNode(tmp_path, name="saved", env={"MAO_BACKUP_DIR": str(folder), "MAO_BACKUP_EVERY": "60"})
    try:
        node.start()
        eventually_true(lambda: told(node) == [str(folder)])
        folder.mkdir()
        node.kill("datamgmt")  # which checks again at once instead of after five minutes
        eventually_true(lambda: len(list(folder.glob("mao-saved-*.tar.gz"))) == 1)
        node.wait_ready()
        eventually_true(lambda: told(node) == [])
    finally:
        node.stop()
