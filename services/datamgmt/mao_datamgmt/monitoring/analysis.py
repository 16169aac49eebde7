"""Analyses finished runs independently of publishing: reads metrics, extends series, raises alarms.

    step ends + request ─► run ends ─► metrics read ─► stored in run ─► series ─► alarms ─► request deleted

The request is written in the transaction that ends the step and deleted last, so that it survives a kill.
Each arrow can be repeated: a run has one point in a series and one alarm about it. A request that fails is
kept, reported as the condition `item-failing`, and retried; publishing never waits for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from mao_shared import keys
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.logs import get_logger
from mao_shared.models import Alarm, Name, Record, Run, StepRun, Timestamp
from mao_shared.models.run import RunId
from mao_shared.reconcile import Backoff, Controller, Mirror
from mao_shared.runs.records import RunRecords
from mao_shared.states import RUN_ENDED, StepPhase
from mao_shared.store import Put, Records, Unreadable
from mao_shared.store.records import dump

from .check_alarms import CheckAlarms
from .series import Observation, SeriesRecorder

log = get_logger(__name__)

PENDING_CHECK_SECONDS = 30.0  # until an active run is checked again, in case a notification was lost
BACKOFF = Backoff(1.0, 300.0)  # for failed requests; a series that cannot be written has many


class AnalysisRequest(Record):
    """A step that has ended and is not analysed yet; stored under `keys.analysis`."""

    run: RunId
    step: Name
    requested_at: Timestamp


class RunAnalysis:
    """Analyses steps of runs that have ended: records metrics, raises alarms.

    `active` are the runs that have not ended. `skipped_alarm` returns the alarm for a skipped step.
    """

    def __init__(
        self,
        runs: RunRecords,
        active: Mirror[Run],
        recorder: SeriesRecorder,
        check_alarms: CheckAlarms,
        raise_alarm: Callable[[Alarm], Awaitable[object]],
        skipped_alarm: Callable[[Run, StepRun], Alarm],
        clock: Clock,
        unreadable: Unreadable | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        self._runs, self._active = runs, active
        self._recorder, self._check_alarms = recorder, check_alarms
        self._raise_alarm, self._skipped_alarm = raise_alarm, skipped_alarm
        self._clock = clock
        self._requests = Records(runs.store, keys.analyses_prefix(runs.node), AnalysisRequest, unreadable)
        self._mirror = Mirror(self._requests, conditions=conditions)
        self._controller = Controller(
            "analysis", self._reconcile, workers=1, backoff=BACKOFF, conditions=conditions
        )
        self._controller.watches(self._mirror)
        active.subscribe(self._run_changed)

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Return the coroutines to run while the app is up."""
        return [self._mirror.run(), self._controller.run(), self._check_alarms.run()]

    def requests(self, run: Run, step: StepRun) -> Sequence[Put]:
        """Return the writes for the transaction that ends a step; none if there is nothing to analyse."""
        has_metrics = step.phase is StepPhase.SUCCEEDED and step.snapshot is not None and step.spec.metrics
        has_checks = step.checks or self._check_alarms.is_open(run, step)
        if not has_metrics and not has_checks and step.phase is not StepPhase.SKIPPED:
            return ()
        request = AnalysisRequest(run=run.id, step=step.spec.name, requested_at=self._clock.now())
        return [Put(keys.analysis(self._runs.node, run.id, step.spec.name), dump(request))]

    def _run_changed(self, run_id: str) -> None:
        if self._active.get(run_id) is None:
            for name, request in self._mirror.items():
                if request.record.run == run_id:
                    self._controller.add(name)

    async def _reconcile(self, name: str) -> float | None:
        """Analyse a step; return the seconds until the next check while its run is in progress."""
        request = await self._requests.find(name)  # it may be deleted and still in the mirror
        if request is None:
            return None
        run_id, step_name = request.record.run, request.record.step
        stored = await self._runs.get(run_id)
        run = None if stored is None else stored.record
        step = None if run is None else next((s for s in run.steps if s.spec.name == step_name), None)
        if run is None or step is None:
            log.warning("analysis.run_gone", run=run_id, step=step_name)
        elif step.phase is StepPhase.SKIPPED:
            await self._raise_alarm(self._skipped_alarm(run, step))
        elif run.phase not in RUN_ENDED:
            return PENDING_CHECK_SECONDS
        else:
            await self._check_alarms.note(run, step)
            observations = await self._recorder.measure(run, step)
            await self._store_values(run_id, step_name, observations)
            await self._recorder.record(observations)
        await self._requests.delete(name, request.revision)
        return None

    async def _store_values(self, run_id: str, name: str, observations: Sequence[Observation]) -> None:
        """Write the metrics to the run's document."""
        readings = [observed.reading for observed in observations]
        values = {reading.metric.name: reading.value for reading in readings if reading.value is not None}

        def with_values(run: Run) -> Run:
            steps = [
                step.model_copy(update={"metrics": values}) if step.spec.name == name else step
                for step in run.steps
            ]
            return run.model_copy(update={"steps": steps})

        await self._runs.update(run_id, with_values)
