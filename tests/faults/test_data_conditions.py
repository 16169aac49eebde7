"""Faults of a node's data: how they are reported, that other work continues, and how the node recovers.

Covers a read-only remote, unreadable records, a torn inbox, a broken clone and a full disk; for faults of
etcd see test_conditions.py.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mao_shared import keys
from mao_shared.store import Put, open_store
from tests.support import main_job
from tests.support.disk import fill, set_read_only, small_disk
from tests.support.git import bare_repository, git
from tests.support.main_job import Names
from tests.support.node import NativeNode, native_node
from tests.support.node_conditions import (
    check_condition_everywhere,
    check_recovery,
    find_condition,
    wait_for_alarm,
)
from tests.support.quick_alarms import quick_alarms
from tests.support.waiting import eventually, eventually_answers

pytestmark = [pytest.mark.docker, pytest.mark.etcd]
DISK = 800 << 20  # bytes; etcd preallocates 128 MiB for its log
MIN_FREE = 64 << 20
QUICK, OTHER, GATED = Names("quick", "quick-data"), Names("other", "other-data"), Names("gated", "gated-data")


@pytest.fixture(scope="module")
def remotes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Mount a separate file system for the remotes."""
    with small_disk(tmp_path_factory.mktemp("far") / "remotes", 64 << 20) as folder:
        yield folder


@pytest.fixture(scope="module")
def node(
    tmp_path_factory: pytest.TempPathFactory, remotes: Path, tool_image: str, gated_tool_image: str
) -> Iterator[NativeNode]:
    """Run a node on a small disk with three pipelines; `gated` waits for a file, `quick` has values."""
    root = tmp_path_factory.mktemp("near")
    env = {"MAO_MIN_FREE": str(MIN_FREE), **quick_alarms(root / "alarms")}
    with small_disk(root / "troubled", DISK), native_node(root, name="troubled", env=env) as node:
        for names, image in ((QUICK, tool_image), (OTHER, tool_image), (GATED, gated_tool_image)):
            main_job.register(node, names, image, str(bare_repository(remotes / f"{names.dataset}.git")))
        found = node.http.get(f"/registry/datasets/{QUICK.dataset}")
        body = {**found.json(), "external": ["temperature"]}
        changed = node.http.put(
            f"/registry/datasets/{QUICK.dataset}", json=body, headers={"If-Match": found.headers["etag"]}
        )
        assert changed.is_success, changed.text
        yield node


def start_gated(node: NativeNode) -> tuple[dict[str, Any], Path]:
    """Start a run; return it once its tool runs, and the file that lets the tool end."""
    run = node.http.post("/pipeline/run", json={"name": GATED.tool}).json()
    running = node.wait_run(run["id"], lambda r: r["steps"][0]["phase"] == "running")
    return running, node.data_dir / "workspaces" / run["id"] / "0.1" / "data" / "gate"


def is_running(run: dict[str, Any]) -> bool:
    words = ["docker", "inspect", "-f", "{{.State.Running}}", run["steps"][0]["container_id"]]
    return subprocess.run(words, capture_output=True, text=True).stdout.strip() == "true"


def finish(node: NativeNode, run: dict[str, Any], gate: Path, remotes: Path) -> None:
    """Let the tool end; check that it was not restarted and that its run has one commit."""
    gate.write_text("open")
    ended = node.wait_run(run["id"])
    before, after = run["steps"][0], ended["steps"][0]
    assert (ended["phase"], after["attempt"]) == ("succeeded", 1), ended
    assert after["container_id"] == before["container_id"]
    remote = remotes / f"{GATED.dataset}.git"
    assert git(remote, "log", "--format=%B", node.name).count(f"MAO-Run: {run['id']}") == 1


def collects(node: NativeNode, names: Names = OTHER) -> dict[str, Any]:
    """Check that a manual run succeeds, and return it."""
    ended = main_job.run_once(node, names)
    assert ended["phase"] == "succeeded", ended
    return ended


async def test_data_condition_read_only_remote(node: NativeNode, remotes: Path) -> None:
    set_read_only(remotes, True)
    try:
        run = collects(node, QUICK)
        condition = await check_condition_everywhere(node, "remote", QUICK.dataset, failed=False)
        assert condition["services"] == ["datamgmt"]
        assert (await wait_for_alarm(node, "remote", QUICK.dataset))["dataset"] == QUICK.dataset
        again = collects(node, QUICK)  # it blocks nothing else
        assert find_condition(node, "disk") is None
    finally:
        set_read_only(remotes, False)
    for dataset in (QUICK.dataset, OTHER.dataset):
        node.maoctl("dataset", "push", dataset)
    messages = git(remotes / f"{QUICK.dataset}.git", "log", "--format=%B", node.name)
    assert [messages.count(f"MAO-Run: {one['id']}") for one in (run, again)] == [1, 1]
    await check_recovery(node, "remote", QUICK.dataset)


