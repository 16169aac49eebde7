"""The whole way of a person, by clicks alone: from the greeting of a new node to a value's history."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Locator, Page, expect

from tests.support.docker import Engine
from tests.support.node import NativeNode, native_node
from tests.support.png import reduce_colours
from tests.support.reader import Reader, check_page, reading

from .lab import PEERS, PIPELINES, write_lab
from .made import said, show_times
from .samples import GATE, open_gate
from .written import make_rounds

PIPELINE = "River-levels"  # the name that is derived from the catalogue's title
MAX_PICTURE_BYTES = 150_000  # a README is read over slow lines, too
STATIONS = 5
GATED_RUNS = 2  # of the tool wait for the test
COLLECT = f"""\
cd /usr/src/app/data
n=$(cat runs 2>/dev/null || echo 0); n=$((n + 1))
echo "asks {{stations}} stations for $MAO_SCHEDULED_FOR"
if [ $n -le {GATED_RUNS} ]; then {GATE}; fi
echo "station,level" > levels.csv
i=1; while [ $i -le {{stations}} ]; do
  echo "station-$i,$((i * 10 + n % 3))" >> levels.csv; i=$((i + 1))
done
echo "run $n: {{stations}} stations have answered"
if [ $n -le {GATED_RUNS} ]; then {GATE}; fi
echo $n > runs
echo "levels.csv is written"
"""


def catalogue(image: str) -> dict[str, Any]:
    metrics = [
        {"name": "rows", "measure": "rows"},
        {"name": "level", "file": "levels.csv", "column": "level", "aggregate": "max", "unit": "cm"},
    ]
    step = {"tool": "gauges", "output_dataset": "levels", "metrics": metrics}
    return {
        "tools": [{"name": "gauges", "image": image, "description": "Asks the gauges of a river."}],
        "pipelines": [{"name": "River levels", "description": "Water levels, hourly.", "steps": [step]}],
    }


class Walk:
    """One tab of a reader, and the runs' gates, which stand for the world outside that tools wait for."""

    def __init__(self, node: NativeNode, page: Page) -> None:
        self.node = node
        self.page = page

    async def go(self, section: str) -> None:
        """Follow a link of the navigation."""
        await self.page.locator("nav.nav").get_by_role("link", name=section).click()

    async def picture(self, name: str) -> None:
        await check_page(self.page, f"walk-{name}")

    async def run_of_page(self) -> str:
        """Return the id of the run that the page shows."""
        await self.page.wait_for_url("**/ui/runs/*")
        return urlsplit(self.page.url).path.rpartition("/")[2]

    async def open_gate(self, run: str, attempt: int = 1) -> None:
        await asyncio.to_thread(open_gate, self.node, run, 0, attempt)

    async def open_pipeline(self) -> None:
        await self.go("Pipelines")
        await self.page.get_by_role("link", name="River levels", exact=True).click()

    async def run_now(self) -> None:
        """Start a run on the page of the pipeline and wait on that page until it has succeeded."""
        page = self.page
        before = await page.locator("#pipeline-head h1 a").get_attribute("href")
        await page.get_by_role("button", name="Run now").click()
        await said(page, "A run is queued")
        link = page.locator("#pipeline-head h1 a", has_text="last run succeeded")
        await expect(link).not_to_have_attribute("href", before or "")


@pytest.fixture
def node(engine: Engine, tmp_path: Path) -> Iterator[NativeNode]:
    """A fresh node with a catalogue."""
    path = tmp_path / "rivers.json"
    path.write_text(json.dumps(catalogue(engine.build(COLLECT.format(stations=STATIONS)))))
    with native_node(tmp_path / "node", env={"MAO_CATALOGUES": f"rivers={path}"}) as node:
        yield node


async def test_walk_from_greeting_to_history_of_a_value(
    node: NativeNode, engine: Engine, tmp_path: Path
) -> None:
    """All by clicks, on one node.

    Not clicked is what is not the person's work: images are built, a tool that waits for the world goes on,
    a colleague changes a tool's record, and two peers have voted with this node at a remote that it clones.
    """
    async with reading(node.url) as reader:
        walk = Walk(node, await reader.open("/"))
        await install(walk)
        await see_log_grow(walk)
        await cancel_and_retry(walk)
        await schedule_pause_and_resume(walk)
        await backfill(walk)
        await approve_change(walk, engine.build(COLLECT.format(stations=9 * STATIONS)))
        await acknowledge_spikes(walk)
        await explain_cell(walk, reader, tmp_path)
        await follow_value(walk)


