"""This node's presence on a lease, when it was last seen, and the removal of absent nodes.

This node's presence in the federation: a member record on a lease that lives as long as the registry.

Leaves a trace of this node in the federation that outlives its presence: when it was last there.

Members: which nodes are present, and what becomes of one that will not come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mao_registry.node_services import NodeServices
from mao_registry.records.repositories import Repositories
from mao_registry.records.rules import without_node
from mao_registry.records.writes import retry_lost_races, unknown_as_lost
from mao_shared import __version__, keys
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import Conflict, Forbidden, MaoError, NotFound
from mao_shared.federation import FederationStore
from mao_shared.logs import get_logger
from mao_shared.models import Member, PeerNode
from mao_shared.reconcile import Session, every, wait_at_most
from mao_shared.store import Check, Put, Stored
from mao_shared.store.records import StoredPage, dump

log = get_logger(__name__)

REFRESH_PERIOD = 30.0  # seconds between looks at the engine's capacity and at our own record

CAPACITY_RETRY = 2.0  # seconds, while the runner does not answer


class Presence:
    """Announces the member; again whenever the lease was lost, its record is gone or the capacity changed.

    Until the runner has told its capacity the member has no slots. `labels`: those that the operator has not
    set, asked for anew with every look.
    """

    def __init__(
        self,
        shelf: Repositories,
        peers: NodeServices,
        member: Member,
        ttl: int,
        labels: Callable[[], dict[str, str]] = dict,
        *,
        conditions: Conditions | None = None,
    ) -> None:
        self._conditions = conditions
        self.shelf = shelf
        self.peers = peers
        self.member = member
        self.ttl = ttl
        self._labels = labels

    async def run(self) -> None:
        """For ever; the record goes when this is cancelled."""
        async with Session(self.shelf.federation, self.ttl, self.announce) as session:
            if isinstance(self.shelf.federation, FederationStore):
                self.shelf.federation.on_switch(session.begin_again)

            async def refresh() -> float:
                known = await self._learn_capacity()
                if session.held.is_set() and session.lease is not None:
                    await self._announce_again(session.lease)
                return REFRESH_PERIOD if known else CAPACITY_RETRY

            await every(0.0, refresh, name="presence", conditions=self._conditions)

    async def announce(self, lease: int) -> None:
        """Writes the record on this lease; one from an earlier lease or process is taken over."""
        records, name, member = self.shelf.members, self.member.name, self._labelled()

        async def attempt() -> int | None:
            key = records.prefix + name
            there = await records.store.get(key)  # whatever it says: it is this node's to write
            if there is None:
                return await records.create(name, member, lease=lease)
            return await records.store.replace(key, dump(member), there.revision, lease=lease)

        await retry_lost_races(attempt, f"the member {name!r}")

    async def _announce_again(self, lease: int) -> None:
        try:
            there = await self.shelf.members.find(self.member.name)
            if there is None or there.record != self._labelled():
                await self.announce(lease)
        except MaoError as error:
            log.warning("presence.not_announced", error=error.detail)

    def _labelled(self) -> Member:
        return self.member.model_copy(update={"labels": {**self.member.labels, **self._labels()}})

    async def _learn_capacity(self) -> bool:
        try:
            capacity = await self.peers.capacity()
        except MaoError as error:
            log.info("presence.capacity_unknown", error=error.detail)
            return False
        facts = {"slots": capacity.slots, "cpus": capacity.cpus, "memory": capacity.memory}
        self.member = self.member.model_copy(update=facts)
        return True


LAST_SEEN_PERIOD = 300.0  # seconds

LAST_SEEN_RETRY = 30.0


class LastSeenReporter:
    """`run` works until cancelled."""

    def __init__(self, shelf: Repositories, clock: Clock, conditions: Conditions | None = None) -> None:
        self._conditions = conditions
        self.shelf = shelf
        self.clock = clock
        self._again = asyncio.Event()
        if isinstance(shelf.federation, FederationStore):
            shelf.federation.on_switch(self._again.set)

    async def run(self) -> None:
        await every(0.0, self._step, name="sightings", conditions=self._conditions)

    async def _step(self) -> None:
        self._again.clear()
        await wait_at_most(self._again, LAST_SEEN_PERIOD if await self._leave() else LAST_SEEN_RETRY)

    async def _leave(self) -> bool:
        """Whether it is written, or need not be since nobody else looks."""
        store, key = self.shelf.federation, keys.peer_node(self.shelf.node)
        trace = dump(PeerNode(version=__version__, seen_at=self.clock.now()))
        try:
            there = await store.get(key)
            if self.shelf.one_store:  # known from the first call on
                return True
            written = store.replace(key, trace, there.revision) if there else store.create(key, trace)
            return await written is not None
        except MaoError as error:
            log.debug("sightings.not_left", error=error.detail)
        return False


class Members:
    """A node is a member as long as its registry holds the lease (`presence.py`)."""

    def __init__(self, shelf: Repositories) -> None:
        self.shelf = shelf

    async def page(self, limit: int, cursor: str | None) -> StoredPage[Member]:
        return await self.shelf.members.page(limit, cursor)

    async def read(self, node: str) -> Stored[Member]:
        """Raises NotFound."""
        stored = await self.shelf.members.get(node)
        if stored is None:
            raise _absent(node)
        return stored

    async def remove(self, node: str) -> None:
        """Ends an absent node's part in all datasets, so that no vote waits for it; it may come back.

        Raises Conflict (`node-present`), NotFound when it has a part in none, and Forbidden (`not-core`) in a
        federation where this node may not speak for others.
        """
        await self._check_absent(node)
        datasets = await self.shelf.datasets.by_name()  # one that cannot be read lists nobody
        listed = [name for name, record in datasets.items() if node in record.nodes]
        parts = (await self.shelf.federation.list(keys.parts_prefix(node))).entries
        if not listed and not parts:
            raise _absent(node)
        for part in parts:
            await self._end(part.key, node)
        for dataset in listed:
            await self._strike(dataset, node)

    async def _end(self, part: str, node: str) -> None:
        try:
            await self.shelf.federation.delete(part)
        except Forbidden as error:
            raise Forbidden(
                f"The node {node!r} takes part in datasets, and only a core node can end that for it.",
                code="not-core",
                next=f"On a core node (see maoctl federation show): maoctl federation remove {node}.",
            ) from error

    async def _check_absent(self, node: str) -> None:
        if await self.shelf.members.get(node):
            raise Conflict(
                f"The node {node!r} is present.",
                code="node-present",
                next="Stop that node first, or withdraw its enrolments there: maoctl pipeline withdraw NAME.",
            )

    async def _strike(self, dataset: str, node: str) -> None:
        key = self.shelf.datasets.prefix + dataset

        async def attempt() -> bool | None:
            await self._check_absent(node)
            stored = await self.shelf.datasets.get(dataset)
            if stored is None or node not in stored.record.nodes:
                return True
            checks = [Check(key, stored.revision), Check(self.shelf.members.prefix + node, 0)]
            changed = Put(key, dump(without_node(stored.record, node)))
            written = self.shelf.federation.transact(checks, [changed])
            return await unknown_as_lost(written) is not None or None

        await retry_lost_races(attempt, f"the dataset {dataset!r}")


def _absent(node: str) -> NotFound:
    return NotFound(f"There is no node {node!r} now.", next="See who is present with 'maoctl node get'.")
