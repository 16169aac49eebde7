"""A node's own store, a federation's, and the switching store between them, on fake stores."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mao_shared import keys
from mao_shared.federation import FederationFiles, FederationStore
from mao_shared.models import Link, Tool
from mao_shared.store import Check, Put, Store
from mao_shared.store.records import dump
from tests.support.stores import UnavailableStore
from tests.support.waiting import eventually, eventually_answers

NODE = "n"
TOOLS = keys.registry_prefix("tools")
A = keys.registry("tools", "a")


def link(generation: int = 1, name: str = "alps") -> Link:
    return Link(
        federation=name,
        id=f"{name}-1",
        node=NODE,
        user="n@1",
        endpoints=[f"{name}:2379"],
        joined_at=datetime.now(UTC),
        generation=generation,
    )


class World:
    """A node's own store, federations by address, and the switching store between them."""

    def __init__(self, directory: Path) -> None:
        self.own = UnavailableStore()
        self.there = UnavailableStore()
        self.seconds = 0.0  # the clock that paces the copies
        self.opened: list[dict[str, Any]] = []
        files = FederationFiles(directory / "federation")
        files.write_identity(ca="ca", certificate="certificate", key="key")
        self.store = FederationStore(self.own, NODE, files, opener=self.open)

    def open(self, endpoints: str, **how: Any) -> Store:
        self.opened.append({"endpoints": endpoints, **how})
        return self.there

    async def join(self, new: Link | None = None) -> None:
        await self.write_link(new or link())
        await eventually(lambda: not self.store.is_own and self.store.link is not None)

    async def write_link(self, new: Link) -> None:
        there = await self.own.get(keys.link(NODE))
        guard = Check(keys.link(NODE), there.revision if there else 0)
        assert await self.own.transact([guard], [Put(keys.link(NODE), dump(new))])

    async def leave(self) -> None:
        await self.own.delete(keys.link(NODE))
        await eventually(lambda: self.store.is_own)


async def put(world: World, key: str, value: bytes) -> int:
    """Write a record of the federation unconditionally and return its revision."""
    entry = await world.there.get(key)
    revision = await world.there.replace(key, value, entry.revision if entry else 0)
    assert revision
    return revision


async def copied(world: World, *names: str) -> None:
    """Wait until the copies are complete and consist of these tools."""
    wanted = {keys.registry("tools", name) for name in names}

    async def there() -> bool:
        contact = await world.store.replica.contact(world.store.name)
        page = await world.store.replica.list(TOOLS)
        return contact is not None and {entry.key for entry in page.entries} == wanted

    await eventually_answers(there)


def tool(name: str) -> bytes:
    return dump(Tool(name=name, image=f"{name}:1"))
