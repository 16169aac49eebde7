"""A log of another node's run: asked for and answered through the federation's store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime

import httpx
import pytest

from mao_registry.peers import logs
from mao_registry.peers.logs import MAX_RECORD_BYTES, MAX_WAITING_PER_NODE, last_lines, shorten_to_fit
from mao_registry.registry import Registry
from mao_shared import keys
from mao_shared.models import LogAnswer, LogAsk, Member, Run, StepRun
from mao_shared.models.federation import MAX_LOG_ANSWER
from mao_shared.store import Event, Put
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump
from tests.registry.conftest import running
from tests.registry.doubles import WillingServices
from tests.registry.seed import INIT, register
from tests.support.waiting import eventually

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = "20260101T000000Z-crawler-1"


class World:
    """`node-1` asks; `node-2` has a run and answers or not."""

    def __init__(self, api: httpx.AsyncClient, asked: Registry, services: WillingServices) -> None:
        self.api, self.asked, self.services = api, asked, services
        self.shared = asked.repositories.federation

    async def log(self, **query: str) -> httpx.Response:
        return await self.api.get("/federation/logs", params={"node": "node-2", "run": RUN} | query)


@pytest.fixture
async def shares(request: pytest.FixtureRequest) -> bool:
    return bool(getattr(request, "param", True))


@pytest.fixture
async def world(shares: bool) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        shared, services = MemoryStore(), WillingServices()
        api, _ = await stack.enter_async_context(running(MemoryStore(), WillingServices(), federation=shared))
        other = running(MemoryStore(), services, node="node-2", federation=shared, share_logs=shares)
        theirs, asked = await stack.enter_async_context(other)
        await register(theirs)
        assert (await theirs.post("/pipeline/init", json=INIT)).status_code == 201
        enrolment = await asked.repositories.enrolments.get("crawler")
        assert enrolment is not None
        steps = [StepRun(spec=enrolment.record.steps[0])]
        run = Run(id=RUN, pipeline="crawler", node="node-2", trigger="manual", created_at=NOW, steps=steps)
        await asked.repositories.runs.create(RUN, run)

        async with asyncio.timeout(60), aclosing(shared.watch(keys.member("node-2"), after=0)) as batches:
            async for _ in batches:
                break
        yield World(api, asked, services)


async def test_log_request_reads_tail_and_cleans_up(world: World) -> None:
    answer = await world.log()
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert (document["text"], document["step"], document["cut"]) == (
        "first line\nsecond line\n",
        "crawler",
        False,
    )
    assert (await world.log(tail="1")).json()["text"] == "second line\n"
    assert world.services.asked_logs == [(RUN, None)] * 2
    await world.log(step="crawler")
    assert world.services.asked_logs[-1] == (RUN, "crawler")
    asks = (await world.shared.list(keys.peer_root("node-1") + "asks/")).entries
    assert asks == []


async def test_log_request_unknown_run(world: World) -> None:
    answer = await world.log(run="nothing")
    assert (answer.status_code, answer.json()["code"]) == (404, "log-not-found")
    assert world.services.asked_logs == []
    absent = await world.log(node="node-9")
    assert absent.json()["code"] == "not-found"


@pytest.mark.parametrize("shares", [False], indirect=True)
async def test_log_request_refused_when_not_shared(world: World) -> None:
    answer = await world.log()
    assert (answer.status_code, answer.json()["code"]) == (403, "logs-not-shared")
    assert "MAO_SHARE_LOGS" in answer.json()["next"]

    # It is asked all the same when its record says otherwise.
    pretended = Member(name="node-2", version="1", logs_shared=True, started_at=NOW)
    entry = await world.shared.get(keys.member("node-2"))
    assert entry is not None
    await world.shared.replace(keys.member("node-2"), dump(pretended), entry.revision)
    answer = await world.log()
    assert (answer.status_code, answer.json()["code"]) == (403, "logs-not-shared")
    assert world.services.asked_logs == []


async def test_log_request_of_own_node(memory: MemoryStore) -> None:
    async with running(memory, WillingServices()) as (api, _):
        answer = await api.get("/federation/logs", params={"node": "node-1", "run": RUN})
        assert (answer.status_code, answer.json()["code"]) == (404, "log-not-found")


async def test_log_request_times_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "ANSWER_TIMEOUT", 0.05)
    await world.shared.create(
        keys.member("node-3"), dump(Member(name="node-3", version="1", logs_shared=True, started_at=NOW))
    )
    answer = await world.log(node="node-3")
    assert (answer.status_code, answer.json()["code"]) == (503, "node-silent")
    await world.shared.create(keys.member("node-4"), dump(Member(name="node-4", version="1", started_at=NOW)))
    assert (await world.log(node="node-4")).json()["code"] == "logs-not-shared"


def _ask(**changes: str) -> bytes:
    fields = {"id": "x", "node": "node-3", "of": "node-2", "run": RUN} | changes
    return dump(LogAsk.model_validate(fields))


async def test_log_responder_continues_after_failing_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    hear = world.asked.log_responder._parse_request

    def breaks(event: Event) -> LogAsk | None:
        if event.key == keys.ask("node-3", "x"):
            raise RuntimeError("of a kind that nobody thought of")
        return hear(event)

    monkeypatch.setattr(world.asked.log_responder, "_parse_request", breaks)
    both = [Put(keys.ask("node-3", id_), _ask(id=id_)) for id_ in ("x", "good")]
    await world.shared.transact([], both)
    await eventually(lambda: world.services.asked_logs)


@pytest.mark.parametrize(
    "value", [_ask(node="node-1"), _ask(id="y"), _ask(of="node-1"), b"{", _ask() + b" " * 10_000]
)
async def test_log_responder_ignores_invalid_request(world: World, value: bytes) -> None:
    await world.shared.create(keys.ask("node-3", "x"), value)
    await world.shared.create(keys.ask("node-3", "good"), _ask(id="good"))
    await eventually(lambda: world.services.asked_logs)
    written = world.shared.watch(keys.peer_root("node-2"), after=0)
    async with asyncio.timeout(60), aclosing(written) as batches:
        async for batch in batches:
            answers = [event.key for event in batch if "/answers/" in event.key]
            if answers:
                assert answers == [keys.answer("node-2", "good")]
                break
    assert len(world.services.asked_logs) == 1


async def test_log_responder_limits_requests_per_node(world: World) -> None:
    asks = [Put(keys.ask("node-3", f"a{number}"), _ask(id=f"a{number}")) for number in range(100)]
    await world.shared.transact([], asks)  # all in one batch of the watch
    assert (await world.log()).status_code == 200
    assert len(world.services.asked_logs) <= MAX_WAITING_PER_NODE + 1


def test_last_lines_truncates() -> None:
    text, cut = last_lines(b"x" * (MAX_LOG_ANSWER + 1), 10)
    assert (len(text), cut) == (MAX_LOG_ANSWER, True)
    hostile = LogAnswer(id="x", status="ok", text="\x1b" * MAX_LOG_ANSWER)
    fitted = shorten_to_fit(hostile)
    assert len(dump(fitted)) <= MAX_RECORD_BYTES
    assert fitted.cut


async def test_log_request_unknown_step_lists_steps(world: World) -> None:
    answer = await world.log(step="nosuch")
    assert answer.status_code == 404
    assert "no step 'nosuch'; its steps: crawler" in answer.json()["detail"]
