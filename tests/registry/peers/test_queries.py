"""Other nodes and their runs, as far as their records are trusted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from mao_registry.peers.queries import lateness
from mao_scheduler.app import make_app as scheduler_app
from mao_scheduler.settings import SchedulerSettings
from mao_shared import keys
from mao_shared.models import Member, PeerNode, PeerRuns, RunBrief, TickStrip
from mao_shared.states import RunPhase
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump
from tests.registry.conftest import running
from tests.registry.doubles import WillingServices
from tests.registry.seed import INIT, register
from tests.support.services import serving

NOW = datetime(2026, 11, 24, 12, 0, 30, tzinfo=UTC)
TICK = NOW.replace(second=0)
HOUR = timedelta(hours=1)


def brief(tick: datetime, phase: str = "succeeded") -> RunBrief:
    name = f"{tick:%Y%m%dT%H%M%SZ}-p-1"
    return RunBrief(id=name, trigger="schedule", phase=RunPhase(phase), scheduled_for=tick)


def told(node: str, *runs: RunBrief, next_tick: datetime | None = None) -> PeerRuns:
    return PeerRuns(node=node, pipeline="p", runs=list(runs), next_tick=next_tick, updated_at=NOW)


DONE = told("b", brief(TICK), next_tick=TICK + HOUR)
LATE = "the tick 2026-11-24T12:00:00Z, which b has finished"


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        (told("a", brief(TICK), next_tick=TICK + HOUR), [DONE], None),
        (told("a", brief(TICK, "failed"), next_tick=TICK + HOUR), [DONE], None),
        (told("a", brief(TICK, "running"), next_tick=TICK + HOUR), [DONE], LATE),
        (told("a", brief(TICK - HOUR), next_tick=TICK), [DONE], LATE),
        (told("a", brief(TICK - HOUR), next_tick=TICK), [], None),  # two minutes are not over
        (told("a", next_tick=TICK - HOUR), [], "the tick 2026-11-24T11:00:00Z has no run"),
        (told("a"), [DONE], None),  # it has no schedule
        (told("a", next_tick=TICK + 5 * HOUR), [DONE], None),  # another schedule
        (told("a", next_tick=TICK + HOUR), [told("b", brief(NOW.replace(year=2900)))], None),  # a liar
    ],
)
def test_lateness(own: PeerRuns, others: list[PeerRuns], expected: str | None) -> None:
    assert lateness(own, others, NOW) == expected


class World:
    def __init__(self, api: httpx.AsyncClient, shared: MemoryStore) -> None:
        self.api, self.shared = api, shared

    async def get(self, path: str) -> list[dict[str, Any]]:
        answer = await self.api.get(path)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["items"])


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """`node-1` is enrolled in `crawler`, whose dataset lists `node-2` as well."""
    async with AsyncExitStack() as stack:
        shared = MemoryStore()
        api, _ = await stack.enter_async_context(running(MemoryStore(), WillingServices(), federation=shared))
        other = running(MemoryStore(), WillingServices(), node="node-2", federation=shared)
        async with other as (theirs, _):
            await register(api)
            assert (await api.post("/pipeline/init", json=INIT)).status_code == 201
            assert (await theirs.put("/enrolments/crawler", json={})).status_code == 201
            yield World(api, shared)


async def test_nodes_absent_has_last_seen(world: World) -> None:
    await world.shared.create(
        keys.peer_node("node-3"), dump(PeerNode(version="0.0.9", seen_at=NOW.replace(year=2900)))
    )
    answer = await world.api.get("/registry/datasets/charts")
    charts = answer.json()
    charts["nodes"].append("node-3")
    await world.api.put("/registry/datasets/charts", json=charts)
    await world.api.put("/trusted/node-2")

    one, two, three = await world.get("/federation/nodes")
    assert (one["name"], one["present"], one["trusted"]) == ("node-1", True, False)
    assert one["datasets"] == ["charts"]
    assert (two["name"], two["present"], two["trusted"]) == ("node-2", True, True)
    assert (three["name"], three["present"], three["version"]) == ("node-3", False, "0.0.9")
    assert datetime.fromisoformat(three["last_seen"]) <= datetime.now(UTC)  # whatever it says itself
    assert (await world.api.get("/federation/nodes/node-3")).json()["present"] is False
    assert (await world.api.get("/federation/nodes/node-9")).json()["code"] == "not-found"


async def test_nodes_member_record_of_other_node_is_ignored(world: World) -> None:
    liar = Member(name="node-7", version="1", started_at=NOW)
    await world.shared.create(keys.member("node-6"), dump(liar))
    await world.shared.create(keys.member("node-8"), b"x" * 300_000)
    assert [node["name"] for node in await world.get("/federation/nodes")] == ["node-1", "node-2"]


async def test_runs_per_node_and_lateness(world: World) -> None:
    tick = datetime.now(UTC).replace(microsecond=0)
    mine = PeerRuns(node="node-1", pipeline="crawler", runs=[brief(tick)], updated_at=NOW)
    theirs = PeerRuns(node="node-2", pipeline="crawler", next_tick=tick, updated_at=NOW)
    await world.shared.create(keys.peer_runs("node-1", "crawler"), dump(mine))
    await world.shared.create(keys.peer_runs("node-2", "crawler"), dump(theirs))
    one, two = await world.get("/federation/runs?pipeline=crawler")
    assert (one["node"], one["late"], one["runs"][0]["phase"]) == ("node-1", None, "succeeded")
    assert (two["node"], two["present"], two["runs"]) == ("node-2", True, [])
    assert two["late"].endswith("which node-1 has finished")
    assert await world.get("/federation/runs") == [one, two]
    assert (await world.api.get("/federation/runs?pipeline=none")).json()["code"] == "not-found"


@pytest.mark.parametrize(
    "value",
    [
        b"{",
        b"x" * 2**20,
        dump(PeerRuns(node="node-1", pipeline="crawler", updated_at=NOW)),
        dump(PeerRuns(node="node-2", pipeline="other", updated_at=NOW)),
        b'{"node": "node-2", "pipeline": "crawler", "updated_at": "yesterday"}',
    ],
)
async def test_runs_unreadable_are_reported(world: World, value: bytes) -> None:
    await world.shared.create(keys.peer_runs("node-2", "crawler"), value)
    one, two = await world.get("/federation/runs?pipeline=crawler")
    assert one["problem"] is None
    assert (two["node"], two["runs"]) == ("node-2", [])
    assert two["problem"] == "it has published no readable runs"


async def test_runs_of_node_without_federation(memory: MemoryStore) -> None:
    async with running(memory, WillingServices()) as (api, _):
        await register(api)
        await api.post("/pipeline/init", json=INIT)
        [row] = (await api.get("/federation/runs?pipeline=crawler")).json()["items"]
        assert (row["node"], row["present"], row["late"], row["problem"]) == ("node-1", True, None, None)


@pytest.mark.parametrize(
    ("crons", "paused", "wanted"),
    [
        ([], 0, None),
        (["0 0 1 1 *"], 0, "-01-01T00:00:00Z"),
        (["0 0 2 1 *", "0 0 1 1 *"], 0, "-01-01T00:00:00Z"),
        (["0 0 1 1 *", "0 0 2 1 *"], 1, "-01-02T00:00:00Z"),
        (["0 0 1 1 *"], 1, None),
    ],
)
async def test_runs_next_tick_without_federation(
    memory: MemoryStore, crons: list[str], paused: int, wanted: str | None
) -> None:
    """Its scheduler publishes nothing, since there is nobody else: it is asked."""
    async with AsyncExitStack() as stack:
        scheduler = scheduler_app(SchedulerSettings(node="node-1"), store=memory)
        url = await stack.enter_async_context(serving(scheduler))
        api, _ = await stack.enter_async_context(running(memory, WillingServices(), scheduler_url=url))
        await register(api)
        await api.post("/pipeline/init", json=INIT)
        jobs = await stack.enter_async_context(httpx.AsyncClient(base_url=url))
        added = [await jobs.post("/pipeline/run", json={"name": "crawler", "cron": cron}) for cron in crons]
        for answer in added[:paused]:
            assert (await jobs.post(f"/jobs/{answer.json()['id']}/pause")).is_success
        [row] = (await api.get("/federation/runs?pipeline=crawler")).json()["items"]
        assert row["problem"] is None
        if wanted is None:
            assert row["next_tick"] is None
        else:
            assert row["next_tick"].endswith(wanted)


async def publish_strip(store: MemoryStore, key: str, strip: TickStrip) -> None:
    before = await store.get(key)
    if before is None:
        await store.create(key, dump(strip))
    else:
        await store.replace(key, dump(strip), before.revision)


async def test_ticks_of_other_nodes(world: World) -> None:
    strip = TickStrip(node="node-2", pipeline="crawler", marks="ssf", updated_at=NOW)
    await publish_strip(world.shared, keys.peer_ticks("node-2", "crawler"), strip)
    answer = await world.api.get("/federation/ticks")
    assert [(each["node"], each["marks"]) for each in answer.json()["items"]] == [("node-2", "ssf")]
    tag = {"If-None-Match": answer.headers["etag"]}
    unchanged = await world.api.get("/federation/ticks", headers=tag)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    later = strip.model_copy(update={"marks": "ssfs", "updated_at": NOW + HOUR})
    await publish_strip(world.shared, keys.peer_ticks("node-2", "crawler"), later)
    changed = await world.api.get("/federation/ticks", headers=tag)
    assert changed.json()["items"][0]["marks"] == "ssfs"
    assert changed.headers["etag"] != answer.headers["etag"]


async def test_ticks_that_are_not_the_nodes_own_are_ignored(world: World) -> None:
    forged = TickStrip(node="node-3", pipeline="crawler", marks="f", updated_at=NOW)
    await publish_strip(world.shared, keys.peer_ticks("node-2", "crawler"), forged)
    await world.shared.create(keys.peer_ticks("node-2", "huge"), b"{" + b" " * (1 << 20))
    await world.shared.create(keys.peer_ticks("node-2", "odd"), b'{"marks": "<script>"}')
    assert await world.get("/federation/ticks") == []
