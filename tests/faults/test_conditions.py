"""A node whose etcd fills up or loses its data reports it, and recovers as the documentation says."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mao_shared.errors import StoreUnavailable
from mao_shared.store import Put, open_store
from tests.support import main_job
from tests.support.git import bare_repository, git
from tests.support.main_job import Names
from tests.support.node import NativeNode, native_node
from tests.support.node_conditions import (
    alarms,
    check_condition_everywhere,
    find_condition,
    wait_for_alarm,
)
from tests.support.quick_alarms import quick_alarms
from tests.support.waiting import eventually

pytestmark = [pytest.mark.docker, pytest.mark.etcd]
GATED = Names("gated", "gated-data")
QUOTA = 16 << 20  # bytes
PIECE = b"x" * (1 << 19)


async def fill(endpoints: str) -> None:
    store = open_store(endpoints)
    try:
        for number in range(1000):
            await store.transact([], [Put(f"/mao/nodes/ballast/{number % 4}", PIECE)])
    except StoreUnavailable as error:
        if error.code != "store-full":
            raise
    finally:
        await store.close()


def make_room(endpoints: str) -> None:
    """Free space as docs/operations.md describes."""
    call = ["etcdctl", f"--endpoints={endpoints}"]
    env = {**os.environ, "ETCDCTL_API": "3"}
    status = subprocess.run(
        [*call, "endpoint", "status", "-w=json"], check=True, capture_output=True, env=env
    )
    revision = str(json.loads(status.stdout)[0]["Status"]["header"]["revision"])
    for words in (["compact", revision, "--physical"], ["defrag"], ["alarm", "disarm"]):
        subprocess.run([*call, *words], check=True, capture_output=True, env=env)


def start_gated(node: NativeNode, folder: Path, image: str) -> dict[str, Any]:
    """Start a run whose tool waits for its gate, with the remote in `folder`, and return it."""
    main_job.register(node, GATED, image, str(bare_repository(folder / "gated.git")))
    run = node.http.post("/pipeline/run", json={"name": GATED.tool}).json()
    return node.wait_run(run["id"], lambda r: r["steps"][0]["phase"] == "running")


def open_gate(node: NativeNode, run: dict[str, Any]) -> None:
    (node.data_dir / "workspaces" / run["id"] / "0.1" / "data" / "gate").write_text("open")


def state_of(run: dict[str, Any]) -> str:
    """Return the state of the run's container by the engine."""
    words = ["docker", "inspect", "-f", "{{.State.Status}}", run["steps"][0]["container_id"]]
    return subprocess.run(words, capture_output=True, text=True).stdout.strip()


async def test_condition_etcd_full(tmp_path: Path, gated_tool_image: str) -> None:
    with native_node(
        tmp_path, env={"ETCD_QUOTA_BACKEND_BYTES": str(QUOTA), **quick_alarms(tmp_path / "alarms")}
    ) as node:
        endpoints = node.etcd
        assert node.http.get("/readyz").status_code == 200
        run = start_gated(node, tmp_path, gated_tool_image)
        await fill(endpoints)
        everyone = {"gateway", "registry", "scheduler", "runner", "datamgmt"}
        await eventually(lambda: set((find_condition(node, "store") or {}).get("services", [])) == everyone)
        ready = node.http.get("/readyz")
        assert ready.status_code == 503
        assert "NOSPACE" in ready.json()["checks"]["store"]
        doctor = node.maoctl("doctor", check=False)
        assert doctor.returncode == 1
        assert "NOSPACE" in doctor.stdout
        assert 'mao_condition{name="store",state="failed"' in node.http.get("/metrics").text
        assert alarms(node, "store") == []  # cannot be written at present

        def lasts() -> bool:
            return any("loop.waits loop=alarms" in line for line in node.log)

        await eventually(lasts, 60)
        assert state_of(run) == "running"
        open_gate(node, run)
        await eventually(lambda: state_of(run) == "exited")
        await asyncio.to_thread(make_room, endpoints)
        node.wait_ready()
        ended = node.wait_run(run["id"])
        assert (ended["phase"], ended["steps"][0]["attempt"]) == ("succeeded", 1), ended
        messages = git(tmp_path / "gated.git", "log", "--format=%B", node.name)
        assert messages.count(f"MAO-Run: {run['id']}") == 1
        await eventually(lambda: len(alarms(node, "store")) == 1, 60)
        await eventually(lambda: alarms(node, "store")[0].get("over"), 90)
        assert len(alarms(node, "store")) == 1
        assert node.maoctl("doctor").returncode == 0


async def test_condition_etcd_lost_its_data(tmp_path: Path, gated_tool_image: str) -> None:
    with native_node(tmp_path, env={"MAO_LEFTOVER_GRACE": "1s", **quick_alarms(tmp_path / "alarms")}) as node:
        identity = node.data_dir / "federation" / "store.json"
        await eventually(identity.exists)
        run = start_gated(node, tmp_path, gated_tool_image)
        os.kill(node.pid, signal.SIGSTOP)  # otherwise the supervisor restarts it before its data is deleted
        try:
            node.kill("etcd")
            shutil.rmtree(node.data_dir / "etcd")
        finally:
            os.kill(node.pid, signal.SIGCONT)
        await eventually(lambda: find_condition(node, "store-reset"))
        await eventually(lambda: find_condition(node, "store") is None)
        reset = find_condition(node, "store-reset")
        assert reset is not None
        assert (reset["state"], reset["services"]) == ("failed", ["registry"])
        assert node.http.get("/readyz").status_code == 503
        doctor = node.maoctl("doctor", check=False)
        assert doctor.returncode == 1
        assert "store-reset" in doctor.stdout
        assert "maoctl node accept-store" in doctor.stdout
        await eventually(lambda: len(alarms(node, "store-reset")) == 1, 60)
        node.kill("registry")  # the condition outlasts a restart of the service that reports it
        await eventually(
            lambda: find_condition(node, "service") is None and find_condition(node, "store-reset"), 60
        )
        await eventually(lambda: find_condition(node, "item-failing"), 60)
        orphan = find_condition(node, "item-failing")
        assert orphan is not None
        assert (orphan["services"], "left running" in orphan["detail"]) == (["runner"], True)
        assert state_of(run) == "running"
        node.maoctl("node", "accept-store", "--yes")
        node.wait_ready()
        assert find_condition(node, "store-reset") is None
        assert state_of(run) == "running"
        data = node.data_dir / "workspaces" / run["id"] / "0.1" / "data"
        open_gate(node, run)
        await eventually(lambda: find_condition(node, "item-failing") is None, 60)
        assert run["id"] in (data / "runs.csv").read_text()  # it was not removed
        main_job.register(node, GATED, gated_tool_image, str(tmp_path / "gated.git"))
        await eventually(lambda: alarms(node, "store-reset")[0].get("over"), 90)


async def test_condition_disk_filling_warns_first_and_fails_at_publish_limit(
    tmp_path: Path,
) -> None:
    free = shutil.disk_usage(tmp_path).free
    with native_node(
        tmp_path, env={"MAO_MIN_FREE": str(int(free * 0.7)), **quick_alarms(tmp_path / "alarms")}
    ) as node:
        disk = await check_condition_everywhere(node, "disk", failed=False)
        assert disk["services"] == ["datamgmt"]
        await wait_for_alarm(node, "disk")
