"""The runner's HTTP API, over an engine in memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mao_runner.app import make_app
from mao_runner.drivers.fake import FakeDriver
from mao_shared.clients.responses import ServerEvent, read_events
from mao_shared.errors import Conflict
from mao_shared.runs.records import RunRecords
from mao_shared.states import RunPhase, StepPhase

from .doubles import AbsentDriver, PromptDriver
from .harness import NODE, Bench, ready_run


class Served:
    """Yield a runner's app within its lifespan."""

    def __init__(self, bench: Bench, client: httpx.AsyncClient) -> None:
        self.bench = bench
        self.client = client

    async def problem(self, method: str, path: str, **options: Any) -> tuple[int, str]:
        """Return status and code; fail if the problem names no next step."""
        answer = await self.client.request(method, path, **options)
        document = answer.json()
        assert document["next"], document
        return answer.status_code, document["code"]


async def serve(root: Path, driver: FakeDriver) -> AsyncIterator[Served]:
    bench = Bench(root, driver)
    app = make_app(bench.settings, store=bench.store, driver=driver)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://runner") as client,
    ):
        yield Served(bench, client)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async for client in serve(tmp_path, PromptDriver()):
        yield client


@pytest.fixture
async def served_without_engine(tmp_path: Path) -> AsyncIterator[Served]:
    async for client in serve(tmp_path, AbsentDriver()):
        yield client


async def test_logs_as_text_and_as_events(served: Served) -> None:
    await served.bench.submit(ready_run("r"))
    await served.bench.left("r")

    text = await served.client.get("/runs/r/logs")
    assert (text.status_code, text.text) == (200, "said\n")
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert (text.headers["x-mao-step"], text.headers["x-mao-attempt"]) == ("0", "1")

    events = await served.client.get("/runs/r/logs", params={"follow": "true", "step": "t"})
    assert events.headers["content-type"].startswith("text/event-stream")
    pieces: list[ServerEvent] = list(read_events(events.text.split("\n")))
    assert "".join(json.loads(piece.data) for piece in pieces) == "said\n"
    assert (pieces[-1].event, pieces[-1].id) == ("end", "5")

    rest = await served.client.get("/runs/r/logs?follow=true", headers={"Last-Event-ID": "2"})
    assert json.loads(next(iter(read_events(rest.text.split("\n")))).data) == "id\n"


async def test_logs_lines_with_numbers(served: Served) -> None:
    await served.bench.submit(ready_run("r"))
    await served.bench.left("r")
    lines = (await served.client.get("/runs/r/logs/lines")).json()
    assert [(line["number"], line["text"]) for line in lines["items"]] == [(1, "said")]
    assert (lines["step"], lines["attempt"], lines["total"], lines["size"]) == ("t", 1, 1, 5)
    assert (lines["follow_from"], lines["grows"]) == (5, False)
    assert lines.get("matches") is None
    found = (await served.client.get("/runs/r/logs/lines", params={"q": "SAI"})).json()
    assert (found["matches"], len(found["items"])) == (1, 1)
    assert (await served.client.get("/runs/r/logs/lines?q=nothing")).json()["matches"] == 0


async def test_logs_lines_before_the_first(served: Served) -> None:
    waits = ready_run("waits")
    preparing = waits.steps[0].model_copy(update={"phase": StepPhase.PREPARING})
    assert await served.bench.runs.create("waits", waits.with_step(0, preparing))
    lines = (await served.client.get("/runs/waits/logs/lines")).json()
    assert (lines["items"], lines["grows"], lines["follow_from"]) == ([], True, 0)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/runs/nobody/logs/lines", 404, "unknown-run"),
        ("/runs/r/logs/lines?from=0", 422, "invalid-input"),
        ("/runs/r/logs/lines?limit=5000", 422, "invalid-input"),
        ("/runs/nobody/logs", 404, "unknown-run"),
        ("/runs/..%2F..%2Fetc/logs", 404, "no-such-route"),
        ("/runs/r/logs?step=x", 404, "step-not-found"),
        ("/runs/r/logs?step=7", 404, "step-not-found"),
        ("/runs/r/logs?attempt=2", 404, "attempt-not-found"),
        ("/runs/r/logs?attempt=0", 422, "invalid-input"),
        ("/runs/waits/logs", 404, "log-not-found"),
    ],
)
async def test_logs_not_found(served: Served, path: str, status: int, code: str) -> None:
    await served.bench.submit(ready_run("r"))
    await served.bench.left("r")
    waits = ready_run("waits")
    preparing = waits.steps[0].model_copy(update={"phase": StepPhase.PREPARING})
    assert await served.bench.runs.create("waits", waits.with_step(0, preparing))
    assert await served.problem("GET", path) == (status, code)


