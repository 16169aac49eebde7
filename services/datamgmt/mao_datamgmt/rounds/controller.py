"""Reconciles the rounds of each dataset (view, decide, execute), and tracks the store's health."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError, Unavailable
from mao_shared.logs import bind
from mao_shared.models import Enrolment
from mao_shared.reconcile import Backoff, Controller, every
from mao_shared.store import Records, Store

from .decide import decide, depends_on_voters, is_relevant
from .executor import RoundExecutor
from .participation import ConsentedDataset, DatasetSharing, consented_dataset
from .peer_records import Voters, dataset_named_by, round_named_by
from .reporting import RoundAlarms
from .view import FirstSeenTimes, RoundIndex, RoundView

WORKERS = 4
RESYNC_SECONDS = 60.0  # between two passes over all datasets, in case a change was missed
VOTERS_RETRY_SECONDS = 1.0  # while the voters are not known on this node
STORE_RETRY_SECONDS = 2.0  # while the store is unavailable
PING_SECONDS = 5.0
SETTLE_TIME = timedelta(seconds=10)  # of a healthy store, after which changes arrive without delay


class StoreAvailability:
    """Tracks since when the federation store has been available without interruption.

    A node's silence counts only while the store is available. `grace` is the time after an outage in which
    no deadline counts, so that all nodes can catch up.
    """

    def __init__(
        self, store: Store, clock: Clock, grace: timedelta, conditions: Conditions | None = None
    ) -> None:
        self._store = store
        self._clock = clock
        self._grace = grace
        self._conditions = conditions
        self._healthy_since: datetime | None = None

    def now(self) -> datetime:
        return self._clock.now()

    def grace_until(self) -> datetime | None:
        """Return the time until which no deadline counts; None while the store is unavailable."""
        return None if self._healthy_since is None else self._healthy_since + self._grace

    def is_settled(self) -> bool:
        """True if changes that arrive now have just been made, not during an outage."""
        return self._healthy_since is not None and self.now() - self._healthy_since >= SETTLE_TIME

    async def run(self) -> None:
        """Ping the store until cancelled."""
        await every(PING_SECONDS, self.check, name="federation-answers", conditions=self._conditions)

    async def check(self) -> None:
        """Ping the store once."""
        try:
            await self._store.ping()
        except MaoError:
            self._healthy_since = None
        else:
            self._healthy_since = self._healthy_since or self.now()


class RoundController:
    """Reconciles rounds. The mirrors of rounds, peer records and members must be running."""

    def __init__(
        self,
        node: str,
        sharing: DatasetSharing,
        voters: Voters,
        enrolments: Records[Enrolment],
        index: RoundIndex,
        health: StoreAvailability,
        executor: RoundExecutor,
        alarms: RoundAlarms,
        conditions: Conditions | None = None,
    ) -> None:
        self._node = node
        self._sharing, self._enrolments = sharing, enrolments
        self._voters, self._peers = voters, voters.peer_records
        self._index = index
        self._health = health
        self._executor = executor
        self._alarms = alarms
        self._first_seen = FirstSeenTimes(health.now, health.is_settled)
        self._controller = Controller(
            "rounds",
            self._reconcile,
            workers=WORKERS,
            list_keys=self._datasets,
            resync=RESYNC_SECONDS,
            backoff=Backoff(0.5, 60.0),
            conditions=conditions,
        )
        self._controller.watches(index.mirror, self._round_changed)
        self._controller.watches(self._peers.mirror, self._peer_record_changed)
        self._controller.watches(voters.members, self._members_changed)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        await self._controller.run()

    def _round_changed(self, name: str) -> str:
        stored = self._index.mirror.get(name)
        if stored is not None:
            self._first_seen.note_record(stored.record)
        return name.partition("/")[0]

    def _peer_record_changed(self, name: str) -> str | None:
        if (named := round_named_by(name)) is not None:
            self._first_seen.note_announced(*named)
        return dataset_named_by(name)

    def _members_changed(self, _: str) -> None:
        for dataset in self._known_datasets():
            self._controller.add(dataset)

    def _known_datasets(self) -> set[str]:
        return {*self._index.datasets(), *self._peers.datasets()}

    async def _datasets(self) -> Iterable[str]:
        return self._known_datasets()

    async def _reconcile(self, dataset: str) -> float | None:
        with bind(dataset=dataset):
            return await self.reconcile(dataset)

    async def reconcile(self, dataset: str) -> float | None:
        """Execute all possible actions for a dataset; return the seconds until the next pass."""
        grace_until, voters = self._health.grace_until(), self._voters.cached(dataset)
        if grace_until is None:
            await self._health.check()
            return STORE_RETRY_SECONDS
        try:
            declared = await self._sharing.declared(dataset)
        except Unavailable:
            return STORE_RETRY_SECONDS
        if voters is None:
            return STORE_RETRY_SECONDS
        consented = await consented_dataset(self._enrolments, dataset, declared, voters)
        if consented is None:
            return None
        view = self._view(consented, grace_until)
        decision = decide(view)
        # A write that depends on the voters needs current ones: otherwise nodes undo each other's writes
        # while one of them lags behind.
        if (
            any(map(depends_on_voters, decision.actions))
            and await self._voters.fetch(consented.dataset.name) != consented.dataset.nodes
        ):
            return VOTERS_RETRY_SECONDS
        pauses = [decision.again]
        for action in decision.actions:
            pauses.append(await self._executor.execute(action, consented.dataset, view))
        for round_, nodes in decision.violations:
            await self._alarms.violations(round_, nodes)
        for stored in filter(is_relevant(view), view.rounds.values()):
            await self._alarms.undecided(stored.record)
        return min((pause for pause in pauses if pause is not None), default=None)

    def _view(self, consented: ConsentedDataset, grace_until: datetime) -> RoundView:
        peers, dataset = self._peers, consented.dataset.name
        mentioned, rounds, now = peers.round_ids(dataset), self._index.of(dataset), self._health.now()
        self._first_seen.retain(dataset, {*rounds, *mentioned})
        return RoundView(
            node=self._node,
            now=now,
            grace_until=grace_until,
            dataset=consented.dataset,
            definitions=consented.definitions,
            rounds=rounds,
            announced={round_id: peers.announced(dataset, round_id) for round_id in mentioned},
            attested={round_id: peers.attested(dataset, round_id) for round_id in mentioned},
            unreadable=peers.unreadable(dataset),
            opened_at=self._first_seen.opened(dataset),
            closed_at=self._first_seen.closed(dataset),
        )
