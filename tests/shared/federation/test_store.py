"""The switching store of a node that joins, loses, regains and leaves a federation."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mao_shared import keys
from mao_shared.errors import (
    FederationUnavailable,
    InvalidInput,
    NodeRemoved,
    StoreSwitched,
    StoreUnavailable,
    Unauthorized,
    UserUnknown,
)
from mao_shared.federation import FederationFiles, FederationStore, store
from mao_shared.models import Tool
from mao_shared.reconcile import Mirror, Session, background
from mao_shared.request_context import track_staleness
from mao_shared.store import Put, Records
from mao_shared.store.memory import MemoryStore
from tests.support.stores import UnknownOutcomeStore
from tests.support.waiting import eventually, eventually_answers

from .world import NODE, TOOLS, A, World, copied, link, tool

# --- switching --------------------------------------------------------------------------------------------


async def test_federation_node_alone_is_its_own_federation(world: World) -> None:
    await world.store.create(A, b"1")
    assert world.store.is_own
    assert await world.own.get(A) == await world.store.get(A) is not None
    assert not world.opened


async def test_federation_with_a_link_the_records_are_the_federations(world: World) -> None:
    await world.store.create(A, b"mine")
    await world.there.create(A, b"ours")
    await world.join()
    entry = await world.store.get(A)
    assert entry is not None
    assert entry.value == b"ours"
    assert world.opened[0]["endpoints"] == "alps:2379"
    assert world.opened[0]["tls"].key.read_text() == "certificate\nkey\n"
    await world.leave()
    entry = await world.store.get(A)
    assert entry is not None
    assert entry.value == b"mine"


async def test_federation_first_call_goes_by_the_link_that_is_there(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.write_link(link())
    await world.there.create(A, b"ours")
    assert await world.store.get(A) is not None, "nothing follows the link yet"
    await world.store.close()


async def test_federation_without_node_store_uses_no_other(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.own.away = True
    with pytest.raises(StoreUnavailable) as refused:
        await world.store.create(A, b"1")
    assert refused.value.code == "store-unavailable"


async def test_federation_switch_ends_a_running_watch_and_tells_its_subscribers(world: World) -> None:
    told: list[str] = []
    world.store.on_switch(lambda: told.append(world.store.name))
    await world.own.create(A, b"1")

    async def follow() -> None:
        async with aclosing(world.store.watch(TOOLS, after=0)) as watch:
            async for _ in watch:
                seen.set()

    seen = asyncio.Event()
    watching = asyncio.create_task(follow())
    await seen.wait()
    await world.join()
    with pytest.raises(StoreSwitched):
        await watching
    assert told == ["alps-1"]


async def test_federation_watch_goes_on_when_only_the_way_there_has_changed(world: World) -> None:
    await world.join()
    values: list[bytes] = []

    async def follow() -> None:
        async with aclosing(world.store.watch(TOOLS, after=0)) as watch:
            async for batch in watch:
                values.extend(event.entry.value for event in batch if event.entry)

    watching = asyncio.create_task(follow())
    await world.there.create(A, b"1")
    await eventually(lambda: values)
    await world.write_link(link(generation=2))
    await eventually(lambda: len(world.opened) == 2)
    await world.there.create(keys.registry("tools", "b"), b"2")
    await eventually(lambda: len(values) == 2)
    watching.cancel()
    assert values == [b"1", b"2"]


async def test_federation_watch_does_not_begin_at_the_revision_of_another_store(world: World) -> None:
    page = await world.store.list(TOOLS)
    await world.join()
    with pytest.raises(StoreSwitched):
        async with aclosing(world.store.watch(TOOLS, after=page.revision)) as watch:
            await anext(watch)


async def test_federation_guard_read_in_another_store_is_a_lost_race(world: World) -> None:
    await world.there.create(A, b"ours")
    revision = await world.store.create(A, b"mine")
    entry = await world.store.get(A)
    assert entry is not None
    assert revision == entry.revision == 2
    await world.join()
    assert await world.store.replace(A, b"new", entry.revision) is None, "by chance the same revision"
    entry = await world.store.get(A)
    assert entry is not None
    assert await world.store.replace(A, b"new", entry.revision) is not None


async def test_federation_listing_does_not_go_on_in_another_store(world: World) -> None:
    for name in ("a", "b"):
        await world.store.create(keys.registry("tools", name), tool(name))
    page = await world.store.list(TOOLS, limit=1)
    await world.join()
    with pytest.raises(StoreSwitched):
        await world.store.list(TOOLS, limit=1, cursor=page.cursor)


async def test_federation_mirror_holds_the_other_stores_records_after_a_switch(world: World) -> None:
    await world.own.create(A, tool("a"))
    await world.there.create(keys.registry("tools", "b"), tool("b"))
    mirror = Mirror(Records(world.store, TOOLS, Tool))
    async with background(mirror.run()):
        await eventually(lambda: mirror.get("a"))
        await world.join()
        await eventually(lambda: mirror.get("b") and not mirror.get("a"))
        await world.leave()
        await eventually(lambda: mirror.get("a") and not mirror.get("b"))


async def test_federation_session_announces_in_the_other_store(world: World) -> None:
    async def announce(lease: int) -> None:
        await world.store.create(keys.member(NODE), b"{}", lease=lease)

    async with Session(world.store, 5, announce, interval=60) as session:
        world.store.on_switch(session.restart_lease)
        await session.held.wait()
        await world.join()
        await eventually(lambda: keys.member(NODE) in world.there._entries)


async def test_federation_without_its_certificate_the_node_says_so(world: World) -> None:
    world.store.files.remove_identity()
    await world.join()
    with pytest.raises(FederationUnavailable, match=r"ca\.pem"):
        await world.store.create(A, b"1")
    world.store.files.write_identity(ca="ca", certificate="certificate", key="key")
    await eventually(lambda: world.store.reachable)
    assert await world.store.create(A, b"1")


# --- the federation is away -------------------------------------------------------------------------------


async def test_federation_probes_each_outage_quickly(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    await world.write_link(link())
    await world.store.ping()
    world.there.away = True
    pauses: list[list[float]] = []
    for generation in (2, 3):
        with pytest.raises(FederationUnavailable):
            await world.store.ping()
        pauses.append([await world.store._probe() for _ in range(6)])
        world.store._resolver._move(link(generation))  # as when the link names other core nodes
        assert world.store.reachable
    assert all(first <= 2 * store.PROBE_BACKOFF.initial < last for first, *_, last in pauses)
    await world.store.close()


async def test_federation_reads_are_answered_from_copies_that_tell_their_age(world: World) -> None:
    await world.there.create(A, tool("a"))
    await world.join()
    await copied(world, "a")
    there = await world.there.get(A)
    world.there.away = True
    with track_staleness() as moments:
        assert await world.store.get(A) == there, "with the revision it has there: a guard holds"
        page = await world.store.list(TOOLS)
    assert page.entries == [there]
    assert len(moments) == 2
    assert (datetime.now(UTC) - moments[0]).total_seconds() < 10


async def test_federation_silent_federation_is_not_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.there.create(A, tool("a"))
    await world.join()
    await copied(world, "a")
    monkeypatch.setattr(store, "READ_TIMEOUT", 0.01)
    world.there.silent.set()
    assert await world.store.get(A) is not None
    assert not world.store.reachable or world.store.as_of, "the probe may have found it already"


async def test_federation_all_pages_of_a_listing_come_from_the_copies(world: World) -> None:
    for name in ("a", "b", "c"):
        await world.there.create(keys.registry("tools", name), tool(name))
    await world.join()
    await copied(world, "a", "b", "c")
    world.there.away = True
    page = await world.store.list(TOOLS, limit=2)
    rest = await world.store.list(TOOLS, limit=2, cursor=page.cursor)
    assert [entry.key[-1] for entry in [*page.entries, *rest.entries]] == ["a", "b", "c"]
    world.there.away = False
    await eventually(lambda: world.store.reachable)
    with pytest.raises(StoreSwitched):
        await world.store.list(TOOLS, limit=2, cursor=page.cursor)
    with pytest.raises(InvalidInput):
        await world.store.list(TOOLS, limit=2, cursor="x")


async def test_federation_writes_are_refused_at_once(world: World) -> None:
    await world.join()
    world.there.away = True
    with pytest.raises(FederationUnavailable):
        await world.store.create(A, b"1")
    calls, began = world.there.calls, time.monotonic()
    for _ in range(100):
        with pytest.raises(FederationUnavailable) as refused:
            await world.store.create(A, b"1")
    assert time.monotonic() - began < 50, "each that waits for the federation takes a second"
    assert world.there.calls - calls < 20, "the probes alone ask it"
    assert refused.value.code == "federation-unavailable"
    assert refused.value.retry_after


@pytest.mark.parametrize("key", [keys.round("d", "1"), keys.announcement(NODE, "d", "1"), keys.all_peers()])
async def test_federation_rounds_are_never_read_from_replica(world: World, key: str) -> None:
    await world.join()
    await copied(world)
    world.there.away = True
    with pytest.raises(FederationUnavailable):
        await world.store.get(key)
    with pytest.raises(FederationUnavailable):
        await world.store.list(key)


async def test_federation_without_copies_a_read_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.write_link(link())
    world.there.away = True
    with pytest.raises(FederationUnavailable):
        await world.store.get(A)
    await world.store.close()


async def test_federation_is_found_again_and_the_copies_converge(world: World) -> None:
    await world.there.create(A, tool("a"))
    await world.join()
    await copied(world, "a")
    world.there.away = True
    await eventually(lambda: not world.store.reachable)
    await MemoryStore.transact(world.there, [], [Put(keys.registry("tools", "b"), tool("b"))])
    world.there.away = False
    await eventually(lambda: world.store.reachable)
    await copied(world, "a", "b")


async def test_federation_node_that_is_not_let_in_any_more_is_told_so(world: World) -> None:
    await world.there.create(A, tool("a"))
    await world.join()
    await copied(world, "a")
    world.there.error = Unauthorized("Its certificate expired.", next="Join again.")
    assert await world.store.get(A) is not None
    with pytest.raises(FederationUnavailable, match="certificate expired") as refused:
        await world.store.create(A, b"1")
    assert (refused.value.next, world.store.removed) == ("Join again.", False)


async def test_federation_removed_node_keeps_the_error_during_outage(
    world: World,
) -> None:
    await world.there.create(A, tool("a"))
    await world.join()
    await copied(world, "a")
    world.there.away = True
    with pytest.raises(FederationUnavailable) as silent:
        await world.store.create(A, b"1")
    assert not isinstance(silent.value, NodeRemoved), "silence proves nothing"
    world.there.error = UserUnknown("There is no user n@1.")
    await eventually(lambda: world.store.removed)
    world.there.error = None  # away still
    with track_staleness() as ages:
        assert await world.store.get(A) is not None
    assert ages.removed_from == "alps"
    with pytest.raises(NodeRemoved, match="removed from 'alps'") as refused:
        await world.store.create(A, b"1")
    assert "federation leave" in str(refused.value.next)

    async def told() -> bool:
        contact = await world.store.replica.contact("alps-1")
        return contact is not None and contact.removed and "leave" in contact.next

    await eventually_answers(told)
    world.there.away = False
    await eventually(lambda: world.store.reachable)
    assert not world.store.removed, "it was let in again"


async def test_federation_unknown_write_stays_unknown(tmp_path: Path) -> None:
    unsure = UnknownOutcomeStore(1)
    store = FederationStore(MemoryStore(), NODE, FederationFiles(tmp_path), fixed=unsure)
    with pytest.raises(Exception, match="got lost") as raised:
        await store.create(A, b"1")
    assert raised.value.code == "store-unknown"  # type: ignore[attr-defined]
