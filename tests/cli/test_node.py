"""`maoctl node list` and `maoctl pipeline runs --all-nodes`: the state of other nodes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from . import documents
from .conftest import Maoctl
from .gateways import RememberingGateway

HOSTILE = "\x1b]0;owned\x07\x9b2J\u202e"


def rows(gateway: RememberingGateway) -> None:
    run: dict[str, Any] = {"id": "20260131T120000Z-daily-1", "trigger": "schedule", "phase": "succeeded"}
    done = {"node": "node-1", "pipeline": "daily", "present": True, "version": "0.1.0", "runs": [run]}
    late = {"node": "node-2", "pipeline": "daily", "present": False, "late": f"the tick x, {HOSTILE}"}
    gateway.answer("GET", "/federation/runs", {"items": [done, late], "cursor": None})


def test_node_list_shows_when_an_absent_node_was_seen(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    absent = {"name": "node-2", "present": False, "version": "0.0.9", "last_seen": documents.ago(7200)}
    gateway.keep("/federation/nodes", documents.node(), absent, {"name": "node-3", "present": False})
    lines = maoctl("node", "list").out.splitlines()
    assert lines[1].split()[:2] == ["node-1", "present"]
    assert "absent, last seen 2h ago" in lines[2]
    assert "0.0.9" in lines[2]
    assert lines[3].split()[:2] == ["node-3", "absent"]


def test_pipeline_runs_of_all_nodes(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    rows(gateway)
    result = maoctl("pipeline", "runs", "daily", "--all-nodes")
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[1].split() == ["node-1", "present", "0.1.0", "20260131T120000Z-daily-1", "succeeded"]
    assert "\\x1b]0;owned\\x07" in lines[2]
    assert "\x1b" not in result.out
    assert gateway.calls[-1].query["pipeline"] == "daily"


def test_pipeline_runs_shows_a_past_tick_as_due_or_late(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    row = {"node": "n", "pipeline": "daily", "present": True, "version": "1", "runs": []}
    ticks = {"in 5m": -300, "due": 30, "late": 300}
    told = [{**row, "next_tick": documents.ago(seconds)} for seconds in ticks.values()]
    gateway.answer("GET", "/federation/runs", {"items": told, "cursor": None})
    lines = maoctl("pipeline", "runs", "daily", "--all-nodes").out.splitlines()
    assert [line.split(maxsplit=3)[3].strip() for line in lines[1:]] == list(ticks)


def test_federation_list_shows_a_core_without_majority(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    row = {
        "state": "joined",
        "present": True,
        "role": "core",
        "invited_at": documents.ago(9),
        "healthy": False,
    }
    there = [{**row, "node": "a", "answers": True}, {**row, "node": "b", "answers": False}]
    gateway.answer("GET", "/federation/members", {"items": there, "cursor": None})
    first, second = maoctl("federation", "list").out.splitlines()[1:]
    assert ("no majority" in first, "no majority" in second, " no" in second) == (True, False, True)


def test_pipeline_runs_of_this_node(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/runs")
    assert maoctl("pipeline", "runs", "daily").code == 0
    assert gateway.calls[-1].query["pipeline"] == "daily"


def test_run_logs_of_another_node(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    told = {"id": "x", "status": "ok", "step": "crawl", "text": f"one\n{HOSTILE}\n", "cut": True}
    gateway.answer("GET", "/federation/logs", told)
    result = maoctl("run", "logs", "20260131T120000Z-daily-1", "--node", "node-2", "--step", "crawl")
    assert result.code == 0, result.err
    assert "==> node node-2, step crawl (end only) <==" in result.err
    assert result.out == "one\n\\x1b]0;owned\\x07\\x9b2J\\u202e\n"
    query = {"node": "node-2", "run": "20260131T120000Z-daily-1", "step": "crawl"}
    assert gateway.calls[-1].query == query


def test_run_logs_of_a_node_that_does_not_share_them(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.problem("GET", "/federation/logs", 403, "logs-not-shared", next="Ask its operator.")
    result = maoctl("run", "logs", "r", "--node", "node-2")
    assert (result.code, "next: Ask its operator." in result.err) == (4, True)
    combined = maoctl("run", "logs", "r", "--node", "node-2", "--follow")
    assert (combined.code, "--node and --follow cannot be combined" in combined.err) == (2, True)


def test_run_logs_suggests_the_node_of_an_unknown_run(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    here, there = documents.run(), "20260131T115900Z-daily-0a1b2c3e"
    gateway.keep("/runs", here, key="id")
    run: dict[str, Any] = {"id": there, "trigger": "schedule", "phase": "succeeded"}
    seen = {"node": "node-2", "pipeline": "daily", "present": True, "runs": [run]}
    gateway.answer("GET", "/federation/runs", {"items": [seen], "cursor": None})
    for typed in (there, "0a1b2c3e"):
        result = maoctl("run", "logs", typed)
        assert result.code == 3
        assert f"next: It is a run of node-2: maoctl run logs {there} --node node-2\n" in result.err
    unknown = maoctl("run", "logs", "20260131T115900Z-daily-0a1b2c3f")
    assert "If it is another node's run: maoctl run logs" in unknown.err
    assert "Did you mean" not in unknown.err


def test_stale_answers_are_reported_once(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/federation/nodes", documents.node())
    gateway.as_of = documents.ago(300)
    result = maoctl("node", "list")
    assert result.err == "the federation does not answer; this is as of 5m ago\n"
    assert "node-1" in result.out


def test_node_backup_without_an_installed_node(maoctl: Maoctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for words in (("backup", "x"), ("restore", "x")):
        result = maoctl("node", *words)
        assert result.code == 1
        assert f"docker compose run --rm -T {words[0]}" in result.err


@pytest.mark.parametrize(
    ("words", "passed"),
    [
        (["backup", "/b/"], ["backup", "--", "/b/"]),
        (["restore", "f"], ["restore", "--", "f"]),
        (["restore", "--replace", "-"], ["restore", "--replace", "--", "-"]),
        (["backup", "--", "-odd"], ["backup", "--", "-odd"]),
    ],
)
@pytest.mark.parametrize("code", [0, 3, 5, 77])
def test_node_backup_returns_the_launchers_exit_code(
    maoctl: Maoctl,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: list[str],
    passed: list[str],
    code: int,
) -> None:
    called: list[list[str]] = []
    fetched = tmp_path / "var/etcd/bin/etcd"
    fetched.parent.mkdir(parents=True)
    fetched.touch()
    monkeypatch.setattr("maoctl.commands.node.sys.prefix", str(tmp_path / ".venv"))

    def run(argv: list[str], *, env: dict[str, str], **_: Any) -> Any:
        called.append(argv[1:])
        assert env["PATH"].split(":")[0] == str(fetched.parent)
        return subprocess.CompletedProcess(argv, code)

    monkeypatch.setattr("maoctl.commands.node.subprocess.run", run)
    assert maoctl("node", *words).code == (1 if code == 77 else code)
    assert called == [["-m", "mao_node", *passed]]
