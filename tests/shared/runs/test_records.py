"""Runs moved to the history keep their document and id, and leave the services' prefix."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mao_shared import keys
from mao_shared.errors import RecordUnreadable
from mao_shared.models.run import CoveredTicks, Run, StepRun, tick_run_id
from mao_shared.runs.listing import ANY, RunQuery, list_newest, past_runs_since
from mao_shared.runs.records import LiveRun, RunRecords, is_settled, pack_run, unpack_run
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store import Entry, Page, Put, Store
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump
from tests.scheduler.samples import step

NODE = "node-1"
START = datetime(2026, 1, 1, tzinfo=UTC)
RUN_ID = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,12}\Z")


def a_run(hour: int, pipeline: str = "crawler", phase: RunPhase = RunPhase.SUCCEEDED, **changes: Any) -> Run:
    tick = START + timedelta(hours=hour)
    fields = {
        "id": tick_run_id(pipeline, NODE, tick),
        "pipeline": pipeline,
        "node": NODE,
        "trigger": "schedule",
        "phase": phase,
        "scheduled_for": tick,
        "schedule": f"{pipeline}-abc123",
        "created_at": tick,
        "finished_at": tick + timedelta(minutes=1),
        "steps": [] if phase is RunPhase.MISSED else [StepRun(spec=step())],
    }
    return Run.model_validate(fields | changes)


async def live(records: RunRecords) -> list[LiveRun]:
    return (await records.live_page(1000, None))[0]


async def settled(records: RunRecords, *runs: Run) -> None:
    for run in runs:
        assert await records.create(run.id, run)
        assert await records.move([stored for stored in await live(records) if stored.run.id == run.id]) == 1


@given(st.lists(RUN_ID, unique=True))
def test_newest_first_is_the_reverse_order_and_keeps_the_id(ids: list[str]) -> None:
    assert [keys.mirrored_run_id(key) for key in sorted(map(keys.newest_first, ids))] == sorted(
        ids, reverse=True
    )


@given(st.binary())
def test_runs_pack_roundtrip_is_byte_identical(document: bytes) -> None:
    assert unpack_run(pack_run(document)) == document


def test_runs_run_takes_a_third_of_its_room() -> None:
    document = dump(a_run(0, steps=[StepRun(spec=step("one")), StepRun(spec=step("two"))]))
    assert len(pack_run(document)) < len(document) / 3


@pytest.mark.parametrize(
    "damage", [lambda p: p[:-3], lambda p: p + b"x", lambda p: b"\x07" + p, lambda p: b""]
)
def test_runs_damaged_pack_is_refused(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ValueError, match="it is"):
        unpack_run(damage(pack_run(dump(a_run(0)))))


STORED = [
    dump(a_run(1)),
    json.dumps({**json.loads(dump(a_run(1))), "of a newer version": {"x": [1.10, None]}}, indent=1).encode(),
    dump(a_run(1)).replace(b'"pipeline"', b'"request_id":"\\u00e9\\/","pipeline"'),
]


@pytest.mark.parametrize("document", STORED)
async def test_runs_history_is_found_by_name_as_it_was(store: Store, document: bytes) -> None:
    records = RunRecords(store, NODE)
    run = a_run(1)
    before = await store.create(keys.run(NODE, run.id), document)
    was = await records.get(run.id)
    assert was is not None
    assert was.revision == before
    assert await records.move(await live(records)) == 1
    assert (await records.page()).items == []
    found = await records.get(run.id)
    assert found is not None
    assert found.record == was.record
    entry = await records.entry(run.id)
    assert entry is not None
    assert unpack_run(entry.value) == document
    assert await records.create(run.id, run) is None  # its tick has been run
    assert await records.get("20260101T000000Z-other-00000000") is None


@pytest.mark.parametrize("apart", [timedelta(0), timedelta(seconds=20), timedelta(days=3)])
@pytest.mark.parametrize("which", [0, 1, 2, None])
async def test_runs_none_of_several_is_there(store: Store, apart: timedelta, which: int | None) -> None:
    """Runs of the same time share one store check against the history; others need one each."""
    records = RunRecords(store, NODE)
    names = ["b", "a", "a-c"]
    runs = [a_run(0, name, scheduled_for=START + number * apart) for number, name in enumerate(names)]
    runs = [
        run.model_copy(update={"id": tick_run_id(run.pipeline, NODE, START + number * apart)})
        for number, run in enumerate(runs)
    ]
    await settled(records, a_run(-1), a_run(80), *(run for number, run in enumerate(runs) if number == which))
    checks = records.absent(*(run.id for run in runs))
    assert len(checks) == (6 if apart > timedelta(minutes=1) else 4)
    puts = [Put(records.prefix + run.id, dump(run)) for run in runs]
    assert (await store.transact(checks, puts) is None) is (which is not None)
    assert (await store.transact(records.absent(runs[0].id), puts[:1]) is None) is (which in (0, None))


async def test_runs_run_that_is_written_again_comes_back(store: Store) -> None:
    records = RunRecords(store, NODE)
    missed = a_run(1, phase=RunPhase.MISSED, missed="late")
    await settled(records, missed, a_run(2))
    stored = await records.get(missed.id)
    assert stored is not None
    again = stored.record.move(RunPhase.QUEUED, missed=None, finished_at=None)
    assert await records.replace(missed.id, again, stored.revision - 1) is None
    written = await records.replace(missed.id, again, stored.revision)
    assert [run.run for run in await live(records)] == [again]
    found = await records.get(missed.id)
    assert found is not None
    assert (found.record, found.revision) == (again, written)
    assert [run.id for run in (await records.index_page(10, None))[0]] == [a_run(2).id]
    assert await records.replace(missed.id, again, stored.revision) is None


async def test_runs_retention_keeps_concurrently_changed_run(store: Store) -> None:
    records = RunRecords(store, NODE)
    runs = [a_run(hour) for hour in range(3)]
    for run in runs:
        await records.create(run.id, run)
    seen = await live(records)
    changed = runs[1].model_copy(update={"reason": "looked at again"})
    assert await records.replace(runs[1].id, changed, seen[1].entry.revision)
    assert await records.move(seen) == 2
    assert [r.run for r in await live(records)] == [changed]


async def test_runs_recreated_by_older_version_keeps_the_later(store: Store) -> None:
    records = RunRecords(store, NODE)
    missed, done = a_run(1, phase=RunPhase.MISSED, missed="late"), a_run(1)
    await settled(records, missed)
    await store.create(keys.run(NODE, done.id), dump(done))
    found = await records.get(done.id)
    assert found is not None
    assert found.record == done
    for query in (ANY, RunQuery(pipeline="crawler")):
        page = await list_newest(records, 10, None, query)
        assert [stored.record for stored in page.items] == [done]
    assert await records.move(await live(records)) == 1
    page = await list_newest(records, 10)
    assert [stored.record for stored in page.items] == [done]
    assert [run.phase for run in (await records.index_page(10, None))[0]] == [RunPhase.SUCCEEDED]


async def test_runs_removed_with_its_index(store: Store) -> None:
    records = RunRecords(store, NODE)
    await settled(records, *(a_run(hour, phase) for hour in range(3) for phase in ("a", "b")))
    indexed, _ = await records.index_page(100, None)
    assert await records.remove([run for run in indexed if run.pipeline == "a"]) == 3
    assert await records.remove(indexed) == 3
    assert (await store.list(keys.runs_root(NODE))).entries == []


async def test_runs_unreadable_record_is_named(store: Store) -> None:
    records = RunRecords(store, NODE)
    await settled(records, a_run(1), a_run(2))
    entry = await records.entry(a_run(1).id)
    assert entry is not None
    await store.transact([], [Put(entry.key, entry.value[:-9])])
    with pytest.raises(RecordUnreadable, match="damaged"):
        await records.get(a_run(1).id)
    for query in (ANY, RunQuery(pipeline="crawler")):
        page = await list_newest(records, 10, None, query)
        assert [item.record.id for item in page.items] == [a_run(2).id]
        assert [records.name(broken.key) for broken in page.unreadable] == [a_run(1).id]


@pytest.mark.parametrize(
    ("changes", "is_so"),
    [
        ({}, True),
        ({"phase": RunPhase.RUNNING}, False),
        ({"phase": RunPhase.QUEUED}, False),
        ({"phase": RunPhase.MISSED, "steps": []}, True),
        ({"finished_at": START + timedelta(minutes=55)}, False),
        ({"finished_at": START + timedelta(days=900)}, True),  # of a clock that was wrong
        ({"steps": [StepRun(spec=step(), phase=StepPhase.SUCCEEDED, snapshot="c", pushed=False)]}, False),
        ({"steps": [StepRun(spec=step(), phase=StepPhase.SUCCEEDED, snapshot="c", pushed=True)]}, True),
        ({"steps": [StepRun(spec=step(), phase=StepPhase.FAILED, snapshot="c")]}, True),
    ],
)
def test_runs_settled(changes: dict[str, Any], is_so: bool) -> None:
    now = START + timedelta(hours=1)
    assert is_settled(a_run(0, **changes), now, timedelta(minutes=10)) is is_so


# lists

PIPELINES = ("crawler", "crawler-2", "z")
PHASES = (RunPhase.SUCCEEDED, RunPhase.FAILED, RunPhase.MISSED)


async def a_node(store: Store, seed: int) -> tuple[RunRecords, list[Run]]:
    """Create about sixty runs, many in the same second, some in the history; return them newest first."""
    chance = random.Random(seed)
    records = RunRecords(store, NODE)
    runs = [
        a_run(hour, pipeline, chance.choice(PHASES))
        for hour in range(20)
        for pipeline in PIPELINES
        if chance.random() < 0.8
    ]
    runs.append(a_run(30, phase=RunPhase.RUNNING, finished_at=None))
    covers = CoveredTicks(since=START, until=START + timedelta(hours=3), count=4)
    runs.append(a_run(31, phase=RunPhase.MISSED, covers=covers))
    for run in runs:
        await records.create(run.id, run)
    past = [r for r in await live(records) if r.run.phase in PHASES and chance.random() < 0.7]
    for at in range(0, len(past), 20):
        await records.move(past[at : at + 20])
    return records, sorted(runs, key=lambda run: run.id, reverse=True)


QUERIES = [
    ANY,
    RunQuery(pipeline="crawler"),
    RunQuery(pipeline="nobody"),
    RunQuery(phase=RunPhase.FAILED),
    RunQuery(phase=RunPhase.RUNNING),
    RunQuery(phase=RunPhase.LOST),
    RunQuery(pipeline="z", phase=RunPhase.MISSED),
    RunQuery(matches=lambda run: run.schedule == "crawler-2-abc123"),
    RunQuery(matches=lambda run: run.covers is not None),
    RunQuery(since=START + timedelta(hours=4), until=START + timedelta(hours=9)),
    RunQuery(phase=RunPhase.SUCCEEDED, until=START + timedelta(hours=9)),
    RunQuery(pipeline="crawler", since=START + timedelta(hours=17)),
]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("limit", [1, 7, 500])
async def test_runs_list_is_the_same_wherever_the_runs_are(store: Store, query: RunQuery, limit: int) -> None:
    records, runs = await a_node(store, seed=limit)
    ends = (query.since or START, query.until or START + timedelta(days=9))
    wanted = [run for run in runs if query.wants(run) and ends[0] <= (run.scheduled_for or START) <= ends[1]]
    found: list[Run] = []
    cursor = None
    while True:
        page = await list_newest(records, limit, cursor, query)
        assert len(page.items) <= limit
        found += [stored.record for stored in page.items]
        cursor = page.cursor
        if cursor is None:
            break
        moving = [r for r in await live(records) if r.run.phase in PHASES][:3]
        await records.move(moving)  # between two pages
    assert found == wanted


async def test_runs_filter_without_a_match_reads_no_document_of_the_history(memory: CountingStore) -> None:
    records = RunRecords(memory, NODE)
    for hour in range(300):
        await records.create(a_run(hour).id, a_run(hour))
    runs = await live(records)
    for at in range(0, 300, 30):
        await records.move(runs[at : at + 30])
    for query in (
        RunQuery(phase=RunPhase.LOST),
        RunQuery(pipeline="other"),
        RunQuery(pipeline="crawler", phase=RunPhase.FAILED),
    ):
        memory.entries = 0
        assert (await list_newest(records, 50, None, query)).items == []
        assert memory.entries == 0
    memory.entries = 0
    assert len((await list_newest(records, 50, None, RunQuery(phase=RunPhase.SUCCEEDED))).items) == 50
    assert memory.entries < 300  # a page of the index and the documents that were asked for


async def test_runs_history_since_a_moment(store: Store) -> None:
    records = RunRecords(store, NODE)
    await settled(records, *(a_run(hour, pipeline) for hour in range(4) for pipeline in ("a", "b")))
    found = [run.id async for run in past_runs_since(records, START + timedelta(hours=2))]
    wanted = [a_run(hour, pipeline).id for hour in (2, 3) for pipeline in ("a", "b")]
    assert found == sorted(wanted, reverse=True)


class CountingStore(MemoryStore):
    """A store that counts the entries it returns."""

    entries = 0

    async def get(self, key: str) -> Entry | None:
        found = await super().get(key)
        self.entries += found is not None
        return found

    async def list(
        self, prefix: str, *, limit: int | None = None, cursor: str | None = None, newest_first: bool = False
    ) -> Page:
        page = await super().list(prefix, limit=limit, cursor=cursor, newest_first=newest_first)
        self.entries += len(page.entries)
        return page


@pytest.fixture
def memory() -> CountingStore:
    return CountingStore()
