"""A node's copies of its federation's records."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from mao_shared import keys
from mao_shared.federation import replica, replicator
from mao_shared.models import Contact
from mao_shared.store import Entry
from tests.support.waiting import eventually, eventually_answers

from .world import NODE, TOOLS, A, World, copied, put, tool


async def test_replicator_copies_follow_changes_and_deletions(world: World) -> None:
    await world.join()
    await world.there.create(A, tool("a"))
    await world.there.create(keys.round("d", "1"), b"{}")
    await world.there.create(keys.peer_runs("other", "p"), b"{}")
    await world.there.create(keys.part("other", "d"), b"{}")
    await world.there.create(keys.announcement("other", "d", "1"), b"{}")
    await copied(world, "a")
    await world.there.delete(A)
    await copied(world)
    kept = (await world.store.replica.list("")).entries
    assert [entry.key for entry in kept] == [keys.part("other", "d"), keys.peer_runs("other", "p")]


async def test_replicator_copies_of_a_federation_that_was_left_are_gone(world: World) -> None:
    await world.there.create(A, tool("a"))
    await world.join()
    await copied(world, "a")
    await world.leave()
    await eventually(
        lambda: not [key for key in world.own._entries if key.startswith(keys.known_prefix(NODE))]
    )
    assert await world.own.get(keys.contact(NODE)) is None


async def test_replicator_somebody_elses_write_to_a_copy_is_set_right(world: World) -> None:
    await world.there.create(A, tool("a"))
    await world.join()
    await copied(world, "a")
    key = keys.known_prefix(NODE) + A
    there = await world.own.get(key)
    assert there is not None
    await world.own.replace(key, b"1\nold", there.revision)
    await put(world, A, b"new")
    await eventually(lambda: world.own._entries[key].value.endswith(b"\nnew"))


async def test_replicator_copy_that_is_none_is_set_right(world: World) -> None:
    await world.there.create(A, tool("a"))
    await world.own.create(keys.known_prefix(NODE) + A, b"nothing of ours")
    await world.join()

    async def right() -> bool:
        entry = await world.store.replica.get(A)
        return entry is not None and entry.value == tool("a")

    await eventually_answers(right)


async def test_replicator_contact_tells_since_when_and_why_it_is_away(world: World) -> None:
    await world.join()
    await copied(world)
    world.there.away = True

    async def told() -> bool:
        contact, _ = await world.store.replica.read_contact()
        return contact is not None and not contact.reachable

    await eventually_answers(told)
    contact, _ = await world.store.replica.read_contact()
    assert contact is not None
    assert contact.away_since is not None
    assert "away" in contact.reason
    assert contact.as_of is not None
    assert contact.as_of <= contact.away_since


async def test_replicator_what_others_write_has_a_size_and_a_budget(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = 2 * len(A) + replica.OVERHEAD + 1000
    monkeypatch.setattr(replica, "MAX_RECORD_BYTES", large)
    monkeypatch.setattr(
        replicator, "quota_prefixes", lambda key: [(TOOLS if key.startswith(TOOLS) else "", 2 * large)]
    )
    await world.join()
    names = ("a", "b", "c")
    for name in names:
        await world.there.create(keys.registry("tools", name), bytes(1000))
    await copied(world, "a", "b")
    await put(world, A, bytes(1001))
    await copied(world, "b")
    await world.there.create(keys.registry("tools", "d"), b"small")
    await copied(world, "b", "d")
    await world.there.delete(keys.registry("tools", "c"))
    await world.there.create(keys.registry("tools", "c"), bytes(900))
    await world.there.create(keys.member("m"), b"{}")

    async def there() -> bool:
        return await world.store.replica.get(keys.member("m")) is not None

    await eventually_answers(there)
    await copied(world, "b", "d")


def holds(world: World, key: str, value: bytes) -> bool:
    entry = world.own._entries.get(keys.known_prefix(NODE) + key)
    return entry is not None and entry.value.endswith(b"\n" + value)


async def contact_is(world: World, right: Callable[[Contact], bool]) -> None:
    async def told() -> bool:
        contact, _ = await world.store.replica.read_contact()
        return contact is not None and right(contact)

    await eventually_answers(told)


async def passed(world: World) -> None:
    """Wait until every write so far is copied."""
    key = keys.peer_runs(f"other-{len(world.there._entries)}", "p")
    await put(world, key, b"{}")
    await eventually(lambda: holds(world, key, b"{}"))


async def test_replicator_copies_constantly_rewritten_record_at_intervals(world: World) -> None:
    await world.join()
    for i in range(50):
        await put(world, A, f"{i}".encode())
    await passed(world)
    last = replica.BURST - 1
    assert holds(world, A, f"{last}".encode())
    world.seconds += replica.GAP
    await eventually(lambda: holds(world, A, b"49"))
    written = [event.entry.value for event in world.own._history if event.key.endswith(A) and event.entry]
    texts = [value.partition(b"\n")[2].decode() for value in written]
    assert texts == [*map(str, range(replica.BURST)), "49"]


async def test_replicator_writes_held_records_on_outage(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "BURST", 1)
    await world.join()
    await put(world, A, b"0")
    await put(world, A, b"1")
    await passed(world)
    assert holds(world, A, b"0")
    world.there.away = True
    await eventually(lambda: holds(world, A, b"1"))


async def test_replicator_deletion_discards_held_record(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "BURST", 1)
    await world.join()
    await put(world, A, b"0")
    await copied(world, "a")
    await put(world, A, b"1")
    await world.there.delete(A)
    await copied(world)
    await put(world, A, b"2")
    await passed(world)
    assert not holds(world, A, b"2")
    world.seconds += replica.GAP
    await eventually(lambda: holds(world, A, b"2"))


async def test_replicator_contact_vouches_for_no_more_than_all_copies(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "BURST", 1)
    await world.join()
    first = await put(world, A, b"0")
    await contact_is(world, lambda contact: contact.revision >= first)
    changed = await put(world, A, b"1")
    await passed(world)
    world.seconds += 10
    held = timedelta(seconds=10)
    await contact_is(world, lambda told: told.as_of is not None and datetime.now(UTC) - told.as_of >= held)
    await contact_is(world, lambda contact: contact.revision == changed - 1)
    world.seconds += replica.GAP
    await contact_is(world, lambda contact: contact.revision > changed)


async def test_replicator_limits_bytes_per_node_and_hour(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "MAX_BYTES_PER_NODE", 20_000)
    monkeypatch.setattr(replica, "REWRITES", 1)
    await world.join()
    runs = [keys.peer_runs("flood", f"p{i}") for i in range(10)]
    for key in runs:
        await put(world, key, bytes(1000))
    await passed(world)
    world.seconds += replica.GAP
    news = [await put(world, key, bytes(1001)) for key in runs]
    await passed(world)
    taken = [holds(world, key, bytes(1001)) for key in runs]
    assert taken == [True] * 4 + [False] * 6
    world.seconds += replica.HOUR - replica.GAP - 1
    await passed(world)
    assert [holds(world, key, bytes(1001)) for key in runs] == taken
    await contact_is(world, lambda contact: contact.revision == news[4] - 1)
    world.seconds += 1
    await eventually(lambda: all(holds(world, key, bytes(1001)) for key in runs))
    await contact_is(world, lambda contact: contact.revision > news[-1])


async def test_replicator_copies_node_status_up_to_read_limit(world: World) -> None:
    await world.join()
    await put(world, keys.peer_runs("other", "p"), bytes(replica.MAX_PEER_RECORD_BYTES))
    await passed(world)
    assert await world.store.replica.get(keys.peer_runs("other", "p")) is None


@pytest.mark.parametrize("names", [1, 50])
def test_replicator_rewrites_stay_within_store_limit(names: int) -> None:
    pace, hours, written = replica.ReplicationBudget(), 2, 0
    large = bytes(900_000)
    kept = [keys.registry("tools", f"t{i}") for i in range(names)]
    for step in range(hours * 7200):  # twice a second
        now = step / 2
        entry = Entry(kept[step % names], large, step + 1)
        for waiting in (entry, *pace.due(now)):
            written += len(waiting.value) if pace.admit(waiting, now) else 0
        if pace.wants_listing(now):
            pace.begin_listing()
    assert written <= hours * replica.REWRITES * replica.MAX_COPIED_BYTES
    assert written <= 150_000_000 * hours or names > 1
    assert pace.lacking is not None
