"""The public status of a dataset that a node really collects, as a stranger's browser shows it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.git import bare_repository
from tests.support.node import NativeNode, native_node
from tests.support.reader import look_at, reading


@pytest.fixture(scope="module")
def publisher(tool_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeNode]:
    """A node that has collected `shown` twice; its status is public."""
    root = tmp_path_factory.mktemp("publisher")
    with native_node(root, env={"MAO_PUBLIC_STATUS": "shown"}) as node:
        for path, body in (
            ("/registry/tools", {"name": "shown", "image": tool_image}),
            ("/registry/datasets", {"name": "shown", "master": str(bare_repository(root / "shown.git"))}),
            ("/pipeline/init", {"tool": "shown", "dataset": "shown"}),
        ):
            node.http.post(path, json=body, timeout=60).raise_for_status()
        for minute in (1, 2):
            tick = {"name": "shown", "scheduled_for": f"2026-01-31T12:0{minute}:00Z"}
            run = node.http.post("/pipeline/run", json=tick).raise_for_status().json()
            assert node.wait_run(run["id"])["phase"] == "succeeded"
        yield node


async def test_public_page_is_accessible_and_says_that_data_comes_in(publisher: NativeNode) -> None:
    async with reading(publisher.url) as reader:
        await look_at(reader, "/public/shown", "public")
        page = await reader.open("/public/shown")
        text = await page.inner_text("main")
        assert "data comes in" in text
        assert "no round of several nodes yet" in text
        label = await page.locator("svg.strip").get_attribute("aria-label")
        assert label == "last 2 ticks of shown: 2 succeeded"
        assert await page.locator("a, script, form").count() == 0


async def test_public_page_needs_no_scripts_and_badge_shows_elsewhere(publisher: NativeNode) -> None:
    async with reading(publisher.url, scripts=False) as reader:
        page = await reader.open("/public/shown")
        assert "data comes in" in await page.inner_text("main")
    async with reading(publisher.url) as reader:
        page = await reader.context.new_page()
        await page.set_content(f'<img id="badge" src="{publisher.url}/public/shown/badge.svg">')
        await page.wait_for_function("document.getElementById('badge').naturalWidth > 80")
        await page.set_content(f'<img id="other" src="{publisher.url}/ui/static/x/favicon.svg">')
        await page.wait_for_function("document.getElementById('other').complete")
        assert await page.evaluate("document.getElementById('other').naturalWidth") == 0
