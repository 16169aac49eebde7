"""The page of a run in a browser: its log, its actions, what it read and published."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import Route

from tests.support.node import NativeNode
from tests.support.reader import accessibility_faults, layout_faults, look_at, reading

from .samples import GATE, make_pipeline, open_gate, run_once, start

pytestmark = [pytest.mark.docker, pytest.mark.etcd, pytest.mark.browser]
COLLECT = """\
n=$(cat count 2>/dev/null || echo 0); echo $((n+1)) > count
echo "id,value" > rows.csv; for i in $(seq 1 20); do echo "$i,$((i * (n + 1) % 7))" >> rows.csv; done
echo "$n" > "log $n.txt"; mkdir -p sub; echo same > sub/same.txt; echo "collected 20 rows"
"""
SUMMARY = 'wc -l rows.csv > summary.txt; echo "{\\"n\\": 1}" > s.json; echo summed'
HOSTILE = r"""
printf '<script>document.title="pwned"</script><b>bold</b> & "quotes"\n'
printf '\033[2J\033[31mred\033[0m \033]0;title\007 bell\n'
printf '\377\376\000binary\200\n'
for i in $(seq 1 50); do printf '%d%%\r' $i; done; printf '\n'
head -c 1000000 /dev/zero | tr '\0' 'x'; printf '\n'
printf 'rtl \342\200\256gnp.exe\n'
printf 'needle one\n'; printf 'a NEEDLE two\n'
printf 'no newline at the end'
"""


async def test_run_page_of_two_steps(node: NativeNode, tool_image: str, tmp_path: Path) -> None:
    make_pipeline(node, tmp_path, "two-steps", tool_image, {"collect": COLLECT, "summary": SUMMARY})
    run_once(node, "two-steps")
    run = run_once(node, "two-steps")
    assert run["phase"] == "succeeded", run
    async with reading(node.url) as reader:
        await look_at(reader, f"/ui/runs/{run['id']}", "run-two-steps")
        page = await reader.open(f"/ui/runs/{run['id']}")
        text = await page.inner_text("main")
        assert "rows.csv" in text
        assert "records changed" in text
        assert "t0ps3cret" not in await page.content()
        assert await page.locator("svg.bar").count() == 2
        assert "summed" in await page.inner_text("#log-lines")


async def test_run_log_is_seen_growing(node: NativeNode, tool_image: str, tmp_path: Path) -> None:
    script = f"echo first; {GATE}; echo second; echo made > file; {GATE}; echo third"
    make_pipeline(node, tmp_path, "grows", tool_image, {"collect": script})
    run = start(node, "grows")
    async with reading(node.url) as reader:
        page = await reader.open(f"/ui/runs/{run}")
        await page.wait_for_selector("#L1:has-text('first')")
        await page.wait_for_selector("#log-follows:has-text('follows')")
        assert await page.locator("#L2").count() == 0
        open_gate(node, run)
        await page.wait_for_selector("#L2:has-text('second')")
        assert await layout_faults(page) == []
        assert await accessibility_faults(page) == []
        open_gate(node, run)
        await page.wait_for_selector("#L3:has-text('third')")
        await page.wait_for_selector("#run-title:has-text('succeeded')")
        await page.wait_for_selector("#log-follows:has-text('ended')")
        await page.wait_for_selector("#run-outputs:has-text('file')")


async def test_run_ends_between_page_and_its_events(
    node: NativeNode, tool_image: str, tmp_path: Path
) -> None:
    make_pipeline(node, tmp_path, "between", tool_image, {"collect": f"echo waits; {GATE}; echo x > file"})
    run = start(node, "between")
    ended = asyncio.Event()

    async def hold(route: Route) -> None:
        await ended.wait()
        await route.continue_()

    async with reading(node.url) as reader:
        await reader.context.route("**/events", hold)
        page = await reader.open(f"/ui/runs/{run}")
        await page.wait_for_selector("#L1:has-text('waits')")
        open_gate(node, run)
        assert (await asyncio.to_thread(node.wait_run, run))["phase"] == "succeeded"
        ended.set()
        await page.wait_for_selector("#run-title:has-text('succeeded')")


async def test_run_cancel_by_clicks(node: NativeNode, tool_image: str, tmp_path: Path) -> None:
    make_pipeline(node, tmp_path, "cancelled", tool_image, {"collect": f"echo waits; {GATE}"})
    run = start(node, "cancelled")
    async with reading(node.url) as reader:
        page = await reader.open(f"/ui/runs/{run}")
        await page.wait_for_selector("#L1:has-text('waits')")
        await look_at(reader, f"/ui/runs/{run}", "run-running")
        await page.click("text=Cancel…")
        await page.fill("#why", "wrong <b>input</b>")
        await page.click("text=Cancel this run")
        await page.wait_for_selector("#run-title:has-text('cancelled')")
        assert "wrong <b>input</b>" in await page.inner_text("#run-notes")
        await look_at(reader, f"/ui/runs/{run}", "run-cancelled")
    assert node.wait_run(run)["cancel"]["reason"] == "wrong <b>input</b>"


async def test_run_retry_and_reproduce_by_clicks(node: NativeNode, tool_image: str, tmp_path: Path) -> None:
    make_pipeline(node, tmp_path, "again", tool_image, {"collect": "date > now.txt; echo same > same.txt"})
    first = run_once(node, "again")
    async with reading(node.url) as reader:
        page = await reader.open(f"/ui/runs/{first['id']}")
        await page.click("text=Run again…")
        await page.click("text=Run it again")
        await page.wait_for_selector("#run-title:has-text('again after')")
        assert first["id"] not in page.url
        await page.wait_for_selector("#run-title:has-text('succeeded')")
        await page.goto(f"/ui/runs/{first['id']}")
        await page.click("text=Reproduce…")
        await page.click("text=Reproduce it")
        await page.wait_for_selector("#run-title:has-text('reproduces step collect')")
        await page.wait_for_selector("#run-notes:has-text('now.txt')")
        await look_at(reader, page.url.removeprefix(node.url).partition("?")[0], "run-reproduction")
        await page.goto(f"/ui/runs/{first['id']}")
        await page.click("text=Verify…")
        await page.click("text=Verify it")
        await page.wait_for_selector(".msg:has-text('The run is as recorded')")


async def test_run_failed_shows_error_first(node: NativeNode, tool_image: str, tmp_path: Path) -> None:
    retry = {"attempts": 2, "backoff": 0}
    scripts = {"collect": "echo broken >&2; exit 3", "after": "true"}
    make_pipeline(node, tmp_path, "fails", tool_image, scripts, retry=retry)
    run = run_once(node, "fails")
    assert run["phase"] == "failed"
    async with reading(node.url) as reader:
        await look_at(reader, f"/ui/runs/{run['id']}", "run-failed")
        page = await reader.open(f"/ui/runs/{run['id']}")
        first = await page.inner_text("#run-notes .msg >> nth=0")
        assert run["error"]["detail"].splitlines()[0] in first
        assert run["error"]["code"] in first
        assert run["error"]["next"] in first
        assert await page.locator(".gantt tbody tr").count() == 3  # two attempts, and the step after
        await page.select_option("#l-s", "collect:1")
        await page.click("text=Find")
        assert "attempt 1" in await page.inner_text("#h-log")
        assert "broken" in await page.inner_text("#log-lines")


async def test_run_log_stays_text(node: NativeNode, tool_image: str, tmp_path: Path) -> None:
    make_pipeline(node, tmp_path, "hostile", tool_image, {"collect": HOSTILE + f"echo x > f; {GATE}"})
    run = start(node, "hostile")
    async with reading(node.url) as reader:
        page = await reader.open(f"/ui/runs/{run}")
        await page.wait_for_selector("#L8:has-text('a NEEDLE two')")  # the engine holds back the rest
        followed = [await item.inner_text() for item in await page.locator("#log-list .out").all()]
        open_gate(node, run)
        node.wait_run(run)
        await page.goto(f"/ui/runs/{run}")
        served = [await item.inner_text() for item in await page.locator("#log-list .out").all()]
        for lines, count in ((followed, 8), (served, 9)):
            assert len(lines) == count
            assert '<script>document.title="pwned"</script><b>bold</b> & "quotes"' in lines[0]
            assert "\\x1b[2J\\x1b[31mred" in lines[1]
            assert "\\x00binary" in lines[2]
            assert lines[3].endswith("50%")
            assert len(lines[4]) < 2100
            assert "\\u202e" in lines[5]
        assert "pwned" not in await page.title()
        assert await page.locator("#log-list script, #log-list b").count() == 0
        await look_at(reader, f"/ui/runs/{run}", "run-hostile")


async def test_run_log_search_without_scripts(node: NativeNode, tool_image: str, tmp_path: Path) -> None:
    script = "for i in $(seq 1 1000); do echo line $i; done; echo 'a <NEEDLE> b'; echo made > file"
    make_pipeline(node, tmp_path, "searched", tool_image, {"collect": script})
    run = run_once(node, "searched")
    async with reading(node.url, scripts=False) as reader:
        page = await reader.open(f"/ui/runs/{run['id']}")
        assert await page.locator("#log-list li").count() == 300
        await page.fill("#l-q", "<needle>")
        await page.click("text=Find")
        assert await page.inner_text("#log-list mark") == "<NEEDLE>"
        assert await page.locator("#log-list li").count() == 1
        assert "1 line" in await page.inner_text("form[aria-label='Search the log']")
        await page.click("#log-list .no a")
        assert await page.locator("#L1001").count() == 1
        await page.click("text=first lines")
        assert await page.locator("#L1").count() == 1
        await page.click("text=show later lines")
        assert await page.locator("#L301").count() == 1
        async with page.expect_download() as started:
            await page.click("#log >> text=Download")
        path = await (await started.value).path()
        assert path.read_text().splitlines()[-1] == "a <NEEDLE> b"


async def test_run_log_stops_while_earlier_lines_are_read(
    node: NativeNode, tool_image: str, tmp_path: Path
) -> None:
    script = f"seq 1 500; {GATE}; seq 501 600; {GATE}; seq 601 5000; echo made > file"
    make_pipeline(node, tmp_path, "scrolled", tool_image, {"collect": script})
    run = start(node, "scrolled")
    async with reading(node.url) as reader:
        page = await reader.open(f"/ui/runs/{run}")
        await page.wait_for_selector("#L500")
        region = page.locator("#log-lines")
        await region.evaluate("(each) => { each.scrollTop = 0; }")
        await page.wait_for_selector("#log-follows:has-text('stopped')")
        open_gate(node, run)
        await region.evaluate("(each) => { each.scrollTop = each.scrollHeight; }")
        await page.wait_for_selector("#L600")
        open_gate(node, run)
        await page.wait_for_selector("#L5000")
        await page.wait_for_selector("#log-follows:has-text('ended')")
        assert await page.locator("#log-list li").count() == 3000
        assert await page.inner_text("#log-earlier span") == "2000 earlier lines"
