"""The copies that a node keeps of its federation's records."""

from __future__ import annotations

import pytest

from mao_shared import keys
from mao_shared.federation import known
from tests.support.waiting import eventually, eventually_answers

from .world import NODE, A, World, copied, tool


async def test_copies_follow_changes_and_deletions(world: World) -> None:
    await world.join()
    await world.there.create(A, tool("a"))
    await world.there.create(keys.round("d", "1"), b"{}")
    await world.there.create(keys.peer_runs("other", "p"), b"{}")
    await copied(world, "a")
    await world.there.delete(A)
    await copied(world)
    kept = (await world.store.copies.list("")).entries
    assert [entry.key for entry in kept] == [keys.peer_runs("other", "p")]


async def test_copies_of_a_federation_that_was_left_are_gone(world: World) -> None:
    await world.there.create(A, tool("a"))
    await world.join()
    await copied(world, "a")
    await world.leave()
    await eventually(
        lambda: not [key for key in world.own._entries if key.startswith(keys.known_prefix(NODE))]
    )
    assert await world.own.get(keys.contact(NODE)) is None


async def test_somebody_elses_write_to_a_copy_is_set_right(world: World) -> None:
    await world.there.create(A, tool("a"))
    await world.join()
    await copied(world, "a")
    key = keys.known_prefix(NODE) + A
    there = await world.own.get(key)
    assert there is not None
    await world.own.replace(key, b"1\nold", there.revision)
    entry = await world.there.get(A)
    assert entry is not None
    await world.there.replace(A, b"new", entry.revision)
    await eventually(lambda: world.own._entries[key].value.endswith(b"\nnew"))


async def test_a_copy_that_is_none_is_set_right(world: World) -> None:
    await world.there.create(A, tool("a"))
    await world.own.create(keys.known_prefix(NODE) + A, b"nothing of ours")
    await world.join()

    async def right() -> bool:
        entry = await world.store.copies.get(A)
        return entry is not None and entry.value == tool("a")

    await eventually_answers(right)


async def test_the_contact_tells_since_when_and_why_it_is_away(world: World) -> None:
    await world.join()
    await copied(world)
    world.there.away = True

    async def told() -> bool:
        contact, _ = await world.store.copies.read_contact()
        return contact is not None and not contact.reachable

    await eventually_answers(told)
    contact, _ = await world.store.copies.read_contact()
    assert contact is not None
    assert contact.away_since is not None
    assert "away" in contact.reason
    assert contact.as_of is not None
    assert contact.as_of <= contact.away_since


async def test_what_others_write_has_a_size_and_a_budget(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = len(A) + known.OVERHEAD + 1000
    monkeypatch.setattr(known, "LARGEST", large)
    monkeypatch.setattr(known, "MOST", 2 * large)
    await world.join()
    names = ("a", "b", "c")
    for name in names:
        await world.there.create(keys.registry("tools", name), bytes(1000))
    await copied(world, "a", "b")
    entry = await world.there.get(A)
    assert entry is not None
    await world.there.replace(A, bytes(1001), entry.revision)
    await copied(world, "b")
    await world.there.create(keys.registry("tools", "d"), b"small")
    await copied(world, "b", "d")
    await world.there.delete(keys.registry("tools", "c"))
    await world.there.create(keys.registry("tools", "c"), bytes(900))
    await world.there.create(keys.member("m"), b"{}")

    async def there() -> bool:
        return await world.store.copies.get(keys.member("m")) is not None

    await eventually_answers(there)
    await copied(world, "b", "d")
