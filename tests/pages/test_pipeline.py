"""The page of a pipeline, by clicks in a real browser."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.async_api import Page, expect

from mao_shared.text import harmless_line
from tests.support.docker import Engine
from tests.support.git import bare_repository
from tests.support.node import NativeNode
from tests.support.reader import WIDTHS, Reader, accessibility_faults, layout_faults, look_at, reading

pytestmark = [pytest.mark.docker, pytest.mark.etcd]
HOSTILE = "<b onclick=alert(1)>x</b> & \u202edesrever \x1b[31m" + "W" * 200


@dataclass(frozen=True)
class Made:
    """A registered pipeline with its tool and dataset."""

    name: str
    tool: str
    dataset: str

    @property
    def path(self) -> str:
        return f"/ui/pipelines/{quote(self.name, safe='')}"


def post(node: NativeNode, path: str, body: dict[str, Any], status: int = 201) -> dict[str, Any]:
    answer = node.http.post(path, json=body)
    assert answer.status_code == status, answer.text
    return dict(answer.json())


def make(node: NativeNode, image: str, folder: Path, *, enrol: bool = True, **fields: Any) -> Made:
    """Register a tool, a dataset and a pipeline of one step; by default enrol the node."""
    tag = uuid.uuid4().hex[:8]
    tool, dataset = f"tool-{tag}", f"data-{tag}"
    post(node, "/registry/tools", {"name": tool, "image": image, **fields.pop("tool_fields", {})})
    remote = bare_repository(folder / f"{tag}.git")
    post(node, "/registry/datasets", {"name": dataset, "master": str(remote)})
    step = {"tool": tool, "dataset": dataset}
    wanted = {"name": f"pipe-{tag}", "steps": [step], **fields}
    made = post(node, "/pipeline/init" if enrol else "/registry/pipelines", wanted)
    return Made(made["name"], tool, dataset)


def jobs_of(node: NativeNode, made: Made) -> list[dict[str, Any]]:
    return list(node.http.get("/jobs", params={"pipeline": made.name}).json()["items"])


def runs_of(node: NativeNode, made: Made) -> list[dict[str, Any]]:
    return list(node.http.get("/runs", params={"pipeline": made.name}).json()["items"])


def actions_on(node: NativeNode, subject: str) -> list[str]:
    """Return what the audit log has of a job or run, newest first."""
    listed = node.http.get("/audit", params={"subject": subject}).json()["items"]
    return [entry["action"] for entry in listed]


async def said(page: Page, text: str) -> None:
    """Check the message that an action leads to."""
    await expect(page.locator("main > .msg")).to_contain_text(text)


async def show_times(page: Page, cron: str, zone: str) -> None:
    await page.get_by_label("Cron").fill(cron)
    await page.get_by_label("Zone").fill(zone)
    await page.get_by_role("button", name="Show the next times").click()


@pytest.fixture
def made(node: NativeNode, tool_image: str, tmp_path: Path) -> Made:
    return make(node, tool_image, tmp_path)


@pytest.fixture(scope="module")
def shared(node: NativeNode, tool_image: str, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return an enrolled pipeline that tests leave as it is."""
    return make(node, tool_image, tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def scheduled(node: NativeNode, tool_image: str, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return an enrolled pipeline with a schedule, which tests leave as it is."""
    made = make(node, tool_image, tmp_path_factory.mktemp("scheduled"))
    post(node, "/pipeline/run", {"name": made.name, "cron": "0 4 * * *"})
    return made


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


async def test_pipeline_schedule_by_clicks(node: NativeNode, made: Made) -> None:
    async with reading(node.url) as reader:
        page = await reader.open(made.path)
        await show_times(page, "30 2 * * *", "Asia/Tokyo")
        preview = page.locator("#schedule-preview")
        await expect(preview.locator("li")).to_have_count(10)
        await expect(preview.locator("li").first).to_contain_text("02:30 JST")
        await expect(preview.locator("li").first).to_contain_text("17:30 UTC")
        await expect(preview.locator(".cmd")).to_have_text(
            f"maoctl pipeline run {made.name} --cron '30 2 * * *' --timezone Asia/Tokyo"
        )
        assert jobs_of(node, made) == []
        assert await layout_faults(page) == []
        assert await accessibility_faults(page) == []
        await page.get_by_role("button", name="Run it at these times").click()
        await said(page, "Scheduled: 30 2 * * * in Asia/Tokyo.")
        await expect(page.locator("#pipeline-schedules li")).to_have_count(10)
        [job] = jobs_of(node, made)
        assert (job["cron"], job["timezone"]) == ("30 2 * * *", "Asia/Tokyo")

        await page.get_by_role("link", name="Change", exact=True).click()
        assert await page.get_by_label("Cron").input_value() == "30 2 * * *"
        await show_times(page, "@hourly", "UTC")
        await expect(page.locator("#schedule-preview li")).to_have_count(10)
        await page.get_by_role("button", name="Change to these times").click()
        await said(page, "Changed: @hourly in UTC.")
        [changed] = jobs_of(node, made)
        assert (changed["cron"], changed["timezone"]) == ("@hourly", "UTC")

        await page.get_by_text("Delete…").click()
        await page.get_by_role("button", name="Delete the schedule").click()
        await said(page, "The schedule is deleted")
        assert jobs_of(node, made) == []


@pytest.mark.parametrize(
    ("cron", "zone", "error"),
    [
        ("61 * * * *", "UTC", "minute"),
        ("0 0 30 2 *", "UTC", "0 0 30 2 *"),
        ("* * *", "UTC", "* * *"),
        ("", "UTC", "cron"),
        ("0 4 * * *", "Mars/Olympus", "Mars/Olympus"),
        ("0 4 * * *", "../../etc/passwd", "../../etc/passwd"),
        (HOSTILE, "UTC", "cron"),
    ],
    ids=["minute", "never", "short", "empty", "zone", "path", "hostile"],
)
async def test_pipeline_schedule_error_at_form(
    node: NativeNode, reader: Reader, shared: Made, cron: str, zone: str, error: str
) -> None:
    page = await reader.open(shared.path)
    await show_times(page, cron, zone)
    await expect(page.locator("#schedule-form .msg")).to_contain_text(error)
    assert await page.get_by_label("Cron").input_value() == harmless_line(cron)
    assert await page.get_by_label("Zone").input_value() == zone
    await expect(page.locator("#schedule-preview")).to_have_count(0)
    assert await layout_faults(page) == []
    assert jobs_of(node, shared) == []


async def test_pipeline_schedule_refused_when_saved(node: NativeNode, made: Made) -> None:
    """Somebody else has scheduled the same cron string with other settings in the meantime."""
    async with reading(node.url) as reader:
        page = await reader.open(made.path)
        await show_times(page, "5 5 * * *", "UTC")
        await expect(page.locator("#schedule-preview li")).to_have_count(10)
        other = {"name": made.name, "cron": "5 5 * * *", "timezone": "UTC", "catch_up": "none"}
        post(node, "/pipeline/run", other)
        await page.get_by_role("button", name="Run it at these times").click()
        await expect(page.locator("#schedule-form .msg")).to_contain_text("with other settings")
        assert await page.get_by_label("Cron").input_value() == "5 5 * * *"


async def test_pipeline_change_keeps_other_settings(node: NativeNode, made: Made) -> None:
    body = {
        "name": made.name,
        "cron": "0 4 * * *",
        "catch_up": "none",
        "start_deadline": 900,
        "overlap": "queue",
    }
    old = post(node, "/pipeline/run", body)
    node.http.post(f"/jobs/{old['id']}/pause")
    async with reading(node.url) as reader:
        page = await reader.open(f"{made.path}?form=schedule&job={old['id']}")
        await show_times(page, "0 5 * * *", "UTC")
        await expect(page.locator("#schedule-preview .cmd")).to_have_text(
            [
                f"maoctl pipeline run {made.name} --cron '0 5 * * *' --timezone UTC --catch-up none "
                "--start-deadline 900s --overlap queue",
                f"maoctl job remove {old['id']} --yes",
            ]
        )
        await page.get_by_role("button", name="Change to these times").click()
        await said(page, "Changed: 0 5 * * * in UTC.")
    [job] = jobs_of(node, made)
    kept = {key: job[key] for key in ("catch_up", "start_deadline", "overlap", "paused")}
    assert kept == {"catch_up": "none", "start_deadline": 900, "overlap": "queue", "paused": True}
    assert job["id"] != old["id"]


async def test_pipeline_pause_and_resume_by_clicks(node: NativeNode, made: Made) -> None:
    post(node, "/pipeline/run", {"name": made.name, "cron": "0 4 * * *"})
    async with reading(node.url) as reader:
        page = await reader.open(made.path)
        await page.get_by_role("button", name="Pause").click()
        await said(page, "Paused: its ticks are recorded as missed")
        await expect(page.locator("#pipeline-schedules h3")).to_contain_text("paused")
        assert [job["paused"] for job in jobs_of(node, made)] == [True]
        await page.get_by_role("button", name="Resume").click()
        await said(page, "Resumed from the next tick on")
        [job] = jobs_of(node, made)
        assert not job["paused"]
        assert actions_on(node, job["id"]) == ["jobs.resume", "jobs.pause"]


async def test_pipeline_backfill_by_clicks(node: NativeNode, made: Made) -> None:
    job = post(node, "/pipeline/run", {"name": made.name, "cron": "0 * * * *"})
    async with reading(node.url) as reader:
        page = await reader.open(made.path)
        await page.get_by_label("From").fill("130 min")
        await page.get_by_role("button", name="Show what would run").click()
        preview = page.locator("#backfill-preview")
        await expect(preview.locator("tbody tr")).to_have_count(2)
        await expect(preview).to_contain_text("2 ticks would run")
        assert runs_of(node, made) == []
        assert actions_on(node, job["id"]) == []
        assert await layout_faults(page) == []
        assert await accessibility_faults(page) == []
        command = await preview.locator(".cmd").inner_text()
        assert f"maoctl job backfill {job['id']} --since " in command
        await page.get_by_role("button", name="Queue 2 runs").click()
        await said(page, "2 runs are queued")
        runs = runs_of(node, made)
        assert len(runs) == 2
        for run in runs:
            assert node.wait_run(run["id"])["phase"] == "succeeded"

        await page.get_by_label("From").fill("130 min")
        await page.get_by_role("button", name="Show what would run").click()
        await expect(page.locator("#backfill-preview")).to_contain_text("Nothing is missing")
        await expect(page.get_by_role("button", name="Queue")).to_have_count(0)


@pytest.mark.parametrize(
    ("since", "until", "error"),
    [
        ("2999-01-01", "", "There are no ticks between"),
        ("2026-01-02", "2026-01-01", "There are no ticks between"),
        ("yesterday", "", "'yesterday' is no time"),
        ("", "", "From is empty."),
        ("1 d", HOSTILE, "is no time"),
        ("0001-01-01", "", "'0001-01-01' is no time"),
    ],
    ids=["future", "reversed", "words", "empty", "hostile", "year-1"],
)
async def test_pipeline_backfill_error_at_form(
    node: NativeNode, reader: Reader, scheduled: Made, since: str, until: str, error: str
) -> None:
    page = await reader.open(scheduled.path)
    await page.get_by_label("From").fill(since)
    await page.get_by_label("Until").fill(until)
    await page.get_by_role("button", name="Show what would run").click()
    await expect(page.locator("#backfill .msg")).to_contain_text(error)
    assert await page.get_by_label("From").input_value() == since
    assert await page.get_by_label("Until").input_value() == harmless_line(until)
    assert await layout_faults(page) == []


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
