"""Upgrade of a node from the previous version, and downgrade, during collection."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mao_shared import keys
from mao_shared.models import Tool, tick_run_id
from mao_shared.store import Store, open_store
from tests.support import main_job
from tests.support.git import bare_repository, git
from tests.support.main_job import Names
from tests.support.node import REPO, NativeNode
from tests.support.ports import free_ports
from tests.support.waiting import eventually, eventually_answers

pytestmark = [pytest.mark.docker, pytest.mark.etcd]

PREVIOUS = "12390cf"  # the last commit of the previous version
PORTS_OF_PREVIOUS = 9


def packages(tree: Path) -> str:
    """Return the PYTHONPATH of a checkout."""
    services = [f"services/{name}" for name in ("registry", "runner", "datamgmt", "scheduler", "gateway")]
    folders = (
        "shared",
        "git",
        "vote",
        "cli",
        "node",
        *services,
    )  # versions before 12390cf had no git/ and vote/
    return os.pathsep.join(str(tree / folder) for folder in folders if (tree / folder).is_dir())


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Check out the previous version from this repository's history."""
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
    """Run a node of the previous version; at the end stop it, whatever its version then."""
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


def switch(node: NativeNode, tree: Path, *, killed: bool = False) -> None:
    """Restart the node from another checkout; if `killed`, all its processes are killed first."""
    if killed:
        node.kill_all()
    else:
        node.stop()
    node.env["PYTHONPATH"] = packages(tree)
    node.restart()


def start_gated(node: NativeNode) -> tuple[str, str]:
    """Start a run whose tool waits for its gate; return the ids of the run and of its container."""
    run = node.http.post("/pipeline/run", json={"name": "gated"}).json()
    running = node.wait_run(run["id"], lambda r: r["steps"][0]["phase"] == "running")
    return run["id"], str(running["steps"][0]["container_id"])


def finish_gated(node: NativeNode, run_id: str, container: str) -> dict[str, Any]:
    """Open a run's gate; check that its container is the one started before and that the run succeeds."""
    now = node.http.get(f"/runs/{run_id}").json()
    assert now["steps"][0]["phase"] == "running"
    (node.data_dir / "workspaces" / run_id / "0.1" / "data" / "gate").write_text("open")
    ended = node.wait_run(run_id)
    step = ended["steps"][0]
    assert (ended["phase"], step["attempt"], step["container_id"]) == ("succeeded", 1, container), ended
    return ended


def check_ticks(runs: list[dict[str, Any]], first: str, last: str) -> None:
    """Assert that each second from the first tick to the last has exactly one run."""
    ticks = Counter(run["scheduled_for"] for run in runs)
    assert set(ticks.values()) == {1}
    begin, end = datetime.fromisoformat(first), datetime.fromisoformat(last)
    due = {begin + timedelta(seconds=i) for i in range(int((end - begin).total_seconds()) + 1)}
    assert not due - {datetime.fromisoformat(text) for text in ticks}


def runs_of(node: NativeNode, job: str) -> list[dict[str, Any]]:
    listed = node.http.get("/runs", params={"schedule": job, "limit": 1000})
    assert listed.is_success, listed.text
    items: list[dict[str, Any]] = listed.json()["items"]
    return items


def test_upgrade_and_back_keeps_runs_schedules_and_ticks(
    node: NativeNode, previous: Path, tmp_path: Path, tool_image: str, gated_tool_image: str
) -> None:
    """Switch previous → this → previous → this, with a run active at each switch and a tick every second."""
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

    check_ticks(runs_of(node, job), first, last)
    assert {run for run in ended if node.http.get(f"/runs/{run}").json()["phase"] == "succeeded"} == set(
        ended
    )
    messages = git(gated, "log", "--format=%B", node.name)
    assert [messages.count(f"MAO-Run: {run}") for run in ended] == [1, 1, 1]


