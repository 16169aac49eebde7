"""The stream of run changes: start, resume, gaps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

import httpx
import pytest

from mao_gateway.events import parse_last_event_id, revision_now, run_changes, run_events, to_events
from mao_shared.clients.responses import ServerEvent, read_events_async
from mao_shared.errors import InvalidInput, StoreUnavailable
from mao_shared.keys import past_run, run, run_index, schedule
from mao_shared.runs.records import RunRecords
from mao_shared.states import RunPhase
from mao_shared.store import Entry, Event, Store
from mao_shared.store.memory import MemoryStore
from tests.scheduler.samples import run as a_run
from tests.support.services import serving

from .conftest import Open, gateway

NODE = "node-1"


async def write(store: Store, run_id: str) -> None:
    key, value = run(NODE, run_id), f'{{"id":"{run_id}"}}'.encode()
    assert await store.create(key, value) is not None


async def take(store: Store, after: int, count: int) -> list[tuple[str | None, str | None, str | None]]:
    found = []
    async with asyncio.timeout(60), aclosing(run_events(store, NODE, after)) as events:
        async for event in events:
            found.append((event.event, event.id, event.raw_data))
            if len(found) == count:
                break
    return found


async def test_events_runs_only(store: MemoryStore) -> None:
    begin = await revision_now(store, NODE)
    await store.create(schedule(NODE, "s"), b"{}")
    await write(store, "r-1")
    await store.delete(run(NODE, "r-1"))
    assert await take(store, begin, 3) == [
        ("begin", "1", '{"revision": 1}'),
        ("run", "3", '{"id":"r-1"}'),
        ("run-removed", "4", '{"id": "r-1"}'),
    ]


async def test_events_resume(store: MemoryStore) -> None:
    for number in range(3):
        await write(store, f"r-{number}")
    assert [event[2] for event in await take(store, 3, 2)] == ['{"revision": 3}', '{"id":"r-2"}']


def test_events_id_on_last_of_revision() -> None:
    batch = [
        Event(run(NODE, name), revision, Entry("", b"{}", revision))
        for name, revision in (("a", 5), ("b", 5), ("c", 6))
    ]
    assert [event.id for event in to_events(batch)] == [None, "5", "6"]


def test_events_empty_batch() -> None:
    moved = [
        Event(run(NODE, "a"), 5, None),
        Event(past_run(NODE, "a"), 5, Entry("", b"", 5)),
        Event(run_index(NODE, "failed", "p", "a"), 5, Entry("", b"", 5)),
    ]
    assert to_events(run_changes(moved, NODE)) == []


async def test_events_after_compaction(store: MemoryStore) -> None:
    for number in range(3):
        await write(store, f"r-{number}")
    store.compact(4)
    began, gone = await take(store, 1, 2)
    assert (began[0], gone[0], gone[1]) == ("begin", "gone", "4")
    assert "GET /runs" in str(gone[2])


class DyingStore(MemoryStore):
    """A store whose watches end with an outage."""

    def watch(self, prefix: str, *, after: int) -> AsyncGenerator[list[Event], None]:
        raise StoreUnavailable("etcd is away")


async def test_events_end_on_outage() -> None:
    assert [event.event async for event in run_events(DyingStore(), NODE, 1)] == ["begin"]


@pytest.mark.parametrize("sent", ["x", "-1", "1.5", "٣", "1" * 30])
def test_last_event_id_invalid(sent: str) -> None:
    with pytest.raises(InvalidInput):
        parse_last_event_id(sent)


@pytest.mark.parametrize(("sent", "after"), [(None, None), ("", None), ("12", 12)])
def test_last_event_id(sent: str | None, after: int | None) -> None:
    assert parse_last_event_id(sent) == after


async def test_events_error_before_stream_is_problem(open_gateway: Open) -> None:
    async with open_gateway() as client:
        answer = await client.get("/events", headers={"last-event-id": "x"})
    assert (answer.status_code, answer.json()["code"]) == (422, "last-event-id-invalid")


async def read(answer: httpx.Response, count: int) -> list[ServerEvent]:
    found: list[ServerEvent] = []
    async with asyncio.timeout(60):
        async for event in read_events_async(answer.aiter_lines()):
            found.append(event)
            if len(found) == count:
                return found
    return found


async def test_events_over_http_and_etcd(etcd_store: Store) -> None:
    app = gateway(etcd_store, {})
    async with serving(app) as url, httpx.AsyncClient() as client:
        async with client.stream("GET", f"{url}/events") as answer:
            await write(etcd_store, "r-1")
            began, changed = await read(answer, 2)
        async with client.stream("GET", f"{url}/events", headers={"last-event-id": str(began.id)}) as answer:
            again = await read(answer, 2)
    assert (changed.event, changed.data) == ("run", '{"id":"r-1"}')
    assert again[1] == changed


async def test_events_history_is_not_removal(
    store: MemoryStore,
) -> None:
    records = RunRecords(store, NODE)
    made = a_run("r-1", phase=RunPhase.MISSED)
    await records.create("r-1", made)
    await records.create("r-2", a_run("r-2"))
    begin = await revision_now(store, NODE)
    await records.move((await records.live_page(9, None))[0])
    stored = await records.get("r-1")
    assert stored is not None
    await records.replace("r-1", made.model_copy(update={"phase": RunPhase.QUEUED}), stored.revision)
    await records.remove((await records.index_page(9, None))[0])
    await write(store, "r-3")
    _, *events = await take(store, begin, 4)
    assert [(name, json.loads(data or "")["id"]) for name, _, data in events] == [
        ("run", "r-1"),
        ("run-removed", "r-2"),
        ("run", "r-3"),
    ]


@pytest.mark.parametrize("value", [b"\xff", b"", b"{", b"[]", b"null", b"[" * 50_000])
def test_events_unreadable_run(value: bytes) -> None:
    names = {"a": b'{"id":"a"}', "bad": value, "z": b'{"id":"z"}'}
    batch = [
        Event(run("n", name), at, Entry(run("n", name), content, at))
        for at, (name, content) in enumerate(names.items(), 1)
    ]
    events = to_events(batch)
    assert [event.event for event in events] == ["run", "run-unreadable", "run"]
    told = json.loads(events[1].raw_data or "")
    assert told["id"] == "bad"
    assert told["unreadable"]
