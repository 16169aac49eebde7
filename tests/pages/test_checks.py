"""Data checks and quarantine in a browser: pages of runs, datasets, pipelines, commits, and *Today*."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.support.git import file_at, git
from tests.support.node import NativeNode, native_node
from tests.support.reader import layout_faults, look_at, reading

from .made import said
from .samples import make_pipeline

pytest.importorskip("jsonschema", reason="made before requirements.lock had it: run `make venv`")
pytestmark = [pytest.mark.docker, pytest.mark.etcd, pytest.mark.browser]

# The hour of the tick is the number of rows, its minute the total.
TOOL = """\
time=${MAO_SCHEDULED_FOR#*T}; hour=${time%%:*}; minute=${time#*:}; minute=${minute%%:*}
hour=${hour#0}; minute=${minute#0}
echo id,size > rows.csv; i=0; while [ $i -lt $hour ]; do echo $i,$((i * 3)) >> rows.csv; i=$((i + 1)); done
echo "{\\"total\\": $minute}" > summary.json
echo "$MAO_SCHEDULED_FOR" > "run $hour-$minute.txt"; echo "wrote $hour rows"
"""
SCHEMA = {"properties": {"total": {"type": "integer", "maximum": 30}}}
CHECKS: list[dict[str, Any]] = [
    {"name": "there", "file": "rows.csv", "on_failure": "block"},
    {
        "name": "columns",
        "file": "rows.csv",
        "columns": {"id": "integer", "size": "number"},
        "not_empty": ["id"],
        "on_failure": "block",
    },
    {"name": "some", "file": "rows.csv", "at_least": 1, "on_failure": "block"},
    {"name": "enough", "file": "rows.csv", "at_least": 10, "at_most": 500, "on_failure": "quarantine"},
    {"name": "steady", "file": "rows.csv", "max_increase": "5", "max_decrease": "50%"},
    {"name": "shape", "file": "summary.json", "json_schema": SCHEMA, "on_failure": "quarantine"},
]
EVIL = "<img src=x onerror=alert(1)>\u202e"
EVIL_TOOL = f"printf 'x' > '{EVIL} file'; printf '{{\"<script>alert(1)</script>\": 1}}' > '{'W' * 200}.json'"
EVIL_CHECKS = [
    {"name": "odd", "file": f"{EVIL} absent*", "on_failure": "quarantine"},
    {
        "name": "evil-" + "n" * 58,
        "file": "W" * 200 + ".json",
        "json_schema": {"additionalProperties": False},
    },
]


@dataclass(frozen=True)
class Lab:
    """A node with runs whose checks passed, warned, blocked, and quarantined their output."""

    node: NativeNode
    remote: Path
    good: dict[str, Any]
    warned: dict[str, Any]
    blocked: dict[str, Any]
    few: dict[str, Any]
    odd: dict[str, Any]
    other: dict[str, Any]

    def tip(self, branch: str = "checker") -> str:
        return git(self.remote, "rev-parse", branch)


def run(node: NativeNode, hour: int, minute: int = 0) -> dict[str, Any]:
    tick = f"2021-01-01T{hour:02}:{minute:02}:00Z"
    begun = node.http.post("/pipeline/run", json={"name": "daily", "scheduled_for": tick})
    assert begun.is_success, begun.text
    return node.wait_run(begun.json()["id"])


def held(of: dict[str, Any]) -> str:
    """Return the commit of a run's quarantined snapshot."""
    return str(of["steps"][0]["quarantine"]["commit"])


def path(of: dict[str, Any]) -> str:
    return f"/ui/runs/{of['id']}"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, tool_image: str) -> Iterator[Lab]:
    root = tmp_path_factory.mktemp("checks")
    with native_node(root, name="checker") as node:
        make_pipeline(node, root, "daily", tool_image, {"crawl": TOOL}, checks=CHECKS)
        runs = [
            run(node, hour, minute) for hour, minute in [(12, 0), (20, 0), (0, 0), (5, 0), (15, 45), (7, 0)]
        ]
        assert [each["phase"] for each in runs] == ["succeeded"] * 2 + ["failed"] + ["succeeded"] * 3
        yield Lab(node, root / "daily.git", *runs)


async def result_of(page: Page, check: str) -> list[str]:
    """Return result, finding, condition and reaction of a check in a table of checks."""
    row = page.locator(".checks tbody tr").filter(has=page.get_by_role("rowheader", name=check, exact=True))
    return [" ".join(text.split()) for text in await row.get_by_role("cell").all_inner_texts()]


async def test_checks_of_a_run_that_passed_warned_and_was_blocked(lab: Lab) -> None:
    async with reading(lab.node.url) as reader:
        page = await reader.open(path(lab.good))
        assert "all 6 passed" in await page.inner_text("#checks")
        assert await page.locator("#run-notes .msg").count() == 0

        await look_at(reader, path(lab.warned), "checks-warned")
        page = await reader.open(path(lab.warned))
        assert "1 data check of step crawl failed" in await page.inner_text("#run-notes")
        assert await result_of(page, "steady") == [
            "failed",
            "20 rows, 8 (66.7 %) more than the 12 of the last snapshot; at most 5 more are expected",
            "rows.csv: at most 50 % fewer and 5 rows more than in the last snapshot",
            "warn publish all the same",
        ]
        assert (await result_of(page, "columns"))[2] == (
            "rows.csv: has the columns id (integer, never empty), size (number)"
        )

        await look_at(reader, path(lab.blocked), "checks-blocked")
        page = await reader.open(path(lab.blocked))
        notes = await page.inner_text("#run-notes")
        assert "Step crawl failed a data check" in notes
        assert "some: 0 rows" in notes
        assert "The output is kept in the run's workspace" in notes
        assert (await result_of(page, "some"))[0] == "failed"
        await page.click("text=See what was checked")
        await expect(page.locator("#checks")).to_be_in_viewport()


async def test_checks_are_in_the_definition_of_the_pipeline(lab: Lab) -> None:
    async with reading(lab.node.url) as reader:
        await look_at(reader, "/ui/pipelines/daily", "checks-pipeline")
        page = await reader.open("/ui/pipelines/daily")
        rows = [" ".join(text.split()) for text in await page.locator("#checks tbody tr").all_inner_texts()]
        assert len(rows) == 6
        assert "enough crawl rows.csv: 10 to 500 rows quarantine hold it until a person decides" in rows[3]
        assert "shape crawl summary.json: is valid against its JSON Schema" in rows[5]


async def test_quarantined_snapshot_is_accepted_and_published_by_clicks(lab: Lab) -> None:
    """From *Today* to the dataset, where the changed files are looked at; then published."""
    before = lab.tip()
    async with reading(lab.node.url) as reader:
        await look_at(reader, "/", "checks-today")
        await look_at(reader, "/ui/datasets/daily", "checks-dataset")
        page = await reader.open("/")
        needs = page.locator("#needs")
        assert "daily: 3 snapshots are in quarantine" in await needs.inner_text()
        await page.get_by_role("link", name="Decide about daily").click()
        await page.wait_for_url("**/ui/datasets/daily#quarantine")
        entry = page.locator(f"#held-{held(lab.few)[:10]}")
        text = " ".join((await entry.inner_text()).split())
        assert "enough failed quarantine 5 rows, at least 10 are expected" in text
        await entry.get_by_text("changed files").click()
        files = await entry.locator("tbody tr").all_inner_texts()
        assert [[cell.strip() for cell in line.split("\t")[:3]] for line in files] == [
            ["rows.csv", "changed", "29 B"],
            ["run 5-0.txt", "added", "21 B"],
        ]
        await entry.get_by_text("Accept…").click()
        await entry.get_by_label("Why").first.fill("a <b>holiday</b>")
        await entry.get_by_label("Who decides").first.fill("Ada")
        assert "maoctl dataset quarantine accept daily" in await entry.inner_text()
        await entry.get_by_role("button", name="Accept and publish").click()
        await said(page, f"Accepted: the snapshot {held(lab.few)[:10]} was published as ")
        await said(page, f"{lab.tip()[:10]}.")
        await said(page, "By Ada: a <b>holiday</b>")
        assert lab.tip() == lab.tip("ground-truth") != before
        assert len(file_at(lab.remote, "ground-truth:rows.csv").split()) == 6
        decided = page.locator("#quarantine tr", has_text="accepted")
        assert "a <b>holiday</b>" in await decided.inner_text()

        await decided.get_by_role("link").last.click()  # the commit as which it was published
        await page.wait_for_url(f"**/commits/{lab.tip()}")
        text = await page.inner_text("main")
        assert "This snapshot was accepted from quarantine" in text
        assert "decided by Ada: a <b>holiday</b>." in text
        assert (await result_of(page, "enough"))[0] == "failed"
        await look_at(reader, f"/ui/datasets/daily/commits/{lab.tip()}", "checks-commit-accepted")

        await page.goto(path(lab.few))
        assert "The quarantined output of step crawl was accepted" in await page.inner_text("#run-notes")
        assert await page.locator("#checks .decide").count() == 0


async def test_quarantined_snapshot_is_discarded_by_clicks_on_its_run(lab: Lab) -> None:
    before = lab.tip()
    async with reading(lab.node.url) as reader:
        await look_at(reader, path(lab.odd), "checks-quarantined")
        page = await reader.open(path(lab.odd))
        title = await page.inner_text("#run-title")
        assert "succeeded" in title
        assert "quarantined" in title
        await page.click("#run-notes >> text=Decide about it")
        checks = page.locator("#checks")
        assert (await result_of(page, "shape"))[0] == "failed"
        await checks.get_by_text("Discard…").click()
        for width in (390, 1280):
            await page.set_viewport_size({"width": width, "height": 900})
            assert await layout_faults(page) == []
            await checks.get_by_role("button", name="Discard for good").scroll_into_view_if_needed()
            if folder := os.environ.get("MAO_SCREENSHOTS"):
                await page.screenshot(path=f"{folder}/checks-discard-{width}.png")
        assert "can no longer be accepted" in await checks.inner_text()
        await checks.get_by_label("Why").last.fill("the source was wrong")
        await checks.get_by_role("button", name="Discard for good").click()
        await said(page, f"Discarded: the snapshot {held(lab.odd)[:10]} is not published.")
        assert page.url.endswith("#checks")
        assert "then discarded: nothing was published" in await page.inner_text("#checks")
        assert lab.tip() == before
        assert '"total": 45' in file_at(lab.remote, f"{held(lab.odd)}:summary.json")
        await page.goto(f"/ui/datasets/daily/commits/{held(lab.odd)}")
        assert "was quarantined, then discarded" in await page.inner_text("main")
        assert await page.locator(".decide").count() == 0


async def test_decision_that_is_refused_keeps_what_was_typed(lab: Lab) -> None:
    """Somebody else has discarded it meanwhile."""
    commit = held(lab.other)
    async with reading(lab.node.url) as reader:
        page = await reader.open(f"/ui/datasets/daily/commits/{commit}")
        assert "waits for a decision" in await page.inner_text("main")
        await look_at(reader, f"/ui/datasets/daily/commits/{commit}?file=rows.csv", "checks-commit-waits")
        lab.node.maoctl("dataset", "quarantine", "discard", "daily", commit, "--yes")
        await page.get_by_text("Accept…").click()
        await page.get_by_label("Why").first.fill("it was right")
        await page.get_by_role("button", name="Accept and publish").click()
        await expect(page.get_by_role("alert")).to_contain_text("was discarded")
        assert page.url.split("?")[0].endswith(commit)


async def test_commit_of_a_snapshot(lab: Lab) -> None:
    commit = lab.warned["steps"][0]["snapshot"]
    here = f"/ui/datasets/daily/commits/{commit}"
    async with reading(lab.node.url) as reader:
        await look_at(reader, f"{here}?file=rows.csv", "commit")
        page = await reader.open("/ui/datasets/daily?ref=" + commit)
        await page.click(f"#commits a[title='{commit}']")
        await page.wait_for_url(f"**{here}")
        text = await page.inner_text("main")
        for words in ("not signed", "trigger manual", "sha256:", "tick of", lab.warned["id"], "steady"):
            assert words in text
        assert "t0ps3cret" not in await page.content()
        await page.click("#files >> text=difference of rows.csv")
        assert "8 added" in await page.inner_text("#difference")
        await page.click("#files >> text=run 20-0.txt")
        await page.wait_for_selector("#preview pre")
        await page.goto(here)
        await page.click("text=Files at this commit")
        await page.wait_for_selector("#files >> text=run 20-0.txt")


async def test_checks_and_quarantine_without_scripts(lab: Lab) -> None:
    async with reading(lab.node.url, scripts=False) as reader:
        page = await reader.open(path(lab.few))
        assert "failed" in await result_of(page, "enough")
        await page.click("#checks >> text=daily")
        assert await page.locator("#quarantine").count() == 1
        await page.click("#commits a.id >> nth=0")
        assert "Provenance" in await page.inner_text("main")
        await page.click("#files >> text=difference of rows.csv")
        assert "Before" in await page.inner_text("#difference")


async def test_hostile_names_and_findings_stay_text(lab: Lab, tool_image: str, tmp_path: Path) -> None:
    node = lab.node
    make_pipeline(node, tmp_path, "evil", tool_image, {"crawl": EVIL_TOOL}, checks=EVIL_CHECKS)
    begun = node.http.post("/pipeline/run", json={"name": "evil"}).json()
    of = node.wait_run(begun["id"])
    assert of["steps"][0]["quarantine"]["state"] == "waiting", of
    async with reading(node.url) as reader:
        for address, name in [
            (path(of), "run"),
            ("/ui/datasets/evil", "dataset"),
            (f"/ui/datasets/evil/commits/{held(of)}", "commit"),
            ("/ui/pipelines/evil", "pipeline"),
            ("/", "today"),
        ]:
            await look_at(reader, address, f"checks-hostile-{name}")
            page = await reader.open(address)
            assert await page.locator("main img, main script").count() == 0
            if name != "today":
                assert "<img src=x onerror=alert(1)>\\u202e" in await page.inner_text("main")
