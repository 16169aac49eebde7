"""The page of a pipeline, by clicks in a real browser: enrolment, runs, changes, looks."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.async_api import expect

from tests.support.docker import Engine
from tests.support.node import NativeNode
from tests.support.reader import WIDTHS, Reader, accessibility_faults, layout_faults, look_at, reading

from .made import HOSTILE, Made, jobs_of, make, post, runs_of, said, show_times

pytestmark = [pytest.mark.docker, pytest.mark.etcd]


@pytest.fixture
def made(node: NativeNode, tool_image: str, tmp_path: Path) -> Made:
    return make(node, tool_image, tmp_path)


@pytest.fixture
async def reader(node: NativeNode) -> AsyncIterator[Reader]:
    async with reading(node.url) as reader:
        yield reader


async def test_pipeline_enrol_by_click(node: NativeNode, tool_image: str, tmp_path: Path) -> None:
    made = make(
        node,
        tool_image,
        tmp_path,
        enrol=False,
        tool_fields={"privileges": {"capabilities": ["NET_RAW"]}},
    )
    async with reading(node.url) as reader:
        page = await reader.open("/ui/pipelines?show=other")
        await page.get_by_role("link", name=made.name, exact=True).click()
        await expect(page.get_by_role("button", name="Run now")).to_be_disabled()
        await expect(page.get_by_role("button", name="Show the next times")).to_be_disabled()
        await expect(page.locator("#enrol .cmd").last).to_have_text(
            f"maoctl pipeline enrol {made.name} --agree 'capability NET_RAW'"
        )
        await page.get_by_label("capability NET_RAW").check()
        await page.get_by_role("button", name="Enrol node-1").click()
        await said(page, "node-1 is enrolled")
        assert await accessibility_faults(page) == []
    enrolment = node.http.get(f"/enrolments/{made.name}").json()
    assert enrolment["agreed"] == ["capability NET_RAW"]


async def test_pipeline_enrol_refused_says_what_is_missing(node: NativeNode, tmp_path: Path) -> None:
    made = make(node, "mao-test/no-such-image:1", tmp_path, enrol=False)
    async with reading(node.url) as reader:
        page = await reader.open(made.path)
        await page.get_by_role("button", name="Enrol node-1").click()
        await said(page, "mao-test/no-such-image:1")
        await expect(page.get_by_role("button", name="Enrol node-1")).to_be_enabled()
    assert node.http.get(f"/enrolments/{made.name}").status_code == 404


async def test_pipeline_run_now_by_click(node: NativeNode, made: Made) -> None:
    async with reading(node.url) as reader:
        page = await reader.open(made.path)
        await expect(page.locator("#pipeline-history")).to_contain_text("No run yet")
        await page.get_by_role("button", name="Run now").click()
        await said(page, "A run is queued")
        [run] = runs_of(node, made)
        assert node.wait_run(run["id"])["phase"] == "succeeded"
        # The page follows by itself.
        await expect(page.locator("#pipeline-head h1")).to_contain_text("last run succeeded")
        link = page.get_by_role("link", name="last run succeeded")
        assert await link.get_attribute("href") == f"/ui/runs/{run['id']}"
        await expect(page.locator("#pipeline-history")).to_contain_text("1 succeeded; median")


async def test_pipeline_run_now_sent_twice_is_one_run(node: NativeNode, made: Made) -> None:
    def rendered_key() -> str:
        [key] = re.findall(r'name="idempotency_key" value="([^"]+)"', node.http.get(made.path).text)
        return str(key)

    first = rendered_key()
    for _ in range(2):  # as a double click does
        sent = node.http.post(f"{made.path}/run", data={"idempotency_key": first})
        assert sent.status_code == 303
    [run] = runs_of(node, made)
    assert rendered_key() != first
    node.http.post(f"{made.path}/run", data={"idempotency_key": rendered_key()})
    assert len(runs_of(node, made)) == 2
    assert node.wait_run(run["id"])["phase"] == "succeeded"


async def test_pipeline_approve_changed_tool_by_click(node: NativeNode, made: Made) -> None:
    """The tool's record changes: the old definition runs until the change is approved."""
    tool = node.http.get(f"/registry/tools/{made.tool}").json()
    env = {"PAGE_SIZE": "50", "WORDS": "a \u2192 b", "ODD": HOSTILE}
    changed = tool | {"env": env, "limits": {"memory": "512m"}}
    assert node.http.put(f"/registry/tools/{made.tool}", json=changed).status_code == 200
    async with reading(node.url) as reader:
        page = await reader.open("/ui/pipelines?show=pending")
        await page.get_by_role("row", name=made.name).get_by_role("link", name="change pending").click()
        table = page.locator("#pending table")
        await expect(table).to_contain_text("limits.memory")
        await expect(table.get_by_role("row", name="env.PAGE_SIZE")).to_contain_text("not set")
        await expect(table.get_by_role("row", name="env.PAGE_SIZE").locator("ins")).to_have_text("50")
        await expect(table.get_by_role("row", name="env.WORDS").locator("ins")).to_have_text("a \u2192 b")
        definition = node.http.get(f"/pipeline/{made.name}/diff").json()["definition"]
        await expect(page.locator("#pending .cmd").last).to_have_text(
            f"maoctl pipeline approve {made.name} --revision {definition}"
        )
        await page.get_by_text("All of it as YAML").click()
        await expect(page.locator("#pending pre ins").first).to_be_visible()
        await look_at(reader, made.path, "pipeline-change")
        await page.get_by_role("button", name=f"Approve revision {definition[:8]}").click()
        await said(page, "Approved")
        await expect(page.locator("#pending")).to_have_count(0)
    [step] = node.http.get(f"/enrolments/{made.name}").json()["steps"]
    assert step["env"]["PAGE_SIZE"] == "50"


