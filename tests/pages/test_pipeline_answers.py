"""The pages of pipelines over given answers of the API: what one node alone does not show, and outages."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp

from mao_shared.store.memory import MemoryStore
from tests.gateway.conftest import gateway

AT = "2026-11-30T12:00:00Z"
DIGEST = "sha256:" + "ab" * 32
STEP = {"name": "crawl", "tool": "crawler", "dataset": "charts"}
PIPELINE: dict[str, Any] = {"name": "daily", "steps": [STEP]}
ENROLMENT: dict[str, Any] = {
    "pipeline": "daily",
    "node": "node-1",
    "pipeline_revision": 1,
    "enrolled_at": AT,
    "steps": [
        {
            "name": "crawl",
            "tool": "crawler",
            "image": {"name": "lab/crawler:1", "pinned": DIGEST, "platform": "linux/amd64"},
            "output": {"name": "charts", "master": "/remote", "branch": "node-1"},
        }
    ],
}
DIFF: dict[str, Any] = {"pipeline": "daily", "enrolled": True, "definition": "0" * 32}
JOB: dict[str, Any] = {"id": "daily-1", "pipeline": "daily", "cron": "0 4 * * *", "created_at": AT}


def answering(answers: dict[str, Any]) -> ASGIApp:
    """Return a service with these documents by path; an int is a status, and other paths are 404."""
    app = FastAPI()

    @app.get("/{path:path}")
    async def answer(path: str, request: Request) -> JSONResponse:
        found = answers.get("/" + path, 404)
        if isinstance(found, int):
            problem = {"title": "no", "status": found, "detail": f"status {found} of /{path}", "code": "gone"}
            return JSONResponse(problem, found, media_type="application/problem+json")
        if isinstance(found, list):
            found = {"items": found, "cursor": None}
        return JSONResponse(found)

    return app


@asynccontextmanager
async def pages(
    registry: dict[str, Any], scheduler: dict[str, Any] | None
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a gateway over these answers; the scheduler is away if it has none."""
    store = MemoryStore()
    apps = {"registry": answering(registry)}
    if scheduler is not None:
        apps["scheduler"] = answering(scheduler)
    app = gateway(store, apps)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:8080") as client,
    ):
        yield client
    await store.close()


def registry(**changes: Any) -> dict[str, Any]:
    answers: dict[str, Any] = {
        "/registry/pipelines/daily": PIPELINE,
        "/enrolments/daily": ENROLMENT,
        "/pipeline/daily/diff": DIFF,
        "/federation/runs": [],
        "/pipeline": [],
    }
    return answers | changes


def scheduler(*jobs: dict[str, Any]) -> dict[str, Any]:
    times = {f"/jobs/{job['id']}/next": {"times": ["2026-12-01T03:00:00Z"]} for job in jobs}
    return {"/jobs": list(jobs), "/runs": [], **times}


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


async def test_pipeline_page_shows_other_nodes() -> None:
    brief = {"id": "r1", "trigger": "schedule", "phase": "failed", "finished_at": AT}
    rows = [
        {"node": "node-1", "pipeline": "daily", "present": True, "runs": [brief]},
        {"node": "basel", "pipeline": "daily", "present": True, "runs": [brief], "late": "2 ticks behind"},
        {"node": "bern", "pipeline": "daily", "present": False, "updated_at": AT, "next_tick": AT},
    ]
    async with pages(registry(**{"/federation/runs": rows}), scheduler()) as client:
        html = (await client.get("/ui/pipelines/daily")).text
    text = text_of(html)
    assert "with basel, bern" in text
    assert "2 ticks behind" in text
    assert "not heard" in text
    assert html.count('<tr class="stale">') == 1


async def test_pipeline_page_without_scheduler() -> None:
    async with pages(registry(), None) as client:
        answer = await client.get("/ui/pipelines/daily")
    text = text_of(answer.text)
    assert answer.status_code == 200
    for words in (
        "The schedules are not known now",
        "The runs are not known now",
        "none that is known now",
    ):
        assert words in text, text
    assert "No schedule" not in text
    assert "No run yet" not in text


@pytest.mark.parametrize(
    ("enrolled", "words"),
    [(True, "What is registered cannot be compared"), (False, "Enrol this node")],
    ids=["enrolled", "not-enrolled"],
)
async def test_pipeline_page_with_missing_tool(enrolled: bool, words: str) -> None:
    answers = registry(**{"/pipeline/daily/diff": 422, "/enrolments/daily": ENROLMENT if enrolled else 404})
    async with pages(answers, scheduler()) as client:
        html = (await client.get("/ui/pipelines/daily")).text
    assert words in text_of(html)
    assert "status 422 of /pipeline/daily/diff" in html
    assert ('disabled title="status 422' in html) is not enrolled


async def test_pipeline_page_names_rebuilt_images() -> None:
    rebuilt = {"lab/crawler:1": {"pinned": DIGEST, "here": "sha256:" + "cd" * 32}}
    async with pages(
        registry(**{"/pipeline/daily/diff": DIFF | {"rebuilt": rebuilt}}), scheduler()
    ) as client:
        html = (await client.get("/ui/pipelines/daily")).text
    assert "Images with a newer build here" in html
    assert '<form method="post" action="/ui/pipelines/daily/renew"' in html


async def test_pipeline_page_with_many_schedules_and_steps_is_bounded() -> None:
    jobs = [JOB | {"id": f"daily-{number}"} for number in range(300)]
    steps = [STEP | {"name": f"s{number}"} for number in range(40)]
    answers = registry(**{"/registry/pipelines/daily": PIPELINE | {"steps": steps}})
    async with pages(answers, scheduler(*jobs)) as client:
        html = (await client.get("/ui/pipelines/daily")).text
    assert "290 more schedules" in text_of(html)
    assert len(html) < 150_000


async def test_pipelines_page_with_unreadable_records() -> None:
    unreadable = [{"name": "odd", "key": "/k", "unreadable": "it is <b>no JSON</b>", "next": "Remove it."}]
    listing = {"items": [PIPELINE | {"enrolled": True}], "cursor": None, "unreadable": unreadable}
    async with pages(registry(**{"/pipeline": listing}), None) as client:
        answer = await client.get("/ui/pipelines")
    assert answer.status_code == 200
    assert "odd cannot be read" in answer.text
    assert "it is &lt;b&gt;no JSON&lt;/b&gt;" in answer.text
    assert "not known" in answer.text


async def test_pipelines_search_over_a_thousand_is_bounded() -> None:
    many = [PIPELINE | {"name": f"p{number}", "description": "x" * 300} for number in range(1000)]
    async with pages(registry(**{"/pipeline": many}), scheduler()) as client:
        html = (await client.get("/ui/pipelines", params={"q": "crawler"})).text
    assert html.count('<tr role="row">') == 201
    assert "800 more pipelines match" in text_of(html)
    assert len(html) < 300_000


@pytest.mark.parametrize(
    ("path", "status"), [("/ui/pipelines?show=nothing", 422), ("/ui/pipelines/none", 404)]
)
async def test_pipelines_bad_addresses_are_pages(path: str, status: int) -> None:
    async with pages(registry(), scheduler()) as client:
        answer = await client.get(path)
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.status_code == status


@pytest.mark.parametrize("action", ["pause", "resume", "remove-job", "approve", "backfill"])
async def test_pipeline_action_without_its_field_is_refused(action: str) -> None:
    async with pages(registry(), scheduler()) as client:
        answer = await client.post(
            f"/ui/pipelines/daily/{action}", headers={"Origin": "http://localhost:8080"}
        )
    assert answer.status_code == 422
    assert "has no field" in answer.text
