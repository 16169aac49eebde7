"""Moves runs through their phases: lifecycle.py decides; each write checks the revision that was read."""

from __future__ import annotations

import asyncio

from mao_scheduler.metrics import SchedulerMetrics
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.logs import get_logger
from mao_shared.models import CancelRequest, Run
from mao_shared.reconcile import Controller, Mirror
from mao_shared.runs.spans import run_span_id, run_spans, trace_facts
from mao_shared.states import RunPhase
from mao_shared.store import Stored
from mao_shared.tracing import Tracing

from .lifecycle import Decision, decide
from .turns import ActiveRuns, Turns

log = get_logger(__name__)

TURN_RETRY = 1.0  # seconds until a turn that has changed is read again


class RunController:
    """Reconciles the active runs of a mirror.

    Runs are reconciled only while `no_tick_due` is set, so that due ticks are written first.
    """

    def __init__(
        self,
        mirror: Mirror[Run],
        turns: Turns,
        clock: Clock,
        metrics: SchedulerMetrics,
        no_tick_due: asyncio.Event,
        conditions: Conditions | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.active = ActiveRuns(mirror)
        self._mirror = mirror
        self._turns = turns
        self._clock = clock
        self._metrics = metrics
        self._no_tick_due = no_tick_due
        self._tracing = tracing or Tracing()
        self._controller = Controller("runs", self.reconcile, conditions=conditions).watches(mirror)
        self.active.on_freed = self._controller.add
        metrics.running.set_function(lambda: self.active.count(RunPhase.RUNNING))
        metrics.queued.set_function(lambda: self.active.count(RunPhase.QUEUED))

    async def run(self) -> None:
        await self._controller.run()

    async def reconcile(self, name: str) -> float | None:
        """Advance a run by one write; return the seconds until the next call, None to wait for an event."""
        await self._no_tick_due.wait()
        stored = self._mirror.get(name)
        if stored is None:
            return None
        run = stored.record
        yielded = max(0, self.active.running(run.pipeline) - 1)
        blockers: list[Run] = []
        if run.phase is RunPhase.QUEUED:
            blockers = self.active.blockers(run, await self._holder(run.pipeline))
        decision = decide(run, blockers, self._clock.now(), yielded=yielded)
        if decision.yields:
            return await self._give_back(run)
        if decision.replaced and not await self._replace(decision, by=run):
            return TURN_RETRY
        if decision.run is None:
            return decision.retry_after
        return await self._write(stored, decision, decision.run)

    async def _holder(self, pipeline: str) -> str | None:
        """Return the id of the run that has the turn; None, without a read, if none is running."""
        if not self.active.running(pipeline):
            return None
        holder = await self._turns.holder(pipeline)
        return self.active.last_started(pipeline) if holder is None else holder

    async def _give_back(self, run: Run) -> float | None:
        """Free the turn of a run that waits for ground truth.

        The next run is reconciled in any case: the turn may have been freed by a write whose response was
        lost, or by another scheduler that has died since.
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

    async def _write(self, stored: Stored[Run], decision: Decision, run: Run) -> float | None:
        """Write the decided document: a start takes the turn, and a skipped tick depends on who holds it."""
        starts = stored.record.phase is RunPhase.QUEUED and run.phase is RunPhase.RUNNING
        if starts and run.traceparent is None:  # no traced request asked for it, or a tick
            own = self._tracing.begin_trace(run_span_id(run.id))
            run = run if own is None else run.model_copy(update={"traceparent": str(own)})
        retry_after: float | None = TURN_RETRY
        if starts and run.reproduces is None:
            revision = await self._turns.start(run, stored.revision)
        elif run.phase is RunPhase.MISSED and decision.holder is not None:
            revision = await self._turns.write_while_held(run, stored.revision)
        else:
            revision = await self._mirror.records.replace(run.id, run, stored.revision)
            retry_after = decision.retry_after  # after a lost race, an event follows
        if revision is None:
            return retry_after
        self._wrote(stored.record, run, revision)
        return decision.retry_after

    async def _replace(self, decision: Decision, *, by: Run) -> bool:
        """Cancel the runs that are replaced; return False if the run with the turn may have changed."""
        for name in decision.replaced:
            other = self._mirror.get(name)
            if other is None or other.record.cancel is not None:
                continue
            request = CancelRequest(requested_at=self._clock.now(), reason=f"Replaced by the run {by.id}.")
            cancelled = other.record.model_copy(update={"cancel": request})
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
        if self._tracing.is_on:
            self._tracing.record(run_spans(before, after))
        if after.phase is before.phase:
            return
        self._metrics.count(after)
        moved = {"run": after.id, "before": before.phase, "phase": after.phase, "reason": after.reason}
        log.info("run.moved", **moved, **trace_facts(after))
