"""Every loop of the data manager survives a failing item; unreadable records stop nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from mao_datamgmt.manager import DataManager, build
from mao_git import ObjectBroken
from mao_shared import keys
from mao_shared.metrics import Metrics
from mao_shared.models import Alarm, Series, SharedDataset, Webhook
from mao_shared.models.common import Record
from mao_shared.states import StepPhase
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump
from tests.support.loops import check_loop_survives
from tests.support.unreadable import KINDS, corrupt
from tests.support.waiting import eventually

from .world import NODE, run_of, runs_on, settings_for, step, working, writes

pytestmark = pytest.mark.virtual_time

NOW = "2026-01-31T12:00:00Z"


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[DataManager]:
    store = MemoryStore()
    made = build(settings_for(tmp_path), store, store, Metrics())
    mirrors = [
        asyncio.create_task(mirror.run())
        for mirror in (
            made.mirror,
            made.rounds.mirror,
            made.rounds.peer_records.mirror,
            made.rounds.voters.members,
            made.rounds.participation.enrolments,
        )
    ]
    yield made
    for task in mirrors:
        task.cancel()
    await asyncio.gather(*mirrors, return_exceptions=True)
    made.close()


# loop → the part and its method that raises once, what runs it, what wakes it
LOOPS: dict[str, Callable[[DataManager], tuple[object, str, Any, Callable[[], object]]]] = {
    "retention": lambda m: (m.upkeep, "run_once", m.upkeep.run, lambda: None),
    "disk": lambda m: (m.health, "check_disk", m.health.run, lambda: None),
    "outboxes": lambda m: (m.health, "check_outboxes", m.health.run, lambda: None),
    "clones": lambda m: (m.repair, "refresh", m.repair.run, lambda: None),
    "signers": lambda m: (m.signers, "announce", m.signers.run, lambda: None),
    "inbox": lambda m: (m.ingest, "commit_all", m.ingest.run, lambda: None),
    "pusher/data": lambda m: (m.pusher, "_push", m.pusher.run, lambda: m.pusher.schedule_push("data")),
    "federation-answers": lambda m: (m.rounds.health, "check", m.rounds.health.run, lambda: None),
    "parts": lambda m: (m.rounds.participation, "_publish", m.rounds.participation.run, lambda: None),
    "rounds-retention": lambda m: (m.rounds.retention, "once", m.rounds.retention.run, lambda: None),
    "rounds/data": lambda m: (
        m.rounds.controller,
        "reconcile",
        m.rounds.controller.run,
        lambda: m.rounds.controller._controller.add("data"),
    ),
    "announcer/run-1": lambda m: (
        m.rounds.announcer,
        "_collect",
        m.rounds.announcer.run,
        lambda: m.rounds.announcer._controller.add("run-1"),
    ),
    "announcer": lambda m: (
        m.rounds.announcer,
        "_announce_all",
        m.rounds.announcer.run,
        m.rounds.announcer._wake.set,
    ),
    "rounds-passed": lambda m: (
        m.rounds.announcer._watermarks,
        "_update",
        m.rounds.announcer._watermarks.run,
        m.rounds.announcer._watermarks._wake.set,
    ),
}


@pytest.mark.parametrize("loop", LOOPS)
async def test_loop_continues_after_failed_item(
    manager: DataManager, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    part, method, run, poke = LOOPS[loop](manager)
    assert loop in await check_loop_survives(part, method, run, manager.conditions, poke=poke)


async def test_loop_webhooks_failed_delivery_blocks_no_other(manager: DataManager) -> None:
    tried: list[str] = []

    async def deliver(name: str) -> None:
        tried.append(name)
        if name.startswith("bad"):
            raise UnicodeError(name)

    manager.webhooks.controller._reconcile = deliver
    for name in ("bad", "good"):
        fields = b'{"alarm":"%s","webhook":"w","created_at":"%s"}' % (name.encode(), NOW.encode())
        await manager.own.create(keys.delivery(NODE, name, "w"), fields)
    task = asyncio.create_task(manager.webhooks.run())
    await eventually(lambda: {"bad~w", "good~w"} <= set(tried))
    assert [condition.subject for condition in manager.conditions.current()] == ["webhooks/bad~w"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_loop_steps_failed_run_blocks_no_other(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        plain = world.manager._steps.reconcile

        async def stumbles(run_id: str) -> float | None:
            if run_id == "bad":
                raise AttributeError("a bug")
            return await plain(run_id)

        world.manager.controller._reconcile = stumbles
        await world.begin(run_of("bad", step("collect", "other", world.master)))
        await world.whole(run_of("good", step("collect", "data", world.master)), writes(a="1"))
        assert "runs/bad" in [condition.subject for condition in world.manager.conditions.current()]


async def test_loop_retention_failed_dataset_blocks_no_other(
    manager: DataManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    tidied: list[str] = []

    def tidy(_: Any, dataset: str, __: Any) -> None:
        if dataset == "bad":
            raise ObjectBroken("spoilt")
        tidied.append(dataset)

    monkeypatch.setattr("mao_datamgmt.upkeep.tidy", tidy)
    monkeypatch.setattr("mao_datamgmt.upkeep.dataset_names", lambda _: ["a", "bad", "z"])
    await manager.upkeep.run_once()
    assert tidied == ["a", "z"]
    assert [condition.subject for condition in manager.conditions.current()] == ["retention/bad"]
    monkeypatch.setattr("mao_datamgmt.upkeep.dataset_names", lambda _: ["a"])
    await manager.upkeep.run_once()
    assert manager.conditions.current() == []  # the run is gone, and its condition with it


EXAMPLES: dict[str, tuple[type[Record], dict[str, Any]]] = {
    "alarms": (Alarm, {"id": "good", "kind": "spike", "node": NODE, "raised_at": NOW, "detail": "d"}),
    "webhooks": (Webhook, {"name": "good", "url": "http://127.0.0.1:1/", "sealed": "x", "created_at": NOW}),
    "series": (Series, {"pipeline": "p", "step": "s", "metric": "good"}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", EXAMPLES)
async def test_loop_unreadable_record_is_shown_beside_the_others(
    manager: DataManager, what: str, kind: str
) -> None:
    model, fields = EXAMPLES[what]
    prefix = {
        "alarms": keys.alarms_prefix(NODE),
        "webhooks": keys.webhooks_prefix(NODE),
        "series": keys.series_prefix(NODE),
    }[what]
    good = dump(model.model_validate(fields))
    bad = corrupt(good, kind, key_field=model.key_field, enum_field="kind" if what == "alarms" else None)
    await manager.own.create(prefix + "good", good)
    await manager.own.create(prefix + "bad", bad)
    lists: dict[str, Callable[[], Any]] = {
        "alarms": lambda: manager.alarms.list_(False, 10, None),
        "webhooks": manager.webhooks.list_,
        "series": manager.series.page,
    }
    listed = await lists[what]()
    if what == "series" and kind == "another-name":
        return  # a series has its name in three fields
    assert len(listed.items) == 1
    (told,) = listed.unreadable
    assert told.key == prefix + "bad"
    assert [condition.subject for condition in manager.conditions.current()] == [prefix + "bad"]
    if what == "alarms":  # the next one is raised, delivered and retained all the same
        raised = Alarm.model_validate(fields | {"id": "next"})
        assert await manager.alarms.raise_(raised)
        assert await manager.alarms.retain(raised.raised_at, 1) == 1
    if what == "webhooks":
        await manager.webhooks.remove("bad")
        assert (await manager.webhooks.list_()).unreadable == []


@pytest.mark.parametrize("kind", KINDS)
async def test_loop_unreadable_run_or_enrolment_blocks_no_other(tmp_path: Path, kind: str) -> None:
    store = MemoryStore()
    async with working(tmp_path, store) as world:
        bad = await world.begin(run_of("bad", step("collect", "other", world.master)))
        entry = await store.get(keys.run(NODE, "bad"))
        assert entry is not None
        value = corrupt(dump(bad), kind, key_field="id", enum_field="phase")
        await store.replace(entry.key, value, entry.revision)
        await store.create(keys.enrolment(NODE, "bad"), value)
        await world.whole(run_of("good", step("collect", "data", world.master)), writes(a="1"))
        assert await world.manager.sources() == []
        assert await world.manager.metrics_of("data") == []
        await world.manager.upkeep.run_once()
        shown = [condition.subject for condition in world.manager.conditions.current()]
        assert keys.run(NODE, "bad") in shown
        assert not [subject for subject in shown if subject.startswith("runs/")]


@pytest.mark.parametrize("kind", KINDS)
async def test_loop_unreadable_dataset_note_fails_no_run(tmp_path: Path, kind: str) -> None:
    store = MemoryStore()
    noted = dump(SharedDataset(dataset="data"))
    bad = corrupt(noted, kind, key_field=None)
    async with working(tmp_path, store) as world:
        await store.create(keys.shared_prefix(NODE) + "data", bad)
        done = await world.whole(run_of("run-1", step("collect", "data", world.master)), writes(a="1"))
        assert (done.phase, done.error, done.ground_truth) == (StepPhase.SUCCEEDED, None, None)
        assert runs_on(world.master) == ["run-1"]
        await store.delete(keys.shared_prefix(NODE) + "data")
        await world.manager.push_now("data")
        await eventually(lambda: runs_on(world.master, "ground-truth") == ["run-1"])
        assert world.manager.conditions.current() == []
