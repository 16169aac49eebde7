"""A reader of the dashboard: real Chromium, which notes all that a page must not do.

The async API of Playwright is used directly, without its pytest plugin: the plugin keeps an event loop
running in the test process, in which no other async test can start one (docs/decisions/0045-pages.md).
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, async_playwright

from .evidence import REPO

CLOSE_SECONDS = 30.0
AXE_VERSION = "4.14.1"
WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")
_OVERFLOW = """() => {
  const wide = document.documentElement.scrollWidth > document.documentElement.clientWidth + 1;
  const scrolls = (each) => each.closest(".scroll, .log, .strip, svg, .vh, .cut, .skip") !== null;
  const out = [...document.body.querySelectorAll("*")].filter((each) => {
    const box = each.getBoundingClientRect();
    return box.width && box.right > document.documentElement.clientWidth + 1 && !scrolls(each);
  });
  return wide ? out.slice(0, 5).map((each) => each.outerHTML.slice(0, 200)) : [];
}"""
_WRAPPED = """() => [...document.querySelectorAll(".id")].filter((each) => each.getClientRects().length > 1)
  .map((each) => each.outerHTML.slice(0, 200))"""


class Reader:
    """Opens pages of one node. `faults`: violations of the policy, errors of scripts, requests elsewhere."""

    def __init__(self, url: str, *, scripts: bool = True) -> None:
        self.url = url.rstrip("/")
        self.faults: list[str] = []
        self._scripts = scripts
        self._stack: Any = None
        self.context: BrowserContext
        self.browser: Browser

    async def __aenter__(self) -> Self:
        program = shutil.which("chromium")
        if program is None:
            pytest.skip("chromium is not here: run 'scripts/machine.sh browser'")
        self._stack = async_playwright()
        driver = await self._stack.__aenter__()
        self.browser = await driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        self.context = await self.browser.new_context(java_script_enabled=self._scripts, base_url=self.url)
        self.context.set_default_timeout(30_000)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with asyncio.timeout(CLOSE_SECONDS):  # a browser that hangs must not hang the tests
            await self.browser.close()
            await self._stack.__aexit__(kind, error, trace)

    async def open(self, path: str, *, width: int = 1280, scheme: str = "light") -> Page:
        """Open a page in a new tab and listen to what it does."""
        page = await self.context.new_page()
        await page.set_viewport_size({"width": width, "height": 900})
        await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.on("console", self._note_message)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", self._check_request)
        await page.goto(path)
        return page

    def _note_message(self, said: ConsoleMessage) -> None:
        if said.type == "error":
            self.faults.append(f"{said.text} at {said.location.get('url')}")

    def _check_request(self, request: Request) -> None:
        if not request.url.startswith((self.url + "/", "data:")):
            self.faults.append(f"asks {request.url}")


async def accessibility_faults(page: Page) -> list[str]:
    """Return the serious violations that axe-core finds; skip the test where it was not fetched."""
    script = Path(os.environ.get("MAO_VAR_DIR") or REPO / "var") / "axe" / f"axe-{AXE_VERSION}.min.js"
    if not script.is_file():
        pytest.skip("axe-core is not here: run 'scripts/machine.sh axe'")
    await page.evaluate(script.read_text())
    found = await page.evaluate("() => axe.run()")
    return [
        f"{each['id']}: {each['help']}: {json.dumps([node['html'][:200] for node in each['nodes'][:3]])}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]


async def layout_faults(page: Page) -> list[str]:
    """Return what is wider than the page, and ids that wrap."""
    return [*await page.evaluate(_OVERFLOW), *await page.evaluate(_WRAPPED)]


async def check_page(page: Page, name: str) -> None:
    """Check layout and accessibility of a page as it is now; keep a picture in MAO_SCREENSHOTS if it is set.

    Raises AssertionError.
    """
    if folder := os.environ.get("MAO_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        await page.screenshot(path=f"{folder}/{name}.png", full_page=True)
    width = page.viewport_size["width"] if page.viewport_size else None
    faults = await layout_faults(page)
    assert faults == [], f"{page.url} at {width} px: {faults}"
    assert await accessibility_faults(page) == [], page.url


async def look_at(
    reader: Reader, path: str, name: str, *, wait_for: str = "main h1", status: int = 200
) -> None:
    """Open a page in both widths and schemes and check each (`check_page`). Raises AssertionError.

    `status`: that of the page, which Chromium reports as an error if it is one.
    """
    for width in WIDTHS:
        for scheme in SCHEMES:
            page = await reader.open(path, width=width, scheme=scheme)
            await page.wait_for_selector(wait_for)
            await check_page(page, f"{name}-{width}-{scheme}")
            await page.close()
    if status >= 400:
        reader.faults = [fault for fault in reader.faults if f"status of {status}" not in fault]
    assert reader.faults == [], reader.faults


@asynccontextmanager
async def reading(url: str, *, scripts: bool = True) -> AsyncIterator[Reader]:
    """Yield a reader of the node at `url`, and check at the end that no page did what it must not."""
    async with Reader(url, scripts=scripts) as reader:
        yield reader
    assert reader.faults == []
