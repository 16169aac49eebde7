"""*Alarms*: a spike acknowledged by clicks, who is told, and words from outside that stay text."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

from mao_gateway.pages.alarms.views import channel_row, closed_row, open_row, read_rule, rule_row
from mao_gateway.pages.formats import Clock, node_zone
from mao_shared.errors import InvalidInput
from mao_shared.models import Acknowledgement
from mao_shared.models.notification import ChannelState, Rule
from tests.support.docker import Engine
from tests.support.git import bare_repository
from tests.support.node import NativeNode
from tests.support.reader import layout_faults, look_at, reading
from tests.support.receivers import http_server

from .written import NOW, alarm, put_alarms

HOSTILE = "<img src=x onerror=alert(1)>\x1b[2J\u202eevil"
ENDLESS = "x" * 300
TOOL = """\
case $MAO_SCHEDULED_FOR in *05:00Z) n=900;; *) n=100;; esac
i=0; while [ $i -lt $n ]; do echo "$i"; i=$((i+1)); done > /usr/src/app/data/rows.csv
echo "$MAO_SCHEDULED_FOR" > /usr/src/app/data/stamp
"""


# what is shown


@pytest.mark.parametrize(
    ("fields", "where", "more"),
    [
        ({"pipeline": "crawl", "run": "r/1"}, "/ui/pipelines/crawl", ["/ui/runs/r%2F1"]),
        ({"dataset": "data"}, "/ui/datasets/data", []),
        ({"run": "r1"}, "/ui/runs/r1", ["/ui/runs/r1"]),
        ({"subject": "/var"}, None, []),
        ({}, None, []),
        (
            {"pipeline": "crawl", "dataset": "data", "metric": "rows", "kind": "spike"},
            "/ui/pipelines/crawl",
            ["/ui/datasets/data#metrics", "/ui/datasets/data"],
        ),
        ({"dataset": "data", "kind": "round"}, "/ui/datasets/data", ["/ui/agreement/data"]),
    ],
)
def test_open_row_leads_to_what_it_is_about(
    fields: dict[str, str], where: str | None, more: list[str]
) -> None:
    row = open_row(alarm(**fields), "node-1")
    assert row.where.href == where
    assert [link.href for link in row.more] == more
    assert row.where.text


def test_open_row_is_one_line() -> None:
    said = "The tool exited with code 3. Its last output:\nno sensor answers\ngiving up"
    row = open_row(alarm(detail=said), "node-1")
    assert row.what == "The tool exited with code 3. Its last output: no sensor answers | giving up"


@pytest.mark.parametrize(
    ("seen", "note"),
    [
        (None, "over by itself"),
        (Acknowledgement(at=NOW), "acknowledged"),
        (Acknowledgement(at=NOW, by="Ada"), "Ada, without a note"),
        (Acknowledgement(at=NOW, by="Ada", note="quota"), "Ada: quota"),
        (Acknowledgement(at=NOW, note="quota"), "acknowledged: quota"),
    ],
)
def test_closed_row_says_how_it_ended(seen: Acknowledgement | None, note: str) -> None:
    row = closed_row(alarm(acknowledged=seen, over=NOW), "node-1")
    assert (row.note, row.ended) == (note, NOW)


@pytest.mark.parametrize(
    ("fields", "state", "colour"),
    [
        ({}, "nothing sent yet", "off"),
        ({"delivered_at": NOW}, "delivered", "ok"),
        ({"waiting": 2}, "2 messages wait", "off"),
        ({"waiting": 1, "tries": 3, "next_try_at": NOW + timedelta(minutes=8)}, "try 4 in 8 min", "bad"),
        ({"waiting": 1, "tries": 3, "next_try_at": NOW - timedelta(days=1)}, "try 4 in 0 s", "bad"),
        ({"given_up": 1}, "1 message was given up", "warn"),
    ],
)
def test_channel_row_says_its_state(fields: Mapping[str, Any], state: str, colour: str) -> None:
    channel = ChannelState(name="mail", service="mailto", url="mailto://…", created_at=NOW, **fields)
    row = channel_row(channel, Clock(NOW, node_zone()))
    assert (row.state, row.colour) == (state, colour)


def test_read_rule_and_its_row() -> None:
    body = read_rule(
        {
            "name": "night",
            "kinds": "spike, disk",
            "pipelines": "crawl",
            "channel:mail": "on",
            "quiet-from": "22:00",
            "quiet-to": "07:00",
            "zone": "Europe/Zurich",
            "reminder": "12",
            "failures": "3",
        }
    )
    row = rule_row(Rule.model_validate(body))
    assert (row.kinds, row.of, row.to) == ("spike, disk", "crawl", "mail")
    assert row.quiet == "22:00 to 07:00 Europe/Zurich"
    assert row.more == "reminder after 12 h, from 3 failed runs in a row, without the end"
    muting = rule_row(Rule.model_validate(read_rule({"name": "all", "ends": "on"})))
    assert (muting.kinds, muting.of, muting.to, muting.quiet, muting.more) == ("all", "all", "", "never", "")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"name": "x", "quiet-from": "22:00"},
        {"name": "x", "reminder": "soon"},
        {"name": "x", "reminder": "nan"},
        {"name": "x", "failures": "inf"},
        {"name": "x", "failures": "1e300"},
        {"name": "x", "reminder": "1e308"},  # in seconds it would be infinite
    ],
)
def test_read_rule_refuses(fields: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        read_rule(fields)


# in a browser


def make_spike(node: NativeNode, image: str, master: Path) -> str:
    """Run a pipeline whose last output has nine times as many rows as those before; return that run."""
    metrics = [{"name": "rows", "measure": "rows"}]
    step = {"name": "collect", "tool": "count", "dataset": "counted", "metrics": metrics}
    for path, body in (
        ("/registry/tools", {"name": "count", "image": image}),
        ("/registry/datasets", {"name": "counted", "master": str(master)}),
        ("/pipeline/init", {"name": "count", "steps": [step]}),
    ):
        answer = node.http.post(path, json=body, timeout=60)
        assert answer.is_success, answer.text
    last = ""
    for minute in range(1, 6):
        body = {"name": "count", "scheduled_for": f"2026-01-01T00:0{minute}:00Z"}
        last = str(node.http.post("/pipeline/run", json=body).json()["id"])
        assert node.wait_run(last)["phase"] == "succeeded"
    return last


async def test_alarms_spike_is_acknowledged_by_clicks(
    node: NativeNode, engine: Engine, tmp_path: Path
) -> None:
    image = engine.build(TOOL)
    run = await asyncio.to_thread(make_spike, node, image, bare_repository(tmp_path / "counted.git"))
    async with reading(node.url) as reader:
        page = await reader.open("/")
        await page.click("#nav-alarms")
        row = page.locator("#open tbody tr", has_text="spike")
        assert "expected 99" in await row.inner_text()
        await look_at(reader, "/ui/alarms?of=count", "alarms-spike")
        await row.locator("summary", has_text="rows of step").click()
        assert await row.locator(f"a[href='/ui/runs/{run}']").count() == 1
        await row.get_by_text("Acknowledge…").click()
        await row.get_by_label("What you found").fill("the source <b>was</b> doubled")
        await row.get_by_label("Your name").fill("Ada")
        await row.get_by_role("button", name="Acknowledge").click()
        await page.wait_for_selector("text=Acknowledged: ")
        closed = page.locator("#closed tbody tr", has_text="spike")
        assert "Ada: the source <b>was</b> doubled" in await closed.inner_text()
        assert await page.locator("#open tbody tr", has_text="spike").count() == 0
        await look_at(reader, "/ui/alarms", "alarms-acknowledged")
    entries = node.http.get("/audit", params={"action": "alarms.acknowledge"}).json()["items"]
    assert entries[0]["subject"].startswith(run)


async def test_alarms_channel_rule_heartbeat_and_webhook_by_clicks(node: NativeNode) -> None:
    with http_server() as ntfy:
        ntfy.answer = 503
        async with reading(node.url) as reader:
            page = await reader.open("/ui/alarms")
            await _fill(page, "#channels", "Add a channel", {"Name": "phone", "URL of the service": "nope"})
            await page.wait_for_selector("[role=alert]")
            assert await page.locator("#c-name").input_value() == "phone"
            assert await page.locator("#c-url").input_value() == ""
            secret = f"ntfy://ada:s3cret-word@127.0.0.1:{ntfy.port}/alarms"
            await page.fill("#c-url", secret)
            await page.click("#channels .btn-main")
            await page.wait_for_selector("text=Alarms now go to the channel phone")
            await page.click("#channels >> text=Test phone")
            await page.wait_for_selector("text=The test was not accepted")
            await _fill(
                page,
                "#rules",
                "Add or replace a rule",
                {"Name": "night", "Kinds": "spike", "Quiet from": "22:00", "to": "07:00"},
            )
            await page.wait_for_selector("text=The rule night applies")
            assert "muted" in await page.inner_text("#rules")
            await _fill(
                page,
                "#heartbeats",
                "Set a heartbeat",
                {"Pipeline": "crawl", "Address to ping": "https://hc.example.org/ping/s3cret-word"},
            )
            await page.wait_for_selector("text=The runs of crawl")
            await _fill(
                page, "#webhooks", "Add a webhook", {"Name": "lab", "Address": "https://lab.example.org/hook"}
            )
            await page.wait_for_selector("text=shown only now")
            shown = await page.inner_text(".msg .id-full")
            assert len(shown) >= 24
            await look_at(reader, "/ui/alarms", "alarms-receivers")
            page = await reader.open("/ui/alarms")
            text = await page.content()
            assert "s3cret-word" not in text
            assert shown not in text
            for kind, name in (("rules", "night"), ("heartbeats", "crawl"), ("webhooks", "lab")):
                await page.click(f"#{kind} >> text=Remove… {name}")
                await page.click(f"#{kind} >> text=Remove {name}")
                await page.wait_for_selector(f"text={name} was removed.")
            await page.click("#channels >> text=Remove… phone")
            await page.click("#channels >> text=Remove phone")
            await page.wait_for_selector("text=Nobody is told of alarms")


async def _fill(page: Page, panel: str, opener: str, fields: Mapping[str, str]) -> None:
    """Open a form of a panel, fill it in by the labels, and send it."""
    part = page.locator(panel)
    if not await part.locator("details.more form").is_visible():
        await part.get_by_text(opener, exact=True).click()
    for label, value in fields.items():
        await part.get_by_label(label).first.fill(value)
    await part.locator(".btn-main").click()


async def test_alarms_hostile_and_many_keep_the_layout(node: NativeNode) -> None:
    odd = [
        alarm("odd-1", detail=HOSTILE, next=HOSTILE, subject=HOSTILE, kind=HOSTILE),
        alarm(ENDLESS[:250], detail=ENDLESS, next=ENDLESS, subject=ENDLESS, kind="k" * 63),
        alarm(
            "odd-3", detail=HOSTILE, over=NOW, acknowledged=Acknowledgement(at=NOW, by=HOSTILE, note=ENDLESS)
        ),
    ]
    many = [alarm(f"many-{number:04}", subject="many", detail=f"number {number}") for number in range(1000)]
    await put_alarms(node, odd)
    async with reading(node.url) as reader:
        await look_at(reader, "/ui/alarms", "alarms-hostile")
        await put_alarms(node, many)
        page = await reader.open("/ui/alarms", width=390)
        assert await layout_faults(page) == []
        page = await reader.open(f"/ui/alarms?kind={'k' * 63}")
        assert await page.locator("#open tbody tr").count() == 1
        page = await reader.open("/ui/alarms?of=many")
        assert await page.locator("#open tbody tr").count() == 50
        assert "More are open" in await page.inner_text("#open")
        assert await page.locator("img").count() == 0
        page = await reader.open("/ui/alarms?of=no-such-thing")
        assert "No open alarm matches" in await page.inner_text("#open")


async def test_alarms_without_scripts_page_by_page(node: NativeNode) -> None:
    over = [
        alarm(f"past-{number:04}", subject="past", detail=f"past {number}", over=NOW) for number in range(60)
    ]
    await put_alarms(node, over)
    async with reading(node.url, scripts=False) as reader:
        page = await reader.open("/ui/alarms?of=past")
        seen = []
        while True:
            seen += await page.locator("#closed tbody tr td:nth-child(3)").all_inner_texts()
            if not await page.locator("#closed a[rel=next]").count():
                break
            await page.click("#closed a[rel=next]")
        assert len(seen) == 60
        assert len({text.strip() for text in seen}) == 60
        assert await page.locator("#closed a", has_text="newest").count() == 1
