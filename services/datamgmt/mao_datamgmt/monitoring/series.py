"""The series of control metrics: one point per run, judged when it is added; outliers raise an alarm.

Every operation may be repeated after a kill: a run has one point in a series and one alarm about it.
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
from mao_vote.detector import MAX_VALUES, Detector, Judgement

from .extract import MetricReading, read_metrics

log = get_logger(__name__)

MAX_POINTS = MAX_VALUES  # newest points of a series that are kept; the detector remembers no more
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
    def has_failed_check(self) -> bool:
        """True if a check of this metric has failed, which has an alarm of its own."""
        failed = {result.name for result in self.step.checks if not result.passed}
        checks = self.step.spec.checks
        return any(check.metric == self.reading.metric.name and check.name in failed for check in checks)

    @property
    def time(self) -> datetime:
        """Return the time at which the step ended, whenever it is analysed."""
        return self.step.times.get(StepPhase.SUCCEEDED, self.run.created_at)


class SeriesRecorder:
    """Records metrics and raises alarms. `raise_alarm` may be called twice with the same alarm."""

    def __init__(
        self, context: Context, executor: GitExecutor, series: Records[Series], raise_alarm: RaiseAlarm
    ) -> None:
        self._context = context
        self._executor = executor
        self._series = series
        self._raise_alarm = raise_alarm

    async def points(self, run: Run, step: StepRun) -> dict[str, list[Point]]:
        """Return the points so far, without the run's own, of the metrics that a step's checks are about."""
        found: dict[str, list[Point]] = {}
        for metric in dict.fromkeys(check.metric for check in step.spec.checks if check.metric is not None):
            stored = await self._series.find(f"{run.pipeline}/{step.spec.name}/{metric}")
            points = [] if stored is None else stored.record.points
            found[metric] = [point for point in points if point.run != run.id]
        return found

    async def measure(self, run: Run, step: StepRun) -> list[Observation]:
        """Read the metrics of a published step; those that its run already has are not read again.

        None is read if the dataset is no longer on this node. Raises MaoError.
        """
        stored_values, name = step.metrics, step.spec.output.name
        readings = [
            MetricReading(metric, stored_values[metric.name])
            for metric in step.spec.metrics
            if metric.name in stored_values
        ]
        unread = [metric for metric in step.spec.metrics if metric.name not in stored_values]
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

        A metric that fails does not block the others. Raises the first MaoError at the end, for a retry.
        """
        failed: MaoError | None = None
        for observation in observations:
            try:
                await self._record(observation)
            except Unavailable:
                raise
            except MaoError as error:
                log.error("metric.not_recorded", metric=observation.name, code=error.code, error=error.detail)
                failed = failed or error
        if failed is not None:
            raise failed

    async def _record(self, observation: Observation) -> None:
        value = observation.reading.value
        if value is None:
            log.warning("metric.unreadable", metric=observation.name, error=observation.reading.problem)
            metric, step = observation.reading.metric.name, observation.step.spec.name
            detail = f"{metric} of step {step} cannot be read: {observation.reading.problem.rstrip('.')}."
            alarm = self._alarm(observation, "metric-unreadable", detail)
            # One alarm per day, however often the pipeline runs.
            alarm_id = f"{observation.time:%Y%m%d}T000000Z.{observation.run.pipeline}.{step}.{metric}"
            await self._raise_alarm(alarm.model_copy(update={"id": alarm_id}))
            return
        judgement = await self._append(observation, value)
        if judgement.alarming and not observation.has_failed_check:
            kind: AlarmKind = "level-shift" if judgement.verdict == "level-shift" else "spike"
            alarm = self._alarm(observation, kind, describe_outlier(observation, value, judgement))
            await self._raise_alarm(
                alarm.model_copy(
                    update={
                        "expected": judgement.expected,
                        "band": judgement.band,
                        "provisional": judgement.provisional,
                        "reason": judgement.reason,
                    }
                )
            )

    async def _append(self, observation: Observation, value: float) -> Judgement:
        """Add the run's point if the series lacks it; return its judgement."""
        judgements: list[Judgement] = []

        def extend(series: Series | None) -> Series:
            metric = observation.reading.metric
            names = {
                "pipeline": observation.run.pipeline,
                "step": observation.step.spec.name,
                "metric": metric.name,
            }
            before = series or Series(**names, unit=metric.unit)
            extended, judgement = with_point(before, observation.run.id, observation.time, value)
            judgements[:] = [judgement]
            return extended

        await self._series.create_or_update(observation.name, extend)
        return judgements[0]

    def _alarm(self, observation: Observation, kind: AlarmKind, detail: str) -> Alarm:
        run, spec, metric = observation.run, observation.step.spec, observation.reading.metric
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
            value=observation.reading.value,
            detail=detail,
        )


def describe_outlier(observation: Observation, value: float, judgement: Judgement) -> str:
    """Return the text of an alarm about an unexpected value."""
    metric, step = observation.reading.metric, observation.step.spec.name
    state = "has stayed on a new level and is" if judgement.verdict == "level-shift" else "is"
    unit = f" {metric.unit}" if metric.unit else ""
    allowed = f"expected {judgement.expected:.6g} ± {judgement.band:.6g}"
    return f"{metric.name} of step {step} {state} {value:.15g}{unit}, {allowed}: {judgement.reason}."


def with_point(series: Series, run: str, time: datetime, value: float) -> tuple[Series, Judgement]:
    """Return the series with a run's point appended, and the judgement of that point. Pure.

    A series that already has the run's point is returned unchanged.
    """
    for index, point in enumerate(series.points):
        if point.run == run:
            return series, judge(series.points[:index], point.value, point.time)
    judgement = judge(series.points, value, time)
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


def judge(before: Sequence[Point], value: float, time: datetime) -> Judgement:
    """Judge a value at a time after earlier points.

    A truncated series is read from its first accepted point.
    """
    detector, has_accepted = Detector(), False
    for point in before:
        has_accepted = has_accepted or point.accepted
        if has_accepted:
            detector.see(point.value, point.time)
    return detector.see(value, time)