async def test_pipeline_approve_refused_if_changed_since_shown(node: NativeNode, made: Made) -> None:
    tool = node.http.get(f"/registry/tools/{made.tool}").json()
    node.http.put(f"/registry/tools/{made.tool}", json=tool | {"env": {"A": "1"}})
    async with reading(node.url) as reader:
        page = await reader.open(made.path)
        node.http.put(f"/registry/tools/{made.tool}", json=tool | {"env": {"A": "2"}})
        await page.get_by_role("button", name="Approve revision").click()
        await said(page, "has changed since it was shown")
        await expect(page.locator("#pending ins").first).to_have_text("2")
    assert node.http.get(f"/enrolments/{made.name}").json()["steps"][0]["env"] == {}


async def test_pipeline_withdraw_by_clicks(node: NativeNode, made: Made) -> None:
    job = post(node, "/pipeline/run", {"name": made.name, "cron": "0 4 * * *"})
    async with reading(node.url) as reader:
        page = await reader.open(made.path)
        await page.get_by_text("Withdraw…").click()
        button = page.get_by_role("button", name="Withdraw node-1")
        await expect(button).to_be_disabled()
        await expect(page.get_by_text("delete its schedules first").first).to_be_visible()
        node.http.delete(f"/jobs/{job['id']}")
        await page.reload()
        await page.get_by_text("Withdraw…").click()
        await button.click()
        await said(page, "takes no more part")
        await expect(page.locator("#enrol")).to_be_visible()
    assert node.http.get(f"/enrolments/{made.name}").status_code == 404


@pytest.mark.parametrize(
    "title", ["Rain & <b>snow</b>, daily/run", "M\u00fcll 100% ?#x", "R\u00e9sum\u00e9 \u202e gnp \U0001f327"]
)
async def test_pipeline_title_with_odd_characters(
    node: NativeNode, tool_image: str, tmp_path: Path, title: str
) -> None:
    made = make(node, tool_image, tmp_path, name=title, description=HOSTILE.replace("\x1b", ""))
    async with reading(node.url) as reader:
        page = await reader.open(f"/ui/pipelines/{quote(title, safe='')}")
        await expect(page.locator("h1 .any")).to_have_text(title.replace("\u202e", "\\u202e"))
        for width in WIDTHS:
            await page.set_viewport_size({"width": width, "height": 900})
            assert await layout_faults(page) == []
        await page.get_by_role("button", name="Run now").click()
        await said(page, "A run is queued")
        [run] = runs_of(node, made)
        await page.get_by_text("The registered definition as YAML").click()
        text = await page.get_by_label("Definition as YAML").inner_text()
        found = await page.get_by_label("Definition as JSON").text_content()
        assert json.loads(found or "")["title"] == title
        file = tmp_path / "definition.yaml"
        file.write_text(text)
        assert "unchanged" in node.maoctl("apply", "-f", str(file)).stdout
        node.wait_run(run["id"])


