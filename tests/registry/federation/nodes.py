"""Federation nodes in this process: their registries' controllers, and real etcds with TLS."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mao_node.preflight import note_etcd_version
from mao_node.processes import ProcessSpec
from mao_node.supervise import ConfiguredProcess
from mao_registry.federation.context import EtcdAddress, FederationContext, FederationRecords
from mao_registry.federation.files import RegistryFiles
from mao_registry.federation.lifecycle import Lifecycle
from mao_registry.peers.presence import Presence
from mao_registry.records.stores import Repositories
from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.federation import FederationFiles, FederationStore
from mao_shared.federation.replicator import Replicator
from mao_shared.models import Dataset, Identity, Joined, Member, Tool
from mao_shared.reconcile import background
from mao_shared.store import Records, Store, open_admin, open_store
from mao_shared.store.endpoints import TlsFiles
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump
from tests.registry.doubles import WillingServices
from tests.support.ports import free_port

PATIENCE = 40.0  # timeout of every wait, in seconds
OpenStore = Callable[[str, TlsFiles], Store]


class NoClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


class Node:
    """A node with only its registry; its own store is in memory, its etcd member is real.

    `etcd` is the program to run; `own` and `address` are those of the node that it replaces.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        etcd: str = "etcd",
        *,
        own: MemoryStore | None = None,
        address: EtcdAddress | None = None,
    ) -> None:
        self.name = name
        self.own = MemoryStore() if own is None else own
        self.files = RegistryFiles(root / name)
        self.address = EtcdAddress("127.0.0.1", free_port(), free_port()) if address is None else address
        self.told = asyncio.Event()
        self.context = self.context_with(lambda endpoints, tls: open_store(endpoints, tls=tls))
        self.federation = FederationStore(self.own, name, FederationFiles(self.files.directory))
        self.conditions = Conditions()
        self.lifecycle = Lifecycle(self.context, self.federation, self.conditions)
        note_etcd_version(etcd, self.files.directory)
        argv = [etcd, f"--config-file={self.files.etcd_config}"]
        spec = ProcessSpec("federation-etcd", argv, [], dict(os.environ), config=self.files.etcd_config)
        self.etcd = ConfiguredProcess(spec, self.files.etcd_config, self.told)
        self._running = AsyncExitStack()

    def context_with(self, opener: OpenStore) -> FederationContext:
        return FederationContext(
            node=self.name,
            own=self.own,
            files=self.files,
            address=self.address,
            clock=NoClock(),
            notify_supervisor=self.told.set,
            open_store=opener,
            open_admin=open_admin,
        )

    async def start(self, *, controller: bool = True) -> None:
        task = asyncio.create_task(self.etcd.run(asyncio.Event()))
        self._running.push_async_callback(self._end, task, self.etcd.stop)
        self._running.push_async_callback(self.federation.close)
        await self._beside(self.federation.run())
        repositories = Repositories(self.name, self.federation, self.own)
        member = Member(
            name=self.name, version="1", core_address=self.address.client, started_at=NoClock().now()
        )
        await self._beside(
            Presence(repositories, WillingServices(), member, 2, self.lifecycle.versions.labels).run()
        )
        if controller:
            await self._beside(self.lifecycle.controller.run())

    async def stop(self) -> None:
        await self._running.aclose()

    async def _beside(self, work: Any) -> None:
        task = asyncio.create_task(work)

        async def nothing() -> None:
            task.cancel()

        self._running.push_async_callback(self._end, task, nothing)

    async def _end(self, task: asyncio.Task[None], stop: Callable[[], Any]) -> None:
        await stop()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    # What tests ask

    async def add_tool(self, name: str, image: str = "lab/x:1") -> None:
        tool = Tool(name=name, author="lab", image=image)
        await self.federation.create(keys.registry("tools", name), dump(tool))

    async def add_tool_once(self, name: str) -> bool:
        """Add a tool; returns whether it exists afterwards."""
        await self.add_tool(name)
        return name in await self.tools()

    async def add_dataset(self, name: str, *nodes: str) -> None:
        dataset = Dataset(name=name, master=f"/srv/git/{name}.git", nodes=list(nodes))
        await self.federation.create(keys.registry("datasets", name), dump(dataset))

    async def tools(self) -> list[str]:
        page = await self.federation.list(keys.registry_prefix("tools"))
        return [keys.last_part(entry.key) for entry in page.entries]

    async def nodes_of(self, dataset: str) -> list[str]:
        stored = await Records(self.federation, keys.registry_prefix("datasets"), Dataset).get(dataset)
        assert stored is not None
        return stored.record.nodes

    async def identity(self, node: str) -> Identity | None:
        stored = await FederationRecords(self.federation).identities.get(node)
        return stored.record if stored else None

    async def until(self, holds: Callable[[], Any]) -> None:
        """Wait until `holds` returns true, despite outages of the store."""
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(MaoError):
                    if await holds():
                        return
                await asyncio.sleep(0.05)

    async def until_switched(self) -> None:
        async def switched() -> bool:
            return not self.federation.is_own

        await self.until(switched)

    async def until_alone(self) -> None:
        async def alone() -> bool:
            return self.federation.is_own

        await self.until(alone)

    async def until_joined(self, node: str) -> None:
        async def joined() -> bool:
            identity = await self.identity(node)
            present = await FederationRecords(self.federation).members.get(node)
            return identity is not None and identity.state == "joined" and present is not None

        await self.until(joined)


@asynccontextmanager
async def running(root: Path, *names: str, etcd: str = "etcd") -> AsyncIterator[list[Node]]:
    """Start nodes outside any federation; `etcd` is the program that they run."""
    async with AsyncExitStack() as stack:
        nodes = [Node(name, root, etcd) for name in names]
        for node in nodes:
            stack.push_async_callback(node.stop)
            await node.start()
        yield nodes


@asynccontextmanager
async def copying(node: Node) -> AsyncIterator[None]:
    """Keep a replica of the federation's records during the block, from its start."""
    async with background(Replicator(node.federation, every=0.2).run()):

        async def whole() -> bool:
            return await node.federation.replica.contact(node.federation.name) is not None

        await node.until(whole)
        yield


async def join(founder: Node, node: Node) -> Joined:
    invitation = await founder.lifecycle.invite(node.name, 3600)
    joined = await node.lifecycle.join(invitation.token)
    await founder.until_joined(node.name)
    return joined
