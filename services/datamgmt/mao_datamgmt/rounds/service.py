"""The rounds of this node's datasets in one object: what runs, and what others ask of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any

from mao_datamgmt.context import Context
from mao_datamgmt.executor import GitExecutor
from mao_datamgmt.settings import DataSettings
from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.logs import get_logger
from mao_shared.models import Alarm, Enrolment, Listing, Round, Run
from mao_shared.models.round import LiveRound
from mao_shared.reconcile import Mirror, every
from mao_shared.store import Records, Store, Unreadable

from .announcer import Announcer
from .compute import ComputeVote, VoteProcesses
from .controller import RoundController, StoreHealth
from .executor import RoundExecutor
from .input_gate import InputGate
from .participation import DatasetSharing, ParticipationPublisher
from .peer_records import Voters
from .reporting import PhaseFilter, RoundAlarms, live_round, matches_filter, page_of_rounds
from .retention import RoundRetention
from .validation import RoundRecords
from .view import RoundIndex

log = get_logger(__name__)
CONCURRENT_VOTES = 1  # votes of one node that are computed at the same time
RETENTION_PERIOD = 600.0  # seconds


class RoundService:
    """`runs`: the mirror of this node's active runs."""

    def __init__(
        self,
        settings: DataSettings,
        context: Context,
        works: GitExecutor,
        agreement: DatasetSharing,
        voters: Voters,
        runs: Mirror[Run],
        own: Store,
        federation: Store,
        raise_alarm: Callable[[Alarm], Awaitable[object]],
        vote: ComputeVote | None = None,
        *,
        unreadable: Unreadable | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        self._conditions = conditions
        self.mirror = Mirror(
            RoundRecords(federation, keys.all_rounds(), Round, unreadable),
            drop_unreadable=True,
            conditions=conditions,
        )
        self.by_dataset = RoundIndex(self.mirror)
        self.heard, self.voters, self._sharing = voters.heard, voters, agreement
        self._parts = ParticipationPublisher(
            context.node, own, voters, self.by_dataset, unreadable, conditions
        )
        grace = timedelta(seconds=settings.round_grace)
        enrolments = Records(own, keys.enrolments_prefix(context.node), Enrolment, unreadable)
        self.steady = StoreHealth(federation, context.clock, grace, conditions)
        self.truths = InputGate(agreement, self.by_dataset, context.clock, grace)
        self.announcer = Announcer(
            context,
            works,
            agreement,
            runs,
            own,
            self.heard,
            self.mirror,
            self.by_dataset,
            unreadable,
            conditions,
        )
        tell = RoundAlarms(context, raise_alarm)
        self.acts = RoundExecutor(
            context,
            works,
            self.mirror,
            self.heard,
            vote or VoteProcesses(asyncio.Semaphore(CONCURRENT_VOTES)),
            tell,
        )
        self.controller = RoundController(
            context.node,
            agreement,
            voters,
            enrolments,
            self.heard,
            self.mirror,
            self.by_dataset,
            self.steady,
            self.acts,
            tell,
            conditions,
        )
        age = timedelta(days=settings.keep_rounds_days)
        self._retention = RoundRetention(context, self.mirror, self.heard, age, settings.keep_rounds)

    def parts(self) -> list[Coroutine[Any, Any, None]]:
        """What has to run for as long as the app is up."""
        return [
            self.mirror.run(),
            self.heard.mirror.run(),
            self.voters.members.run(),
            self._sharing.marks.run(),
            self._parts.enrolments.run(),
            self._parts.run(),
            self.steady.run(),
            self.announcer.run(),
            self.controller.run(),
            self._retain(),
        ]

    def live(
        self, dataset: str | None, phase: PhaseFilter | None, limit: int, cursor: str | None
    ) -> Listing[LiveRound]:
        """Rounds as this node last saw them, the newest first."""
        asked = [
            each.record for _, each in self.mirror.items() if matches_filter(each.record, dataset, phase)
        ]
        found = page_of_rounds(asked, limit, cursor)
        return Listing(items=[self._live(each) for each in found.items], cursor=found.cursor)

    def _live(self, round_: Round) -> LiveRound:
        announced = self.heard.announced(round_.dataset, round_.id)
        attested, others = self.heard.attested(round_.dataset, round_.id), []
        if round_.phase == "open":
            rounds = (each.record for each in self.by_dataset.of(round_.dataset).values())
            others = [each for each in rounds if matches_filter(each, None, "live")]
        return live_round(round_, announced, attested, others)

    async def _retain(self) -> None:
        await every(
            RETENTION_PERIOD, self._retention.once, name="rounds-retention", conditions=self._conditions
        )
