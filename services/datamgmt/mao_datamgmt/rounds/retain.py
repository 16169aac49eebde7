"""How long rounds stay in the federation's store; what they decided is in the datasets for good.

A round goes only when no node has anything under its name any more: else the next to see that would open it
again. A node clears away what it has said itself, which nobody else may.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta

from mao_datamgmt.context import Context
from mao_shared import keys
from mao_shared.models import Round
from mao_shared.models.round import ROUND_ENDED
from mao_shared.reconcile import Mirror

from .decide import OPENS_WITHIN, SAID_FOR, place
from .said import Heard


class Retention:
    """`keep`: how many ended rounds of a dataset stay at most."""

    def __init__(
        self, context: Context, rounds: Mirror[Round], heard: Heard, age: timedelta, keep: int
    ) -> None:
        self._context = context
        self._rounds = rounds
        self._heard = heard
        self._age, self._keep = age, keep

    async def once(self) -> None:
        """Removes what is old now. Raises Unavailable: then the next time."""
        if not (self._rounds.synced.is_set() and self._heard.mirror.synced.is_set()):
            return
        now = self._context.clock.now()
        rounds = {name: stored.record for name, stored in self._rounds.items()}
        store = self._rounds.records.store
        spoken = [
            (each, round_id) for each in self._heard.datasets() for round_id in self._heard.rounds(each)
        ]
        for dataset, round_id in spoken:
            if said_is_old(round_id, rounds.get(f"{dataset}/{round_id}"), now):
                await store.delete(keys.announcement(self._context.node, dataset, round_id))
                await store.delete(keys.attestation(self._context.node, dataset, round_id))
        for name in old_rounds(list(rounds.values()), now - self._age, self._keep):
            stored = self._rounds.get(name)
            if stored is not None and not self._heard.speaks_of(name):
                await self._rounds.records.delete(name, stored.revision)


def said_is_old(round_id: str, round_: Round | None, now: datetime) -> bool:
    """Pure. Where there is no round, the tick at the beginning of its id tells the age."""
    if round_ is not None:
        return round_.ended_at is not None and now - round_.ended_at > SAID_FOR
    return round_id < f"{now - OPENS_WITHIN - SAID_FOR:%Y%m%dT%H%M%SZ}"


def old_rounds(rounds: Sequence[Round], oldest: datetime, keep: int) -> list[str]:
    """Names of those that may go: ended, and old or beyond `keep`; a dataset's last decided one stays."""
    by_dataset: defaultdict[str, list[Round]] = defaultdict(list)
    for each in rounds:
        if each.phase in ROUND_ENDED:
            by_dataset[each.dataset].append(each)
    gone: list[Round] = []
    for ended in by_dataset.values():
        newest_first = sorted(ended, key=place, reverse=True)
        last = next((each for each in newest_first if each.phase == "decided"), None)
        gone += [
            each
            for rank, each in enumerate(newest_first)
            if each is not last and (rank >= keep or each.tick < oldest)
        ]
    return [f"{each.dataset}/{each.id}" for each in gone]
