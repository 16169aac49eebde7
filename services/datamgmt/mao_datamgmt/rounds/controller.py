"""Reconciles the rounds of each dataset: builds the view, decides, executes; and the store's health.

For how long the federation's store has answered without a break: only then does silence mean anything.

Leads the rounds of each dataset forward: sees, decides (decide.py), acts (acts.py).
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError, Unavailable
from mao_shared.logs import bind, get_logger
from mao_shared.models import Enrolment, Round
from mao_shared.reconcile import Guard, Mirror, every
from mao_shared.reconcile.controller import WorkQueue
from mao_shared.store import Records, Store

from .decide import decide, depends_on_voters, is_relevant
from .executor import RoundExecutor
from .participation import ConsentedDataset, DatasetSharing, consented_dataset
from .peer_records import PeerRecords, Voters, dataset_named_by, round_named_by
from .reporting import RoundAlarms
from .view import FirstSeenTimes, RoundIndex, RoundView

PING_PERIOD = 5.0  # seconds
SETTLE_TIME = timedelta(seconds=10)


class StoreHealth:
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
        return self._since is not None and self.now() - self._since >= SETTLE_TIME

    async def run(self) -> None:
        """Asks now and then, for ever."""
        await every(PING_PERIOD, self.look, name="federation-answers", conditions=self._conditions)

    async def look(self) -> None:
        try:
            await self._store.ping()
        except MaoError:
            self._since = None
        else:
            self._since = self._since or self._clock.now()


log = get_logger(__name__)
WORKERS = 4
RESYNC = 60.0  # seconds after which every dataset is looked at again, against lost hints
VOTERS_RETRY = 1.0  # seconds to look again while it is not heard yet who votes
STORE_RETRY = 2.0  # seconds to look again while the store is away
BACKOFF, MAX_BACKOFF = 0.5, 60.0  # seconds


class RoundController:
    """`rounds` and `heard` are mirrors of the federation's store and run beside this."""

    def __init__(
        self,
        node: str,
        agreement: DatasetSharing,
        voters: Voters,
        enrolments: Records[Enrolment],
        heard: PeerRecords,
        rounds: Mirror[Round],
        by_dataset: RoundIndex,
        steady: StoreHealth,
        acts: RoundExecutor,
        tell: RoundAlarms,
        conditions: Conditions | None = None,
    ) -> None:
        self._guard = Guard("rounds", conditions)
        self._node = node
        self._agreement, self._enrolments = agreement, enrolments
        self._voters = voters
        self._heard, self._rounds, self._by_dataset = heard, rounds, by_dataset
        self._steady = steady
        self._acts = acts
        self._tell = tell
        self._since = FirstSeenTimes(steady.now, steady.settled)
        self._queue = WorkQueue()
        self._failures: dict[str, int] = {}
        rounds.subscribe(self._round_changed)
        heard.mirror.subscribe(self._said)
        voters.members.subscribe(lambda _: self._add_all())

    def _round_changed(self, name: str) -> None:
        stored = self._rounds.get(name)
        if stored is not None:
            self._since.see(stored.record)
        self._queue.add(name.partition("/")[0])

    def _said(self, name: str) -> None:
        place = round_named_by(name)
        if place is not None:
            self._since.hear(*place)
        about = dataset_named_by(name)
        if about is not None:
            self._queue.add(about)

    async def run(self) -> None:
        """Works until cancelled."""
        await self._rounds.synced.wait()
        await self._voters.known()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._resync_for_ever())
                for _ in range(WORKERS):
                    group.create_task(self._work())
        finally:
            self._queue.close()

    async def _resync_for_ever(self) -> None:
        while True:
            self._add_all()
            await asyncio.sleep(RESYNC)

    def _add_all(self) -> None:
        ours = set(self._by_dataset.datasets())
        for dataset in ours | self._heard.datasets():
            self._queue.add(dataset)

    async def _work(self) -> None:
        while True:
            dataset = await self._queue.take()
            try:
                with bind(dataset=dataset):
                    again = await self._reconcile_safely(dataset)
            finally:
                self._queue.done(dataset)
            if again is not None:
                self._queue.add_later(dataset, again)

    async def _reconcile_safely(self, dataset: str) -> float | None:
        try:
            again = await self.reconcile(dataset)
        except Exception as error:  # noqa: BLE001 (of one dataset)
            count = self._failures[dataset] = self._failures.get(dataset, 0) + 1
            pause = min(BACKOFF * 2.0 ** min(count - 1, 16), MAX_BACKOFF)
            if isinstance(error, Unavailable):  # that passes by itself, and is told where it is noticed
                log.warning("rounds.failed", tries=count, pause=pause, error=str(error))
            else:
                self._guard.failed(dataset, error)
            return pause
        self._failures.pop(dataset, None)
        self._guard.worked(dataset)
        return again

    async def reconcile(self, dataset: str) -> float | None:
        """Does all that can be done for a dataset now; seconds until it is to be looked at again."""
        patient = self._steady.patient()
        if patient is None:
            await self._steady.look()
            return STORE_RETRY
        try:
            declared = await self._agreement.declared(dataset)
        except Unavailable:
            return STORE_RETRY
        voters = self._voters.seen(dataset)
        if voters is None:
            return STORE_RETRY
        ours = await consented_dataset(self._enrolments, dataset, declared, voters)
        if ours is None:
            return None
        seen = self._seen(ours, patient)
        decision = decide(seen)
        if any(map(depends_on_voters, decision.actions)) and not await self._is_agreed_who_votes(ours):
            return VOTERS_RETRY
        again = [] if decision.again is None else [decision.again]
        for action in decision.actions:
            pause = await self._acts.do(action, ours.dataset, seen)
            again += [] if pause is None else [pause]
        for round_, others in decision.caught:
            await self._tell.caught(round_, others)
        for stored in filter(is_relevant(seen), seen.rounds.values()):
            await self._tell.about(stored.record)
        return min(again, default=None)

    async def _is_agreed_who_votes(self, ours: ConsentedDataset) -> bool:
        """Whether what was heard of who votes is what the store says now: else nodes would undo each other's
        writes for as long as one hears later than another.
        """
        return await self._voters.ask(ours.dataset.name) == ours.dataset.nodes

    def _seen(self, ours: ConsentedDataset, patient: datetime) -> RoundView:
        heard, dataset = self._heard, ours.dataset.name
        spoken, rounds, now = heard.rounds(dataset), self._by_dataset.of(dataset), self._steady.now()
        self._since.keep(dataset, {*rounds, *spoken})
        return RoundView(
            me=self._node,
            now=now,
            patient=patient,
            dataset=ours.dataset,
            agreed=ours.definitions,
            rounds=rounds,
            announced={each: heard.announced(dataset, each) for each in spoken},
            attested={each: heard.attested(dataset, each) for each in spoken},
            garbled=heard.garbled(dataset),
            since=self._since.begun(dataset),
            closed=self._since.closed(dataset),
        )
