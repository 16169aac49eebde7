"""The list of runs in a browser: filters in the address, paging, hostile names."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mao_shared.models import Failure, Run, format_time
from mao_shared.models.run import CoveredTicks
from mao_shared.runs.records import RunRecords
from mao_shared.states import RunPhase
from mao_shared.store.etcd import EtcdStore
from tests.support.node import NativeNode, native_node
from tests.support.reader import look_at, reading

from .samples import make_pipeline, run_once

pytestmark = [pytest.mark.docker, pytest.mark.etcd, pytest.mark.browser]
COUNT = 120
BEGIN = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e" + "x" * 300


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, tool_image: str) -> Iterator[NativeNode]:
    """Run a node of its own with one real run; its store gets more of them."""
    root = tmp_path_factory.mktemp("runs")
    with native_node(root, env={"TZ": "UTC"}) as node:
        make_pipeline(node, root, "nightly", tool_image, {"collect": "date > now.txt"})
        run_once(node, "nightly")
        yield node


async def write_runs(node: NativeNode) -> None:
    """Write past runs of all phases into the node's store."""
    store = EtcdStore(node.etcd)
    try:
        records = RunRecords(store, node.name)
        phases = [RunPhase.SUCCEEDED, RunPhase.FAILED, RunPhase.MISSED, RunPhase.CANCELLED, RunPhase.LOST]
        for index in range(COUNT):
            tick, phase = BEGIN + timedelta(minutes=index), phases[index % 5]
            run = Run(
                id=f"{tick:%Y%m%dT%H%M%SZ}-nightly-{index:08x}",
                pipeline="nightly",
                node=node.name,
                trigger="schedule" if index % 2 else "manual",
                phase=phase,
                scheduled_for=tick,
                created_at=tick,
                started_at=None if phase is RunPhase.MISSED else tick,
                finished_at=tick + timedelta(seconds=index),
                reason=HOSTILE if phase is RunPhase.MISSED else None,
                covers=CoveredTicks(since=tick - timedelta(hours=5), until=tick, count=300)
                if index == 2
                else None,
                error=Failure(code="tool-failed", detail=HOSTILE, fault="tool")
                if phase is RunPhase.FAILED
                else None,
            )
            await records.create(run.id, run)
    finally:
        await store.close()


def path_of_run(index: int) -> str:
    return f"/ui/runs/{BEGIN + timedelta(minutes=index):%Y%m%dT%H%M%SZ}-nightly-{index:08x}"


async def test_runs_filters_and_paging_without_scripts(node: NativeNode) -> None:
    await write_runs(node)
    async with reading(node.url, scripts=False) as reader:
        page = await reader.open("/ui/runs")
        rows = page.locator(".runs tbody tr")
        assert await rows.count() == 50
        await page.click("text=older")
        await page.click("text=older")
        assert await rows.count() == COUNT + 1 - 100
        await page.click("text=newest")
        await page.select_option("#f-phase", "failed")
        await page.fill("#f-since", f"{BEGIN:%Y-%m-%d}")
        await page.fill("#f-until", f"{BEGIN:%Y-%m-%d}")
        await page.click("text=Show")
        assert "phase=failed" in page.url
        assert await rows.count() == COUNT // 5
        assert set(await page.locator(".c-state").all_inner_texts()) == {"failed"}
        assert "<script>alert(1)</script>\\x1b[31m\\u202e" in await rows.first.inner_text()
        command = f"maoctl run list --phase failed --since {format_time(BEGIN)}"
        assert command in await page.inner_text("main")
        await page.fill("#f-since", "yesterday <b>")
        await page.click("text=Show")
        assert "is not a time" in await page.inner_text("[role=alert]")
        assert await page.input_value("#f-since") == "yesterday <b>"
        await page.goto("/ui/runs?pipeline=nothing-of-that-name")
        assert "No run matches" in await page.inner_text("main")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/ui/runs", "runs"),
        ("/ui/runs?since=soon", "runs-error"),
        (path_of_run(1), "run-hostile-error"),
        (path_of_run(2), "run-missed"),
    ],
    ids=["list", "list-error", "failed", "missed"],
)
async def test_runs_look(node: NativeNode, path: str, name: str) -> None:
    await write_runs(node)
    async with reading(node.url) as reader:
        await look_at(reader, path, name)


async def test_runs_empty(tmp_path: Path) -> None:
    with native_node(tmp_path) as empty:
        async with reading(empty.url) as reader:
            await look_at(reader, "/ui/runs", "runs-empty")
            page = await reader.open("/ui/runs")
            assert "Nothing has run on this node yet" in await page.inner_text("main")
            answer = await page.goto("/ui/runs/no-such-run")
            assert answer is not None
            assert answer.status == 404
            reader.faults.clear()  # Chromium notes the status as an error
