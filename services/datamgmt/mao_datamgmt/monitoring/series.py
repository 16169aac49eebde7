"""The series of control metrics: one point a run, judged when it comes, and an alarm where it looks wrong.

Everything may be repeated after a kill: a run has one point in a series and one alarm about it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from mao_datamgmt.context import Context
from mao_datamgmt.git_executor import GitExecutor
from mao_shared.errors import MaoError, NotFound, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models import Alarm, Point, Run, Series, StepRun
from mao_shared.models.alarm import AlarmKind
from mao_shared.states import StepPhase
from mao_shared.store import Records
from mao_vote.detector import Detector, Judgement

from .extract import MetricReading, read_metrics

log = get_logger(__name__)

MAX_POINTS = 400  # newest points of a series; the detector needs some forty
RaiseAlarm = Callable[[Alarm], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Observation:
    """The value of a metric, with its run and step."""

    run: Run
    step: StepRun
    reading: MetricReading

    @property
    def name(self) -> str:
        """Return the name of the series' record."""
        return f"{self.run.pipeline}/{self.step.spec.name}/{self.reading.metric.name}"

    @property
    def time(self) -> datetime:
        """Return when the step ended, however late or often it is analysed."""
        return self.step.times.get(StepPhase.SUCCEEDED, self.run.created_at)


class SeriesRecorder:
    """Records metrics and raises alarms. `raise_alarm` may be called with the same alarm twice."""

    def __init__(
        self, context: Context, executor: GitExecutor, series: Records[Series], raise_alarm: RaiseAlarm
    ) -> None:
        self._context = context
        self._executor = executor
        self._series = series
        self._raise_alarm = raise_alarm

    async def measure(self, run: Run, step: StepRun) -> list[Observation]:
        """Read the metrics of a published step, except those that its run already has.

        None are read when the dataset has left this node. Raises MaoError.
        """
        known, name = step.metrics, step.spec.output.name
        readings = [
            MetricReading(metric, known[metric.name]) for metric in step.spec.metrics if metric.name in known
        ]
        unread = [metric for metric in step.spec.metrics if metric.name not in known]
        if step.snapshot is not None and unread:
            try:
                readings += await self._executor.query(
                    read_metrics, self._context, name, step.snapshot, unread
                )
            except NotFound as error:
                log.warning("metric.dataset_gone", dataset=name, run=run.id, error=error.detail)
        return [Observation(run, step, reading) for reading in readings]

    async def record(self, observations: Sequence[Observation]) -> None:
        """Add a point to each series; raise an alarm for an unexpected or unreadable value.

        One metric that fails does not hold up the others. Raises MaoError when any did, to be repeated.
        """
        failed: MaoError | None = None
        for observed in observations:
            try:
                await self._record(observed)
            except Unavailable:
                raise
            except MaoError as error:
                log.error("metric.not_recorded", metric=observed.name, code=error.code, error=error.detail)
                failed = failed or error
        if failed is not None:
            raise failed

    async def _record(self, observed: Observation) -> None:
        value = observed.reading.value
        if value is None:
            log.warning("metric.unreadable", metric=observed.name, error=observed.reading.problem)
            metric, step = observed.reading.metric.name, observed.step.spec.name
            detail = f"{metric} of step {step} cannot be read: {observed.reading.problem.rstrip('.')}."
            alarm = self._alarm(observed, "metric-unreadable", detail)
            # One alarm a day, however often the pipeline runs.
            alarm_id = f"{observed.time:%Y%m%d}T000000Z.{observed.run.pipeline}.{step}.{metric}"
            await self._raise_alarm(alarm.model_copy(update={"id": alarm_id}))
            return
        judgement = await self._append(observed, value)
        if judgement.alarming:
            kind: AlarmKind = "level-shift" if judgement.verdict == "level-shift" else "spike"
            alarm = self._alarm(observed, kind, describe_outlier(observed, value, judgement))
            await self._raise_alarm(
                alarm.model_copy(
                    update={
                        "expected": judgement.expected,
                        "band": judgement.band,
                        "provisional": judgement.provisional,
                    }
                )
            )

    async def _append(self, observed: Observation, value: float) -> Judgement:
        """Add the run's point unless the series has it; return its judgement."""
        found: list[Judgement] = []

        def longer(series: Series | None) -> Series:
            metric = observed.reading.metric
            names = {
                "pipeline": observed.run.pipeline,
                "step": observed.step.spec.name,
                "metric": metric.name,
            }
            before = series or Series(**names, unit=metric.unit)
            extended, judgement = with_point(before, observed.run.id, observed.time, value)
            found[:] = [judgement]
            return extended

        await self._series.create_or_update(observed.name, longer)
        return found[0]

    def _alarm(self, observed: Observation, kind: AlarmKind, detail: str) -> Alarm:
        run, spec, metric = observed.run, observed.step.spec, observed.reading.metric
        return Alarm(
            id=f"{run.id}.{spec.name}.{metric.name}",
            kind=kind,
            node=self._context.node,
            raised_at=self._context.clock.now(),
            pipeline=run.pipeline,
            step=spec.name,
            run=run.id,
            dataset=spec.output.name,
            metric=metric.name,
            value=observed.reading.value,
            detail=detail,
        )


def describe_outlier(observed: Observation, value: float, judgement: Judgement) -> str:
    """Return the description of an unexpected value, for people."""
    metric, step = observed.reading.metric, observed.step.spec.name
    is_now = "has stayed on a new level and is" if judgement.verdict == "level-shift" else "is"
    unit = f" {metric.unit}" if metric.unit else ""
    allowed = f"expected {judgement.expected:.6g} ± {judgement.band:.6g}"
    guess = "; there are still few values to judge by" if judgement.provisional else ""
    return f"{metric.name} of step {step} {is_now} {value:.15g}{unit}, {allowed}{guess}."


def with_point(series: Series, run: str, time: datetime, value: float) -> tuple[Series, Judgement]:
    """Return the series with a run's point at its end, and the judgement of that point. Pure.

    A series that has the run's point is returned as it is.
    """
    for place, point in enumerate(series.points):
        if point.run == run:
            return series, judge(series.points[:place], point.value)
    judgement = judge(series.points, value)
    point = Point(
        run=run,
        time=time,
        value=value,
        accepted=judgement.accepted,
        expected=judgement.expected,
        band=judgement.band,
        provisional=judgement.provisional,
    )
    return series.model_copy(update={"points": [*series.points, point][-MAX_POINTS:]}), judgement


def judge(before: Sequence[Point], value: float) -> Judgement:
    """Return the judgement of a value after those before it; a truncated series starts at an accepted one."""
    detector, has_accepted = Detector(), False
    for point in before:
        has_accepted = has_accepted or point.accepted
        if has_accepted:
            detector.see(point.value)
    return detector.see(value)
