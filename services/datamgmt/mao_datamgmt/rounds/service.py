"""Composes the parts that handle rounds, and returns live rounds for the API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any

from mao_datamgmt.context import Context
from mao_datamgmt.git_executor import GitExecutor
from mao_datamgmt.settings import DataSettings
from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.models import Alarm, Enrolment, Listing, Round, Run
from mao_shared.models.round import LiveRound
from mao_shared.reconcile import Mirror
from mao_shared.store import Records, Store, Unreadable

from .announcer import Announcer
from .compute import VoteProcesses
from .controller import RoundController, StoreAvailability
from .executor import RoundExecutor
from .input_gate import InputGate
from .participation import DatasetSharing, ParticipationPublisher
from .peer_records import Voters
from .reporting import PhaseFilter, RoundAlarms, live_round, matches_filter, page_of_rounds
from .retention import RoundRetention
from .validation import RoundRecords
from .view import RoundIndex

CONCURRENT_VOTES = 1  # votes of one node that are computed at the same time


class RoundService:
    """The rounds of this node's datasets. `runs` is the mirror of its active runs."""

    def __init__(
        self,
        settings: DataSettings,
        context: Context,
        git: GitExecutor,
        sharing: DatasetSharing,
        voters: Voters,
        runs: Mirror[Run],
        own: Store,
        federation: Store,
        raise_alarm: Callable[[Alarm], Awaitable[object]],
        *,
        unreadable: Unreadable | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        records = RoundRecords(federation, keys.all_rounds(), Round, unreadable)
        self.mirror = Mirror(records, drop_unreadable=True, conditions=conditions)
        self.index = index = RoundIndex(self.mirror)
        self.peer_records, self.voters = voters.peer_records, voters
        self.participation = ParticipationPublisher(context.node, own, voters, index, unreadable, conditions)
        grace = timedelta(seconds=settings.round_grace)
        self.health = StoreAvailability(federation, context.clock, grace, conditions)
        self.input_gate = InputGate(sharing, index, context.clock, grace)
        self.announcer = Announcer(
            context, git, sharing, runs, own, self.peer_records, index, unreadable, conditions
        )
        alarms = RoundAlarms(context, raise_alarm)
        processes = VoteProcesses(asyncio.Semaphore(CONCURRENT_VOTES))
        self.executor = RoundExecutor(context, git, self.mirror, self.peer_records, processes, alarms)
        enrolments = Records(own, keys.enrolments_prefix(context.node), Enrolment, unreadable)
        self.controller = RoundController(
            context.node, sharing, voters, enrolments, index, self.health, self.executor, alarms, conditions
        )
        age = timedelta(days=settings.keep_rounds_days)
        self.retention = RoundRetention(
            context, self.mirror, self.peer_records, age, settings.keep_rounds, conditions
        )

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Return the coroutines to run while the app is up."""
        return [
            self.mirror.run(),
            self.peer_records.mirror.run(),
            self.voters.members.run(),
            self.participation.enrolments.run(),
            self.participation.run(),
            self.health.run(),
            self.announcer.run(),
            self.controller.run(),
            self.retention.run(),
        ]

    def live(
        self, dataset: str | None, phase: PhaseFilter | None, limit: int, cursor: str | None
    ) -> Listing[LiveRound]:
        """Return a page of rounds as this node last saw them, newest first."""
        rounds = [stored.record for _, stored in self.mirror.items()]
        matching = [round_ for round_ in rounds if matches_filter(round_, dataset, phase)]
        page = page_of_rounds(matching, limit, cursor)
        items = []
        for round_ in page.items:
            announced = self.peer_records.announced(round_.dataset, round_.id)
            attested, others = self.peer_records.attested(round_.dataset, round_.id), []
            if round_.phase == "open":
                siblings = (stored.record for stored in self.index.of(round_.dataset).values())
                others = [other for other in siblings if matches_filter(other, None, "live")]
            items.append(live_round(round_, announced, attested, others))
        return Listing(items=items, cursor=page.cursor)
