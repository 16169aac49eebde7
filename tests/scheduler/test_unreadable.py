"""With unreadable records, lists answer, other pipelines continue, and no tick is lost or run twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import pytest

from mao_scheduler.app import make_app
from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.models import Record, Retry, Schedule, TickMark
from mao_shared.models.run import Turn
from mao_shared.models.schedule import Forgotten
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store import Records, dump
from mao_shared.store.memory import MemoryStore
from tests.support.unreadable import KINDS, corrupt
from tests.support.waiting import eventually

from .harness import (
    all_runs,
    finish_step,
    knows,
    mark,
    put,
    run_records,
    scheduler,
    settings,
    wait_phase,
    wait_run,
)
from .samples import NODE, START, ManualClock, enrolment, schedule

GOOD, BAD = schedule(pipeline="good"), schedule(pipeline="bad")


async def spoil(
    store: MemoryStore, key: str, kind: str, record: Record, enum_field: str | None = None
) -> None:
    """Overwrite the value of the key with something unreadable."""
    value = corrupt(dump(record), kind, key_field=type(record).key_field, enum_field=enum_field)
    entry = await store.get(key)
    if entry is None:
        await store.create(key, value)
    else:
        await store.replace(key, value, entry.revision)


def shown(conditions: Conditions) -> list[str]:
    return [condition.subject for condition in conditions.current() if condition.name == "record-unreadable"]


@asynccontextmanager
async def api(store: MemoryStore) -> AsyncIterator[httpx.AsyncClient]:
    app = make_app(settings(), store=store)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://scheduler") as client,
    ):
        yield client


async def start(store: MemoryStore, *plans: Schedule) -> None:
    await put(store, *(enrolment(plan.pipeline, overlap="queue") for plan in plans), *plans)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "another-name"])
async def test_marks_unreadable_mark_is_derived_from_runs(clock: ManualClock, kind: str) -> None:
    store = MemoryStore()
    await start(store, GOOD, BAD)
    async with scheduler(store, clock) as made:
        await knows(made, GOOD, BAD)
        for _ in range(5):
            clock.turn(minutes=1)
            await made.timer.record_due_ticks()
        await made.timer.save()
    before = await all_runs(store)
    await spoil(store, keys.tick(NODE, BAD.id), kind, TickMark(decided_until=clock.now()))
    spoilt_value = await store.get(keys.tick(NODE, BAD.id))
    for _ in range(3):  # restarts
        clock.turn(minutes=1)
        async with scheduler(store, clock) as made:
            await knows(made, GOOD, BAD)
            await made.timer.record_due_ticks()
            await made.timer.save()
            assert shown(made.conditions) == [keys.tick(NODE, BAD.id)]
            (told,) = made.conditions.current()
            assert keys.tick(NODE, BAD.id) in told.next
    assert await store.get(keys.tick(NODE, BAD.id)) == spoilt_value
    runs = await all_runs(store)
    assert [
        run for run in runs if run.scheduled_for and run.scheduled_for <= START + timedelta(minutes=5)
    ] == before
    assert Counter(run.pipeline for run in runs) == {"good": 8, "bad": 8}
    assert all(run.phase is RunPhase.QUEUED for run in runs)
    await store.delete(keys.tick(NODE, BAD.id))  # the operator's way out
    async with scheduler(store, clock) as made:
        await knows(made, GOOD, BAD)
        clock.turn(minutes=1)
        await made.timer.record_due_ticks()
        await made.timer.save()
        assert shown(made.conditions) == []
    assert await mark(store, BAD.id) is not None


@pytest.mark.parametrize("forgotten", [True, False])
async def test_marks_unreadable_mark_after_retention_runs_nothing_twice(
    clock: ManualClock, forgotten: bool
) -> None:
    store = MemoryStore()
    plan = BAD.model_copy(update={"catch_up": "all"})
    await start(store, plan)
    async with scheduler(store, clock) as made:
        await knows(made, plan)
        for _ in range(6):
            clock.turn(minutes=1)
            await made.timer.record_due_ticks()
        await made.timer.save()
    runs = await all_runs(store)
    gone = runs if forgotten else runs[:4]  # as by retention
    if forgotten:
        await store.create(keys.forgotten(NODE, "bad"), dump(Forgotten(until=clock.now())))
    for run in gone:
        await run_records(store).delete(run.id)
    await spoil(store, keys.tick(NODE, plan.id), "truncated", TickMark(decided_until=clock.now()))
    async with scheduler(store, clock) as made:
        await knows(made, plan)
        await made.timer.record_due_ticks()
        assert [run.id for run in await all_runs(store)] == [run.id for run in runs if run not in gone]
        clock.turn(minutes=1)
        await made.timer.record_due_ticks()
    assert len(await all_runs(store)) == len(runs) - len(gone) + 1


async def test_marks_keep_unknown_fields(clock: ManualClock) -> None:
    store = MemoryStore()
    await start(store, GOOD)
    newer = (
        b'{"decided_until": "2026-11-24T07:00:00Z", "format": 2, "why": {"by": ["x", null]}, "none": null}'
    )
    await store.create(keys.tick(NODE, GOOD.id), newer)
    async with scheduler(store, clock) as made:
        await knows(made, GOOD)
        clock.turn(minutes=1)
        await made.timer.record_due_ticks()
        await made.timer.save()
    entry = await store.get(keys.tick(NODE, GOOD.id))
    assert entry is not None
    assert entry.value == newer.replace(b"07:00:00", b"07:01:00").replace(b": ", b":").replace(b", ", b",")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["schedule", "enrolment"])
async def test_scheduler_unreadable_record_does_not_stop_other_pipelines(
    clock: ManualClock, what: str, kind: str
) -> None:
    store = MemoryStore()
    await start(store, GOOD, BAD)
    key = keys.schedule(NODE, BAD.id) if what == "schedule" else keys.enrolment(NODE, "bad")
    record: Record = BAD if what == "schedule" else enrolment("bad")
    await spoil(store, key, kind, record, "overlap")
    async with scheduler(store, clock) as made:
        await knows(made, GOOD)
        for _ in range(3):
            clock.turn(minutes=1)
            await made.timer.prepare_ticks()
            await made.timer.record_due_ticks()
        assert key in shown(made.conditions)
        assert Counter(run.pipeline for run in await all_runs(store)) == {"good": 3}
        entry = await store.get(key)
        assert entry is not None
        await store.replace(key, dump(record), entry.revision)  # it is well again: no tick was lost
        await knows(made, GOOD, BAD)
        await eventually(lambda: made.enrolments.get("bad") is not None)
        made.timer._guard._until.clear()
        await made.timer.record_due_ticks()
        assert made.conditions.current() == []
    assert Counter(run.pipeline for run in await all_runs(store)) == {"good": 3, "bad": 3}


@pytest.mark.parametrize("kind", KINDS)
async def test_run_unreadable_is_listed_and_others_go_on(clock: ManualClock, kind: str) -> None:
    store = MemoryStore()
    await start(store, GOOD, BAD)
    async with scheduler(store, clock, leads=True) as made:
        await knows(made, GOOD, BAD)
        clock.turn(minutes=1)
        await made.timer.record_due_ticks()
        good, bad = sorted(await all_runs(store), key=lambda run: run.pipeline != "good")
        await wait_phase(store, bad.id, RunPhase.RUNNING)
        await spoil(store, keys.run(NODE, bad.id), kind, bad, "phase")
        await eventually(lambda: made.run_mirror.is_set_aside(bad.id))
        await wait_phase(store, good.id, RunPhase.RUNNING)
        await finish_step(store, good.id, clock)
        await wait_phase(store, good.id, RunPhase.SUCCEEDED)
        await made.timer.save()
    for plan in (GOOD, BAD):  # the app's clock would find ticks
        await store.delete(keys.schedule(NODE, plan.id))
    async with api(store) as client:
        answer = await client.get("/runs")
        assert answer.status_code == 200
        assert [item["id"] for item in answer.json()["items"]] == [good.id]
        (told,) = answer.json()["unreadable"]
        assert told["name"] == bad.id
        assert told["unreadable"]
        assert f"etcdctl del {keys.run(NODE, bad.id)}" in told["next"]
        single = await client.get(f"/runs/{bad.id}")
        assert (single.status_code, single.json()["code"]) == (409, "record-unreadable")
        assert (await client.get("/jobs")).status_code == 200


@pytest.mark.parametrize("kind", KINDS)
async def test_job_unreadable_is_listed_refused_and_removed(kind: str) -> None:
    store = MemoryStore()
    await start(store, GOOD, BAD)
    await spoil(store, keys.schedule(NODE, BAD.id), kind, BAD, "catch_up")
    await store.create(keys.tick(NODE, BAD.id), b"")
    async with api(store) as client:
        listed = (await client.get("/jobs")).json()
        assert [item["id"] for item in listed["items"]] == [GOOD.id]
        assert [item["name"] for item in listed["unreadable"]] == [BAD.id]
        assert f"maoctl job remove {BAD.id}" in listed["unreadable"][0]["next"]
        for verb in ("pause", "resume"):
            assert (await client.post(f"/jobs/{BAD.id}/{verb}")).status_code == 409
        assert (await client.get(f"/jobs/{BAD.id}")).status_code == 409
        assert (await client.delete(f"/jobs/{BAD.id}")).status_code == 200
        assert "unreadable" not in (await client.get("/jobs")).json()
    assert await store.get(keys.schedule(NODE, BAD.id)) is None
    assert await store.get(keys.tick(NODE, BAD.id)) is None


@pytest.mark.parametrize("kind", KINDS)
async def test_turns_unreadable_turn_does_not_block_runs(clock: ManualClock, kind: str) -> None:
    store = MemoryStore()
    await start(store, BAD)
    await spoil(store, keys.turn(NODE, "bad"), kind, Turn(run="r"))
    async with scheduler(store, clock, leads=True) as made:
        await knows(made, BAD)
        clock.turn(minutes=1)
        await made.timer.record_due_ticks()
        (run,) = await all_runs(store)
        await wait_phase(store, run.id, RunPhase.RUNNING)


@pytest.mark.parametrize(
    ("phase", "starts"), [("succeeded", True), ("running", False), ("unheard-of", False)]
)
async def test_turns_unreadable_run_holds_turn_unless_ended(
    clock: ManualClock, phase: str, starts: bool
) -> None:
    store = MemoryStore()
    await start(store, BAD)
    await store.create(keys.turn(NODE, "bad"), dump(Turn(run="old")))
    await store.create(keys.run(NODE, "old"), b'{"id": "old", "phase": "%s"}' % phase.encode())
    async with scheduler(store, clock, leads=True) as made:
        await knows(made, BAD)
        clock.turn(minutes=1)
        await made.timer.record_due_ticks()
        (run,) = [r for r in await all_runs(store) if r.id != "old"]
        if not starts:
            assert (
                await made.controller._turns.start(run.model_copy(update={"phase": RunPhase.RUNNING}), 1)
                is None
            )
            await store.delete(keys.run(NODE, "old"))  # the operator gives it up
        await wait_phase(store, run.id, RunPhase.RUNNING)


async def test_retention_keeps_runs_of_unreadable_mark_or_schedule(clock: ManualClock) -> None:
    store = MemoryStore()
    await start(store, GOOD, BAD)
    async with scheduler(store, clock) as made:
        await knows(made, GOOD, BAD)
        for _ in range(3):
            clock.turn(minutes=1)
            await made.timer.record_due_ticks()
        await made.timer.save()
    records = run_records(store)
    for stored in await records.all():
        over = stored.record.model_copy(update={"phase": RunPhase.FAILED, "finished_at": clock.now()})
        await records.replace(over.id, over, stored.revision)
    clock.turn(days=1000)
    for key in (keys.tick(NODE, BAD.id), keys.schedule(NODE, BAD.id)):
        entry = await store.get(key)
        assert entry is not None
        await store.replace(key, b"{", entry.revision)
        await _sweep(store, clock)
        assert Counter(run.pipeline for run in await all_runs(store))["bad"] == 3
    assert Counter(run.pipeline for run in await all_runs(store)) == {"bad": 3}


async def _sweep(store: MemoryStore, clock: ManualClock) -> None:
    async with scheduler(store, clock) as made:
        await made.retention.sweep()


async def test_retention_unreadable_record_does_not_stop_other_pipelines(clock: ManualClock) -> None:
    store = MemoryStore()
    await start(store, GOOD, BAD)
    async with scheduler(store, clock) as made:
        await knows(made, GOOD, BAD)
        clock.turn(minutes=1)
        await made.timer.record_due_ticks()
        await made.timer.save()
    records = run_records(store)
    for stored in await records.all():
        over = stored.record.model_copy(update={"phase": RunPhase.FAILED, "finished_at": clock.now()})
        await records.replace(over.id, over, stored.revision)
    await store.create(keys.forgotten(NODE, "bad"), b"[]")
    for plan in (GOOD, BAD):
        await store.delete(keys.schedule(NODE, plan.id))
    clock.turn(days=1000)
    async with scheduler(store, clock) as made:
        await made.retention.sweep()
        assert "retention/bad" in [condition.subject for condition in made.conditions.current()]
    assert [run.pipeline for run in await all_runs(store)] == ["bad"]
    assert await Records(store, keys.forgotten_prefix(NODE), Forgotten).get("good") is not None


async def test_scheduler_keeps_unknown_fields_in_all_writes(
    clock: ManualClock,
) -> None:
    store = MemoryStore()
    known = enrolment("good", steps=2, retry=Retry(attempts=2, on=["tool"]))
    document = json.loads(dump(known))
    for step in document["steps"]:
        step["newer"] = step["image"]["newer"] = {"x": None}
    await store.create(keys.enrolment(NODE, "good"), json.dumps(document).encode())
    job = json.loads(dump(GOOD)) | {"newer": 1, "format": 2}
    await store.create(keys.schedule(NODE, GOOD.id), json.dumps(job).encode())
    await store.create(keys.turn(NODE, "good"), b'{"run": "none", "newer": 1}')
    async with scheduler(store, clock, leads=True) as made:
        await eventually(lambda: made.schedules.get(GOOD.id) is not None)
        clock.turn(minutes=1)
        await made.timer.record_due_ticks()
        await made.jobs.pause(GOOD.id)
        await made.jobs.resume(GOOD.id)
        (run,) = await all_runs(store)
        await wait_phase(store, run.id, RunPhase.RUNNING)
        records = run_records(store)
        stored = await records.get(run.id)
        assert stored is not None
        lost = stored.record.steps[0].model_copy(update={"phase": StepPhase.FAILED})
        newer = json.loads(dump(stored.record.with_step(0, lost)))
        newer["steps"][0]["of_the_step"] = newer["of_the_run"] = [None]
        newer["steps"][0]["error"] = {"code": "c", "detail": "d", "fault": "tool"}
        await store.replace(keys.run(NODE, run.id), json.dumps(newer).encode(), stored.revision)
        await wait_run(store, run.id, lambda seen: seen.steps[0].attempt == 2)
        await made.runs.cancel(run.id, "enough")
    entry = await store.get(keys.run(NODE, run.id))
    assert entry is not None
    assert entry.value.count(b'"newer":{"x":null}') == 4
    for text in (b'"of_the_step":[null]', b'"of_the_run":[null]'):
        assert entry.value.count(text) == 1
    for key, text in (
        (keys.schedule(NODE, GOOD.id), b'"newer":1,"format":2'),
        (keys.turn(NODE, "good"), b'"newer":1'),
    ):
        entry = await store.get(key)
        assert entry is not None
        assert text in entry.value
