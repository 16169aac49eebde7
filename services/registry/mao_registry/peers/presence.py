"""Presence of nodes in the federation: this node's record, its last-seen time, removal of absent nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mao_registry.node_services import NodeServices
from mao_registry.records.rules import without_node
from mao_registry.records.stores import Repositories
from mao_shared import __version__, keys
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import Conflict, Forbidden, MaoError, NotFound
from mao_shared.federation import FederationStore
from mao_shared.logs import get_logger
from mao_shared.models import Member, PeerNode
from mao_shared.reconcile import Session, every
from mao_shared.store import Check, Put, Stored, retry_lost
from mao_shared.store.records import StoredPage, dump

log = get_logger(__name__)
REFRESH_PERIOD = 30.0  # seconds between checks of the engine's capacity and of this node's record
CAPACITY_RETRY = 2.0  # seconds, while the runner does not answer
LAST_SEEN_PERIOD = 300.0  # seconds
LAST_SEEN_RETRY = 30.0  # seconds after a failed write


class Presence:
    """Keeps this node's member record on a lease; rewrites it if the lease or record is lost, or it changes.

    Args:
        member: the record; its capacity is added once the runner has answered.
        ttl: seconds that the record outlives this process.
        labels: returns further labels, in addition to those that the operator has set.
    """

    def __init__(
        self,
        repositories: Repositories,
        services: NodeServices,
        member: Member,
        ttl: int,
        labels: Callable[[], dict[str, str]] = dict,
        *,
        conditions: Conditions | None = None,
    ) -> None:
        self._conditions = conditions
        self.repositories = repositories
        self.services = services
        self.member = member
        self.ttl = ttl
        self._labels = labels

    async def run(self) -> None:
        """Run until cancelled; the record is then removed."""
        async with Session(self.repositories.federation, self.ttl, self.announce) as session:
            if isinstance(self.repositories.federation, FederationStore):
                self.repositories.federation.on_switch(session.restart_lease)

            async def refresh() -> float | None:
                known = await self._update_capacity()
                if session.held.is_set() and session.lease is not None:
                    await self._refresh_record(session.lease)
                return None if known else CAPACITY_RETRY

            await every(REFRESH_PERIOD, refresh, name="presence", conditions=self._conditions)

    async def announce(self, lease: int) -> None:
        """Write the record on this lease, replacing that of an earlier lease or process."""
        await self.repositories.members.put(self.member.name, self._labelled(), lease=lease)

    async def _refresh_record(self, lease: int) -> None:
        try:
            stored = await self.repositories.members.find(self.member.name)
            if stored is None or stored.record != self._labelled():
                await self.announce(lease)
        except MaoError as error:
            log.warning("presence.not_announced", error=error.detail)

    def _labelled(self) -> Member:
        return self.member.model_copy(update={"labels": {**self.member.labels, **self._labels()}})

    async def _update_capacity(self) -> bool:
        try:
            engine = await self.services.engine()
        except MaoError as error:
            log.info("presence.capacity_unknown", error=error.detail)
            return False
        facts = {"slots": engine.slots, "cpus": engine.cpus, "memory": engine.memory}
        self.member = self.member.model_copy(update=facts)
        return True


class LastSeenReporter:
    """Publishes the time at which this node was last seen, in a record that outlives its presence."""

    def __init__(
        self, repositories: Repositories, clock: Clock, conditions: Conditions | None = None
    ) -> None:
        self._conditions = conditions
        self.repositories = repositories
        self.clock = clock
        self._switched = asyncio.Event()
        if isinstance(repositories.federation, FederationStore):
            repositories.federation.on_switch(self._switched.set)

    async def run(self) -> None:
        """Run until cancelled."""
        await every(
            LAST_SEEN_PERIOD, self._report, name="last-seen", wake=self._switched, conditions=self._conditions
        )

    async def _report(self) -> float | None:
        """Write the record unless no other node reads it; return the seconds after which to retry, if any."""
        store, key = self.repositories.federation, keys.peer_node(self.repositories.node)
        record = dump(PeerNode(version=__version__, seen_at=self.clock.now()))
        try:
            current = await store.get(key)
            if self.repositories.one_store:  # is only known after the first call
                return None
            if current is None:
                written = await store.create(key, record)
            else:
                written = await store.replace(key, record, current.revision)
            return LAST_SEEN_RETRY if written is None else None
        except MaoError as error:
            log.debug("last_seen.not_written", error=error.detail)
        return LAST_SEEN_RETRY


class Members:
    """The member records of the nodes that are present; each is on a lease that the node renews."""

    def __init__(self, repositories: Repositories) -> None:
        self.repositories = repositories

    async def page(self, limit: int, cursor: str | None) -> StoredPage[Member]:
        return await self.repositories.members.page(limit, cursor)

    async def read(self, node: str) -> Stored[Member]:
        """Return the member record. Raises NotFound."""
        stored = await self.repositories.members.get(node)
        if stored is None:
            raise _not_present(node)
        return stored

    async def remove(self, node: str) -> None:
        """End an absent node's participation in all datasets, so that no vote waits for it.

        The node may take part again later. Raises Conflict (`node-present`), NotFound if it takes part in no
        dataset, and Forbidden (`not-core`) if only a core node can do this.
        """
        await self._check_absent(node)
        datasets = await self.repositories.datasets.by_name()
        listed = [name for name, record in datasets.items() if node in record.nodes]
        parts = (await self.repositories.federation.list(keys.parts_prefix(node))).entries
        if not listed and not parts:
            raise _not_present(node)
        for part in parts:
            try:
                await self.repositories.federation.delete(part.key)
            except Forbidden as error:
                raise Forbidden(
                    f"The node {node!r} takes part in datasets, and only a core node can end that for it.",
                    code="not-core",
                    next=f"On a core node (see maoctl federation show): maoctl federation remove {node}",
                ) from error
        for dataset in listed:
            await self._remove_from_dataset(dataset, node)

    async def _check_absent(self, node: str) -> None:
        if await self.repositories.members.get(node):
            raise Conflict(
                f"The node {node!r} is present.",
                code="node-present",
                next="Stop that node first, or withdraw its enrolments there: maoctl pipeline withdraw NAME",
            )

    async def _remove_from_dataset(self, dataset: str, node: str) -> None:
        key = self.repositories.datasets.prefix + dataset

        async def attempt() -> bool | None:
            await self._check_absent(node)
            stored = await self.repositories.datasets.get(dataset)
            if stored is None or node not in stored.record.nodes:
                return True
            checks = [Check(key, stored.revision), Check(self.repositories.members.prefix + node, 0)]
            changed = Put(key, dump(without_node(stored.record, node)))
            written = self.repositories.federation.transact(checks, [changed])
            return await written is not None or None

        await retry_lost(attempt, f"the dataset {dataset!r}")


def _not_present(node: str) -> NotFound:
    return NotFound(f"The node {node!r} is not present.", next="See who is present with 'maoctl node list'.")
