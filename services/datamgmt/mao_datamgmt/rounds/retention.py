"""How long rounds stay in the federation store; what they decided is in the datasets for good.

A round goes only when no node has anything under its name any more, else the next to see that would open it
again, and not before all have had time to see its end (passed.py). A node clears away what it has said
itself. For nodes that have no say in the dataset any more, and may be gone, those do it that may: core nodes,
and all where the store knows no users.

What was said about the rounds that were decided last stays: by it a node knows where ground truth has to be,
which snapshots are outdated (look.py), and which ticks are over (past.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from mao_datamgmt.context import Context
from mao_shared import keys
from mao_shared.errors import Forbidden
from mao_shared.models import Round
from mao_shared.models.round import ROUND_ENDED
from mao_shared.reconcile import Mirror

from .decide import MAX_TICK_AGE, round_order
from .peer_records import PeerRecords
from .validation import PEER_RECORDS_KEPT, AttestationsOf, is_decided_and_attested, latest_decided


class RoundRetention:
    """`keep`: how many ended rounds of a dataset stay at most."""

    def __init__(
        self, context: Context, rounds: Mirror[Round], heard: PeerRecords, age: timedelta, keep: int
    ) -> None:
        self._context = context
        self._rounds = rounds
        self._heard = heard
        self._age, self._keep = age, keep
        self._store = rounds.records.store

    async def once(self) -> None:
        """Removes what is old now. Raises Unavailable: then the next time."""
        if not (self._rounds.synced.is_set() and self._heard.mirror.synced.is_set()):
            return
        now = self._context.clock.now()
        by_dataset: defaultdict[str, dict[str, Round]] = defaultdict(dict)
        for name, stored in self._rounds.items():
            dataset, _, round_id = name.partition("/")
            by_dataset[dataset][round_id] = stored.record
        await self._clear_all(by_dataset, now)
        rounds = [each for those in by_dataset.values() for each in those.values()]
        for name in expired_rounds(rounds, now - self._age, self._keep):
            known = self._rounds.get(name)
            if known is None or ended_recently(known.record, now) or self._heard.speaks_of(name):
                continue
            await self._rounds.records.delete(name, known.revision)

    async def _clear_all(self, by_dataset: Mapping[str, Mapping[str, Round]], now: datetime) -> None:
        """Removes what was said of rounds long ago."""
        may = True
        for dataset in self._heard.datasets():
            rounds = by_dataset.get(dataset, {})
            nodes = self._heard.parts(dataset)
            stays = protected_rounds(list(rounds.values()), self._heard.votes, now)
            for round_id in self._heard.rounds(dataset):
                if round_id in stays or not peer_records_expired(round_id, rounds.get(round_id), now):
                    continue
                for node, key, revision in self._said(dataset, round_id):
                    if node == self._context.node:
                        await self._store.delete(key, revision)
                    elif may and node not in nodes:
                        may = await self._try(key, revision)

    def _said(self, dataset: str, round_id: str) -> list[tuple[str, str, int]]:
        """Node, key and revision of all that is there about a round."""
        announced, attested = (of(dataset, round_id) for of in (self._heard.announced, self._heard.attested))
        found = [
            (node, keys.announcement(node, dataset, round_id), each.revision)
            for node, each in announced.items()
        ]
        return found + [
            (node, keys.attestation(node, dataset, round_id), each.revision)
            for node, each in attested.items()
        ]

    async def _try(self, key: str, revision: int) -> bool:
        """Whether this node may do so."""
        try:
            await self._store.delete(key, revision)
        except Forbidden:
            return False
        return True


def peer_records_expired(round_id: str, round_: Round | None, now: datetime) -> bool:
    """Pure. Where there is no round, the tick at the beginning of its id tells the age."""
    if round_ is not None:
        ended = round_.ended_at
        return ended is not None and now - max(ended, round_.tick) > PEER_RECORDS_KEPT
    first, last = (
        f"{each:%Y%m%dT%H%M%SZ}" for each in (now - MAX_TICK_AGE - PEER_RECORDS_KEPT, now + PEER_RECORDS_KEPT)
    )
    return not first <= round_id <= last


def ended_recently(round_: Round, now: datetime) -> bool:
    """Pure. Whether a round has ended so lately that some node may not have seen it, and so has to stay."""
    return round_.ended_at is not None and abs(now - round_.ended_at) <= PEER_RECORDS_KEPT


def protected_rounds(rounds: Sequence[Round], votes: AttestationsOf, now: datetime) -> set[str]:
    """Pure. Rounds of a dataset of which everything stays: the last that nodes uphold as decided.

    That of each pipeline and step for as long as an earlier tick could be opened; for ever the last of all,
    and the one that ground truth ends with, which may be of a tick of the past.
    """
    last = sorted(latest_decided(rounds, votes).values(), key=round_order)
    bases = {each.base for each in rounds}
    tips = {each.id for each in rounds if is_decided_and_attested(each, votes) and each.commit not in bases}
    return tips | {each.id for each in last if each is last[-1] or now - each.tick < MAX_TICK_AGE}


def expired_rounds(rounds: Sequence[Round], oldest: datetime, keep: int) -> list[str]:
    """Names of those that may go: ended, and old or beyond `keep`; a dataset's last decided one stays."""
    by_dataset: defaultdict[str, list[Round]] = defaultdict(list)
    for each in rounds:
        if each.phase in ROUND_ENDED:
            by_dataset[each.dataset].append(each)
    gone: list[Round] = []
    for ended in by_dataset.values():
        newest_first = sorted(ended, key=round_order, reverse=True)
        last = next((each for each in newest_first if each.phase == "decided"), None)
        gone += [
            each
            for rank, each in enumerate(newest_first)
            if each is not last and (rank >= keep or each.tick < oldest)
        ]
    return [f"{each.dataset}/{each.id}" for each in gone]
