"""Defragments etcd's database file when most of it is free and no tick is near.

etcd reuses freed space but never shrinks its file. This matters after large removals, for example when the
runs of several years become history. While etcd defragments it does not answer: about a second per hundred
megabytes in use.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.logs import get_logger
from mao_shared.reconcile import every
from mao_shared.store import Examinable, Store, StoreHealth

log = get_logger(__name__)

PERIOD = 600.0  # seconds
MIN_IDLE = timedelta(seconds=10)  # until the next tick
MIB = 1 << 20
MIN_GAIN = 32 * MIB  # bytes; less is not worth a pause
MAX_IN_USE = 256 * MIB  # bytes; with more, the pause would exceed the timeout of calls


def is_worthwhile(health: StoreHealth) -> bool:
    """Return True if most of the file is free and little enough is in use for a short pause (pure)."""
    free = health.size - health.in_use
    return 0 < health.in_use <= MAX_IN_USE and free >= max(MIN_GAIN, health.in_use)


class Defragmenter:
    """Defragments this node's store. `next_due` returns the time of the next tick."""

    def __init__(
        self,
        store: Store,
        next_due: Callable[[], datetime | None],
        clock: Clock,
        conditions: Conditions | None = None,
    ) -> None:
        self._store = store
        self._next_due = next_due
        self._clock = clock
        self._conditions = conditions

    async def run(self) -> None:
        async def step() -> None:
            await self.check()

        await every(PERIOD, step, name="store-upkeep", initial_delay=PERIOD, conditions=self._conditions)

    async def check(self) -> bool:
        """Defragment the store if that is worthwhile now; return whether it was. Raises Unavailable."""
        if not isinstance(self._store, Examinable):
            return False
        before = await self._store.examine()
        due = self._next_due()
        if not is_worthwhile(before) or (due is not None and due - self._clock.now() < MIN_IDLE):
            return False
        try:
            await self._store.defragment()
        except MaoError as error:  # for example an etcd with authentication, where only root may
            log.info("store.not_defragmented", error=error.detail)
            return False
        after = await self._store.examine()
        log.info("store.defragmented", before=before.size, after=after.size)
        return True
