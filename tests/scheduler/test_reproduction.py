"""`POST /runs/{id}/reproduce` creates a run for which no other run waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from mao_scheduler.app import make_app
from mao_shared.models import Privileges, Run
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store.memory import MemoryStore

from .harness import put, run_records, settings, wait_phase
from .samples import START, ManualClock, enrolment, run
from .test_api import post, serving


def published(run_id: str = "old", *, steps: int = 1) -> Run:
    """Return a run whose steps have all been published."""
    made = run(run_id, steps=steps, phase=RunPhase.SUCCEEDED, scheduled_for=START, finished_at=START)
    ended = [
        step.model_copy(
            update={"phase": StepPhase.SUCCEEDED, "snapshot": "c" * 40, "base_commit": "b" * 40, "attempt": 2}
        )
        for step in made.steps
    ]
    return made.model_copy(update={"steps": ended})


@pytest.fixture
async def memory() -> AsyncIterator[MemoryStore]:
    made = MemoryStore()
    await put(made, enrolment())
    for past in (published(), published("two", steps=2), run("bare", phase=RunPhase.FAILED)):
        await run_records(made).create(past.id, past)
    yield made
    await made.close()


@pytest.fixture
async def http(memory: MemoryStore, clock: ManualClock) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(make_app(settings(), store=memory, clock=clock)) as client:
        yield client


async def test_reproduce_repeats_step_on_its_commits(http: httpx.AsyncClient, memory: MemoryStore) -> None:
    made = Run.model_validate(await post(http, "/runs/old/reproduce", status=201))
    old = published()
    assert (made.trigger, made.pipeline, made.scheduled_for) == ("reproduce", old.pipeline, START)
    assert made.reproduces is not None
    assert made.reproduces.model_dump() == {
        "run": "old",
        "step": "step-0",
        "snapshot": "c" * 40,
        "attempt": 2,
    }
    step = made.steps[0]
    assert (step.base_commit, step.snapshot, step.attempt) == ("b" * 40, None, 1)
    assert step.spec.image == old.steps[0].spec.image
    await wait_phase(memory, made.id, RunPhase.RUNNING)


async def test_reproduce_same_idempotency_key_creates_one_run(http: httpx.AsyncClient) -> None:
    first, second = [
        await post(http, "/runs/two/reproduce", {"step": "step-1"}, 201, headers={"Idempotency-Key": "k"})
        for _ in range(2)
    ]
    assert first["id"] == second["id"]
    assert first["reproduces"]["step"] == "step-1"


async def test_reproduce_refuses_unpublished_steps(http: httpx.AsyncClient) -> None:
    answers = {
        ("none", None): (404, "unknown-run"),
        ("two", None): (422, "step-needed"),
        ("two", "other"): (404, "unknown-step"),
        ("bare", None): (409, "nothing-to-reproduce"),
    }
    for (run_id, step), (status, code) in answers.items():
        body = {"step": step} if step else None
        refused = await post(http, f"/runs/{run_id}/reproduce", body, status)
        assert refused["code"] == code
        assert refused["next"]


async def test_reproduce_takes_no_turn(http: httpx.AsyncClient, memory: MemoryStore) -> None:
    running = await post(http, "/pipeline/run", {"name": "crawler"}, 201)
    await wait_phase(memory, running["id"], RunPhase.RUNNING)
    made = await post(http, "/runs/old/reproduce", status=201)
    await wait_phase(memory, made["id"], RunPhase.RUNNING)
    await post(http, f"/runs/{running['id']}/cancel")
    stored = await run_records(memory).get(running["id"])
    assert stored is not None
    cancelled = stored.record.steps[0].move(StepPhase.CANCELLED, START)
    await run_records(memory).replace(running["id"], stored.record.with_step(0, cancelled), stored.revision)
    await wait_phase(memory, running["id"], RunPhase.CANCELLED)
    after = await post(http, "/pipeline/run", {"name": "crawler"}, 201)
    await asyncio.wait_for(wait_phase(memory, after["id"], RunPhase.RUNNING), 60)


async def test_retry_refuses_reproduction(http: httpx.AsyncClient, memory: MemoryStore) -> None:
    made = Run.model_validate(await post(http, "/runs/old/reproduce", status=201))
    ended = made.model_copy(update={"id": "ended", "phase": RunPhase.FAILED})
    await run_records(memory).create("ended", ended)
    assert (await post(http, "/runs/ended/retry", status=409))["code"] == "run-is-reproduction"
    assert (await post(http, "/runs/ended/reproduce", status=409))["code"] == "nothing-to-reproduce"


async def test_reproduce_requires_current_agreement(http: httpx.AsyncClient, memory: MemoryStore) -> None:
    old = published("root")
    spec = old.steps[0].spec.model_copy(update={"privileges": Privileges(user="root")})
    old = old.with_step(0, old.steps[0].model_copy(update={"spec": spec}))
    await run_records(memory).create("root", old)
    refused = await post(http, "/runs/root/reproduce", status=409)
    assert refused["code"] == "not-agreed"
    assert "user root" in refused["detail"]