@pytest.fixture(scope="module")
def used(node: NativeNode, tool_image: str, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return a pipeline with runs that succeeded and failed, and two schedules, one of them paused."""
    made = make(node, tool_image, tmp_path_factory.mktemp("used"))
    for _ in range(2):
        run = post(node, "/pipeline/run", {"name": made.name})
        assert node.wait_run(run["id"])["phase"] == "succeeded"
    failing = engine.build("echo no answer from sensor 7; exit 3")
    tool = node.http.get(f"/registry/tools/{made.tool}").json()
    node.http.put(f"/registry/tools/{made.tool}", json=tool | {"image": failing})
    assert node.http.put(f"/enrolments/{made.name}", json={}).status_code == 200
    run = post(node, "/pipeline/run", {"name": made.name})
    assert node.wait_run(run["id"])["phase"] == "failed"
    post(node, "/pipeline/run", {"name": made.name, "cron": "0 4 * * *", "timezone": "Europe/Zurich"})
    post(node, "/pipeline/run", {"name": made.name, "cron": "*/20 8-18 * * mon-fri", "paused": True})
    return made


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("", "pipeline"),
        ("?form=schedule&cron=0+4+*+*+*&timezone=Europe/Zurich", "pipeline-schedule"),
        ("?form=backfill&since=3d", "pipeline-backfill"),
    ],
    ids=["page", "schedule", "backfill"],
)
async def test_pipeline_looks(reader: Reader, used: Made, query: str, name: str) -> None:
    await look_at(reader, used.path + query, name)


async def test_pipeline_looks_before_enrolment(
    node: NativeNode, reader: Reader, tool_image: str, tmp_path: Path
) -> None:
    """Several steps, not all of them connected, and tools that ask for privileges."""
    asked = {"privileges": {"capabilities": ["NET_RAW"], "docker_socket": True}, "network": "host"}
    first = make(node, tool_image, tmp_path, enrol=False, tool_fields=asked)
    second = make(node, tool_image, tmp_path, enrol=False)
    third = make(node, tool_image, tmp_path, enrol=False)
    metric = {"name": "rows", "measure": "rows"}
    steps = [
        {"tool": first.tool, "dataset": first.dataset, "command": ["crawl", "--since", "1d", "x" * 300]},
        {
            "title": "Summary of the day's charts",
            "tool": second.tool,
            "dataset": second.dataset,
            "input_dataset": first.dataset,
            "retry": {"attempts": 3},
            "metrics": [metric],
        },
        {"tool": third.tool, "dataset": third.dataset, "input_dataset": first.dataset},
    ]
    made = make(node, tool_image, tmp_path, enrol=False, steps=steps, description="Charts, once a night.")
    await look_at(reader, made.path, "pipeline-enrol")
    page = await reader.open(made.path)
    await expect(page.locator(".chain")).to_have_count(2)
    await page.get_by_role("button", name="Enrol node-1").click()
    await expect(page.locator("#enrol")).to_be_visible()  # the browser asks for the boxes first
    assert node.http.get(f"/enrolments/{made.name}").status_code == 404


async def test_pipeline_reads_without_scripts(node: NativeNode, made: Made) -> None:
    post(node, "/pipeline/run", {"name": made.name, "cron": "0 4 * * *"})
    async with reading(node.url, scripts=False) as reader:
        page = await reader.open(made.path)
        assert await page.locator("#pipeline-schedules li").count() == 10
        await show_times(page, "15 3 * * *", "UTC")
        await page.get_by_role("button", name="Run it at these times").click()
        await said(page, "Scheduled: 15 3 * * * in UTC.")
    assert len(jobs_of(node, made)) == 2


async def test_pipeline_unknown_name(node: NativeNode) -> None:
    async with reading(node.url) as reader:
        page = await reader.context.new_page()
        answer = await page.goto(f"/ui/pipelines/{quote(HOSTILE[:100], safe='')}")
        assert answer is not None
        assert answer.status in (404, 422)
        assert await layout_faults(page) == []
