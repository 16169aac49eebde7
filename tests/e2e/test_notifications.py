"""A mail, a phone (as ntfy) and a heartbeat: each once per change of state, through restarts of the node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.docker import Engine
from tests.support.git import bare_repository
from tests.support.node import NativeNode, native_node
from tests.support.receivers import Mailbox, Requests, http_server, smtp_server

pytest.importorskip("apprise", reason="made before requirements.lock had it: run `make venv`")
pytestmark = [pytest.mark.docker, pytest.mark.etcd]
TOOL = "case $MAO_SCHEDULED_FOR in 2020*) echo bad year; exit 1;; esac; date > /usr/src/app/data/one"
BAD, GOOD = "2020-01-01T00:00:0{}Z", "2021-01-01T00:00:0{}Z"


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with smtp_server() as box:
        yield box


@pytest.fixture
def ntfy() -> Iterator[Requests]:
    with http_server() as got:
        yield got


@pytest.fixture
def healthchecks() -> Iterator[Requests]:
    with http_server() as got:
        yield got


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NativeNode]:
    with native_node(tmp_path, name="told", env={"MAO_WEBHOOK_HOSTS": "127.0.0.1"}) as node:
        yield node


def enrol(node: NativeNode, image: str, master: Path) -> None:
    for path, body in (
        ("/registry/tools", {"name": "crawl", "image": image}),
        ("/registry/datasets", {"name": "crawled", "master": str(master)}),
        ("/pipeline/init", {"tool": "crawl", "dataset": "crawled"}),
    ):
        assert node.http.post(path, json=body, timeout=60).is_success


def run(node: NativeNode, tick: str) -> str:
    begun = node.http.post("/pipeline/run", json={"name": "crawl", "scheduled_for": tick})
    return str(node.wait_run(begun.json()["id"])["phase"])


def recorded(node: NativeNode, mails: int, pings: int) -> None:
    """Wait until so many deliveries were recorded since the node's start: then a kill repeats none."""

    def count(part: str) -> int:
        return sum("message.delivered" in line and part in line for line in node.log)

    wanted = {"~mail~": mails, "~phone~": mails, "~crawl~": pings}
    node.wait_for_line(lambda _: all(count(part) >= n for part, n in wanted.items()), 60)


def messages(node: NativeNode) -> list[dict[str, Any]]:
    return list(json.loads(node.maoctl("alarm", "messages", "-o", "json").stdout))


def test_notifications_reach_mail_ntfy_and_heartbeat_once_per_change(
    node: NativeNode,
    engine: Engine,
    tmp_path: Path,
    mailbox: Mailbox,
    ntfy: Requests,
    healthchecks: Requests,
) -> None:
    enrol(node, engine.build(TOOL), bare_repository(tmp_path / "crawled.git"))
    mail = f"mailto://127.0.0.1:{mailbox.port}?from=mao@lab.example&to=ada@lab.example"
    (tmp_path / "mail.url").write_text(mail)
    node.maoctl("alarm", "channel", "add", "mail", "--url-file", str(tmp_path / "mail.url"))
    node.maoctl("alarm", "channel", "add", "phone", f"ntfy://127.0.0.1:{ntfy.port}/alarms")
    node.maoctl("alarm", "heartbeat", "set", "crawl", f"http://127.0.0.1:{healthchecks.port}/ping/8f2c")

    assert run(node, BAD.format(1)) == "failed"
    recorded(node, mails=1, pings=2)
    node.kill("datamgmt")
    node.kill("scheduler")
    node.wait_ready()
    assert run(node, BAD.format(2)) == "failed"  # no change of state
    recorded(node, mails=1, pings=4)
    node.stop()
    node.restart()
    node.wait_ready()
    assert run(node, GOOD.format(3)) == "succeeded"
    recorded(node, mails=1, pings=2)
    node.stop()
    node.restart()
    node.wait_ready()
    assert run(node, BAD.format(4)) == "failed"
    recorded(node, mails=1, pings=2)

    titles = ["[told] crawl: run failed", "[told] crawl: recovered", "[told] crawl: run failed"]
    assert mailbox.subjects == titles
    assert len(ntfy.bodies) == 3
    assert healthchecks.events() == [
        "/ping/8f2c/start",
        "/ping/8f2c/fail",
        "/ping/8f2c/start",
        "/ping/8f2c/fail",
        "/ping/8f2c/start",
        "/ping/8f2c",
        "/ping/8f2c/start",
        "/ping/8f2c/fail",
    ]
    shown = messages(node)
    assert len(shown) == 3 + 3 + 8
    assert all(message["delivered_at"] for message in shown)
    alarms = node.http.get("/alarms").json()["items"]
    assert [(alarm["kind"], alarm.get("count"), alarm["over"] is not None) for alarm in alarms] == [
        ("run-failed", 2, True),
        ("run-failed", 1, False),
    ]
    everything = "\n".join(node.log) + json.dumps(shown) + node.http.get("/channels").text
    assert mail not in everything
    assert "8f2c" not in everything
