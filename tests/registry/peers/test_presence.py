"""The presence of nodes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import httpx
import pytest

from mao_registry.peers import presence
from mao_registry.peers.presence import Presence
from mao_registry.records.stores import Repositories
from mao_registry.settings import RegistrySettings, parse_labels
from mao_shared import keys
from mao_shared.errors import PeerUnavailable
from mao_shared.models import Member
from mao_shared.models.node import EngineInfo
from mao_shared.store import Store
from mao_shared.store.memory import MemoryStore
from tests.registry.conftest import NODE, serving
from tests.registry.doubles import WillingServices

MEMBER = Member(name="n", version="1", labels={"zone": "ch"}, started_at=datetime(2026, 1, 1, tzinfo=UTC))


async def _member(store: Store, name: str = "n", *, slots: int = 4) -> Member:
    """Wait until the member has this many slots."""
    repositories = Repositories(name, store, store)
    async with asyncio.timeout(60):
        after = (await store.list(keys.members_prefix())).revision
        stored = await repositories.members.get(name)
        if stored is None or stored.record.slots != slots:
            async for batch in store.watch(keys.members_prefix(), after=after):
                for event in batch:
                    if (
                        event.entry
                        and (member := repositories.members.parse(event.entry).record).slots == slots
                    ):
                        return member
        assert stored is not None
        return stored.record


async def test_presence_while_running(store: Store) -> None:
    async with serving(store, WillingServices()) as api:
        await _member(store, NODE)
        [member] = (await api.get("/registry/nodes")).json()["items"]
        assert (member["name"], member["slots"], member["cpus"], member["memory"]) == (NODE, 4, 2, 2**30)
        one = await api.get(f"/registry/nodes/{NODE}")
        assert one.json() == member
        refused = await api.delete(f"/registry/nodes/{NODE}")
        assert (refused.status_code, refused.json()["code"]) == (409, "node-present")
        assert "Stop that node" in refused.json()["next"]
    if isinstance(store, MemoryStore):
        assert await store.get(keys.member(NODE)) is None


class LateServices(WillingServices):
    """The runner answers the second call only."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    async def engine(self) -> EngineInfo:
        self.looks += 1
        if self.looks == 1:
            raise PeerUnavailable("The runner is not reachable.")
        return await super().engine()


async def test_presence_capacity_after_runner_answers(
    memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "CAPACITY_RETRY", 0.01)
    task = asyncio.create_task(Presence(Repositories("n", memory, memory), LateServices(), MEMBER, 15).run())
    assert (await _member(memory)).labels == {"zone": "ch"}
    task.cancel()
    await asyncio.wait([task])
    assert await memory.get(keys.member("n")) is None


async def test_presence_restored_after_lost_lease_or_record(
    memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "REFRESH_PERIOD", 0.01)
    task = asyncio.create_task(
        Presence(Repositories("n", memory, memory), WillingServices(), MEMBER, 1).run()
    )
    await _member(memory)

    seen = memory.revision
    await memory.delete(keys.member("n"))
    await _created_again(memory, seen)

    seen = memory.revision
    for lease in list(memory._leases):
        await memory.revoke(lease)
    await _created_again(memory, seen)
    task.cancel()
    await asyncio.wait([task])


async def _created_again(store: MemoryStore, after: int) -> None:
    gone = False
    async with asyncio.timeout(60):
        async for batch in store.watch(keys.member("n"), after=after):
            for event in batch:
                if event.entry is not None and gone:
                    return
                gone = gone or event.entry is None


async def test_presence_replaces_record_of_earlier_process(memory: MemoryStore) -> None:
    repositories = Repositories("n", memory, memory)
    await repositories.members.create("n", MEMBER.model_copy(update={"version": "0"}))
    await Presence(repositories, WillingServices(), MEMBER, 15).announce(await memory.grant(15))
    stored = await repositories.members.get("n")
    assert stored is not None
    assert stored.record == MEMBER


def test_labels_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAO_LABELS", "zone=ch, disk=ssd,")
    assert RegistrySettings(node="n").labels == {"zone": "ch", "disk": "ssd"}


@pytest.mark.parametrize("text", ["zone", "=ch"])
def test_labels_without_name_are_invalid(text: str) -> None:
    with pytest.raises(ValueError, match="MAO_LABELS"):
        parse_labels(text)


async def test_node_removal_updates_datasets(quick_api: httpx.AsyncClient) -> None:
    for name in ("a", "b"):
        body = {"name": name, "master": f"/{name}.git", "nodes": ["far", "near"]}
        await quick_api.post("/registry/datasets", json=body)
    assert (await quick_api.delete("/registry/nodes/far")).status_code == 200
    for name in ("a", "b"):
        assert (await quick_api.get(f"/registry/datasets/{name}")).json()["nodes"] == ["near"]
