"""The rounds of this node's datasets in one object: what runs, and what others ask of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any

from mao_datamgmt.context import Context
from mao_datamgmt.executor import Works
from mao_datamgmt.settings import DataSettings
from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.mao_shared_logs import get_logger
from mao_shared.models import Alarm, Enrolment, Listing, Round, Run
from mao_shared.reconcile import Mirror, every
from mao_shared.store import Records, Store, Unreadable

from .agreement import Agreement
from .announcer import Announcer
from .compute import Vote, Votes
from .controller import Steady
from .executor import Acts
from .input_gate import Truths
from .parts import Parts
from .reporting import Asked, LiveRound, is_asked, live_round, page
from .retention import Retention
from .rounds_controller import RoundController
from .tell import Teller
from .validation import RoundRecords
from .view import RoundsOf
from .voters import Voters

log = get_logger(__name__)

AT_ONCE = 1  # votes of one node that are computed at the same time
RETENTION_PERIOD = 600.0  # seconds


class Rounds:
    """`runs`: the mirror of this node's active runs."""

    def __init__(
        self,
        settings: DataSettings,
        context: Context,
        works: Works,
        agreement: Agreement,
        voters: Voters,
        runs: Mirror[Run],
        own: Store,
        federation: Store,
        raise_alarm: Callable[[Alarm], Awaitable[object]],
        vote: Vote | None = None,
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
        self.by_dataset = RoundsOf(self.mirror)
        self.heard, self.voters = voters.heard, voters
        self._parts = Parts(context.node, own, voters, self.by_dataset, unreadable, conditions)
        grace = timedelta(seconds=settings.round_grace)
        enrolments = Records(own, keys.enrolments_prefix(context.node), Enrolment, unreadable)
        self.steady = Steady(federation, context.clock, grace, conditions)
        self.truths = Truths(agreement, self.by_dataset, context.clock, grace)
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
        tell = Teller(context, raise_alarm)
        self.acts = Acts(
            context, works, self.mirror, self.heard, vote or Votes(asyncio.Semaphore(AT_ONCE)), tell
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
        self._retention = Retention(context, self.mirror, self.heard, age, settings.keep_rounds)

    def parts(self) -> list[Coroutine[Any, Any, None]]:
        """What has to run for as long as the app is up."""
        return [
            self.mirror.run(),
            self.heard.mirror.run(),
            self.voters.members.run(),
            self._parts.enrolments.run(),
            self._parts.run(),
            self.steady.run(),
            self.announcer.run(),
            self.controller.run(),
            self._retain(),
        ]

    def live(
        self, dataset: str | None, phase: Asked | None, limit: int, cursor: str | None
    ) -> Listing[LiveRound]:
        """Rounds as this node last saw them, the newest first."""
        asked = [each.record for _, each in self.mirror.items() if is_asked(each.record, dataset, phase)]
        found = page(asked, limit, cursor)
        return Listing(items=[self._live(each) for each in found.items], cursor=found.cursor)

    def _live(self, round_: Round) -> LiveRound:
        announced = self.heard.announced(round_.dataset, round_.id)
        attested, others = self.heard.attested(round_.dataset, round_.id), []
        if round_.phase == "open":
            rounds = (each.record for each in self.by_dataset.of(round_.dataset).values())
            others = [each for each in rounds if is_asked(each, None, "live")]
        return live_round(round_, announced, attested, others)

    async def _retain(self) -> None:
        await every(
            RETENTION_PERIOD, self._retention.once, name="rounds-retention", conditions=self._conditions
        )
