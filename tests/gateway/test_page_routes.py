"""The routes of the dashboard: loaded with the first page, then as precise as any other."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mao_gateway.page_routes import is_page_path

from .conftest import Open

LOADED = """
import asyncio, sys
import httpx
from tests.gateway.conftest import gateway
from mao_shared.store.memory import MemoryStore

def loaded():
    return sorted(name for name in sys.modules if name == "jinja2" or name.startswith("mao_gateway.pages"))

async def main():
    app = gateway(MemoryStore(), {})
    async with app.router.lifespan_context(app):
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8080")
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/no-such-path")).status_code == 404
        assert loaded() == [], loaded()
        first = await asyncio.gather(*(client.get(path) for path in ("/", "/ui/runs", "/ui/static/x/no.css")))
        assert [answer.status_code for answer in first] == [200, 200, 404], first
        assert "jinja2" in loaded()

asyncio.run(main())
"""


def test_pages_are_loaded_with_the_first_one() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", True),
        ("/ui/runs", True),
        ("/public/lines/badge.svg", True),
        ("/ui", False),
        ("/uix/runs", False),
        ("/runs", False),
        ("/public", False),
        ("", False),
    ],
)
def test_page_paths(path: str, expected: bool) -> None:
    assert is_page_path(path) is expected


@pytest.mark.parametrize(
    ("path", "allowed"), [("/", "GET"), ("/ui/runs", "GET"), ("/ui/pipelines/survey/run", "POST")]
)
async def test_pages_other_methods_are_refused(open_gateway: Open, path: str, allowed: str) -> None:
    async with open_gateway() as client:
        answer = await client.request("DELETE", path)
    assert answer.status_code == 405
    assert answer.json()["code"] == "method-not-allowed"
    assert allowed in answer.headers["allow"].split(", ")
    assert "DELETE" not in answer.headers["allow"]
