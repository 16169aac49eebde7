"""Steps that read ground truth: whether they start, wait for a round, or are too late for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from mao_shared.clock import Clock
from mao_shared.errors import Unavailable
from mao_shared.models import GROUND_TRUTH, Alarm, Round, Run, StepRun, VoteDefinition, format_time, round_id
from mao_shared.models.round import ROUND_ENDED
from mao_shared.states import StepPhase

from .decide import MIN_ATTEST_TIME, round_order
from .participation import DatasetSharing
from .validation import has_matching_id
from .view import RoundIndex


@dataclass(frozen=True, slots=True)
class InputReadiness:
    """`wait`: until `until` at most. `late`: what the step's `on_late_truth` says has to be done."""

    says: Literal["go", "wait", "late"]
    reason: str = ""
    until: datetime | None = None


GO = InputReadiness("go")
NEVER = datetime.max.replace(tzinfo=UTC)


class InputGate:
    """`grace`: how long after its deadline a round may take to be closed and noticed."""

    def __init__(self, agreement: DatasetSharing, rounds: RoundIndex, clock: Clock, grace: timedelta) -> None:
        self._agreement = agreement
        self._rounds = rounds
        self._clock = clock
        self._grace = grace

    async def of(self, run: Run, index: int) -> InputReadiness:
        """About the input of a step that is about to be prepared."""
        source = run.steps[index].spec.input
        if source is None or source.branch != GROUND_TRUTH or run.scheduled_for is None:
            return GO
        apart = await self._agreement.apart(source.name)
        try:
            if not await self._agreement.is_shared(source.name):
                left = apart is not None and self._agreement.takes_part(source.name)
                return InputReadiness("late", apart or "") if left else GO
        except Unavailable:
            if apart is None:
                return GO  # this node has never known it to be shared
        deadline = await self._deadline(run, index, source.name)
        known = [each.record for each in self._rounds.of(source.name).values()]
        return input_readiness(run, index, known, deadline, self._grace, self._clock.now())

    async def _deadline(self, run: Run, index: int, dataset: str) -> timedelta:
        """That of the run's own steps which write the dataset, else what its record says."""
        votes = [step.spec.output.vote for step in run.steps[:index] if step.spec.output.name == dataset]
        if not votes:
            try:
                declared = await self._agreement.declared(dataset)
            except Unavailable:
                declared = None
            votes = [None if declared is None else declared.vote]
        return timedelta(seconds=max((each or VoteDefinition()).deadline for each in votes))


def input_readiness(
    run: Run, index: int, known: Sequence[Round], deadline: timedelta, grace: timedelta, now: datetime
) -> InputReadiness:
    """Pure. `known`: rounds of the input's dataset. `deadline`: of one that nobody has opened yet.

    A step that writes the dataset which it reads does not wait for its own round, which other nodes may have
    opened: that waits for this step.
    """
    source, moment = run.steps[index].spec.input, run.scheduled_for
    if source is None or moment is None:
        return GO
    writers = [step for step in run.steps[:index] if step.spec.output.name == source.name]
    for step in writers:
        if step.phase is StepPhase.SKIPPED:
            return InputReadiness("late", f"step {step.spec.name}, which writes its input, was skipped")
    of_tick = {each.id: each for each in known if each.tick == moment and has_matching_id(each)}
    to_come = {round_id(moment, run.pipeline, step.spec.name) for step in run.steps[index:]}
    rounds = {name: each for name, each in of_tick.items() if name not in to_come}
    unknown = {round_id(moment, run.pipeline, step.spec.name): step for step in writers}
    latest = _latest(run, index, writers, deadline) + grace
    verdicts = [_of_round(each, _begun(each, known, now), latest, grace, now) for each in rounds.values()]
    unopened = [(name, step) for name, step in unknown.items() if name not in rounds]
    verdicts += [_of_unopened(name, step, deadline + grace, now) for name, step in unopened]
    verdicts.sort(key=lambda each: ("wait", "late", "go").index(each.says))
    return verdicts[0] if verdicts else GO


def _latest(run: Run, index: int, writers: Sequence[StepRun], deadline: timedelta) -> datetime:
    """By when a round that this run opens, or finds open, is attested if all goes well.

    Worked out from this node's own times: any member can write any times into a round.
    """
    reading = run.steps[index].times.get(StepPhase.PREPARING)
    own = [each.times.get(StepPhase.SUCCEEDED) for each in writers] or [reading]
    since = max((each for each in own if each is not None), default=run.scheduled_for or run.created_at)
    return since + deadline + max(deadline, MIN_ATTEST_TIME)


def _begun(round_: Round, known: Sequence[Round], now: datetime) -> datetime:
    """Since when a round can have been on its way to its end: those of a dataset go one after the other.

    When many are due at once, after an outage or since a node is off, the last of them are closed late. Not
    yet while earlier ones go on: said once, for as long as a round takes at most.
    """
    if round_.closed_at is not None:
        return round_.closed_at
    begun = round_.deadline
    if round_.phase != "open" or now <= begun:
        return begun
    earlier = [each for each in known if has_matching_id(each) and round_order(each) < round_order(round_)]
    if any(each.phase not in ROUND_ENDED for each in earlier):
        return NEVER
    return max([begun, *(each.ended_at for each in earlier if each.ended_at is not None)])


def _of_round(
    round_: Round, begun: datetime, latest: datetime, grace: timedelta, now: datetime
) -> InputReadiness:
    if round_.phase == "decided":
        return GO
    if round_.phase == "undecided":
        return InputReadiness("late", f"round {round_.id} of its input is undecided: {round_.reason}")
    patience = grace
    if round_.closed_at is not None:
        patience += max(timedelta(seconds=round_.definition.deadline), MIN_ATTEST_TIME)
    until = begun + patience if begun < latest - patience else latest  # in this order nothing overflows
    return _until(f"round {round_.id} of its input", until, now)


def _of_unopened(name: str, step: StepRun, patience: timedelta, now: datetime) -> InputReadiness:
    since = step.times.get(StepPhase.SUCCEEDED, now)
    return _until(f"round {name} of its input, which is not opened yet", since + patience, now)


def _until(what: str, until: datetime, now: datetime) -> InputReadiness:
    if now >= until:
        return InputReadiness("late", f"{what} was not decided until {format_time(until)}")
    return InputReadiness("wait", f"waits for {what}, until {format_time(until)} at most", until)


def skipped_alarm(run: Run, step: StepRun, reason: str, now: datetime) -> Alarm:
    """That a step was left out for want of ground truth."""
    what = f"Step {step.spec.name} of run {run.id} was skipped: {reason}."
    return Alarm(
        id=f"{run.id}.{step.spec.name}.skipped",
        kind="round",
        node=run.node,
        raised_at=now,
        pipeline=run.pipeline,
        step=step.spec.name,
        run=run.id,
        dataset=None if step.spec.input is None else step.spec.input.name,
        detail=f"{what} What such a step does instead is set by its 'on_late_truth'.",
    )
