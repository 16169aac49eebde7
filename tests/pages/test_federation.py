"""*Federation* and the audit log: members, trust by clicks, conditions, and filters in the address."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from mao_gateway.pages.federation.audit_log import audit_command, outcome
from mao_gateway.pages.federation.views import (
    CoreHealth,
    Disagreement,
    core_health,
    count_disagreement,
    late_ticks,
    member_rows,
    service_rows,
)
from mao_gateway.pages.formats import Clock
from mao_shared import keys
from mao_shared.keys import newest_first
from mao_shared.models.audit import AuditEntry
from mao_shared.models.federation import NodePart, NodeState, TickStrip
from mao_shared.models.node import ServiceStatus
from mao_shared.store import Records, open_store
from tests.support.node import NativeNode, native_node
from tests.support.reader import look_at, reading

from .test_agreement import summary

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOSTILE = "<img src=x onerror=alert(1)>\x1b[2J\u202eevil"


def part(name: str, **fields: Any) -> NodePart:
    return NodePart(**{"name": name, "present": True, "version": "1.0"} | fields)


def state(node: str, **fields: Any) -> NodeState:
    given = {"node": node, "state": "joined", "present": True, "role": "client", "invited_at": NOW}
    return NodeState(**given | fields)


# what is shown


def test_member_rows_put_this_node_first_and_tell_what_is_odd() -> None:
    rows = member_rows(
        [part("a"), part("b", version="0.9", trusted=True), part("c", present=False, last_seen=NOW)],
        [state("a", seat="voter", healthy=True, answers=True), state("d", state="invited", present=False)],
        {"b": ["crawl: no news"]},
        {"b": Disagreement(10, 3, 1)},
        "b",
    )
    assert [(row.name, row.own, row.state) for row in rows] == [
        ("b", True, "present"),
        ("a", False, "present"),
        ("c", False, "absent"),
        ("d", False, "invited"),
    ]
    by_name = {row.name: row for row in rows}
    assert (by_name["a"].other_version, by_name["b"].other_version) == (True, False)
    assert by_name["b"].late == ["crawl: no news"]
    assert by_name["b"].disagreement == Disagreement(10, 3, 1)
    assert (by_name["a"].seat, by_name["b"].seat) == ("voter", "")
    assert by_name["b"].trusted


def test_late_ticks_are_those_without_news() -> None:
    def strip(node: str, pipeline: str, minutes: int | None, **more: Any) -> TickStrip:
        due = None if minutes is None else NOW - timedelta(minutes=minutes)
        return TickStrip(node=node, pipeline=pipeline, next_tick=due, updated_at=NOW, **more)

    strips = [
        strip("b", "late-2", 60),
        strip("b", "late-1", 6),
        strip("b", "due", 4),
        strip("b", "paused", 600, paused=True),
        strip("c", "by-hand", None),
        strip("d", "ahead", -60),
    ]
    assert late_ticks(strips, Clock(NOW, ZoneInfo("UTC"))) == {
        "b": [
            "late-1: no news of the tick of Sat 31 Jan 2026, 11:54:00 UTC",
            "late-2: no news of the tick of Sat 31 Jan 2026, 11:00:00 UTC",
        ]
    }


def test_count_disagreement_counts_rounds() -> None:
    rounds = [
        summary(0, {"a": 0, "b": 3}),
        summary(1, {"a": 1, "b": 100}, {"c": "late"}),
        summary(2, {"a": 0}, {"b": "absent", "c": "failed"}),
    ]
    assert count_disagreement(rounds) == {
        "a": Disagreement(3, 1, 0),
        "b": Disagreement(2, 2, 1),
        "c": Disagreement(0, 0, 2),
    }
    assert count_disagreement([]) == {}


@pytest.mark.parametrize(
    ("voters", "healthy", "words"),
    [
        (1, 1, "1 of 1 voter answer, none may fail"),
        (3, 3, "3 of 3 voters answer, 1 more may fail"),
        (3, 2, "2 of 3 voters answer, none may fail"),
        (3, 1, "no majority: 1 of 3 answer, 2 are needed"),
        (5, 5, "5 of 5 voters answer, 2 more may fail"),
    ],
)
def test_core_health_words(voters: int, healthy: int, words: str) -> None:
    members = [
        state(f"n{number}", seat="voter", healthy=number < healthy, answers=number < healthy)
        for number in range(voters)
    ]
    found = core_health([*members, state("learner", seat="learner", healthy=True)])
    assert found == CoreHealth(voters, healthy)
    assert found.words == words
    assert core_health([state("client")]) is None


def test_service_rows_say_why() -> None:
    rows = service_rows(
        {
            "registry": ServiceStatus(ready=True, version="1.0", checks={"store": "ok"}),
            "runner": ServiceStatus(ready=False, checks={"engine": "does not answer", "store": "ok"}),
            "datamgmt": ServiceStatus(ready=False, reason="is starting"),
        }
    )
    assert [(row.name, row.ready, list(row.faults)) for row in rows] == [
        ("registry", True, []),
        ("runner", False, ["engine: does not answer"]),
        ("datamgmt", False, ["is starting"]),
    ]


def entry(number: int, **fields: Any) -> AuditEntry:
    moment = NOW - timedelta(minutes=number)
    given = {
        "id": f"{moment:%Y%m%dT%H%M%S.%f}-{number:08x}",
        "at": moment,
        "node": "node-1",
        "actor": "ada",
        "actor_kind": "token",
        "method": "POST",
        "path": "/pipeline/init",
        "status": 201,
        "request_id": "r",
    }
    return AuditEntry(**given | fields)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (201, "done"),
        (302, "done"),
        (404, "failed, 404"),
        (401, "refused, 401"),
        (499, "caller left"),
        (500, "failed, 500"),
    ],
)
def test_outcome(status: int, words: str) -> None:
    assert outcome(entry(0, status=status))[2] == words


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ({}, "maoctl audit"),
        ({"actor": "ada b", "outcome": "failed"}, "maoctl audit '--actor=ada b' --failed"),
        ({"action": "pipelines", "outcome": "done"}, "maoctl audit --action=pipelines --succeeded"),
        ({"subject": "-x", "days": "7"}, "maoctl audit --subject=-x --since=7d"),
    ],
)
def test_audit_command_lists_the_same(typed: dict[str, str], line: str) -> None:
    fields = dict.fromkeys(("actor", "action", "subject", "outcome", "days"), "")
    assert audit_command(fields | typed) == line


# in a browser


@pytest.fixture(scope="module")
def founder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeNode]:
    """A node that has founded a federation, whose dataset lists two other nodes, and has invited a third."""
    root = tmp_path_factory.mktemp("founder")
    with native_node(root, name="alpha", env={"MAO_FEDERATION_ADDRESS": "127.0.0.1"}) as node:
        node.maoctl("federation", "create", "lab")
        node.maoctl("federation", "invite", "gamma")
        body = {"name": "shared", "master": str(root / "shared.git"), "nodes": ["alpha", "beta", "n" * 60]}
        node.http.post("/registry/datasets", json=body)
        yield node


async def test_federation_members_are_trusted_by_clicks(founder: NativeNode) -> None:
    async with reading(founder.url) as reader:
        page = await reader.open("/ui/federation")
        text = await page.inner_text("main")
        assert "Federation lab" in text
        assert "core: 1 of 1 voter answer, none may fail" in text
        rows = page.locator("#members tbody tr")
        assert "alpha" in await rows.first.inner_text()
        assert "this node" in await rows.first.inner_text()
        assert "invited" in await page.locator("#members tr", has_text="gamma").inner_text()
        beta = page.locator("#members tr", has_text="beta")
        await beta.get_by_text("Trust…").click()
        await beta.get_by_role("button", name="Trust beta").click()
        await page.wait_for_selector("text=Changes that beta endorses are approved")
        await beta.get_by_text("Trusted").click()
        await beta.get_by_role("button", name="Stop trusting beta").click()
        await page.wait_for_selector("text=Changes of beta wait for your approval")
        await page.click("text=Audit log")
        await page.wait_for_selector("h1:text('Audit log')")
        log = await page.inner_text(".audit")
        assert "trusted.put" in log
        assert "trusted.delete" in log
        await page.select_option("#a-outcome", "failed")
        await page.fill("#a-action", "trusted")
        await page.click("button:text('Show')")
        assert "action=trusted" in page.url
        assert "No call matches the filter" in await page.inner_text("main")


async def test_federation_page_of_a_federation_is_accessible(founder: NativeNode) -> None:
    async with reading(founder.url) as reader:
        await look_at(reader, "/ui/federation", "federation")


async def test_federation_outside_of_one_says_how_to_begin(node: NativeNode) -> None:
    async with reading(node.url, scripts=False) as reader:
        page = await reader.open("/ui/federation#conditions")
        text = await page.inner_text("main")
        assert "maoctl federation create NAME" in text
        assert "maoctl federation join" in text
        assert await page.locator("#conditions").count() == 1
        assert "datamgmt" in await page.inner_text("#services")
    async with reading(node.url) as reader:
        await look_at(reader, "/ui/federation", "federation-none")


@pytest.mark.parametrize("path", ["nodes/beta/explode", "nodes/beta/trusted"])
async def test_federation_has_no_other_actions(node: NativeNode, path: str) -> None:
    assert node.http.post(f"/ui/federation/{path}").status_code == 404


async def test_audit_hostile_and_page_by_page(node: NativeNode) -> None:
    odd = entry(
        0, actor=HOSTILE, user_agent=HOSTILE, subject="x" * 200, path="/" + "y" * 900, address=HOSTILE
    )
    many = [entry(number, actor="many", status=500 if number % 2 else 201) for number in range(1, 121)]
    store = open_store(node.etcd)
    try:
        records = Records(store, keys.audit_prefix(node.name), AuditEntry)
        for each in (odd, *many):
            await records.create(newest_first(each.id), each)
    finally:
        await store.close()
    async with reading(node.url) as reader:
        await look_at(reader, "/ui/audit", "audit-hostile")
        page = await reader.open("/ui/audit?actor=many&outcome=failed")
        assert await page.locator(".audit tbody tr").count() == 50
        await page.click("text=older")
        await page.wait_for_selector("text=newest")
        assert await page.locator(".audit tbody tr").count() == 10
        page = await reader.open("/ui/audit?days=1&actor=many")
        assert "No call matches" in await page.inner_text("main")
        assert await page.locator("img").count() == 0
        answer = await page.goto("/ui/audit?days=99")
        assert answer is not None
        assert answer.status == 422
        reader.faults.clear()  # Chromium reports the 422
