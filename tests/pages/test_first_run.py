"""From the greeting of a new node to the first succeeded run, by clicks alone; the catalogue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.support.node import NativeNode, native_node
from tests.support.reader import look_at, reading

SECONDS = 60_000  # milliseconds, for what pulls an image or runs it
HOSTILE = "<img src=x onerror=alert(1)> & \u202e"
PLACEHOLDER = "{{ MAO_PRIVATE_VARIABLE }}"


def catalogue_document(image: str) -> dict[str, Any]:
    def step(tool: str, **more: Any) -> list[dict[str, Any]]:
        return [{"tool": tool, "output_dataset": "found", **more}]

    return {
        "tools": [{"name": "finder", "image": image}, {"name": "far", "image": "mao-test/not-here:1"}],
        "pipelines": [
            {"name": "Find & keep", "description": "Finds things.", "steps": step("finder")},
            {"name": "needs-root", "description": HOSTILE, "steps": step("finder", docker_socket=True)},
            {"name": "needs-secret", "steps": step("finder", env={"API_KEY": PLACEHOLDER})},
            {"name": "needs-tool", "steps": step("nobody")},
            {"name": "camera", "steps": step("finder", devices=["/dev/video0"])},
            {"name": "needs-image", "steps": step("far")},
        ],
    }


@pytest.fixture
def new_node(tmp_path: Path, tool_image: str) -> Iterator[NativeNode]:
    """A node without a pipeline, with a catalogue."""
    path = tmp_path / "lab.json"
    path.write_text(json.dumps(catalogue_document(tool_image)))
    with native_node(tmp_path / "node", env={"MAO_CATALOGUES": f"lab={path}"}) as node:
        yield node


async def run_once(page: Page) -> None:
    """Click the button, and wait on the page until the run has succeeded."""
    await page.get_by_role("button", name="Run once now").click()
    first = page.locator("#first-run")
    await expect(first.get_by_text("succeeded")).to_be_visible(timeout=SECONDS)


async def test_first_run_by_clicks_alone(new_node: NativeNode, tool_image: str) -> None:
    async with reading(new_node.url) as reader:
        await look_at(reader, "/", "first-run")
        page = await reader.open("/")
        await expect(page.get_by_role("heading", level=1)).to_have_text(f"Welcome to {new_node.name}")
        await expect(page.get_by_role("button", name="Run once now")).to_be_disabled()

        tool = page.get_by_role("form", name="Add a tool")
        await tool.get_by_label("Name").fill("probe")
        await tool.get_by_label("Image").fill(tool_image)
        await tool.get_by_role("button", name="Check and add").click()
        await expect(page.get_by_text("The tool probe is registered.")).to_be_visible(timeout=SECONDS)

        dataset = page.get_by_role("form", name="Add a dataset")
        await dataset.get_by_label("Name").fill("pages")
        await dataset.get_by_role("button", name="Add").click()
        await expect(page.get_by_text("The dataset pages is registered.")).to_be_visible(timeout=SECONDS)

        await run_once(page)
        await look_at(reader, page.url.removeprefix(new_node.url), "first-run-done")

        await page.get_by_label("When").select_option("every hour")
        await page.get_by_role("button", name="Start the schedule").click()
        await expect(page.get_by_text("probe is scheduled, for the first time")).to_be_visible()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("probe")
        await page.goto("/")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Today")

        await page.get_by_role("link", name="add a pipeline").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Add a pipeline")
        await expect(page.get_by_role("heading", name="Or join others")).to_have_count(0)
        await page.get_by_role("navigation").get_by_role("link", name="Pipelines").click()
        await page.get_by_role("link", name="Add a pipeline").click()
        await expect(page.get_by_role("form", name="Add a dataset")).to_be_visible()
    [job] = new_node.http.get("/jobs").json()["items"]
    assert (job["pipeline"], job["cron"]) == ("probe", "0 * * * *")
    entries = new_node.http.get("/audit", params={"limit": 100}).json()["items"]
    changes = [(entry["action"], entry["subject"], entry["status"]) for entry in reversed(entries)]
    assert changes == [
        ("tools.create", "probe", 201),
        ("bare.init", "pages", 201),
        ("datasets.create", "pages", 201),
        ("pipelines.init", "probe", 201),
        ("pipelines.run", "probe", 201),
        ("pipelines.run", "probe", 201),
    ]


async def test_first_run_from_catalogue_without_scripts(new_node: NativeNode) -> None:
    async with reading(new_node.url, scripts=False) as reader:
        page = await reader.open("/")
        row = page.get_by_role("row", name="Find & keep")
        await expect(row.get_by_text("dataset found will be made here")).to_be_visible()
        await row.get_by_role("button", name="Install").click()
        await expect(page.get_by_text("Find-keep is installed")).to_be_visible(timeout=SECONDS)
        await page.get_by_role("button", name="Run once now").click()
        run = await page.locator("#first-run .id").get_attribute("title")
        assert run is not None
        assert new_node.wait_run(run)["phase"] == "succeeded"
        await page.reload()
        await expect(page.locator("#first-run").get_by_text("succeeded")).to_be_visible()


async def test_first_run_errors_keep_what_was_typed(new_node: NativeNode) -> None:
    async with reading(new_node.url) as reader:
        page = await reader.open("/")
        tool = page.get_by_role("form", name="Add a tool")
        await tool.get_by_label("Name").fill("probe")
        await tool.get_by_label("Image").fill("not an image")
        await tool.get_by_role("button", name="Check and add").click()
        await expect(page.get_by_role("alert")).to_contain_text("invalid image reference")
        await expect(tool.get_by_label("Image")).to_have_value("not an image")
        assert new_node.http.get("/registry/tools").json()["items"] == []


async def test_catalogue_says_what_is_missing(new_node: NativeNode) -> None:
    async with reading(new_node.url) as reader:
        await look_at(reader, "/ui/catalogue", "catalogue")
        page = await reader.open("/ui/catalogue")
        for name, words in {
            "needs-root": "asks for docker socket",
            "needs-secret": "asks for the secret finder-api-key",
            "needs-tool": "tool nobody: it is neither registered here nor in the catalogue",
            "camera": "steps[0].devices: is not supported here",
            "needs-image": "image mao-test/not-here:1 will be pulled",
        }.items():
            await expect(page.get_by_role("row", name=name)).to_contain_text(words)
        await expect(page.get_by_role("row", name="camera").get_by_role("button")).to_be_disabled()
        await expect(page.get_by_role("row", name="needs-root")).to_contain_text(
            "<img src=x onerror=alert(1)>"
        )
        await page.get_by_role("searchbox").fill("KEEP find")
        await page.get_by_role("button", name="Show").click()
        assert await page.locator("table.catalogue tbody tr").count() == 1


async def test_catalogue_entry_asks_for_what_is_missing(new_node: NativeNode) -> None:
    async with reading(new_node.url) as reader:
        await look_at(reader, "/ui/catalogue/needs-root?source=lab", "catalogue-entry")
        page = await reader.open("/ui/catalogue")
        await page.get_by_role("row", name="needs-root").get_by_role("link", name="Install…").click()
        await page.get_by_role("button", name="Install").click()
        await expect(page.get_by_role("alert")).to_contain_text("docker socket")
        await page.get_by_label("grant on this node").check()
        await page.get_by_role("button", name="Install").click()
        await expect(page.get_by_text("needs-root is installed")).to_be_visible(timeout=SECONDS)
    enrolment = new_node.http.get("/enrolments/needs-root").json()
    assert enrolment["agreed"] == ["docker socket"]


async def test_catalogue_entry_asks_for_secrets(new_node: NativeNode) -> None:
    async with reading(new_node.url) as reader:
        await look_at(reader, "/ui/catalogue/needs-secret?source=lab", "catalogue-secret")
        page = await reader.open("/ui/catalogue/needs-secret?source=lab")
        await page.get_by_label("Secret finder-api-key").fill("canary-12345")
        await page.get_by_role("button", name="Install").click()
        await expect(page.get_by_text("needs-secret is installed")).to_be_visible(timeout=SECONDS)
    enrolment = new_node.http.get("/enrolments/needs-secret").json()
    assert enrolment["agreed"] == ["secret finder-api-key"]
    assert "canary-12345" not in new_node.http.get("/audit").text + "".join(new_node.log)
