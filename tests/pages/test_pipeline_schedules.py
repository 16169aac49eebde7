"""The schedules of a pipeline, by clicks in a real browser: schedule, change, pause, backfill."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.async_api import expect

from mao_shared.text import harmless_line
from tests.support.node import NativeNode
from tests.support.reader import Reader, accessibility_faults, layout_faults, reading

from .made import HOSTILE, Made, actions_on, jobs_of, make, post, runs_of, said, show_times

pytestmark = [pytest.mark.docker, pytest.mark.etcd]


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
        await expect(page.locator("#schedule-preview")).to_contain_text(
            "The ticks of the pause are recorded as missed"
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
        await said(page, "Paused: no tick runs until it is resumed")
        await expect(page.locator("#pipeline-schedules h3")).to_contain_text("paused")
        assert [job["paused"] for job in jobs_of(node, made)] == [True]
        await page.get_by_role("button", name="Resume").click()
        await said(page, "Resumed from the next tick on")
        [job] = jobs_of(node, made)
        assert not job["paused"]
        assert actions_on(node, job["id"]) == ["jobs.resume", "jobs.pause"]


async def test_pipeline_backfill_by_clicks(node: NativeNode, made: Made) -> None:
    minute = (datetime.now(UTC).minute + 30) % 60  # so that two ticks are in the last 130 minutes at any time
    job = post(node, "/pipeline/run", {"name": made.name, "cron": f"{minute} * * * *"})
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
