"""The log of a native node as JSON, for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mao_shared.settings import SERVICES
from tests.support.node import native_node

pytestmark = [pytest.mark.docker, pytest.mark.etcd]


def test_logs_of_a_node_are_json_throughout(tmp_path: Path) -> None:
    with native_node(tmp_path, env={"MAO_LOG_FORMAT": "json"}) as node:
        tool = {"name": "logged", "image": "busybox", "env": {"PASSWORD": "t0ps3cret"}}
        answer = node.http.post("/registry/tools", json=tool, headers={"x-request-id": "req-json"})
        assert answer.status_code == 201
        node.wait_for_line(lambda line: "req-json" in line, 10)
    assert node.log.pop() == "(the node's log ends here)"
    lines = [json.loads(line) for line in node.log]
    assert {line["service"] for line in lines} >= {*SERVICES, "gateway", "node"}
    for line in lines:
        assert "event" in line or "msg" in line, line  # etcd says msg
    assert [line["service"] for line in lines if line.get("request_id") == "req-json"] == ["registry"]
    assert not [line for line in node.log if "t0ps3cret" in line]
