"""This node's presence in the federation: a member record on a lease that lives as long as the registry."""

from __future__ import annotations

from collections.abc import Callable

from mao_registry.node_services import Peers
from mao_registry.records.repositories import Shelf
from mao_registry.records.writes import until_decided
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.federation import FederationStore
from mao_shared.mao_shared_logs import get_logger
from mao_shared.models import Member
from mao_shared.reconcile import Session, every
from mao_shared.store.records import dump

log = get_logger(__name__)
REFRESH = 30.0  # seconds between looks at the engine's capacity and at our own record
RETRY = 2.0  # seconds, while the runner does not answer


class Presence:
    """Announces the member; again whenever the lease was lost, its record is gone or the capacity changed.

    Until the runner has told its capacity the member has no slots. `labels`: those that the operator has not
    set, asked for anew with every look.
    """

    def __init__(
        self,
        shelf: Shelf,
        peers: Peers,
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
                return REFRESH if known else RETRY

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

        await until_decided(attempt, f"the member {name!r}")

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
