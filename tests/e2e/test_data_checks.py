"""Checks that warn, block and quarantine on a whole node, and both decisions about quarantined output."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.docker import Engine
from tests.support.git import bare_repository, file_at, git
from tests.support.node import NativeNode, native_node

pytest.importorskip("jsonschema", reason="made before requirements.lock had it: run `make venv`")
pytestmark = [pytest.mark.docker, pytest.mark.etcd]
# The hour of the tick is the number of rows; the minute is the total.
TOOL = """
cd /usr/src/app/data
time=${MAO_SCHEDULED_FOR#*T}; hour=${time%%:*}; minute=${time#*:}; minute=${minute%%:*}
hour=${hour#0}; minute=${minute#0}
echo id > rows.csv; i=0; while [ $i -lt $hour ]; do echo $i >> rows.csv; i=$((i + 1)); done
echo "{\\"total\\": $minute}" > summary.json
echo "$MAO_SCHEDULED_FOR" > "run-$hour-$minute"
"""
SCHEMA = {"properties": {"total": {"type": "integer", "maximum": 30}}}
CHECKS = (
    "crawl:there=rows.csv:block",
    "crawl:columns=rows.csv:columns:id=integer:block",
    "crawl:some=rows.csv:rows:1..:block",
    "crawl:enough=rows.csv:rows:10..:quarantine",
    "crawl:steady=rows.csv:rows-change:..+5",
)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NativeNode]:
    with native_node(tmp_path, name="checker") as node:
        yield node


def run(node: NativeNode, hour: int, minute: int = 0) -> dict[str, Any]:
    tick = f"2021-01-01T{hour:02}:{minute:02}:00Z"
    begun = node.http.post("/pipeline/run", json={"name": "daily", "scheduled_for": tick})
    assert begun.is_success, begun.text
    return node.wait_run(begun.json()["id"])


def ask(node: NativeNode, *args: str) -> Any:
    return json.loads(node.maoctl(*args, "-o", "json").stdout)


def test_data_checks_warn_block_and_quarantine_and_are_decided(
    node: NativeNode, engine: Engine, tmp_path: Path
) -> None:
    remote = bare_repository(tmp_path / "raw.git")
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    node.maoctl("tool", "add", "crawl", "me", engine.build(TOOL), "", "", "x")
    node.maoctl("dataset", "add", "raw", str(remote))
    checks = [*CHECKS, f"crawl:shape=summary.json:schema:{tmp_path}/schema.json:quarantine"]
    options = [word for check in checks for word in ("--check", check)]
    node.maoctl("pipeline", "create", "daily", "--step", "crawl:raw", *options)

    def tip(branch: str) -> str:
        return git(remote, "rev-parse", branch)

    good = run(node, 12)
    assert good["phase"] == "succeeded", good["error"]
    assert all(found["passed"] for found in good["steps"][0]["checks"])

    warned = run(node, 20)  # eight rows more
    step = warned["steps"][0]
    assert (warned["phase"], step["snapshot"]) == ("succeeded", tip("checker"))
    assert [found["name"] for found in step["checks"] if not found["passed"]] == ["steady"]
    assert '"name": "steady"' in git(remote, "show", "-s", "--format=%B", "checker")
    shown = node.maoctl("run", "show", warned["id"]).stdout
    assert "steady" in shown
    assert "20 rows, 8 (66.7 %) more than the 12 of the last snapshot" in " ".join(shown.split())

    blocked = run(node, 0)
    assert (blocked["phase"], blocked["error"]["code"]) == ("failed", "check-failed")
    assert tip("checker") == step["snapshot"]

    few, odd = run(node, 5), run(node, 15, 45)
    for held in (few, odd):
        assert (held["phase"], held["steps"][0].get("snapshot")) == ("succeeded", None)
        assert held["steps"][0]["quarantine"]["state"] == "waiting"
    assert tip("checker") == tip("ground-truth") == step["snapshot"]
    listed = ask(node, "dataset", "quarantine", "list", "raw")
    assert [(one["run"], one["state"]) for one in listed] == [(odd["id"], "waiting"), (few["id"], "waiting")]

    node.stop()
    node.restart()
    snapshot = few["steps"][0]["quarantine"]["commit"]
    assert "enough" in node.maoctl("dataset", "quarantine", "show", "raw", snapshot[:10]).stdout
    accepted = ask(node, "dataset", "quarantine", "accept", "raw", snapshot[:10], "--note", "a holiday")
    assert (accepted["state"], accepted["note"]) == ("accepted", "a holiday")
    assert tip("checker") == tip("ground-truth") == accepted["accepted_as"]
    assert len(file_at(remote, "ground-truth:rows.csv").split()) == 6
    discarded = ask(node, "dataset", "quarantine", "discard", "raw", odd["id"], "--yes")
    assert (discarded["state"], discarded["pushed"]) == ("discarded", True)
    assert tip("checker") == accepted["accepted_as"]
    assert '"total": 45' in file_at(remote, f"{discarded['commit']}:summary.json")

    alarms = [one for one in ask(node, "alarm", "get", "--all") if one["kind"] == "check"]
    assert {one["subject"] for one in alarms} == {"steady", "some", "enough", "shape"}
    node.maoctl("run", "verify", few["id"])
    document = node.maoctl("pipeline", "get", "daily", "-o", "yaml").stdout
    (tmp_path / "daily.yaml").write_text(document)
    assert "unchanged" in node.maoctl("apply", "-f", str(tmp_path / "daily.yaml")).stdout