@pytest.mark.parametrize("path", ["/runs/r/logs", "/runs/r/logs?follow=true", "/runs/r/logs?step=t&end=5"])
async def test_logs_removed_by_retention(served: Served, path: str) -> None:
    await served.bench.submit(ready_run("r"))
    await served.bench.left("r")
    assert (await served.client.get(path)).status_code == 200
    shutil.rmtree(served.bench.data.run_logs("r"))
    answer = await served.client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "log-removed")
    assert "5 bytes" in answer.json()["detail"]


async def test_logs_of_run_in_history(served: Served) -> None:
    await served.bench.submit(ready_run("r"))
    await served.bench.left("r")
    records = RunRecords(served.bench.store, NODE)
    stored = await records.get("r")
    assert stored is not None
    ended = stored.record.model_copy(update={"phase": RunPhase.SUCCEEDED})
    await records.replace("r", ended, stored.revision)
    assert await records.move((await records.live_page(9, None))[0]) == 1
    assert (await served.client.get("/runs/r/logs")).text == "said\n"
    followed = await served.client.get("/runs/r/logs?follow=true")
    assert "event: end" in followed.text


async def test_logs_invalid_last_event_id(served: Served) -> None:
    await served.bench.submit(ready_run("r"))
    headers = {"Last-Event-ID": "yesterday"}
    assert await served.problem("GET", "/runs/r/logs?follow=true", headers=headers) == (422, "offset-invalid")


async def test_resolve_image_pins_by_digest(served: Served) -> None:
    answer = await served.client.post("/images/resolve", json={"image": "busybox:1"})
    assert answer.json()["pinned"].startswith("busybox:1@sha256:")
    body = {"image": "nope:1", "pull": "never"}
    assert await served.problem("POST", "/images/resolve", json=body) == (422, "image-not-found")
    assert await served.problem("POST", "/images/resolve", json={"image": "a b"}) == (422, "invalid-input")


async def test_engine_and_readiness(served: Served) -> None:
    engine = (await served.client.get("/engine")).json()
    assert engine == {
        "version": "fake",
        "slots": served.bench.settings.slots,
        "cpus": 4,
        "memory": 8 * 1024**3,
        "running": 0,
    }
    await served.bench.submit(ready_run("r"))
    await served.bench.left("r")
    assert (await served.client.get("/readyz")).status_code == 200
    metrics = (await served.client.get("/metrics")).text
    assert 'mao_runner_outcomes_total{code="",phase="exited"} 1.0' in metrics


async def test_engine_unavailable(served_without_engine: Served) -> None:
    served = served_without_engine
    assert await served.problem("GET", "/engine") == (503, "engine-unavailable")
    body = {"image": "busybox:1"}
    assert await served.problem("POST", "/tools/check", json=body) == (503, "engine-unavailable")
    ready = await served.client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"]["store"] == "ok"


async def test_app_second_runner_on_same_data_is_refused(served: Served) -> None:
    bench = served.bench
    second = make_app(bench.settings, store=bench.store, driver=PromptDriver())
    with pytest.raises(Conflict, match="Another runner is already running"):
        await second.router.lifespan_context(second).__aenter__()


async def test_api_operation_ids(served: Served) -> None:
    paths = (await served.client.get("/openapi.json")).json()["paths"]
    ids = {operation["operationId"] for path in paths.values() for operation in path.values()}
    assert ids >= {"runs.logs", "images.resolve", "tools.check", "engine.get"}
