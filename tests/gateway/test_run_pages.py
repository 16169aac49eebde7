"""The pages of runs over fake services: another node's run, services that are away."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from mao_shared.settings import SERVICES

from .conftest import Open

HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e"
BRIEF = {"id": "20260131T120000Z-p-1f3a5c7d", "trigger": "schedule", "phase": "failed", "reason": HOSTILE}
ADDRESS = f"/ui/runs/{BRIEF['id']}?node=zurich"


def registry(log: dict[str, Any], status: int = 200) -> FastAPI:
    app = FastAPI()

    @app.get("/federation/runs")
    async def runs() -> Any:
        part = {
            "node": "zurich",
            "pipeline": "p",
            "present": True,
            "runs": [BRIEF | {"snapshots": {"d": "a" * 40}}],
        }
        return {"items": [part], "cursor": None}

    @app.get("/federation/logs")
    async def logs() -> Any:
        return JSONResponse(log, status)

    return app


async def test_run_elsewhere_with_its_log(open_gateway: Open) -> None:
    log = {"id": "x", "status": "ok", "step": "crawler", "text": f"one\n{HOSTILE}\n", "cut": True}
    async with open_gateway({"registry": registry(log)}) as client:
        page = await client.get(ADDRESS)
    assert page.status_code == 200
    assert page.text.count("&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[2J\\u202e") == 2
    assert "<script>alert" not in page.text
    assert f'href="/ui/datasets/d/commits/{"a" * 40}"' in page.text
    assert f"maoctl run logs {BRIEF['id']} --node zurich" in page.text
    assert 'method="post"' not in page.text


async def test_run_elsewhere_that_shares_no_logs(open_gateway: Open) -> None:
    refused = {
        "code": "logs-not-shared",
        "detail": "It does not share.",
        "next": "Ask its operator.",
        "status": 403,
    }
    async with open_gateway({"registry": registry(refused, 403)}) as client:
        page = await client.get(ADDRESS)
        unknown = await client.get("/ui/runs/unknown?node=zurich")
        unheard = await client.get(f"/ui/runs/{BRIEF['id']}?node=geneva")
    assert page.status_code == 200
    assert "It does not share." in page.text
    assert "Ask its operator." in page.text
    assert (unknown.status_code, unheard.status_code) == (404, 404)


async def test_run_pages_while_services_are_away(open_gateway: Open) -> None:
    async with open_gateway() as client:
        listed = await client.get("/ui/runs")
        shown = await client.get("/ui/runs/x")
        elsewhere = await client.get(ADDRESS)
    assert listed.status_code == 200
    assert "Nothing is listed" in listed.text
    assert (shown.status_code, elsewhere.status_code) == (503, 503)
    assert all(answer.headers["content-type"].startswith("text/html") for answer in (shown, elsewhere))


async def test_run_elsewhere_asks_once_for_its_log(open_gateway: Open) -> None:
    app = registry({"id": "x", "status": "ok", "text": "said"})
    asked: list[str] = []

    @app.middleware("http")
    async def note(request: Any, call_next: Any) -> Any:
        asked.append(request.url.path)
        return await call_next(request)

    async with open_gateway({"registry": app}) as client:
        pages = [await client.get(ADDRESS) for _ in range(3)]
    assert all("said" in page.text for page in pages)
    assert asked.count("/federation/logs") == 1


async def test_form_reads_nothing_for_a_page_that_is_not_shown(open_gateway: Open) -> None:
    """Such reads were cancelled, which closed connections to the services and filled the log."""
    asked: list[str] = []

    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(f"{scope['method']} {scope['path']}")
        for _ in range(100):  # whatever else was begun gets its turn
            await asyncio.sleep(0)
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    async with open_gateway(dict.fromkeys(SERVICES, service)) as client:
        assert (await client.post("/ui/pipelines/daily/run")).status_code == 303
    assert "POST /pipeline/run" in asked
    assert not [call for call in asked if call.startswith("GET /alarms")]
