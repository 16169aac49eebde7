"""Backup of a compose node to standard output, and restore from standard input after loss of its volumes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import main_job
from tests.support.compose import ComposeNode
from tests.support.git import git
from tests.support.main_job import Names
from tests.support.node import REPO

pytestmark = [pytest.mark.docker, pytest.mark.compose, pytest.mark.timeout(600)]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ComposeNode]:
    node = ComposeNode(tmp_path)
    try:
        yield node.start()
    finally:
        node.stop()


def compose(node: ComposeNode, *words: str, **how: Any) -> subprocess.CompletedProcess[bytes]:
    argv = [str(REPO / "scripts/compose.sh"), *words]
    return subprocess.run(argv, env=node.env, stderr=subprocess.PIPE, check=False, **how)


def test_compose_backup_node_whose_volumes_are_gone_is_as_it_was(
    node: ComposeNode, tmp_path: Path, tool_image: str
) -> None:
    names = Names("saved-tool", "saved-data")
    master = node.http.post("/bare-repo/init", json={"name": "saved-remote"}).json()["master"]
    main_job.register(node, names, tool_image, master)
    run = main_job.run_once(node, names)
    assert run["phase"] == "succeeded", run
    before = json.loads(node.maoctl("run", "list", "-o", "json").stdout)
    backup = tmp_path / "backup.tar.gz"
    with backup.open("wb") as file:
        done = compose(node, "run", "--rm", "-T", "backup", stdout=file)
    assert done.returncode == 0, done.stderr
    with backup.open("rb") as file:
        running = compose(node, "run", "--rm", "-T", "restore", stdin=file)
    assert (running.returncode, b"The node is running" in running.stderr) == (5, True), running.stderr

    compose(node, "down", "--volumes").check_returncode()
    with backup.open("rb") as file:
        done = compose(node, "run", "--rm", "-T", "restore", stdin=file)
    assert done.returncode == 0, done.stderr
    compose(node, "up", "--detach", "--no-build").check_returncode()
    node.maoctl("doctor", "--wait", "--timeout=90s")

    assert json.loads(node.maoctl("run", "list", "-o", "json").stdout) == before
    remote = node.host_path(master)
    tip = git(remote, "-c", f"safe.directory={remote}", "rev-parse", node.name)
    assert tip == run["steps"][0]["snapshot"]
    assert main_job.run_once(node, names)["phase"] == "succeeded"

    compose(node, "stop").check_returncode()
    with backup.open("rb") as file:
        there = compose(node, "run", "--rm", "-T", "restore", stdin=file)
    assert (there.returncode, b"--replace" in there.stderr) == (5, True), there.stderr
    with backup.open("rb") as file:
        done = compose(node, "run", "--rm", "-T", "restore", "restore", "--replace", "-", stdin=file)
    assert (done.returncode, b"/replaced/" in done.stderr) == (0, True), done.stderr
    compose(node, "up", "--detach", "--no-build").check_returncode()
    node.maoctl("doctor", "--wait", "--timeout=90s")
    assert json.loads(node.maoctl("run", "list", "-o", "json").stdout) == before
