"""*Today*: what needs a person, and strips of the last ticks, folded where there are many."""

from __future__ import annotations

import asyncio
import subprocess
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from mao_gateway.pages.today import MAX_ROWS, MAX_UNFOLDED, Row, count_ticks, fold
from mao_shared.models import TickStrip
from tests.support.lab_ticks import write_lab_ticks
from tests.support.node import NativeNode
from tests.support.reader import look_at, reading

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def strip(pipeline: str = "survey", node: str = "node-1", **changes: Any) -> TickStrip:
    fields: dict[str, Any] = {"marks": "s" * 40, "recent": 24, "updated_at": NOW}
    return TickStrip(node=node, pipeline=pipeline, **{**fields, **changes})


def row(**changes: Any) -> Row:
    heard = changes.pop("heard", True)
    made = strip(**changes)
    return Row(made, own=made.node == "node-1", heard=heard)


@pytest.mark.parametrize(
    ("changes", "well"),
    [
        ({}, True),
        ({"marks": "f" + "s" * 10}, True),
        ({"marks": "f" + "s" * 9}, False),
        ({"marks": "sm"}, False),
        ({"marks": "sq"}, False),
        ({"marks": "srw"}, True),
        ({"marks": ""}, True),
        ({"heard": False}, False),
    ],
)
def test_row_is_well(changes: dict[str, Any], well: bool) -> None:
    assert row(**changes).is_well is well


def test_fold_few_rows_are_all_shown() -> None:
    rows = [row(pipeline=f"p{number}") for number in range(MAX_UNFOLDED)]
    table = fold(rows, {}, only_unwell=False)
    assert (len(table.groups), table.folded, table.hidden) == (MAX_UNFOLDED, [], 0)
    assert fold(rows, {}, only_unwell=True).groups == []


def test_fold_many_rows_show_what_is_not_well() -> None:
    rows = [row(pipeline=f"p{number:03}", node=node) for number in range(50) for node in ("node-1", "node-2")]
    rows[7] = row(pipeline="p003", node="node-2", marks="ssf")
    table = fold(rows, {}, only_unwell=False)
    assert [(group.pipeline, group.well) for group in table.groups] == [("p003", 1)]
    assert len(table.folded) == 49
    assert (table.pipelines, table.rows) == (50, 100)


def test_fold_many_bad_rows_are_cut_and_counted() -> None:
    rows = [row(pipeline=f"p{number:03}", marks="f") for number in range(MAX_ROWS + 5)]
    table = fold(rows, {}, only_unwell=False)
    assert (sum(len(group.rows) for group in table.groups), table.hidden) == (MAX_ROWS, 5)


def test_count_ticks_of_the_last_day() -> None:
    rows = [row(marks="f" * 20 + "sssm", recent=4), row(marks="sL", recent=2, heard=False), row(recent=0)]
    assert count_ticks(rows) == Counter({"s": 4, "m": 1, "L": 1, "?": 1})


@pytest.fixture(scope="session")
def lab(node: NativeNode, tool_image: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A pipeline that ran for real, and five copies of it on three nodes."""
    master = tmp_path_factory.mktemp("lab") / "lab.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(master)], check=True)
    for path, body in (
        ("/registry/tools", {"name": "lab", "image": tool_image}),
        ("/registry/datasets", {"name": "lab", "master": str(master)}),
        ("/pipeline/init", {"tool": "lab", "dataset": "lab"}),
    ):
        node.http.post(path, json=body).raise_for_status()
    run = node.http.post("/pipeline/run", json={"name": "lab"}).raise_for_status().json()
    assert node.wait_run(run["id"])["phase"] == "succeeded"
    written = write_lab_ticks(node, "lab", pipelines=6, nodes=("basel", "geneva"), ticks=60)
    return asyncio.run(written)


async def test_today_of_a_lab(node: NativeNode, lab: list[str]) -> None:
    async with reading(node.url) as reader:
        await look_at(reader, "/", "today")
        page = await reader.open("/?only=unwell")
        assert await page.locator("table.ticks").count() == 1
        assert await page.get_by_role("link", name="lab-005", exact=True).count() >= 1
        label = await page.locator("svg.strip").first.get_attribute("aria-label")
        assert label is not None
        assert "failed" in label
        await page.goto("/?pipeline=lab-003&node=basel")
        assert await page.locator("svg.strip").count() == 1
        await page.goto("/?pipeline=no-such")
        assert await page.get_by_text("No pipeline matches").count() == 1


async def test_today_reads_without_scripts(node: NativeNode, lab: list[str]) -> None:
    async with reading(node.url, scripts=False) as reader:
        page = await reader.open("/?pipeline=lab")
        assert "succeeded" in await page.locator("table.ticks").inner_text()
        await page.locator("select[name=ticks]").select_option("100")
        await page.get_by_role("button", name="Show").click()
        assert "ticks=100" in page.url


async def test_today_refreshes_after_an_event(node: NativeNode, lab: list[str]) -> None:
    async with reading(node.url) as reader:
        page = await reader.open("/?pipeline=lab&node=node-1")
        row = page.locator("tr", has=page.get_by_role("link", name="node-1")).first
        before = await row.locator("svg.strip").get_attribute("aria-label")
        node.http.post("/pipeline/run", json={"name": "lab"}).raise_for_status()
        await page.wait_for_function(
            "(before) => [...document.querySelectorAll('svg.strip')].every("
            "(each) => each.getAttribute('aria-label') !== before)",
            arg=before,
        )