@pytest.mark.timeout(300)  # three starts of a node, and ticks that are waited for
async def test_upgrade_history_is_run_by_neither_version_again(
    node: NativeNode, previous: Path, tmp_path: Path, tool_image: str
) -> None:
    """Switch previous → this → previous → this, killing the node each time."""
    remote = bare_repository(tmp_path / "quick.git")
    main_job.register(node, Names("quick", "quick-data"), tool_image, str(remote))
    spec = {"cron": "* * * * * *", "seconds": True, "catch_up": "all", "overlap": "queue"}
    job = node.http.post("/pipeline/run", json={"name": "quick", **spec}).json()["id"]
    first = main_job.ended_runs_of(node, job, 3)[-1]["scheduled_for"]
    node.env |= {"MAO_SETTLE_AFTER": "0", "MAO_RETENTION_INTERVAL": "0.5"}
    span = {"since": first}
    for tree in (REPO, previous, REPO):
        node.run_after(job, datetime.now().astimezone())
        switch(node, tree, killed=True)
        last = node.run_after(job, datetime.now().astimezone())["scheduled_for"]
        await eventually_answers(partial(is_history, node, last), 60)
    assert node.http.post(f"/jobs/{job}/pause").is_success
    runs = [r for r in runs_of(node, job) if r["phase"] != "queued"]
    check_ticks(runs, first, last)
    found = node.http.post(f"/jobs/{job}/backfill", json=span | {"until": last}).json()
    assert found["queued"] == []
    messages = git(remote, "log", "--format=%B", node.name)
    pushed = [r["id"] for r in runs if r["phase"] == "succeeded" and r["steps"][0]["pushed"]]
    assert len(pushed) > 8
    assert {messages.count(f"MAO-Run: {run}") for run in pushed} == {1}


async def is_history(node: NativeNode, tick: str) -> bool:
    """True if a tick's run has been moved to the history."""
    store = open_store(node.etcd)
    try:
        moment = datetime.fromisoformat(tick)
        return await store.get(keys.past_run(node.name, tick_run_id("quick", node.name, moment))) is not None
    finally:
        await store.close()


def test_upgrade_kill_at_change_and_enrolments_renewed_on_either_side(
    node: NativeNode, previous: Path, tmp_path: Path, tool_image: str, gated_tool_image: str
) -> None:
    """An agreement of either version is valid in the other: no run is refused."""
    remotes = {name: bare_repository(tmp_path / f"{name}.git") for name in ("gated", "quick")}
    main_job.register(node, Names("gated", "gated-data"), gated_tool_image, str(remotes["gated"]))
    main_job.register(node, Names("quick", "quick-data"), tool_image, str(remotes["quick"]))
    spec = {"cron": "* * * * * *", "seconds": True, "catch_up": "all", "overlap": "queue"}
    job = node.http.post("/pipeline/run", json={"name": "quick", **spec}).json()["id"]
    first = main_job.ended_runs_of(node, job, 1)[0]["scheduled_for"]

    ended = []
    for tree, time in ((REPO, "40m"), (previous, "41m"), (REPO, None)):
        run, container = start_gated(node)
        switch(node, tree, killed=True)
        node.run_after(job, datetime.now().astimezone())
        if time is not None:  # the operator changes the pipeline and agrees to the change
            renew(node, "gated", time)
        ended.append(finish_gated(node, run, container)["id"])
    last = node.run_after(job, datetime.now().astimezone())["scheduled_for"]
    assert node.http.post(f"/jobs/{job}/pause").is_success
    check_ticks(runs_of(node, job), first, last)

    run, container = start_gated(node)
    ended.append(finish_gated(node, run, container)["id"])
    messages = git(remotes["gated"], "log", "--format=%B", node.name)
    assert [messages.count(f"MAO-Run: {run}") for run in ended] == [1, 1, 1, 1]


def renew(node: NativeNode, pipeline: str, time: str) -> None:
    """Change the time limit of the pipeline's tool and approve the change."""
    tool = node.http.get(f"/registry/tools/{pipeline}")
    known = {name: value for name, value in tool.json().items() if name in Tool.model_fields}
    changed = node.http.put(
        f"/registry/tools/{pipeline}",
        json={**known, "limits": {**known["limits"], "time": time}},
        headers={"If-Match": tool.headers["etag"]},
    )
    assert changed.is_success, changed.text
    node.maoctl("pipeline", "approve", pipeline, "--yes")


def test_upgrade_local_remote_outside_roots_is_reported_and_blocks_no_collection(
    node: NativeNode, tmp_path: Path, tool_image: str
) -> None:
    """Use a remote outside MAO_LOCAL_REMOTES, which the previous version did not check."""
    far = bare_repository(tmp_path / "elsewhere" / "far.git")
    main_job.register(node, Names("quick", "quick-data"), tool_image, str(far))
    before = main_job.run_once(node, Names("quick", "quick-data"))
    roots = node.env["MAO_LOCAL_REMOTES"]
    node.env["MAO_LOCAL_REMOTES"] = ""
    switch(node, REPO)
    run = main_job.run_once(node, Names("quick", "quick-data"))
    assert run["phase"] == "succeeded", run
    (condition,) = node.http.get("/conditions").json()["items"]
    assert (condition["name"], condition["subject"]) == ("remote", "quick-data")
    assert "MAO_LOCAL_REMOTES" in condition["next"]
    assert node.http.get("/readyz").status_code == 200

    node.env["MAO_LOCAL_REMOTES"] = roots
    switch(node, REPO)
    node.maoctl("dataset", "push", "quick-data")
    messages = git(far, "log", "--format=%B", node.name)
    assert [messages.count(f"MAO-Run: {one['id']}") for one in (before, run)] == [1, 1]
    assert node.http.get("/conditions").json()["items"] == []


