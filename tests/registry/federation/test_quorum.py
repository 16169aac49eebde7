"""The condition `quorum`: an unreachable federation, and a node in none."""

from __future__ import annotations

from pathlib import Path

import pytest

from mao_registry.federation.status import check_quorum
from mao_registry.settings import RegistrySettings
from mao_shared.conditions import Conditions
from mao_shared.errors import Unavailable
from mao_shared.federation import FederationStore, federation_store
from mao_shared.reconcile import background
from mao_shared.store.memory import MemoryStore
from tests.registry.conftest import NODE
from tests.support.stores import UnavailableStore
from tests.support.waiting import eventually


def store_of(root: Path, federation: UnavailableStore | MemoryStore, own: MemoryStore) -> FederationStore:
    return federation_store(RegistrySettings(node=NODE, data_dir=root), own, given=federation)


async def test_quorum_condition_while_federation_is_away(tmp_path: Path) -> None:
    there, conditions = UnavailableStore(), Conditions()
    federation = store_of(tmp_path, there, MemoryStore())
    await federation.ping()
    await check_quorum(federation, conditions)
    assert conditions.current() == []
    there.away = True
    with pytest.raises(Unavailable):
        await federation.ping()
    await check_quorum(federation, conditions)
    [told] = conditions.current()
    assert (told.name, told.subject, told.state) == ("quorum", "", "degraded")
    assert told.detail
    assert told.next
    there.away = False
    async with background(federation.run()):
        await eventually(lambda: federation.reachable)
    await check_quorum(federation, conditions)
    assert conditions.current() == []
    await federation.close()


async def test_quorum_condition_absent_without_federation(tmp_path: Path) -> None:
    own, conditions = UnavailableStore(), Conditions()
    federation = store_of(tmp_path, own, own)
    await federation.ping()
    await check_quorum(federation, conditions)
    assert conditions.current() == []
    await federation.close()
