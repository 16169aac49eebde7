"""A node starts despite sockets of a killed one, a long path, and data of the previous version."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mao_node.preflight import FALLBACK
from tests.support.node import NativeNode, native_node
from tests.support.ports import free_port
from tests.support.users import NOBODY, common_folder, connect_as, needs_root
from tests.support.waiting import eventually

pytestmark = [pytest.mark.docker, pytest.mark.etcd]
PARTS = ("etcd", "registry", "scheduler", "runner", "datamgmt", "gateway")


def etcdctl(endpoints: str, *words: str) -> str:
    environ = {**os.environ, "ETCDCTL_API": "3"}
    command = ["etcdctl", f"--endpoints={endpoints}", *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout


@contextmanager
def etcd_over_tcp(node: NativeNode) -> Iterator[str]:
    """Run etcd on the node's data as the previous version did, and yield its endpoint."""
    client, peer = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    urls = [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
    urls += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
    name = [
        f"--name={node.name}",
        f"--initial-cluster={node.name}={peer}",
        "--log-level=error",
        "--logger=zap",
    ]
    with subprocess.Popen(["etcd", f"--data-dir={node.data_dir / 'etcd'}", *name, *urls]) as etcd:
        try:
            answers = ["curl", "-sf", "-o", "/dev/null", f"{client}/health"]
            asyncio.run(eventually(lambda: subprocess.call(answers) == 0))
            yield client
        finally:
            etcd.terminate()


def test_sockets_data_of_previous_version_is_taken_over_and_given_back(tmp_path: Path) -> None:
    node = NativeNode(tmp_path, name="upgraded")
    node.data_dir.mkdir()
    with etcd_over_tcp(node) as endpoint:
        etcdctl(endpoint, "put", "/mao/of-the-version-before", "kept")
    for _ in range(2):
        node.restart()
        assert "kept" in etcdctl(node.etcd, "get", "/mao/of-the-version-before")
        etcdctl(node.etcd, "put", "/mao/of-this-version", "kept too")
        assert node.stop() == 0
        with etcd_over_tcp(node) as endpoint:
            assert "kept too" in etcdctl(endpoint, "get", "/mao/of-this-version")


def lives(pid: int) -> bool:
    """True if a process runs; a zombie does not."""
    try:
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False


def test_sockets_node_that_was_killed_starts_again(tmp_path: Path) -> None:
    with native_node(tmp_path, name="killed") as node:
        pids = [*map(node.pid_of, PARTS), node.pid]
        os.kill(node.pid, signal.SIGSTOP)  # etcd unlinks its sockets if the supervisor dies before it
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert node.stop() == -signal.SIGKILL
        asyncio.run(eventually(lambda: not any(map(lives, pids))))
        left = {path.name for path in node.sockets.iterdir()}
        assert {"localhost:2379", "localhost:2380", "runner.sock"} <= left
        node.restart()
        assert node.http.get("/status").json()["ready"]


def test_sockets_restart_after_killed_supervisor(tmp_path: Path) -> None:
    """Restart while the old processes are still stopping; etcd unlinks its sockets as it stops."""
    with native_node(tmp_path, name="orphaned") as node:
        for _ in range(3):
            os.kill(node.pid, signal.SIGKILL)
            assert node.stop() == -signal.SIGKILL
            node.restart()
            assert node.http.get("/jobs").status_code == 200


@pytest.mark.parametrize("part", ["etcd", "scheduler"])
def test_sockets_killed_process_is_reached_again(tmp_path: Path, part: str) -> None:
    with native_node(tmp_path, name="mended") as node:
        node.kill(part)
        node.wait_for_line(lambda line: f"{part} ended (SIGKILL)" in line, 30)
        node.wait_ready()
        assert node.http.get("/jobs").json()["items"] == []


@needs_root
@pytest.mark.parametrize("letter", ["x", "é"])
def test_sockets_data_directory_with_long_path(letter: str) -> None:
    with common_folder() as folder:
        deep = folder / (letter * 60) / (letter * 60)
        deep.mkdir(parents=True)
        with native_node(deep, name="deep") as node:
            assert node.sockets.parent == FALLBACK
            places = [str(path) for path in node.sockets.iterdir()]
            assert set(connect_as(NOBODY, places)) == {"PermissionError"}
            assert node.http.get("/jobs").status_code == 200
        assert not node.sockets.exists()


@needs_root
def test_sockets_strangers_folder_in_its_place_is_refused_and_named() -> None:
    with common_folder() as folder:
        node = NativeNode(folder / ("x" * 90), name="planted")
        node.sockets.mkdir(mode=0o777)
        os.chown(node.sockets, NOBODY, NOBODY)
        try:
            started = subprocess.run(
                [sys.executable, "-m", "mao_node"], env=node.env, capture_output=True, text=True, timeout=60
            )
        finally:
            node.sockets.rmdir()
            node.http.close()
    assert started.returncode == 1
    assert f"{node.sockets}, belongs to user {NOBODY}" in started.stderr
    assert "next: Remove it" in started.stderr
