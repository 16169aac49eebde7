"""Runs moved to the history are found by id and in lists like any other run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mao_shared import keys
from mao_shared.store import load_etcd
from tests.support.docker import Engine
from tests.support.git import bare_repository
from tests.support.node import NativeNode, native_node
from tests.support.waiting import eventually_answers

pytestmark = [pytest.mark.docker, pytest.mark.etcd]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeNode]:
    """Run a node that moves ended runs to the history at once."""
    env = {"MAO_SETTLE_AFTER": "0", "MAO_RETENTION_INTERVAL": "0.5"}
    with native_node(tmp_path_factory.mktemp("history"), env=env) as node:
        yield node


@pytest.fixture(scope="module")
def run(node: NativeNode, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return a run as it was when it ended; it has been moved to the history since."""
    master = bare_repository(tmp_path_factory.mktemp("masters") / "past.git")
    image = engine.build("echo said; echo 1 > /usr/src/app/data/one")
    for path, body in (
        ("/registry/tools", {"name": "past", "image": image}),
        ("/registry/datasets", {"name": "past", "master": str(master)}),
        ("/pipeline/init", {"tool": "past", "dataset": "past"}),
    ):
        assert node.http.post(path, json=body, timeout=60).is_success
    ended = node.wait_run(node.http.post("/pipeline/run", json={"name": "past"}).json()["id"])
    assert ended["phase"] == "succeeded", ended
    asyncio.run(until_history(node, ended["id"]))
    return ended


async def until_history(node: NativeNode, run_id: str) -> None:
    store = load_etcd()(node.etcd)

    async def is_history() -> bool:
        live = await store.get(keys.run(node.name, run_id))
        return live is None and await store.get(keys.past_run(node.name, run_id)) is not None

    try:
        await eventually_answers(is_history)
    finally:
        await store.close()


def shown(node: NativeNode, run_id: str) -> Any:
    """Return the run as the API shows it, without null fields like in events."""
    return without_nulls(node.http.get(f"/runs/{run_id}").json())


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def test_history_is_shown_and_listed_as_it_was(node: NativeNode, run: dict[str, Any]) -> None:
    assert shown(node, run["id"]) == run
    for filters in (
        {},
        {"phase": "succeeded"},
        {"pipeline": "past", "trigger": "manual"},
        {"since": run["created_at"]},
    ):
        found = node.http.get("/runs", params=filters).json()["items"]
        assert run["id"] in [s["id"] for s in found]
    assert node.http.get("/runs", params={"phase": "failed"}).json()["items"] == []
    listed = node.maoctl("run", "list", "--since", "1h", "--trigger", "manual", "-o", "name").stdout
    assert run["id"] in listed
    assert node.maoctl("run", "list", "--until", "1h", "-o", "name").stdout == ""


def test_history_short_id_log_and_end_are_found(node: NativeNode, run: dict[str, Any]) -> None:
    assert json.loads(node.maoctl("run", "show", run["id"][-8:], "-o", "json").stdout)["id"] == run["id"]
    assert node.maoctl("run", "logs", run["id"]).stdout == "said\n"
    assert node.maoctl("run", "logs", run["id"], "-f").stdout == "said\n"
    assert node.maoctl("run", "wait", run["id"]).returncode == 0
    refused = node.http.post(f"/runs/{run['id']}/cancel", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "run-ended")


def test_history_is_exported_retried_and_reproduced(
    node: NativeNode, run: dict[str, Any], tmp_path: Path
) -> None:
    crate = tmp_path / "crate.zip"
    node.maoctl("run", "export", run["id"], "-o", str(crate))
    assert "is as recorded" in node.maoctl("run", "verify", run["id"], "--crate", str(crate)).stderr
    retried = node.wait_run(node.http.post(f"/runs/{run['id']}/retry").json()["id"])
    assert (retried["phase"], retried["retry_of"]) == ("succeeded", run["id"])
    repeated = node.wait_run(node.http.post(f"/runs/{run['id']}/reproduce").json()["id"])
    assert repeated["phase"] == "succeeded", repeated
    assert repeated["steps"][0]["reproduced"]["different"] == []


def test_history_is_there_after_restart(node: NativeNode, run: dict[str, Any]) -> None:
    node.stop()
    node.restart()
    assert shown(node, run["id"]) == run
    newest = [r["id"] for r in node.http.get("/runs").json()["items"]]
    assert newest == sorted(newest, reverse=True)
    assert run["id"] in newest
