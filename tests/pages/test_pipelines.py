"""The list of pipelines, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from tests.support.git import bare_repository
from tests.support.node import NativeNode, native_node
from tests.support.reader import layout_faults, look_at, reading

from .test_pipeline import HOSTILE, Made, make, post

pytestmark = [pytest.mark.docker, pytest.mark.etcd]
MANY = 260  # more than two pages, and more than a search shows


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeNode]:
    """Run a node without any pipeline."""
    with native_node(tmp_path_factory.mktemp("pipelines")) as node:
        yield node


async def test_pipelines_empty_then_many(fresh: NativeNode, tmp_path: Path) -> None:
    """One test, since the empty list comes first."""
    async with reading(fresh.url) as reader:
        await look_at(reader, "/ui/pipelines", "pipelines-empty")
        page = await reader.open("/ui/pipelines")
        await expect(page.locator("#pipelines")).to_contain_text("No pipeline is registered yet")

        post(fresh, "/registry/tools", {"name": "crawler", "image": "lab/crawler:1"})
        remote = bare_repository(tmp_path / "charts.git")
        post(fresh, "/registry/datasets", {"name": "charts", "master": str(remote)})
        with ThreadPoolExecutor(8) as workers:
            list(workers.map(lambda number: register(fresh, f"p{number:04}"), range(MANY)))
        await page.reload()
        await expect(page.locator("tbody tr")).to_have_count(100)
        await page.get_by_role("link", name="next page").click()
        await expect(page.locator("tbody th a").first).to_have_text("p0100")
        await page.get_by_role("link", name="first page").click()
        await expect(page.locator("tbody th a").first).to_have_text("p0000")

        await page.get_by_label("Name, tool or dataset").fill("P01 charts")
        await page.get_by_role("button", name="Search").click()
        await expect(page.locator("tbody tr")).to_have_count(100)
        await page.get_by_label("Name, tool or dataset").fill("crawler")
        await page.get_by_role("button", name="Search").click()
        await expect(page.locator("tbody tr")).to_have_count(200)
        await expect(page.locator("#pipelines")).to_contain_text("60 more pipelines match")
        await page.get_by_label("Name, tool or dataset").fill("no such")
        await page.get_by_role("button", name="Search").click()
        await expect(page.locator("#pipelines")).to_contain_text("No pipeline matches")
        assert await page.get_by_label("Name, tool or dataset").input_value() == "no such"


def register(node: NativeNode, name: str, **fields: Any) -> None:
    step = {"tool": "crawler", "dataset": "charts"}
    post(node, "/registry/pipelines", {"name": name, "steps": [step], **fields})


async def test_pipelines_each_state(node: NativeNode, tool_image: str, tmp_path: Path) -> None:
    """Enrolled with schedules, with a pending change, not enrolled; hostile texts stay text."""
    text = HOSTILE.replace("\x1b", "")
    made = make(node, tool_image, tmp_path, description="temperature and rain of the Alps, once a night")
    changed = make(node, tool_image, tmp_path, name=f"{text} {made.name}"[:300], description=text)
    other = make(node, tool_image, tmp_path, enrol=False)
    run = post(node, "/pipeline/run", {"name": made.name})
    node.wait_run(run["id"])
    for cron in ("0 4 * * *", "*/20 8-18 * * mon-fri", "@weekly", "@monthly"):
        post(node, "/pipeline/run", {"name": made.name, "cron": cron, "timezone": "Europe/Zurich"})
    post(node, "/pipeline/run", {"name": changed.name, "cron": "5 4 * * *", "paused": True})
    tool = node.http.get(f"/registry/tools/{changed.tool}").json()
    node.http.put(f"/registry/tools/{changed.tool}", json=tool | {"env": {"A": "1"}})
    async with reading(node.url) as reader:
        await look_at(reader, "/ui/pipelines", "pipelines")
        page = await reader.open("/ui/pipelines")

        def row(which: Made) -> Any:
            return page.locator("tbody tr", has=page.locator(f'a[href="{which.path}"]'))

        await expect(row(made)).to_contain_text("enrolled")
        await expect(row(made)).to_contain_text("and 1 more")
        await expect(row(made).get_by_role("link", name="succeeded")).to_have_attribute(
            "href", f"/ui/runs/{run['id']}"
        )
        await expect(row(changed)).to_contain_text("change pending")
        await expect(row(changed)).to_contain_text("paused")
        await expect(row(changed)).to_contain_text("<b onclick")
        await expect(row(other)).to_contain_text("not enrolled")
        for show, shown in (("enrolled", made), ("other", other), ("pending", changed), ("paused", changed)):
            await page.get_by_label("Show").select_option(show)
            await page.get_by_role("button", name="Search").click()
            await expect(row(shown)).to_have_count(1)
            if shown is not other:
                await expect(row(other)).to_have_count(0)
        await row(changed).get_by_role("link", name="change pending").click()
        await expect(page.locator("#pending")).to_be_visible()
        assert await layout_faults(page) == []


async def test_pipelines_read_without_scripts(node: NativeNode, tool_image: str, tmp_path: Path) -> None:
    made = make(node, tool_image, tmp_path, enrol=False)
    async with reading(node.url, scripts=False) as reader:
        page = await reader.open("/ui/pipelines")
        await page.get_by_label("Name, tool or dataset").fill(made.tool)
        await page.get_by_role("button", name="Search").click()
        await page.get_by_role("link", name=made.name, exact=True).click()
        await expect(page.locator("h1")).to_contain_text(made.name)