async def test_walk_picture_of_a_lab(tool_image: str, tmp_path: Path) -> None:
    """*Today* of a lab, as the README shows it: the picture goes to the folder MAO_PICTURES."""
    with native_node(tmp_path, name="zurich", env={"TZ": "UTC"}) as node:
        await write_lab(node, tool_image, tmp_path)
        async with reading(node.url) as reader:
            page = await reader.open("/")
            await expect(page.locator("svg.strip")).to_have_count(len(PIPELINES) * (1 + len(PEERS)))
            await expect(page.locator("#needs li")).to_have_count(2)
            await check_page(page, "walk-lab")
            if folder := os.environ.get("MAO_PICTURES"):
                picture = Path(folder) / "today.png"
                picture.parent.mkdir(parents=True, exist_ok=True)
                box = await page.locator("main").bounding_box()
                assert box is not None
                shown = {"x": 0, "y": 0, "width": 1280, "height": box["y"] + box["height"]}
                taken = await page.screenshot(full_page=True, clip=shown)  # type: ignore[arg-type]
                picture.write_bytes(reduce_colours(taken))
                assert picture.stat().st_size <= MAX_PICTURE_BYTES


async def install(walk: Walk) -> None:
    page = walk.page
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"Welcome to {walk.node.name}")
    await walk.picture("greeting")
    await page.get_by_role("row", name="River levels").get_by_role("button", name="Install").click()
    await expect(page.get_by_text(f"{PIPELINE} is installed")).to_be_visible()
    await walk.picture("installed")
    await page.get_by_role("button", name="Run once now").click()
    await page.locator("#first-run a.id").click()


async def see_log_grow(walk: Walk) -> None:
    page = walk.page
    run = await walk.run_of_page()
    await page.wait_for_selector("#L1:has-text('asks 5 stations')")
    assert await page.locator("#L2").count() == 0
    await walk.picture("log")
    await walk.open_gate(run)
    await page.wait_for_selector("#L2:has-text('run 1: 5 stations have answered')")
    assert await page.locator("#L3").count() == 0
    await walk.open_gate(run)
    await page.wait_for_selector("#L3:has-text('levels.csv is written')")
    await page.wait_for_selector("#run-title:has-text('succeeded')")
    await page.wait_for_selector("#run-outputs:has-text('levels.csv')")
    await walk.picture("first-run")


async def cancel_and_retry(walk: Walk) -> None:
    page = walk.page
    await page.locator("nav .crumbs a", has_text=PIPELINE).click()
    await page.get_by_role("button", name="Run now").click()
    await said(page, "A run is queued")
    await page.locator("#pipeline-head h1 a", has_text="last run running").click()
    cancelled = await walk.run_of_page()
    await page.wait_for_selector("#L1:has-text('asks 5 stations')")
    await page.locator("summary", has_text="Cancel…").click()
    await page.get_by_label("Reason").fill("the gauges are being cleaned")
    await page.get_by_role("button", name="Cancel this run").click()
    await page.wait_for_selector("#run-title:has-text('cancelled')")
    await expect(page.locator("#run-notes")).to_contain_text("the gauges are being cleaned")
    await walk.picture("cancelled")
    await page.locator("summary", has_text="Run again…").click()
    await page.get_by_role("button", name="Run it again").click()
    await page.wait_for_selector("#run-title:has-text('again after')")
    again = await walk.run_of_page()
    assert again != cancelled
    await page.wait_for_selector("#L1")
    await walk.open_gate(again)
    await page.wait_for_selector("#L2")
    await walk.open_gate(again)
    await page.wait_for_selector("#run-title:has-text('succeeded')")
    await walk.picture("retried")


async def schedule_pause_and_resume(walk: Walk) -> None:
    page = walk.page
    await walk.open_pipeline()
    minute = (datetime.now(UTC).minute + 30) % 60  # no tick is near, whatever the time
    await show_times(page, f"{minute} * * * *", "UTC")
    await expect(page.locator("#schedule-preview li")).to_have_count(10)
    await walk.picture("schedule")
    await page.get_by_role("button", name="Run it at these times").click()
    await said(page, f"Scheduled: {minute} * * * * in UTC.")
    await page.get_by_role("button", name="Pause").click()
    await said(page, "Paused")
    await expect(page.locator("#pipeline-schedules h3")).to_contain_text("paused")
    await walk.picture("paused")
    await page.get_by_role("button", name="Resume").click()
    await said(page, "Resumed from the next tick on")
    await expect(page.locator("#pipeline-schedules h3")).to_contain_text("active")


