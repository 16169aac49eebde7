"""The dashboard in a real Chromium: conditions come first, and their words stay text."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mao_gateway.routes import _DASHBOARD
from mao_shared.conditions import NAMES

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium"),
]

HOSTILE = "<img src=x onerror=alert(1)>"


class Pages(BaseHTTPRequestHandler):
    """The dashboard's files and one answer to `/status`; nothing else is there."""

    status: dict[str, Any]

    def do_GET(self) -> None:
        name = {"/": "dashboard.html"}.get(self.path, Path(self.path).name)
        if self.path == "/status":
            self._answer(200, "application/json", json.dumps(self.status).encode())
        elif (_DASHBOARD / name).is_file():
            kind = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}[Path(name).suffix]
            self._answer(200, kind, (_DASHBOARD / name).read_bytes())
        else:
            self._answer(404, "application/json", b"{}")

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def serving(status: dict[str, Any]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Told", (Pages,), {"status": status}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def chromium(url: str, profile: Path) -> str:
    """Return the page's document once its script has fetched everything."""
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    command += ["--virtual-time-budget=5000", "--dump-dom", url]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=110).stdout


def status_with(*conditions: dict[str, Any]) -> dict[str, Any]:
    return {
        "node": "node-1",
        "version": "1",
        "ready": not conditions,
        "services": {},
        "conditions": list(conditions),
        "next": [condition["next"] for condition in conditions],
    }


def test_page_conditions_table(tmp_path: Path) -> None:
    told = {"subject": HOSTILE, "state": "failed", "since": "2026-01-31T12:00:00Z", "services": ["runner"]}
    conditions = [{**told, "name": name, "detail": f"{name} is so.", "next": "Do this."} for name in NAMES]
    with serving(status_with(*conditions)) as url:
        page = chromium(url, tmp_path)
    first = page[page.index('<tbody id="conditions">') : page.index("Open alarms")]
    assert page.index(">Conditions<") < page.index("Open alarms") < page.index("Recent runs")
    assert 'id="conditions-part" hidden' not in page
    for name in NAMES:
        assert f"{name} is so." in first
    assert first.count("&lt;img src=x") == len(NAMES)
    assert "<img" not in page


def test_page_healthy_has_no_conditions_table(tmp_path: Path) -> None:
    with serving(status_with()) as url:
        page = chromium(url, tmp_path)
    assert "ready, version 1" in page
    start = page.index('id="conditions-part"')
    assert "hidden" in page[start : page.index(">", start)]