@pytest.mark.parametrize("kind", ["runs", "enrolments", "ticks"])
async def test_data_condition_unreadable_record(node: NativeNode, remotes: Path, kind: str) -> None:
    run, gate = start_gated(node)
    schedule = {"name": OTHER.tool, "cron": "* * * * * *", "seconds": True, "catch_up": "all"}
    job = node.http.post("/pipeline/run", json=schedule).json()["id"]
    main_job.ended_runs_of(node, job, 1)
    key = {
        "runs": keys.run(node.name, run["id"]),
        "enrolments": keys.enrolment(node.name, GATED.tool),
        "ticks": keys.tick(node.name, job),
    }[kind]
    lists = {"runs": "/runs", "enrolments": "/enrolments", "ticks": "/jobs"}
    store = open_store(node.etcd)
    try:
        await eventually_answers(partial(store.get, key))
        entry = await store.get(key)
        assert entry is not None
        await store.transact([], [Put(key, b'{"format": 2, "of": "a newer version"')])
        for service in ("scheduler", "runner"):  # a pipeline's first run has no earlier state
            node.kill(service)
        node.wait_ready()
        await check_condition_everywhere(node, "record-unreadable", key, failed=False)
        await wait_for_alarm(node, "record-unreadable", key)
        for path in ("/runs", "/jobs", "/enrolments", "/pipeline"):
            assert node.http.get(path).status_code == 200, path
        if kind != "ticks":
            named = [broken["key"] for broken in node.http.get(lists[kind]).json()["unreadable"]]
            assert named == [key]
        ticks = len(main_job.ended_runs_of(node, job, 1))
        main_job.ended_runs_of(node, job, ticks + 3)
        assert is_running(run)
        left = await store.get(key)
        assert left is not None
        assert b"a newer version" in left.value  # it was not overwritten
        await store.transact([], [Put(key, entry.value)])
    finally:
        await store.close()
    assert node.http.delete(f"/jobs/{job}").is_success
    finish(node, run, gate, remotes)
    await check_recovery(node, "record-unreadable", key)


async def test_data_condition_torn_inbox(node: NativeNode, remotes: Path) -> None:
    def send(value: int) -> None:
        answer = node.http.post("/write", json={"key": "temperature", "value": value})
        assert answer.status_code == 202, answer.text

    def committed(*values: int) -> bool:
        remote = remotes / f"{QUICK.dataset}.git"
        if node.name not in git(remote, "branch", "--format=%(refname:short)").split():
            return False
        names = git(remote, "ls-tree", "-r", "--name-only", node.name, "external").split()
        text = "".join(git(remote, "show", f"{node.name}:{name}") for name in names)
        return all(text.count(f'"value":{value}}}') == 1 for value in values)

    send(100)
    inbox = node.data_dir / "inbox" / QUICK.dataset
    await eventually(inbox.is_dir)
    torn = inbox / "20200101T000000.000000Z-torn.json"
    torn.write_bytes(b'{"id": "20200101T000000.000000Z-torn", "key": "temper')
    send(101)
    await check_condition_everywhere(node, "inbox", QUICK.dataset, failed=False)
    await wait_for_alarm(node, "inbox", QUICK.dataset)
    send(102)
    await eventually(lambda: committed(100, 101, 102), 60)
    collects(node)
    (inbox / ".aside" / torn.name).unlink()
    await check_recovery(node, "inbox", QUICK.dataset)


async def test_data_condition_broken_clone(node: NativeNode, remotes: Path) -> None:
    collects(node, OTHER)
    (clone,) = node.data_dir.glob(f"**/{OTHER.dataset}.git")
    tip = git(clone, "rev-parse", node.name)
    spoilt = clone / "objects" / tip[:2] / tip[2:]
    spoilt.chmod(0o644)
    spoilt.write_bytes(b"spoilt")
    run = collects(node, OTHER)
    condition = await check_condition_everywhere(node, "clone", OTHER.dataset, failed=False)
    assert "Nothing is lost" in condition["detail"]
    await wait_for_alarm(node, "clone", OTHER.dataset)
    collects(node, QUICK)
    shown = node.maoctl("dataset", "get", OTHER.dataset).stdout
    assert OTHER.dataset in shown
    messages = git(remotes / f"{OTHER.dataset}.git", "log", "--format=%B", node.name)
    assert messages.count(f"MAO-Run: {run['id']}") == 1
    node.maoctl("dataset", "acknowledge", OTHER.dataset)
    await check_recovery(node, "clone", OTHER.dataset)


async def test_data_condition_full_disk(node: NativeNode, remotes: Path) -> None:
    run, gate = start_gated(node)
    filler = fill(node.data_dir, leave=MIN_FREE // 2)
    try:
        await check_condition_everywhere(node, "disk", failed=True)
        await wait_for_alarm(node, "disk")
        assert is_running(run)
        gate.write_text("open")
        waits = node.wait_run(run["id"], lambda r: r["steps"][0]["phase"] == "publishing")
        assert (waits["phase"], waits["steps"][0]["phase"]) == ("running", "publishing")
        assert node.http.get("/runs").status_code == 200
    finally:
        filler.unlink()
    ended = node.wait_run(run["id"])
    assert (ended["phase"], ended["steps"][0]["attempt"]) == ("succeeded", 1), ended
    collects(node)
    await check_recovery(node, "disk")