async def test_upgrade_unpushed_work_is_pushed_by_other_version(
    node: NativeNode, previous: Path, tmp_path: Path, tool_image: str
) -> None:
    """Leave commits in the outbox and acknowledged values pending over a kill at each switch."""
    remote, away = bare_repository(tmp_path / "quick.git"), tmp_path / "away.git"
    main_job.register(node, Names("quick", "quick-data"), tool_image, str(remote))
    found = node.http.get("/registry/datasets/quick-data")
    changed = node.http.put(
        "/registry/datasets/quick-data",
        json={**found.json(), "external": ["temperature"]},
        headers={"If-Match": found.headers["etag"]},
    )
    assert changed.is_success, changed.text
    runs = [main_job.run_once(node, Names("quick", "quick-data"))["id"]]
    for number, tree in enumerate((REPO, previous, REPO)):
        remote.rename(away)
        run = main_job.run_once(node, Names("quick", "quick-data"))
        assert run["phase"] == "succeeded", run
        sent = node.http.post("/write", json={"key": "temperature", "value": 1000 + number})
        assert sent.status_code == 202, sent.text
        runs.append(run["id"])
        switch(node, tree, killed=True)
        away.rename(remote)
        node.maoctl("dataset", "push", "quick-data")
        await eventually(partial(has_all, node, remote, runs, number + 1), 90)


def has_all(node: NativeNode, remote: Path, runs: list[str], values: int) -> bool:
    """True if the remote has each run and each value exactly once."""
    messages = git(remote, "log", "--format=%B", node.name)
    counts = [messages.count(f"MAO-Run: {run}") for run in runs]
    names = git(remote, "ls-tree", "-r", "--name-only", node.name, "external").split()
    text = "".join(git(remote, "show", f"{node.name}:{name}") for name in names)
    counts += [text.count(f'"value":{1000 + number}}}') for number in range(values)]
    assert max(counts) == 1, counts
    return min(counts) == 1


async def test_upgrade_fields_of_newer_version_outlast_writes_of_this_one(
    node: NativeNode, tmp_path: Path, tool_image: str, gated_tool_image: str
) -> None:
    switch(node, REPO)
    for name, image in (("quick", tool_image), ("gated", gated_tool_image)):
        main_job.register(
            node, Names(name, f"{name}-data"), image, str(bare_repository(tmp_path / f"{name}.git"))
        )
    spec = {"name": "quick", "cron": "* * * * * *", "seconds": True, "catch_up": "all"}
    job = node.http.post("/pipeline/run", json=spec).json()["id"]
    main_job.ended_runs_of(node, job, 3)
    run, container = start_gated(node)
    places = [
        keys.tick(node.name, job),
        keys.schedule(node.name, job),
        keys.run(node.name, run),
        keys.enrolment(node.name, "gated"),
        keys.registry("tools", "gated"),
    ]
    newer = {"of_newer": {"known": None, "to": ["it", {"deep": 1}]}}
    store = open_store(node.etcd)
    try:
        for place in places:
            await eventually_answers(partial(add_fields, store, place, newer))
        switch(node, REPO, killed=True)
        node.run_after(job, datetime.now().astimezone())
        finish_gated(node, run, container)
        assert node.http.post(f"/jobs/{job}/pause").is_success
        renew(node, "gated", "42m")
        assert node.http.get("/conditions").json()["items"] == []
        for place in places:
            assert (await document(store, place)).items() >= newer.items(), place
    finally:
        await store.close()


async def document(store: Store, key: str) -> dict[str, Any]:
    entry = await store.get(key)
    return {} if entry is None else dict(json.loads(entry.value))


async def add_fields(store: Store, key: str, fields: dict[str, Any]) -> bool:
    """Add fields to a record; return False if it was changed concurrently."""
    entry = await store.get(key)
    if entry is None:
        return False
    made = {**json.loads(entry.value), **fields}
    return await store.replace(key, json.dumps(made).encode(), entry.revision) is not None
