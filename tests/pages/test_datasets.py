"""*Datasets* and *Dataset* in a real browser."""

from __future__ import annotations

import shlex
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.git import bare_repository
from tests.support.node import NativeNode
from tests.support.reader import look_at, reading
from tests.support.waiting import eventually

from .dataset_world import HOSTILE, fill_datasets

PAGE = "/ui/datasets/latency"
VALUE = f"{PAGE}?value_file=latency.csv&key=eu-central&field=p95"


@pytest.fixture(scope="session")
def filled(node: NativeNode, tmp_path_factory: pytest.TempPathFactory) -> NativeNode:
    """A node with datasets."""
    fill_datasets(node, tmp_path_factory.mktemp("remotes"))
    return node


async def test_datasets_list(filled: NativeNode) -> None:
    async with reading(filled.url) as reader:
        await look_at(reader, "/ui/datasets", "datasets")
        page = await reader.open("/ui/datasets")
        text = await page.inner_text("main")
        assert "Registered, not on this node" in text
        await page.click("text=latency")
        await page.wait_for_url(f"**{PAGE}")
        assert (await page.inner_text("h1")).split() == ["latency", "pushed"]


async def test_dataset_looks(filled: NativeNode) -> None:
    async with reading(filled.url) as reader:
        await look_at(reader, VALUE, "dataset")


@pytest.mark.parametrize("name", ["empty", "elsewhere"])
async def test_dataset_without_content(filled: NativeNode, name: str) -> None:
    async with reading(filled.url) as reader:
        await look_at(reader, f"/ui/datasets/{name}", f"dataset-{name}")


async def test_dataset_reads_without_scripts(filled: NativeNode) -> None:
    """From the list to a value's history by links alone, without scripts."""
    async with reading(filled.url, scripts=False) as reader:
        page = await reader.open("/ui/datasets")
        await page.click("text=latency")
        branches = await page.inner_text("#branches")
        assert [name in branches for name in ("ground-truth", "basel", filled.name)] == [True] * 3
        await page.click("#files >> text=latency.csv")
        assert "of 6, key region" in await page.inner_text("#preview header")
        await page.click("#preview >> text=180.3")
        await page.wait_for_selector("#history svg.plot-area")
        label = await page.get_attribute("#history svg.plot-area", "aria-label")
        assert label is not None
        assert label.startswith("p95 at 24 moments: node-1 ")
        rows = await page.inner_text("#history table")
        assert "it is not UTF-8 at byte 14" in rows
        shown = await page.inner_text("#history .cmd")
        assert shown == "maoctl dataset history --branch node-1 latency latency.csv eu-central p95"


async def test_dataset_commands_do_what_the_page_shows(filled: NativeNode) -> None:
    async with reading(filled.url) as reader:
        page = await reader.open(VALUE)
        lines = await page.locator(".cmd").all_inner_texts()
        for line in lines:
            words = shlex.split(line)
            assert words[0] == "maoctl"
            if words[1:3] != ["pipeline", "enrol"] and words[2] != "push":
                assert filled.maoctl(*words[1:]).stdout


async def test_dataset_picture_and_text(filled: NativeNode) -> None:
    async with reading(filled.url) as reader:
        page = await reader.open(f"{PAGE}?file=plot.png")
        width = await page.evaluate("() => document.querySelector('.picture').naturalWidth")
        assert width == 96
        await page.goto(f"{PAGE}?path=raw&file=raw/notes.txt")
        assert "<script>alert(1)</script>\nsecond line\\x1b[2J" in await page.inner_text("#preview pre")
        await page.goto(f"{PAGE}?file=raw/a.bin")
        assert "No preview of this kind" in await page.inner_text("#preview")
        await look_at(reader, f"{PAGE}?path=raw&file=raw/notes.txt", "dataset-text")
        await look_at(reader, f"{PAGE}?file=plot.png", "dataset-picture")


async def test_dataset_hostile_names_stay_text(filled: NativeNode) -> None:
    async with reading(filled.url) as reader:
        page = await reader.open(f"{PAGE}?file={quote(HOSTILE)}")
        shown = "<img src=x onerror=alert(1)>\\x1b[2J\\u202e.csv"
        assert shown in await page.inner_text("#files table")
        assert await page.inner_text("#preview h2") == shown
        assert "<script>alert(1)</script>" in await page.inner_text("#preview table")
        assert await page.locator("main img, main script").count() == 0
        async with page.expect_download() as download:
            await page.click("#files tr:has-text('onerror') >> text=download")
        assert Path(await (await download.value).path()).read_bytes().startswith(b"name,value\n")
        await look_at(reader, f"{PAGE}?file={quote(HOSTILE)}", "dataset-hostile")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?ref=no-such-branch", "no branch or commit"),
        ("?path=no/such/folder", "There is no 'no/such/folder'"),
        ("?file=none.csv", "There is no 'none.csv'"),
        ("?value_file=latency.csv&key=eu-centrall&field=p95", "Did you mean 'eu-central'?"),
        ("?value_file=latency.csv&key=eu-central&field=p59", "Did you mean 'p95'?"),
        ("?value_file=plot.png&key=a&field=b", "is not a record file"),
        ("?before=zzz", "no branch or commit"),
    ],
)
async def test_dataset_says_what_is_not_there(filled: NativeNode, query: str, words: str) -> None:
    async with reading(filled.url) as reader:
        page = await reader.open(PAGE + query)
        assert words in await page.inner_text("main [role=alert] >> nth=0")
        assert (await page.inner_text("h1")).split() == ["latency", "pushed"]


async def test_dataset_refused_push_shows_reason_and_command(
    filled: NativeNode, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The remote is away: what waits is shown with the reason, and pushed by a click once it is back."""
    master = bare_repository(tmp_path_factory.mktemp("values") / "values.git")
    record = {"name": "values", "master": str(master)}
    assert filled.http.post("/registry/datasets", json={**record, "external": ["t"]}).status_code == 201
    assert filled.http.put("/datasets/values", json=record).is_success
    master.rename(away := master.with_name("away.git"))
    assert filled.http.post("/write", json={"key": "t", "value": 21.5}).is_success
    await eventually(lambda: filled.http.get("/datasets/values").json()["outbox"]["waiting"])
    async with reading(filled.url) as reader:
        page = await reader.open("/ui/datasets/values")
        waits = await page.inner_text("#waits")
        assert str(master) in waits
        assert "maoctl dataset push values" in waits
        assert await page.locator("#waits tbody tr").count() == 1
        await look_at(reader, "/ui/datasets/values", "dataset-waits")
        await page.click("text=Push now")
        assert str(master) in await page.inner_text("main [role=alert]")
        away.rename(master)
        await page.click("text=Push now")
        assert "All commits are at the remote" in await page.inner_text("main > [role=status]")
        assert await page.locator("#waits").count() == 0


async def test_dataset_that_does_not_exist(filled: NativeNode) -> None:
    async with reading(filled.url) as reader:
        page = await reader.context.new_page()
        answer = await page.goto("/ui/datasets/no-such-dataset")
        assert answer is not None
        assert answer.status == 404
        assert "There is no dataset" in await page.inner_text("main")
