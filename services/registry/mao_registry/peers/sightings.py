"""Leaves a trace of this node in the federation that outlives its presence: when it was last there."""

from __future__ import annotations

import asyncio

from mao_registry.records.repositories import Shelf
from mao_shared import __version__, keys
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.federation import FederationStore
from mao_shared.mao_shared_logs import get_logger
from mao_shared.models import PeerNode
from mao_shared.reconcile import every, wait_at_most
from mao_shared.store.records import dump

log = get_logger(__name__)
EVERY = 300.0  # seconds
RETRY = 30.0


class Sightings:
    """`run` works until cancelled."""

    def __init__(self, shelf: Shelf, clock: Clock, conditions: Conditions | None = None) -> None:
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
        await wait_at_most(self._again, EVERY if await self._leave() else RETRY)

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
