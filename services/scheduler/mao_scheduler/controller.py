"""Leads each run through its phases: decides by lifecycle.py and writes, guarded by the revision it saw."""

from __future__ import annotations

import asyncio

from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.logs import get_logger
from mao_shared.models.run import CancelRequest, Run
from mao_shared.reconcile import Controller, Mirror
from mao_shared.states import RunPhase
from mao_shared.store import Stored

from .active import ActiveRuns
from .lifecycle import Decision, decide
from .metrics import SchedulerMetrics
from .turns import Turns

log = get_logger(__name__)

TURN_TAKEN = 1.0  # seconds to look again, should the hint that frees the turn be late


class RunController:
    """Reconciles the runs of a mirror that keeps the active ones. `run` works until cancelled.

    `quiet`: work begins only while it is set, so that ticks that are due go first.
    """

    def __init__(
        self,
        mirror: Mirror[Run],
        turns: Turns,
        clock: Clock,
        metrics: SchedulerMetrics,
        quiet: asyncio.Event,
        conditions: Conditions | None = None,
    ) -> None:
        self.active = ActiveRuns(mirror)
        self._mirror = mirror
        self._turns = turns
        self._clock = clock
        self._metrics = metrics
        self._quiet = quiet
        self._controller = Controller(mirror, self.reconcile, name="runs", conditions=conditions)
        self.active.on_freed = self._controller.queue.add
        metrics.running.set_function(lambda: self.active.count(RunPhase.RUNNING))
        metrics.queued.set_function(lambda: self.active.count(RunPhase.QUEUED))

    async def run(self) -> None:
        await self._controller.run()

    async def reconcile(self, name: str) -> float | None:
        """Brings one run forward by one write; seconds after which to look again where no event will come."""
        await self._quiet.wait()
        stored = self._mirror.get(name)
        if stored is None:
            return None
        decision = decide(stored.record, self.active.blockers(stored.record), self._clock.now())
        for other in decision.replaced:
            await self._replace(other, by=name)
        if decision.run is None:
            return decision.again
        starts = stored.record.phase is RunPhase.QUEUED and decision.run.phase is RunPhase.RUNNING
        takes_turn = starts and decision.run.reproduces is None
        return await (self._start if takes_turn else self._write)(stored, decision)

    async def _write(self, stored: Stored[Run], decision: Decision) -> float | None:
        assert decision.run is not None  # noqa: S101 (the caller has looked)
        revision = await self._mirror.records.replace(stored.record.id, decision.run, stored.revision)
        if revision is not None:
            self._wrote(stored.record, decision.run, revision)
        return decision.again

    async def _start(self, stored: Stored[Run], decision: Decision) -> float | None:
        assert decision.run is not None  # noqa: S101 (the caller has looked)
        revision = await self._turns.start(decision.run, stored.revision)
        if revision is None:
            return TURN_TAKEN
        self._wrote(stored.record, decision.run, revision)
        return None

    async def _replace(self, name: str, *, by: str) -> None:
        other = self._mirror.get(name)
        if other is None or other.record.cancel is not None:
            return
        wish = CancelRequest(requested_at=self._clock.now(), reason=f"Replaced by the run {by}.")
        cancelled = other.record.model_copy(update={"cancel": wish})
        revision = await self._mirror.records.replace(name, cancelled, other.revision)
        if revision is not None:
            self._wrote(other.record, cancelled, revision)

    def _wrote(self, before: Run, after: Run, revision: int) -> None:
        self._mirror.note(after.id, after, revision)
        if after.phase is before.phase:
            return
        self._metrics.count(after)
        log.info("run.moved", run=after.id, before=before.phase, phase=after.phase, reason=after.reason)
