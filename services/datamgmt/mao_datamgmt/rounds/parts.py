"""Says in which datasets this node takes part: those that its own enrolments write to, no more and no less.

And remembers in the node's own store that others do so as well.

It works whenever an enrolment or what is said of one changes, so also when another federation's store has
come into force; nothing but a failure makes it look again by the clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.mao_shared_logs import Outage, get_logger
from mao_shared.models import Enrolment, Part, Shared
from mao_shared.reconcile import Backoff, Guard, Mirror
from mao_shared.store import Records, Store, Unreadable

from .peer_records import part_of, read_part
from .view import RoundsOf
from .voters import Voters

log = get_logger(__name__)

PAUSE, MAX_PAUSE = 1.0, 10.0  # seconds between tries while the federation does not answer or refuses


class Parts:
    """`enrolments`, the mirror of this node's, has to run beside this, as those of `voters`."""

    def __init__(
        self,
        node: str,
        own: Store,
        voters: Voters,
        rounds: RoundsOf,
        unreadable: Unreadable | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        self._guard = Guard("parts", conditions)
        self._node = node
        heard = voters.heard
        self._voters, self._rounds = voters, rounds
        self._shared = Records(own, keys.shared_prefix(node), Shared)
        self._noticed: set[str] = set()
        enrolments = Records(own, keys.enrolments_prefix(node), Enrolment, unreadable)
        self.enrolments = Mirror(enrolments, conditions=conditions)
        self._heard = heard
        self._records = Records(heard.mirror.records.store, keys.parts_prefix(node), Part)
        self._some = asyncio.Event()
        rounds.on_first(self._some_rounds)
        self.enrolments.subscribe(lambda _: self._some.set())
        heard.mirror.subscribe(self._said)
        voters.members.subscribe(lambda _: self._some.set())

    def _said(self, name: str) -> None:
        if part_of(name) is not None:
            self._some.set()

    def _some_rounds(self, _: str) -> None:
        self._some.set()

    async def run(self) -> None:
        """Works until cancelled."""
        outage, tries = Outage(), 0
        self._some.set()
        while True:
            await self._some.wait()
            await self.enrolments.synced.wait()
            await self._voters.known()
            self._some.clear()
            try:
                done = await self._keep()
                outage.over()
                self._guard.worked("")
            except MaoError as error:
                done = False
                if outage.is_news():
                    log.warning("parts.postponed", code=error.code, error=error.detail)
            except Exception as error:  # noqa: BLE001 (it is tried again, whatever it was)
                done = False
                self._guard.failed("", error)
            tries = 0 if done else tries + 1
            if not done:
                pause = Backoff(PAUSE, MAX_PAUSE).pause(tries)
                asyncio.get_running_loop().call_later(pause, self._some.set)

    async def _keep(self) -> bool:
        """Whether what was missing or too much is so no more."""
        wanted, said = self._wanted(), self._heard.parts_of(self._node)
        await self._remember(wanted)
        for dataset in sorted(said - wanted.keys()):
            await self._records.delete(dataset)
            log.info("part.ended", dataset=dataset)
        done = [await self._declare(wanted[dataset]) for dataset in sorted(wanted.keys() - said)]
        return all(done)

    async def _remember(self, ours: Iterable[str]) -> None:
        """Which datasets several have voted: should this node be left alone, it does not decide them."""
        for dataset in ours:
            others = set(self._voters.seen(dataset) or ()) - {self._node}
            if not others:
                self._noticed.discard(dataset)
            elif dataset not in self._noticed and self._rounds.of(dataset):
                await self._shared.create(dataset, Shared(dataset=dataset))
                self._noticed.add(dataset)

    def _wanted(self) -> dict[str, Part]:
        wanted: dict[str, Part] = {}
        for _, stored in self.enrolments.items():
            since = stored.record.enrolled_at
            for name in {step.output.name for step in stored.record.steps}:
                if name not in wanted or since < wanted[name].since:
                    wanted[name] = Part(dataset=name, since=since)
        return wanted

    async def _declare(self, part: Part) -> bool:
        """False where the write lost a race, say against another store's coming into force."""
        if await self._records.create(part.dataset, part) is not None:
            log.info("part.declared", dataset=part.dataset)
            return True
        there = await self._records.store.get(keys.part(self._node, part.dataset))
        if there is None:
            return False
        if read_part(there) is not None:  # it will be heard
            return True
        return await self._records.replace(part.dataset, part, there.revision) is not None