async def backfill(walk: Walk) -> None:
    page = walk.page
    await page.get_by_label("From").fill("250 min")
    await page.get_by_role("button", name="Show what would run").click()
    await expect(page.locator("#backfill-preview")).to_contain_text("4 ticks would run")
    await walk.picture("backfill")
    await page.get_by_role("button", name="Queue 4 runs").click()
    await said(page, "4 runs are queued")
    await walk.go("Runs")
    succeeded = page.locator("table.runs tr", has_text="succeeded")
    await expect(succeeded).to_have_count(6)  # the first, the one that ran again, and these
    await walk.picture("runs")


async def approve_change(walk: Walk, image: str) -> None:
    page, http = walk.page, walk.node.http
    tool = http.get("/registry/tools/gauges").raise_for_status().json()
    http.put("/registry/tools/gauges", json=tool | {"image": image}).raise_for_status()
    await walk.open_pipeline()
    await expect(page.locator("#pending")).to_contain_text("A change waits for your approval")
    await walk.go("Today")
    await page.get_by_role("link", name="See the difference").click()
    row = page.locator("#pending table").get_by_role("row").filter(has=page.locator("ins", has_text=image))
    await expect(row.first).to_contain_text(tool["image"])
    await walk.picture("change")
    await page.get_by_role("button", name="Approve revision").click()
    await said(page, "Approved")
    await expect(page.locator("#pending")).to_have_count(0)
    await walk.run_now()


async def acknowledge(row: Locator, note: str) -> None:
    await row.locator("summary", has_text="Acknowledge…").click()
    await row.get_by_label("What you found").fill(note)
    await row.get_by_role("button", name="Acknowledge").click()


async def acknowledge_spikes(walk: Walk) -> None:
    """The changed tool writes nine times as many rows: one spike is acknowledged on Today, one on Alarms."""
    page = walk.page
    await walk.go("Today")
    needs = page.locator("#needs li", has_text=f"{PIPELINE}: spike")
    await expect(needs).to_have_count(2)
    await walk.picture("today-spikes")
    await acknowledge(needs.first, "45 gauges since today")
    await said(page, "Acknowledged: ")
    assert urlsplit(page.url).path == "/"
    await expect(page.get_by_role("heading", level=1)).to_have_text("Today")
    await expect(needs).to_have_count(1)
    await walk.go("Alarms")
    row = page.locator("#open tbody tr", has_text="spike")
    await expect(row).to_have_count(1)
    await acknowledge(row, "the new gauges are upstream")
    await said(page, "Acknowledged: ")
    await expect(row).to_have_count(0)
    closed = page.locator("#closed tbody tr", has_text="spike")
    await expect(closed).to_have_count(2)
    await walk.picture("acknowledged")
    await walk.go("Today")
    await expect(page.locator("#needs")).to_contain_text("nothing")
    await walk.picture("today")


async def explain_cell(walk: Walk, reader: Reader, folder: Path) -> None:
    page = walk.page
    ours = {"gauges.csv": "station,level\n" + "".join(f"s{number},{100 + number}\n" for number in range(20))}
    theirs = {"gauges.csv": ours["gauges.csv"].replace("s7,107", "s7,207")}
    versions = [{walk.node.name: ours, "basel": ours, "geneva": files} for files in (ours, theirs)]
    await asyncio.to_thread(make_rounds, walk.node, folder, "shared-levels", versions)
    await walk.go("Agreement")
    await page.locator("table").get_by_role("link", name="shared-levels").click()
    await page.wait_for_selector(".grid-rounds")
    await walk.picture("agreement")
    await page.locator(".grid-rounds a[href$='T130000Z-crawl-collect']").first.click()
    await page.locator(".cells").get_by_role("link", name="s7").click()
    await page.wait_for_selector("text=Why this one")
    told = await page.inner_text("main")
    assert "107 was taken: more than half of the nodes that voted have this value." in told
    assert "107 by 2, 207 by 1, of 3 nodes with this record" in told
    await walk.picture("cell")


async def follow_value(walk: Walk) -> None:
    page = walk.page
    await walk.go("Datasets")
    await page.locator("table").get_by_role("link", name="levels", exact=True).click()
    await page.locator("#files").get_by_role("link", name="levels.csv", exact=True).click()
    await page.locator("#preview tr", has_text="station-3").get_by_title("its history").click()
    label = await page.get_attribute("#history svg.plot-area", "aria-label")
    assert label is not None
    assert label.startswith("level at 7 moments"), label
    await expect(page.locator("#history tbody tr")).to_have_count(7)
    await walk.picture("history")
