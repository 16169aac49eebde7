"""Other nodes see this node's runs, and publishing them delays nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta

import pytest

from mao_scheduler.metrics import SchedulerMetrics
from mao_scheduler.runs import peer_runs
from mao_scheduler.scheduler import Scheduler, make_scheduler
from mao_shared import keys
from mao_shared.errors import StoreUnavailable
from mao_shared.metrics import Metrics
from mao_shared.models import PeerRuns
from mao_shared.models.federation import KEPT_BRIEFS
from mao_shared.reconcile import background
from mao_shared.states import RunPhase
from mao_shared.store import Check, Records, Store, Write
from mao_shared.store.memory import MemoryStore

from .harness import put, run_records, settings
from .samples import NODE, START, ManualClock, enrolment, run, schedule


@asynccontextmanager
async def publishing_scheduler(
    own: Store, federation: Store, clock: ManualClock, *, loops: bool = False
) -> AsyncIterator[Scheduler]:
    """Yield a scheduler with two stores; without `loops` the test calls its publisher."""
    made = make_scheduler(settings(), own, federation, clock, SchedulerMetrics(Metrics()))
    running = [made.schedules.run(), made.enrolments.run(), made.run_mirror.run()]
    if loops:
        running += [made.publisher.run(), made.controller.run()]
    async with background(*running, on_failure=lambda: None):
        await made.timer.load()
        yield made


async def seen(federation: Store, pipeline: str = "crawler") -> PeerRuns | None:
    stored = await Records(federation, f"{keys.peer_root(NODE)}runs/", PeerRuns).get(pipeline)
    return None if stored is None else stored.record


async def test_publisher_writes_runs_and_next_tick(clock: ManualClock) -> None:
    own, federation = MemoryStore(), MemoryStore()
    await put(own, enrolment(), schedule("0 * * * *"))
    ended = run("20261124T060000Z-crawler-1", phase=RunPhase.SUCCEEDED)
    await run_records(own).create(ended.id, ended)
    async with publishing_scheduler(own, federation, clock) as made:
        await made.publisher.publish()
        found = await seen(federation)
        assert found is not None
        assert (found.node, found.pipeline, found.pipeline_revision) == (NODE, "crawler", 1)
        assert [(brief.id, brief.phase) for brief in found.runs] == [(ended.id, "succeeded")]
        assert found.next_tick == START + timedelta(hours=1)


async def test_publisher_catches_up_on_runs_that_ended_meanwhile(clock: ManualClock) -> None:
    own, federation = MemoryStore(), MemoryStore()
    await put(own, enrolment())
    active = run("20261124T070000Z-crawler-1", phase=RunPhase.RUNNING)
    revision = await run_records(own).create(active.id, active)
    async with publishing_scheduler(own, federation, clock) as made:
        await made.publisher.publish()
    assert revision is not None
    await run_records(own).replace(active.id, active.move(RunPhase.FAILED), revision)
    async with publishing_scheduler(own, federation, clock) as made:
        await made.publisher.publish()
        found = await seen(federation)
        assert found is not None
        assert [brief.phase for brief in found.runs] == ["failed"]


async def test_publisher_keeps_newest_runs_only(clock: ManualClock) -> None:
    own, federation = MemoryStore(), MemoryStore()
    await put(own, enrolment())
    names = [f"20261124T07{number:04}Z-crawler-1" for number in range(KEPT_BRIEFS + 5)]
    for name in names:
        await run_records(own).create(name, run(name, phase=RunPhase.SUCCEEDED))
    async with publishing_scheduler(own, federation, clock) as made:
        await made.publisher.publish()
        found = await seen(federation)
        assert found is not None
        assert [brief.id for brief in found.runs] == names[: -KEPT_BRIEFS - 1 : -1]


async def test_publisher_removes_record_of_left_pipeline(clock: ManualClock) -> None:
    own, federation = MemoryStore(), MemoryStore()
    left = PeerRuns(node=NODE, pipeline="left", updated_at=START)
    await Records(federation, f"{keys.peer_root(NODE)}runs/", PeerRuns).create("left", left)
    async with publishing_scheduler(own, federation, clock) as made:
        await made.publisher.publish()
        assert await seen(federation, "left") is None


async def test_publisher_solo_node_writes_nothing(clock: ManualClock) -> None:
    own = MemoryStore()
    await put(own, enrolment())
    async with publishing_scheduler(own, own, clock) as made:
        await made.publisher.publish()
        assert (await own.list(keys.all_peers())).entries == []


class CountingStore(MemoryStore):
    """A store that counts written records, and is unavailable while `dead`."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.dead = False

    async def transact(self, checks: Sequence[Check], writes: Sequence[Write]) -> int | None:
        if self.dead:
            raise StoreUnavailable("The federation is away.")
        self.writes += 1
        return await super().transact(checks, writes)


async def test_publisher_batches_changes_and_survives_outage(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_runs, "BATCH_DELAY", 0.1)
    own, federation = MemoryStore(), CountingStore()
    federation.dead = True
    await put(own, enrolment())
    async with publishing_scheduler(own, federation, clock, loops=True) as made:
        records = run_records(own)
        for number in range(20):
            name = f"20261124T07{number:04}Z-crawler-1"
            await records.create(name, run(name, phase=RunPhase.SUCCEEDED))
        waiting = run("20261124T080000Z-crawler-1")
        await records.create(waiting.id, waiting)
        async with asyncio.timeout(60), aclosing(own.watch(records.prefix, after=0)) as batches:
            async for batch in batches:  # the controller starts the run all the same
                found = [records.parse(event.entry).record for event in batch if event.entry]
                if any(r.id == waiting.id and r.phase is RunPhase.RUNNING for r in found):
                    break
        federation.dead = False
        async with asyncio.timeout(60), aclosing(federation.watch(keys.all_peers(), after=0)) as batches:
            async for _ in batches:
                break
        found_there = await seen(federation)
        assert found_there is not None
        assert len(found_there.runs) == 21
        assert federation.writes == 1
        assert made.publisher is not None
