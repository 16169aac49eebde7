"""Keeps the copies of the federation's records in step; one of a node's services does, the registry.

    list every prefix from the federation ─► write what differs ─► watch from the first listing's revision on
         ▲                                                                  │
         └── a gap, a switch, an outage of either store, somebody else's write to a copy ◄──┘

What comes twice that way is dropped by its revision. `Contact` says up to when the copies are true.
"""

from __future__ import annotations

import asyncio
import contextlib

from mao_shared import keys
from mao_shared.clock import Clock, SystemClock
from mao_shared.errors import Compacted, MaoError
from mao_shared.logs import Outage, get_logger

from .copies import PREFIXES
from .switch import FederationStore

log = get_logger(__name__)

LISTED = (*PREFIXES, keys.federation(), keys.all_peers())
PAGE = 500
PAUSE = 0.5  # seconds between attempts while a store is away
CONTACT_EVERY = 30.0  # seconds between looks whether the federation still answers


class _Raced(Exception):
    """Somebody else has written a copy: what is known of the copies is wrong."""


class KnownCopy:
    """`run` works for as long as the service does; while the node is its own federation there is nothing to do.

    Args:
        every: seconds between two looks whether the federation still answers.
    """

    def __init__(
        self,
        store: FederationStore,
        *,
        every: float = CONTACT_EVERY,
        clock: Clock = SystemClock(),  # noqa: B008 (it has no state)
    ) -> None:
        self._store = store
        self._own = store.own
        self._every = every
        self._clock = clock
        self._kept: dict[str, tuple[int, int]] = {}  # key → its revision there, and that of the copy here
        self._revision = 0  # all changes up to it are in the copies; 0: they are not whole
        self._changed = asyncio.Event()
        store.on_switch(self._changed.set)
        store.on_contact(self._changed.set)

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._copy_for_ever())
            group.create_task(self._tell_for_ever())

    # The copies

    async def _copy_for_ever(self) -> None:
        outage = Outage()
        while True:
            try:
                await self._load()
                await self._copy()
                outage.over()
            except (Compacted, _Raced):
                log.info("known.again", federation=self._store.name)
            except MaoError as error:
                if outage.is_news():
                    log.warning("known.not_copied", error=error.detail)
            await asyncio.sleep(PAUSE)

    async def _copy(self) -> None:
        """Copies all and follows the changes; returns when the node has become its own federation, or left it."""
        if await self._store.alone():
            await self._forget()
            await self._store.changed()
            return
        name = self._store.name
        after = await self._copy_all(name)
        self._changed.set()
        async with contextlib.aclosing(self._store.watch(keys.ROOT + "/", after=after)) as watch:
            async for batch in watch:
                for event in batch:
                    await self._take(event)
                self._revision = batch[-1].revision
