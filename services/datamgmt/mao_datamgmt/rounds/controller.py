"""For how long the federation's store has answered without a break: only then does silence mean anything."""

from __future__ import annotations

from datetime import datetime, timedelta

from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.reconcile import every
from mao_shared.store import Store

PERIOD = 5.0  # seconds
SETTLED = timedelta(seconds=10)


class Steady:
    """`grace`: how long after a break no deadline counts, so that all can say what they could not."""

    def __init__(
        self, store: Store, clock: Clock, grace: timedelta, conditions: Conditions | None = None
    ) -> None:
        self._conditions = conditions
        self._store = store
        self._clock = clock
        self._grace = grace
        self._since: datetime | None = None

    def now(self) -> datetime:
        return self._clock.now()

    def patient(self) -> datetime | None:
        """Until when no deadline counts; None while the store is away."""
        return None if self._since is None else self._since + self._grace

    def settled(self) -> bool:
        """Whether what comes from the store is new, and no more what came while it was away."""
        return self._since is not None and self.now() - self._since >= SETTLED

    async def run(self) -> None:
        """Asks now and then, for ever."""
        await every(PERIOD, self.look, name="federation-answers", conditions=self._conditions)

    async def look(self) -> None:
        try:
            await self._store.ping()
        except MaoError:
            self._since = None
        else:
            self._since = self._since or self._clock.now()
