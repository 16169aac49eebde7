"""Nodes that were not seen for long are reported, and only while the federation answers."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mao_registry.peers.silent import FIRST_CHECK_SECONDS, SilentNodes, silent_nodes
from mao_registry.records.stores import Repositories
from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.errors import Unavailable
from mao_shared.models import Identity, Member, PeerNode
from mao_shared.reconcile import background
from mao_shared.service.alarms import INHERITED_SECONDS
from mao_shared.store import dump
from mao_shared.store.memory import MemoryStore
from tests.scheduler.samples import ManualClock
from tests.shared.federation.world import NODE, World

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def identity(node: str, **changes: Any) -> Identity:
    fields: dict[str, Any] = {"state": "joined", "joined_at": NOW - 48 * HOUR, "user": node, "role": "client"}
    return Identity.model_validate({"node": node, "invited_at": NOW - 49 * HOUR, **fields, **changes})


@pytest.mark.parametrize(
    ("changes", "present", "seen", "silent"),
    [
        ({}, [], NOW - 2 * HOUR, True),
        ({}, [], NOW - HOUR / 2, False),
        ({}, [], None, True),
        ({"joined_at": NOW}, [], None, False),
        ({}, ["other"], NOW - 2 * HOUR, False),
        ({"state": "removed"}, [], NOW - 2 * HOUR, False),
        ({"state": "invited", "joined_at": None}, [], None, False),
    ],
)
def test_silent_nodes_are_joined_absent_and_not_seen(
    changes: dict[str, Any], present: list[str], seen: datetime | None, silent: bool
) -> None:
    last = {} if seen is None else {"other": seen}
    assert bool(silent_nodes([identity("other", **changes)], present, last, NOW, HOUR)) is silent


async def test_silent_nodes_condition_ends_when_the_node_is_back() -> None:
    shared, conditions, clock = MemoryStore(), Conditions(), ManualClock(NOW)
    for one in (identity("node-1"), identity("node-2"), identity("node-3")):
        await shared.create(keys.identity(one.node), dump(one))
    seen = PeerNode(version="1", seen_at=NOW - 2 * HOUR)
    for node in ("node-2", "node-3"):
        await shared.create(keys.peer_node(node), dump(seen))
    await shared.create(keys.peer_node("node-1"), b"not json")
    silent = SilentNodes(Repositories("node-1", shared, MemoryStore()), clock, 3600, conditions)
    member = Member(name="node-3", version="1", started_at=NOW)
    await shared.create(keys.member("node-3"), dump(member))
    await silent.check()
    assert [(found.name, found.subject) for found in conditions.current()] == [("node-silent", "node-2")]
    await shared.create(keys.member("node-2"), dump(member.model_copy(update={"name": "node-2"})))
    await silent.check()
    assert conditions.current() == []


async def test_silent_nodes_stay_reported_while_the_federation_is_away(tmp_path: Path) -> None:
    world = World(tmp_path)
    conditions, clock = Conditions(), ManualClock(NOW)
    async with background(world.store.run()):
        assert await world.store.alone()
        await world.join()
        await world.there.create(keys.identity("node-2"), dump(identity("node-2")))
        silent = SilentNodes(Repositories(NODE, world.store, world.own), clock, 3600, conditions)
        await silent.check()
        world.there.away = True
        for _ in range(2):  # the first call finds out that it is away
            with suppress(Unavailable):
                await silent.check()
            assert [found.subject for found in conditions.current()] == ["node-2"]
    await world.store.close()


def test_silent_nodes_are_checked_before_open_alarms_end() -> None:
    assert FIRST_CHECK_SECONDS < INHERITED_SECONDS


async def test_silent_nodes_of_a_node_without_federation_are_none() -> None:
    store, conditions = MemoryStore(), Conditions()
    await store.create(keys.identity("node-2"), dump(identity("node-2")))
    await SilentNodes(Repositories("node-1", store, store), ManualClock(NOW), 1, conditions).check()
    assert conditions.current() == []
