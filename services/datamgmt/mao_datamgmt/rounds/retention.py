"""Removes old rounds from the federation store; their results stay in the datasets.

A round is removed only when no node has a peer record about it any more, since such a record would open it
again, and not before all nodes have had time to see its end (pending.py). A node removes its own peer
records. Those of nodes that no longer take part in the dataset are removed by nodes with permission: core
nodes, and all nodes if the store has no users.

Peer records about the rounds decided last are kept: they show where ground truth must be, which snapshots are
outdated (remote.py), and which ticks are over (validation.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from mao_datamgmt.context import Context
from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.errors import Forbidden
from mao_shared.models import Round
from mao_shared.models.round import ROUND_ENDED
from mao_shared.reconcile import Mirror, every

from .decide import MAX_TICK_AGE, round_order
from .peer_records import PeerRecords
from .validation import PEER_RECORDS_KEPT, AttestationsOf, is_decided_and_attested, latest_decided

PERIOD_SECONDS = 600.0


class RoundRetention:
    """Removes old rounds. `keep` is the maximum number of ended rounds per dataset."""

    def __init__(
        self,
        context: Context,
        rounds: Mirror[Round],
        peers: PeerRecords,
        age: timedelta,
        keep: int,
        conditions: Conditions | None = None,
    ) -> None:
        self._context = context
        self._rounds = rounds
        self._peers = peers
        self._age, self._keep = age, keep
        self._conditions = conditions
        self._store = rounds.records.store

    async def run(self) -> None:
        """Remove old rounds until cancelled."""
        await every(PERIOD_SECONDS, self.once, name="rounds-retention", conditions=self._conditions)

    async def once(self) -> None:
        """Remove expired peer records and rounds. Raises Unavailable."""
        if not (self._rounds.synced.is_set() and self._peers.mirror.synced.is_set()):
            return
        now = self._context.clock.now()
        by_dataset: defaultdict[str, dict[str, Round]] = defaultdict(dict)
        for name, stored in self._rounds.items():
            dataset, _, round_id = name.partition("/")
            by_dataset[dataset][round_id] = stored.record
        await self._remove_peer_records(by_dataset, now)
        rounds = [round_ for by_id in by_dataset.values() for round_ in by_id.values()]
        for name in expired_rounds(rounds, now - self._age, self._keep):
            known = self._rounds.get(name)
            if known is None or ended_recently(known.record, now) or self._peers.mentions(name):
                continue
            await self._rounds.records.delete(name, known.revision)

    async def _remove_peer_records(
        self, by_dataset: Mapping[str, Mapping[str, Round]], now: datetime
    ) -> None:
        may_delete_others = True
        for dataset in self._peers.datasets():
            rounds = by_dataset.get(dataset, {})
            participants = self._peers.participants(dataset)
            protected = protected_rounds(list(rounds.values()), self._peers.attestations, now)
            for round_id in self._peers.round_ids(dataset):
                if round_id in protected or not peer_records_expired(round_id, rounds.get(round_id), now):
                    continue
                announced = self._peers.announced(dataset, round_id)
                attested = self._peers.attested(dataset, round_id)
                found = [
                    *((n, keys.announcement(n, dataset, round_id), r.revision) for n, r in announced.items()),
                    *((n, keys.attestation(n, dataset, round_id), r.revision) for n, r in attested.items()),
                ]
                for node, key, revision in found:
                    if node == self._context.node:
                        await self._store.delete(key, revision)
                    elif may_delete_others and node not in participants:
                        try:
                            await self._store.delete(key, revision)
                        except Forbidden:
                            may_delete_others = False


def peer_records_expired(round_id: str, round_: Round | None, now: datetime) -> bool:
    """True if a round's peer records can be removed. Pure.

    If the round's record was removed, its age is taken from the tick at the beginning of its id.
    """
    if round_ is not None:
        ended = round_.ended_at
        return ended is not None and now - max(ended, round_.tick) > PEER_RECORDS_KEPT
    oldest, newest = now - MAX_TICK_AGE - PEER_RECORDS_KEPT, now + PEER_RECORDS_KEPT
    return not f"{oldest:%Y%m%dT%H%M%SZ}" <= round_id <= f"{newest:%Y%m%dT%H%M%SZ}"


def ended_recently(round_: Round, now: datetime) -> bool:
    """True if some node may not have seen the round's end yet. Pure."""
    return round_.ended_at is not None and abs(now - round_.ended_at) <= PEER_RECORDS_KEPT


def protected_rounds(rounds: Sequence[Round], attestations: AttestationsOf, now: datetime) -> set[str]:
    """Return the rounds of a dataset whose peer records are kept. Pure.

    These are the latest decided and attested round of each pipeline and step while an earlier tick could be
    opened; and, without limit, the latest of all, and the one that made the tip of ground truth, which may be
    of an earlier tick.
    """
    last = sorted(latest_decided(rounds, attestations).values(), key=round_order)
    bases = {round_.base for round_ in rounds}
    tips = {
        round_.id
        for round_ in rounds
        if is_decided_and_attested(round_, attestations) and round_.commit not in bases
    }
    return tips | {round_.id for round_ in last if round_ is last[-1] or now - round_.tick < MAX_TICK_AGE}


def expired_rounds(rounds: Sequence[Round], oldest: datetime, keep: int) -> list[str]:
    """Return the names of ended rounds that are old or beyond `keep`. Pure.

    The latest decided round of each dataset is kept.
    """
    by_dataset: defaultdict[str, list[Round]] = defaultdict(list)
    for round_ in rounds:
        if round_.phase in ROUND_ENDED:
            by_dataset[round_.dataset].append(round_)
    expired: list[Round] = []
    for ended in by_dataset.values():
        newest_first = sorted(ended, key=round_order, reverse=True)
        last = next((round_ for round_ in newest_first if round_.phase == "decided"), None)
        expired += [
            round_
            for rank, round_ in enumerate(newest_first)
            if round_ is not last and (rank >= keep or round_.tick < oldest)
        ]
    return [f"{round_.dataset}/{round_.id}" for round_ in expired]
