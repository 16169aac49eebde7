"""The store while etcd is killed, hangs, compacts and returns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from functools import partial
from typing import TypeVar

import pytest

from mao_shared.errors import StoreUnavailable, StoreUnknown, Unavailable
from mao_shared.models.common import Record
from mao_shared.reconcile import Mirror
from mao_shared.store import Batch, Event, Records, Store, open_store
from tests.support.etcd import EtcdServer, running_etcd
from tests.support.ports import free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.etcd
T = TypeVar("T")

SECONDS = 15.0
CALL_DEADLINE = 0.5  # seconds


class Note(Record):
    text: str


@pytest.fixture(scope="module")
def mortal_etcd() -> Iterator[EtcdServer]:
    """Yield an etcd of this module only, running at the start of each test."""
    with running_etcd() as server:
        yield server


@pytest.fixture
async def store(mortal_etcd: EtcdServer) -> AsyncIterator[Store]:
    mortal_etcd.wipe()
    store = open_store(mortal_etcd.endpoints, deadline=CALL_DEADLINE)
    yield store
    await store.close()


async def answered(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat a call while the store is unavailable, and return its result."""
    async with asyncio.timeout(SECONDS):
        while True:
            with suppress(StoreUnavailable):
                return await call()
            await asyncio.sleep(0.02)


async def gather_events(watch: AsyncGenerator[Batch, None], into: list[Event], last: str) -> None:
    """Collect the events of a watch up to that of the key `last`."""
    async with asyncio.timeout(SECONDS), aclosing(watch):
        async for batch in watch:
            into += batch
            if batch[-1].key == last:
                return


async def make_notes(store: Store, *names: str) -> int:
    """Write notes and return the revision of the last one."""
    revisions = [await Records(store, "/a/", Note).create(name, Note(text="")) for name in names]
    assert revisions[-1] is not None
    return revisions[-1]


@contextmanager
def elsewhere(server: EtcdServer) -> Iterator[None]:
    """Run etcd on another port for the block, hidden from clients of the usual one."""
    usual = server.port
    for port in (free_port(), usual):
        server.kill()
        server.port = port
        server.start()
        if port != usual:
            yield


async def test_outage_calls_fail_fast_while_etcd_is_dead_and_work_once_it_is_back(
    store: Store, mortal_etcd: EtcdServer
) -> None:
    await store.create("/a/1", b"before")
    mortal_etcd.kill()
    for call in (lambda: store.get("/a/1"), lambda: store.list("/a/"), store.ping, lambda: store.grant(5)):
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await call()
        assert time.monotonic() - began < CALL_DEADLINE + 20
    with pytest.raises(StoreUnavailable):
        await store.create("/a/2", b"")
    mortal_etcd.start()
    began = time.monotonic()
    entry = await answered(lambda: store.get("/a/1"))
    assert time.monotonic() - began < 30
    assert entry is not None
    assert entry.value == b"before"
    assert await store.create("/a/2", b"") is not None


async def test_outage_watch_resumes_after_kills_with_nothing_lost_or_doubled(
    store: Store, mortal_etcd: EtcdServer
) -> None:
    start = (await store.list("/a/")).revision
    events: list[Event] = []
    watching = asyncio.create_task(gather_events(store.watch("/a/", after=start), events, last="/a/end"))
    made = []
    for life in range(2):
        for n in range(20):
            made.append(f"/a/{life}-{n}")
            assert await answered(partial(store.create, made[-1], b"")) is not None
        if life:  # once with the watch in the middle of it, once with it up to date
            await eventually(lambda: len(events) == len(made))
        mortal_etcd.kill()
        mortal_etcd.start()
    await answered(lambda: store.create("/a/end", b""))
    await watching
    assert [event.key for event in events] == [*made, "/a/end"]


async def test_outage_write_to_a_frozen_etcd_is_unknown_and_reading_tells_later(
    store: Store, mortal_etcd: EtcdServer
) -> None:
    await answered(store.ping)
    mortal_etcd.freeze()
    try:
        with pytest.raises(StoreUnknown):
            await store.create("/a/1", b"x")
        with pytest.raises(StoreUnavailable):
            await store.get("/a/1")
    finally:
        mortal_etcd.thaw()
    before = await answered(lambda: store.get("/a/1"))
    again = await store.create("/a/1", b"y")  # the first may be applied even after a read that found nothing
    entry = await store.get("/a/1")
    assert entry is not None
    assert entry.value == (b"x" if again is None else b"y")
    assert before in (None, entry)


async def test_outage_write_cut_off_by_a_kill_is_unknown(store: Store, mortal_etcd: EtcdServer) -> None:
    await answered(store.ping)
    mortal_etcd.freeze()
    writing = asyncio.create_task(store.create("/a/1", b"x"))
    await asyncio.sleep(0)  # lets it send
    mortal_etcd.kill()
    try:
        with pytest.raises(Unavailable):
            await writing
    finally:
        mortal_etcd.start()
    assert await answered(lambda: store.get("/a/1")) is None


async def test_outage_mirror_lists_again_after_a_compaction_during_the_outage(
    store: Store, mortal_etcd: EtcdServer
) -> None:
    await make_notes(store, "stays", "goes")
    mirror = Mirror(Records(store, "/a/", Note))
    told: list[str] = []
    mirror.subscribe(told.append)
    running = asyncio.create_task(mirror.run())
    await asyncio.wait_for(mirror.synced.wait(), SECONDS)
    with elsewhere(mortal_etcd):
        other = open_store(mortal_etcd.endpoints)
        await other.delete("/a/goes")
        mortal_etcd.compact(await make_notes(other, "new"))
        await other.close()
    await eventually(lambda: {name for name, _ in mirror.items()} == {"stays", "new"}, SECONDS)
    assert told == ["goes", "stays", "new", "goes"]
    running.cancel()


async def test_outage_second_endpoint_answers_when_the_first_is_dead(mortal_etcd: EtcdServer) -> None:
    store = open_store(f"127.0.0.1:{free_port()}, {mortal_etcd.endpoints}", deadline=CALL_DEADLINE)
    assert await store.create("/b/1", b"") is not None
    start = (await store.list("/b/")).revision
    events: list[Event] = []
    watching = asyncio.create_task(gather_events(store.watch("/b/", after=start), events, last="/b/2"))
    await store.create("/b/2", b"")
    await watching
    await store.close()
