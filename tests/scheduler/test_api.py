"""The scheduler's HTTP API: answers, refusals and their next steps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from mao_scheduler.app import make_app
from mao_shared import keys
from mao_shared.models import Pipeline, Run, ScheduleSpec, Step, TickMark, schedule_id, tick_run_id
from mao_shared.models.schedule import Forgotten
from mao_shared.states import RunPhase
from mao_shared.store import dump
from mao_shared.store.memory import MemoryStore
from tests.support.waiting import eventually, eventually_answers

from .harness import finish_step, put, run_records, settings, wait_phase
from .samples import NODE, START, ManualClock, enrolment, run


@pytest.fixture
async def memory() -> AsyncIterator[MemoryStore]:
    made = MemoryStore()
    await put(made, enrolment())
    yield made
    await made.close()


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://scheduler") as client,
    ):
        yield client


@pytest.fixture
async def http(memory: MemoryStore, clock: ManualClock) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(make_app(settings(), store=memory, clock=clock)) as client:
        await eventually(lambda: client is not None)
        yield client


async def post(http: httpx.AsyncClient, path: str, body: Any = None, status: int = 200, **kwargs: Any) -> Any:
    answer = await http.post(path, json=body, **kwargs)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_run_pipeline_by_hand(http: httpx.AsyncClient, memory: MemoryStore, clock: ManualClock) -> None:
    answer = await http.post("/pipeline/run", json={"name": "crawler"}, headers={"X-Request-ID": "abc"})
    assert answer.status_code == 201
    started = answer.json()
    assert (started["phase"], started["trigger"], started["request_id"]) == ("queued", "manual", "abc")
    assert answer.headers["etag"].strip('"').isdigit()
    await wait_phase(memory, started["id"], RunPhase.RUNNING)
    await finish_step(memory, started["id"], clock)
    await wait_phase(memory, started["id"], RunPhase.SUCCEEDED)
    shown = await http.get(f"/runs/{started['id']}")
    assert shown.json()["phase"] == "succeeded"


async def test_run_pipeline_twice_with_one_idempotency_key_creates_one_run(http: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "k1"}
    first = await post(http, "/pipeline/run", {"name": "crawler"}, 201, headers=headers)
    second = await post(http, "/pipeline/run", {"name": "crawler"}, 201, headers=headers)
    third = await post(http, "/pipeline/run", {"name": "crawler"}, 201)
    assert first["id"] == second["id"] != third["id"]


async def test_add_job_twice_returns_the_same_job(http: httpx.AsyncClient) -> None:
    body = {"name": "crawler", "cron": "30 2 * * *", "timezone": "Europe/Zurich"}
    first = await post(http, "/pipeline/run", body, 201)
    assert (await post(http, "/pipeline/run", body, 200))["id"] == first["id"]
    refused = await post(http, "/pipeline/run", body | {"catch_up": "all"}, 409)
    assert refused["code"] == "schedule-differs"
    other = await post(http, "/pipeline/run", {"name": "crawler", "cron": "@daily"}, 201)
    listed = (await http.get("/jobs")).json()["items"]
    assert {job["id"] for job in listed} == {first["id"], other["id"]}
    assert {job["next"] for job in listed} == {"2026-11-25T01:30:00Z", "2026-11-25T00:00:00Z"}


REFUSED = [
    ({"name": "nobody"}, 404, "unknown-pipeline"),
    ({"name": "nobody", "cron": "@daily"}, 404, "unknown-pipeline"),
    ({"name": "shared-only"}, 409, "not-enrolled"),
    ({"name": "shared-only", "cron": "@daily"}, 409, "not-enrolled"),
    ({"name": "crawler", "cron": "61 * * * *"}, 422, "cron-invalid"),
    ({"name": "crawler", "cron": "* * * * * *"}, 422, "cron-seconds-not-declared"),
    ({"name": "crawler", "cron": "0 0 31 2 *"}, 422, "cron-never"),
    ({"name": "crawler", "cron": "@daily", "timezone": "Mars"}, 422, "timezone-unknown"),
    ({"name": "crawler", "cron": "@daily", "overlap": "maybe"}, 422, None),
    ({"name": "crawler", "cron": "@daily", "start_deadline": -1}, 422, None),
    ({"name": "crawler", "cron": 5}, 422, None),
    ({"name": "crawler", "cron": "x" * 300}, 422, None),
    ({"name": "../etc"}, 404, "unknown-pipeline"),  # what is no name is a title
    ({"name": "x" * 501}, 422, None),
    ({"name": "two\nlines"}, 422, None),
    ({"name": " "}, 422, None),
    ({"name": "crawler", "crom": "@daily"}, 422, None),
    ({}, 422, None),
    ([], 422, None),
    ("crawler", 422, None),
    (None, 400, "body-not-json"),
]


@pytest.mark.parametrize(("body", "status", "code"), REFUSED)
async def test_run_pipeline_invalid_request_explains_error_and_next_step(
    http: httpx.AsyncClient, memory: MemoryStore, body: Any, status: int, code: str | None
) -> None:
    shared = Pipeline(name="shared-only", steps=[Step(tool="t", dataset="d")])
    await memory.create(keys.registry("pipelines", "shared-only"), dump(shared))
    answer = await http.post("/pipeline/run", json=body)
    problem = answer.json()
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["code"] == (code or problem["code"])
    assert problem["detail"]
    assert problem["next"]


async def test_run_pipeline_empty_cron_is_refused(http: httpx.AsyncClient) -> None:
    assert (await post(http, "/pipeline/run", {"name": "crawler", "cron": None}, 201))["trigger"] == "manual"


async def test_job_pause_resume_and_next_times(http: httpx.AsyncClient, clock: ManualClock) -> None:
    job = await post(http, "/pipeline/run", {"name": "crawler", "cron": "*/10 * * * *"}, 201)
    paused = await post(http, f"/jobs/{job['id']}/pause")
    assert (paused["paused"], paused["next"]) == (True, None)
    assert await post(http, f"/jobs/{job['id']}/pause") == paused
    following = await http.get(f"/jobs/{job['id']}/next", params={"count": 2})
    assert following.json()["times"] == ["2026-11-24T07:10:00Z", "2026-11-24T07:20:00Z"]
    clock.turn(minutes=1)
    resumed = await post(http, f"/jobs/{job['id']}/resume")
    assert (resumed["paused"], resumed["next"]) == (False, "2026-11-24T07:10:00Z")
    assert await post(http, f"/jobs/{job['id']}/resume") == resumed


async def test_job_shows_outcome_of_last_tick(
    http: httpx.AsyncClient, memory: MemoryStore, clock: ManualClock
) -> None:
    job = await post(http, "/pipeline/run", {"name": "crawler", "cron": "* * * * *"}, 201)
    clock.turn(minutes=1)
    tick = tick_run_id("crawler", NODE, clock.now())
    await eventually(lambda: memory._entries.get(keys.run(NODE, tick)) is not None)
    await wait_phase(memory, tick, RunPhase.RUNNING)
    shown = (await http.get(f"/jobs/{job['id']}")).json()
    assert shown["last"] == {
        "run": tick,
        "scheduled_for": "2026-11-24T07:01:00Z",
        "phase": "running",
        "missed": None,
    }


async def test_remove_job(http: httpx.AsyncClient) -> None:
    job = await post(http, "/pipeline/run", {"name": "crawler", "cron": "@daily"}, 201)
    path = f"/jobs/{job['id']}"
    stale = await http.delete(path, headers={"If-Match": '"1"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "precondition-failed")
    current = (await http.get(path)).headers["etag"]
    assert (await http.delete(path, headers={"If-Match": current})).status_code == 200
    for call in (http.get(path), http.delete(path), http.post(path + "/pause"), http.get(path + "/next")):
        answer = await call
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown-job")
    again = await post(http, "/pipeline/run", {"name": "crawler", "cron": "@daily"}, 201)
    assert again["id"] == job["id"]


async def test_backfill_queues_missed_and_absent_ticks(
    http: httpx.AsyncClient, memory: MemoryStore, clock: ManualClock
) -> None:
    clock.turn(minutes=30)
    job = await post(
        http, "/pipeline/run", {"name": "crawler", "cron": "*/10 * * * *", "max_catch_up": 3}, 201
    )
    ticks = [START + timedelta(minutes=10 * n) for n in range(4)]
    names = [tick_run_id("crawler", NODE, tick) for tick in ticks]
    missed = run(
        names[1], trigger="schedule", phase="missed", missed="late", scheduled_for=ticks[1], steps=0,
        reason="Too late.", finished_at=START,
    )  # fmt: skip
    done = run(names[2], trigger="schedule", phase="succeeded", scheduled_for=ticks[2])
    for run_ in (missed, done):
        await memory.create(keys.run(NODE, run_.id), dump(run_))
    path = f"/jobs/{job['id']}/backfill"
    before = await run_records(memory).page()
    dry = await post(http, path, {"since": ticks[0].isoformat(), "dry_run": True})
    assert (dry["queued"], dry["present"], dry["more_since"]) == ([], 1, None)
    assert [(tick["run"], tick["missed"], tick["reason"]) for tick in dry["ticks"]] == [
        (names[0], None, None),
        (names[1], "late", "Too late."),
        (names[3], None, None),
    ]
    assert dry["ticks"][0]["scheduled_for"] == f"{ticks[0]:%Y-%m-%dT%H:%M:%SZ}"
    assert await run_records(memory).page() == before
    found = await post(http, path, {"since": ticks[0].isoformat()})
    assert found == {"queued": [names[0], names[1], names[3]], "present": 1, "more_since": None}
    again = await run_records(memory).get(names[1])
    assert again is not None
    assert (again.record.missed, again.record.finished_at, again.record.overlap) == (None, None, "queue")
    assert len(again.record.steps) == 1
    assert (await post(http, path, {"since": ticks[0].isoformat()}))["queued"] == []


async def test_backfill_stops_at_max_catch_up_and_returns_next_tick(http: httpx.AsyncClient) -> None:
    job = await post(http, "/pipeline/run", {"name": "crawler", "cron": "* * * * *", "max_catch_up": 3}, 201)
    path = f"/jobs/{job['id']}/backfill"
    span = {"since": "2026-11-24T06:00:00Z", "until": "2026-11-24T06:04:00Z"}
    dry = await post(http, path, span | {"dry_run": True})
    assert (len(dry["ticks"]), dry["more_since"]) == (3, "2026-11-24T06:03:00Z")
    first = await post(http, path, span)
    assert first["queued"] == [tick["run"] for tick in dry["ticks"]]
    assert len(first["queued"]) == 3
    assert first["more_since"] == "2026-11-24T06:03:00Z"
    second = await post(http, path, span | {"since": first["more_since"]})
    assert (len(second["queued"]), second["more_since"]) == (2, None)


async def test_backfill_refuses_range_removed_by_retention(
    http: httpx.AsyncClient, memory: MemoryStore
) -> None:
    job = await post(http, "/pipeline/run", {"name": "crawler", "cron": "@hourly"}, 201)
    path = f"/jobs/{job['id']}/backfill"
    until = START - timedelta(hours=3)
    await memory.create(keys.forgotten(NODE, "crawler"), dump(Forgotten(until=until)))
    refused = await post(http, path, {"since": until.isoformat()}, 422)
    assert refused["code"] == "range-forgotten"
    assert "--scheduled-for" in refused["next"]
    later = {"since": (until + timedelta(seconds=1)).isoformat()}
    assert len((await post(http, path, later))["queued"]) == 3


async def test_job_next_times_after_clock_was_set_back(memory: MemoryStore, clock: ManualClock) -> None:
    """After the clock was set back, a job whose ticks are decided for a year shows no earlier next time."""
    job_id = schedule_id("crawler", ScheduleSpec(cron="@hourly"))
    mark = TickMark(decided_until=START + timedelta(days=365))
    await memory.create(keys.tick(NODE, job_id), dump(mark))
    async with serving(make_app(settings(), store=memory, clock=clock)) as http:
        await post(http, "/pipeline/run", {"name": "crawler", "cron": "@hourly"}, 201)

        async def mark_is_loaded() -> bool:
            shown = (await http.get(f"/jobs/{job_id}")).json()
            return bool(shown["next"] == "2027-11-24T08:00:00Z")

        await eventually_answers(mark_is_loaded)
        coming = (await http.get(f"/jobs/{job_id}/next", params={"count": 1})).json()
        assert coming["times"] == ["2027-11-24T08:00:00Z"]


@pytest.mark.parametrize(
    "span",
    [
        {"since": "2027-01-01T00:00:00Z"},
        {"since": "2026-11-24T06:00:00Z", "until": "2026-11-24T05:00:00Z"},
        {"since": "0001-01-01T00:00:00Z"},
        {"since": "2026-11-24T06:00:00"},
        {"since": "yesterday"},
    ],
)
async def test_backfill_refuses_invalid_range(http: httpx.AsyncClient, span: dict[str, str]) -> None:
    job = await post(http, "/pipeline/run", {"name": "crawler", "cron": "@daily"}, 201)
    assert (await post(http, f"/jobs/{job['id']}/backfill", span, 422))["next"]


async def test_cron_preview(http: httpx.AsyncClient) -> None:
    body = {"cron": "30 2 * * *", "timezone": "Europe/Zurich", "count": 2}
    found = await post(http, "/cron/preview", body)
    assert found == {"times": ["2026-11-25T01:30:00Z", "2026-11-26T01:30:00Z"]}
    refused = await post(http, "/cron/preview", {"cron": "0 25 * * *"}, 422)
    assert (refused["code"], refused["field"], refused["value"]) == ("cron-invalid", "hour", "25")


async def test_list_runs_newest_first_with_filters_and_pages(
    http: httpx.AsyncClient, memory: MemoryStore
) -> None:
    for number in range(30):
        made = run(
            f"r{number:02}",
            pipeline="other" if number % 3 == 0 else "crawler",
            phase="succeeded" if number % 2 else "failed",
            schedule="s1" if number == 4 else None,
        )
        await memory.create(keys.run(NODE, made.id), dump(made))
    first = (await http.get("/runs", params={"limit": 4})).json()
    assert [item["id"] for item in first["items"]] == ["r29", "r28", "r27", "r26"]
    assert await _all(http, limit=7) == [f"r{n:02}" for n in reversed(range(30))]
    assert await _all(http, limit=7, pipeline="other", phase="succeeded") == [
        "r27",
        "r21",
        "r15",
        "r09",
        "r03",
    ]
    assert await _all(http, limit=2, schedule="s1") == ["r04"]
    assert await _all(http, limit=5, trigger="schedule") == []
    assert await _all(http, limit=50, trigger="manual", phase="failed", pipeline="other") == [
        f"r{number:02}" for number in (24, 18, 12, 6, 0)
    ]
    for odd in ({"phase": "odd"}, {"trigger": "odd"}, {"since": "yesterday"}, {"until": "2026-01-01"}):
        assert (await http.get("/runs", params=odd)).status_code == 422
    assert (await http.get("/runs", params={"cursor": "odd"})).json()["code"] == "cursor-invalid"


async def _all(http: httpx.AsyncClient, **params: Any) -> list[str]:
    found: list[str] = []
    while True:
        page = (await http.get("/runs", params=params)).json()
        found += [item["id"] for item in page["items"]]
        assert len(page["items"]) <= params["limit"]
        if page["cursor"] is None:
            return found
        params["cursor"] = page["cursor"]


async def test_run_cancel_and_retry(http: httpx.AsyncClient, memory: MemoryStore) -> None:
    first = await post(http, "/pipeline/run", {"name": "crawler"}, 201)
    await wait_phase(memory, first["id"], RunPhase.RUNNING)
    second = await post(http, "/pipeline/run", {"name": "crawler"}, 201)
    active = await post(http, f"/runs/{second['id']}/retry", status=409)
    assert active["code"] == "run-active"
    await post(http, f"/runs/{second['id']}/cancel", {"reason": "enough"})
    await post(http, f"/runs/{second['id']}/cancel")
    ended = await wait_phase(memory, second["id"], RunPhase.CANCELLED)
    assert ended.reason == "enough"
    again = await post(http, f"/runs/{second['id']}/retry", status=201)
    assert (again["trigger"], again["retry_of"]) == ("retry", second["id"])
    for path in ("/runs/none", "/runs/none/events"):
        assert (await http.get(path)).json()["code"] == "unknown-run"
    assert (await post(http, "/runs/none/cancel", status=404))["code"] == "unknown-run"


async def test_cancel_refuses_ended_run(http: httpx.AsyncClient, memory: MemoryStore) -> None:
    await memory.create(keys.run(NODE, "r1"), dump(run("r1", phase="failed")))
    refused = await post(http, "/runs/r1/cancel", status=409)
    assert refused["code"] == "run-ended"


async def test_run_events_until_end(http: httpx.AsyncClient, memory: MemoryStore, clock: ManualClock) -> None:
    started = await post(http, "/pipeline/run", {"name": "crawler"}, 201)
    await wait_phase(memory, started["id"], RunPhase.RUNNING)
    following = asyncio.create_task(http.get(f"/runs/{started['id']}/events"))
    await finish_step(memory, started["id"], clock)
    answer = await asyncio.wait_for(following, 60)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [block for block in answer.text.split("\n\n") if "data: " in block]
    documents = [Run.model_validate(json.loads(_field(block, "data"))) for block in events]
    assert documents[-1].phase == "succeeded"
    last = {"Last-Event-ID": _field(events[-1], "id")}
    again = await http.get(f"/runs/{started['id']}/events", headers=last)
    assert "data: " not in again.text


def _field(block: str, name: str) -> str:
    return next(line.removeprefix(f"{name}: ") for line in block.splitlines() if line.startswith(name))


async def test_service_health_metrics_and_api_page(http: httpx.AsyncClient) -> None:
    await post(http, "/pipeline/run", {"name": "crawler"}, 201)
    assert (await http.get("/readyz")).status_code == 200
    metrics = (await http.get("/metrics")).text
    assert "mao_tick_lateness_seconds_bucket" in metrics
    assert "mao_runs_queued" in metrics
    document = (await http.get("/openapi.json")).json()
    operations = {
        operation["operationId"] for path in document["paths"].values() for operation in path.values()
    }
    assert {"pipelines.run", "jobs.list", "jobs.backfill", "runs.list", "runs.events"} <= operations
