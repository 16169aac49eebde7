"""Pipelines for the tests of pages, and what their clicks have in common."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.async_api import Page, expect

from tests.support.git import bare_repository
from tests.support.node import NativeNode

expect.set_options(timeout=60_000)  # a page waits for the API, and machines may be busy
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
