"""Leads the rounds of each dataset forward: sees, decides (decide.py), acts (acts.py)."""

from __future__ import annotations

import asyncio
from datetime import datetime

from mao_datamgmt.agreement import Agreement
from mao_shared.errors import MaoError
from mao_shared.logs import bind, get_logger
from mao_shared.models import Enrolment, Round
from mao_shared.models.round import ROUND_ENDED
from mao_shared.reconcile import Mirror, WorkQueue
from mao_shared.store import Records, Stored

from .acts import Acts
from .consented import Consented, consented
from .decide import decide, seen_now
from .said import Heard, place_of
from .seen import Seen
from .since import Since
from .steady import Steady
from .tell import Teller

log = get_logger(__name__)

WORKERS = 4
RESYNC = 60.0  # seconds after which every dataset is looked at again, against lost hints
AWAY = 2.0  # seconds to look again while the store is away
BACKOFF, MAX_BACKOFF = 0.5, 60.0  # seconds


class RoundController:
    """`rounds` and `heard` are mirrors of the federation's store and run beside this."""

    def __init__(
        self,
        node: str,
        agreement: Agreement,
        enrolments: Records[Enrolment],
        heard: Heard,
        rounds: Mirror[Round],
        steady: Steady,
        acts: Acts,
        tell: Teller,
    ) -> None:
        self._node = node
        self._agreement, self._enrolments = agreement, enrolments
        self._heard, self._rounds = heard, rounds
        self._steady = steady
        self._acts = acts
        self._tell = tell
        self._since = Since()
        self._queue = WorkQueue()
        self._failures: dict[str, int] = {}
        rounds.subscribe(lambda name: self._queue.add(name.partition("/")[0]))
        heard.mirror.subscribe(self._said)

    def _said(self, name: str) -> None:
        about = place_of(name)
        if about is not None:
            self._queue.add(about[0])

    async def run(self) -> None:
        """Works until cancelled."""
        await self._rounds.synced.wait()
        await self._heard.mirror.synced.wait()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._resync_for_ever())
                for _ in range(WORKERS):
                    group.create_task(self._work())
        finally:
            self._queue.close()

    async def _resync_for_ever(self) -> None:
        while True:
            for dataset in {
                name.partition("/")[0] for name, _ in self._rounds.items()
            } | self._heard.datasets():
                self._queue.add(dataset)
            await asyncio.sleep(RESYNC)

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
        except Exception as error:  # one dataset's fault must not stop the others
            count = self._failures[dataset] = self._failures.get(dataset, 0) + 1
            pause = min(BACKOFF * 2.0 ** min(count - 1, 16), MAX_BACKOFF)
            known = isinstance(error, MaoError)
            log.warning("rounds.failed", tries=count, pause=pause, error=str(error), exc_info=not known)
            return pause
        self._failures.pop(dataset, None)
        return again

    async def reconcile(self, dataset: str) -> float | None:
        """Does all that can be done for a dataset now; seconds until it is to be looked at again."""
        patient = self._steady.patient()
        if patient is None:
            await self._steady.look()
            return AWAY
        declared = await self._agreement.declared(dataset)
        if declared is None:
            return AWAY if self._lives(dataset) else None
        ours = await consented(self._enrolments, declared)
        if ours is None:
            return None
        seen = self._seen(ours, patient)
        decision = decide(seen)
        again = [] if decision.again is None else [decision.again]
        for action in decision.actions:
            pause = await self._acts.do(action, ours.dataset, seen)
            again += [] if pause is None else [pause]
        for round_, others in decision.caught:
            await self._tell.caught(round_, others)
        for stored in filter(seen_now(seen), seen.rounds.values()):
            await self._tell.about(stored.record)
        return min(again, default=None)

    def _of(self, dataset: str) -> dict[str, Stored[Round]]:
        prefix = f"{dataset}/"
        found = ((name, stored) for name, stored in self._rounds.items() if name.startswith(prefix))
        return {name.removeprefix(prefix): stored for name, stored in found}

    def _lives(self, dataset: str) -> bool:
        return any(each.record.phase not in ROUND_ENDED for each in self._of(dataset).values())

    def _seen(self, ours: Consented, patient: datetime) -> Seen:
        heard, dataset = self._heard, ours.dataset.name
        spoken, rounds, now = heard.rounds(dataset), self._of(dataset), self._steady.now()
        self._since.note(dataset, rounds, spoken, now, settled=self._steady.settled())
        return Seen(
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
