"""Up to which tick this node has said all that it had to say of a pipeline's step, and the rounds have ended.

A node says each thing once. That it has said a thing is known as long as it lies in the federation's store;
from there it goes a day after the round's end, and with it the round, while the run may stay for months. So
what has passed is written down in the node's own store, where nobody else writes and where the runs lie that
it is about: what becomes of one becomes of the other. Only an end that this node has seen moves it, and never
past a tick of which it has something to say: after an outage it is all said, however old. It is about what
was done by then: what a backfill or another try brings to an old tick is news.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta

from mao_datamgmt.context import Context
from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.mao_shared_logs import get_logger
from mao_shared.models import Announcement, Passage, Round, Shared
from mao_shared.reconcile import Backoff, Guard, every, wait_at_most
from mao_shared.store import Records, Store, Unreadable

from .decide import OPENS_WITHIN
from .past import SAID_FOR
from .pending import Due
from .validation import names_itself
from .view import RoundsOf

log = get_logger(__name__)

LOOK = 600.0  # seconds between two looks at what has ended
PAUSE = 1.0  # seconds between two tries while the node's own store is away
ENDED_FOR = SAID_FOR / 2  # before that nothing of a round has gone


class Passed:
    """`pending`: what this node has still to say. `begin` is called once that is complete."""

    def __init__(
        self,
        context: Context,
        own: Store,
        rounds: RoundsOf,
        pending: Mapping[tuple[str, str], Due],
        unreadable: Unreadable | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        self._conditions = conditions
        self._guard = Guard("rounds-passed", conditions)
        self._clock = context.clock
        self._records = Records(own, keys.shared_prefix(context.node), Shared, unreadable)
        self._rounds = rounds
        self._pending = pending
        self._passed: dict[str, dict[str, Passage]] = {}  # dataset → pipeline/step
        self._ours: set[tuple[str, str]] = set()
        self.begun = False
        self._new: set[str] = set()  # datasets of which something is to be written down
        self._some = asyncio.Event()
        rounds.on_gone(self._gone)

    def covers(self, due: Due) -> bool:
        known = self._passed.get(due.announcement.dataset, {}).get(_series(due.announcement))
        return known is not None and due.announcement.tick <= known.tick and due.done_at <= known.ended_at

    def is_ours(self, said: Announcement) -> None:
        """Takes note that this node has something to say in such rounds: of others nothing is kept."""
        self._ours.add((said.dataset, _series(said)))

    def begin(self) -> None:
        self.begun = True
        self._some.set()

    async def load(self) -> None:
        """Raises Unavailable."""
        for name, record in (await self._records.by_name()).items():
            self._passed[name] = dict(record.passed)
            self._ours.update((name, each) for each in record.passed)

    async def run(self) -> None:
        """Works until cancelled."""
        await every(
            0.0, self._keep, name="rounds-passed", conditions=self._conditions, away=Backoff(PAUSE, PAUSE)
        )

    async def _keep(self) -> None:
        await wait_at_most(self._some, LOOK)
        self._some.clear()
        try:
            self.look()
            await self._write_down()
        except Exception:
            self._some.set()
            raise

    def look(self) -> None:
        """Takes in what has ended long enough ago, before it goes while this node is down."""
        now = self._clock.now()
        for dataset in {dataset for dataset, _ in self._ours}:
            for each in reversed(self._rounds.of(dataset).values()):  # the newest first, by and large
                ended = each.record.ended_at
                if ended is not None and now - ended > ENDED_FOR:
                    self._pass(each.record, now)

    def _gone(self, round_: Round) -> None:
        self._pass(round_, self._clock.now())

    def _pass(self, round_: Round, now: datetime) -> None:
        of, ended = _series(round_), round_.ended_at
        if not self.begun or ended is None or (round_.dataset, of) not in self._ours:
            return
        if not names_itself(round_) or max(round_.tick, ended) > now:
            return
        passed = self._passed.setdefault(round_.dataset, {})
        known = passed.get(of) or Passage(tick=round_.tick, ended_at=ended)
        new = Passage(tick=max(known.tick, round_.tick), ended_at=max(known.ended_at, ended))
        if new == passed.get(of) or self._has_to_say(round_):
            return
        passed[of] = new
        self._new.add(round_.dataset)
        self._some.set()

    def _has_to_say(self, round_: Round) -> bool:
        pending = (due.announcement for due in self._pending.values())
        return any(
            said.dataset == round_.dataset and _series(said) == _series(round_) and said.tick <= round_.tick
            for said in pending
        )

    async def _write_down(self) -> None:
        oldest = self._clock.now() - OPENS_WITHIN - timedelta(days=1)
        for dataset in list(self._new):
            with self._guard.item(dataset):
                await self._write_of(dataset, oldest)

    async def _write_of(self, dataset: str, oldest: datetime) -> None:
        stored = await self._records.get(dataset)
        passed = {of: each for of, each in self._passed[dataset].items() if each.tick > oldest}
        if stored is not None and stored.record.passed != passed:
            record = stored.record.model_copy(update={"passed": passed})
            if await self._records.replace(dataset, record, stored.revision) is None:
                self._some.set()
                return
        self._new.discard(dataset)


def _series(of: Round | Announcement) -> str:
    return f"{of.pipeline}/{of.step}"
