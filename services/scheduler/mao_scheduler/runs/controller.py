"""Moves runs through their phases: decides by lifecycle.py, writes guarded by the revision it read."""

from __future__ import annotations

import asyncio

from mao_scheduler.metrics import SchedulerMetrics
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.logs import get_logger
from mao_shared.models.run import CancelRequest, Run
from mao_shared.reconcile import Controller, Mirror
from mao_shared.states import RunPhase
from mao_shared.store import Stored

from .lifecycle import Decision, decide
from .turns import ActiveRuns, Turns

log = get_logger(__name__)

TURN_RETRY = 1.0  # seconds to look again at a turn that is not as it was known


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
        self._controller = Controller("runs", self.reconcile, conditions=conditions).watches(mirror)
        self.active.on_freed = self._controller.add
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
        run = stored.record
        beside = max(0, self.active.running(run.pipeline) - 1)
        decision = decide(run, await self._blockers(run), self._clock.now(), beside=beside)
        if decision.yields:
            return await self._give_back(run)
        if decision.replaced and not await self._replace(decision, by=run):
            return TURN_RETRY
        if decision.run is None:
            return decision.again
        if decision.run.phase is RunPhase.MISSED and decision.holder is not None:
            return await self._skip(stored, decision)
        starts = stored.record.phase is RunPhase.QUEUED and decision.run.phase is RunPhase.RUNNING
        takes_turn = starts and decision.run.reproduces is None
        return await (self._start if takes_turn else self._write)(stored, decision)

    async def _blockers(self, run: Run) -> list[Run]:
        if run.phase is not RunPhase.QUEUED:
            return []
        return self.active.blockers(run, await self._holder(run.pipeline))

    async def _holder(self, pipeline: str) -> str | None:
        """Id of the run that has the turn; the turn is not read where nothing runs."""
        if not self.active.running(pipeline):
            return None
        holder = await self._turns.holder(pipeline)
        return self.active.last_started(pipeline) if holder is None else holder

    async def _give_back(self, run: Run) -> float | None:
        """Frees the turn that a run has while it waits, once.

        Whoever is next looks again in any case. The turn may have been freed by a write whose answer never
        came, or by another scheduler that is gone since.
        """
        if run.reproduces is not None or await self._holder(run.pipeline) != run.id:
            return None
        given = await self._turns.give_back(run)
        if given:
            log.info("run.turn_given_back", run=run.id)
        following = self.active.next_in_line(run.pipeline)
        if following is not None:
            self.active.on_freed(following)
        return None if given else TURN_RETRY

    async def _skip(self, stored: Stored[Run], decision: Decision) -> float | None:
        """A tick is missed only for a run that has the turn still, whatever another scheduler has done."""
        assert decision.run is not None  # noqa: S101 (the caller has looked)
        revision = await self._turns.write_while_held(decision.run, stored.revision)
        if revision is None:
            return TURN_RETRY
        self._wrote(stored.record, decision.run, revision)
        return None

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
            return TURN_RETRY
        self._wrote(stored.record, decision.run, revision)
        return None

    async def _replace(self, decision: Decision, *, by: Run) -> bool:
        """Asks the runs in the way to end; False where one is not in the way any more, perhaps."""
        for name in decision.replaced:
            other = self._mirror.get(name)
            if other is None or other.record.cancel is not None:
                continue
            wish = CancelRequest(requested_at=self._clock.now(), reason=f"Replaced by the run {by.id}.")
            cancelled = other.record.model_copy(update={"cancel": wish})
            if name == decision.holder:
                revision = await self._turns.write_while_held(cancelled, other.revision)
            else:
                revision = await self._mirror.records.replace(name, cancelled, other.revision)
            if revision is not None:
                self._wrote(other.record, cancelled, revision)
            elif name == decision.holder:
                return False
        return True

    def _wrote(self, before: Run, after: Run, revision: int) -> None:
        self._mirror.note(after.id, after, revision)
        if after.phase is before.phase:
            return
        self._metrics.count(after)
        log.info("run.moved", run=after.id, before=before.phase, phase=after.phase, reason=after.reason)
