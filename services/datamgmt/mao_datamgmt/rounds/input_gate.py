"""Decides whether a step that reads ground truth starts, waits for a round, or is too late for it."""

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
    """The readiness of a step's input. `wait`: at most until `until`; `late`: `on_late_truth` applies."""

    state: Literal["go", "wait", "late"]
    reason: str = ""
    until: datetime | None = None


READY = InputReadiness("go")
NEVER = datetime.max.replace(tzinfo=UTC)


class InputGate:
    """Checks inputs. `grace` is the time after a round's deadline for closing it and noticing that."""

    def __init__(self, sharing: DatasetSharing, index: RoundIndex, clock: Clock, grace: timedelta) -> None:
        self._sharing = sharing
        self._index = index
        self._clock = clock
        self._grace = grace

    async def check(self, run: Run, index: int) -> InputReadiness:
        """Return the readiness of the input of a step that is about to be prepared."""
        source = run.steps[index].spec.input
        if source is None or source.branch != GROUND_TRUTH or run.scheduled_for is None:
            return READY
        refusal = await self._sharing.solo_refusal(source.name)
        try:
            if not await self._sharing.is_shared(source.name):
                is_left_alone = refusal is not None and self._sharing.takes_part(source.name)
                return InputReadiness("late", refusal or "") if is_left_alone else READY
        except Unavailable:
            if refusal is None:
                return READY  # this node has never seen it shared
        deadline = await self._deadline(run, index, source.name)
        known = [stored.record for stored in self._index.of(source.name).values()]
        return input_readiness(run, index, known, deadline, self._grace, self._clock.now())

    async def _deadline(self, run: Run, index: int, dataset: str) -> timedelta:
        """Return the deadline from the run's own steps that write the dataset, otherwise from its record."""
        votes = [step.spec.output.vote for step in run.steps[:index] if step.spec.output.name == dataset]
        if not votes:
            try:
                declared = await self._sharing.declared(dataset)
            except Unavailable:
                declared = None
            votes = [None if declared is None else declared.vote]
        return timedelta(seconds=max((vote or VoteDefinition()).deadline for vote in votes))


def input_readiness(
    run: Run, index: int, known: Sequence[Round], deadline: timedelta, grace: timedelta, now: datetime
) -> InputReadiness:
    """Return the readiness of a step's input. Pure.

    A step that writes the dataset that it reads does not wait for its own round, which other nodes may have
    opened: that round waits for this step.

    Args:
        known: the rounds of the input's dataset.
        deadline: of a round that is not open yet.
    """
    source, tick = run.steps[index].spec.input, run.scheduled_for
    if source is None or tick is None:
        return READY
    writers = [step for step in run.steps[:index] if step.spec.output.name == source.name]
    for step in writers:
        if step.phase is StepPhase.SKIPPED:
            return InputReadiness("late", f"step {step.spec.name}, which writes its input, was skipped")
    of_tick = {other.id: other for other in known if other.tick == tick and has_matching_id(other)}
    own_rounds = {round_id(tick, run.pipeline, step.spec.name) for step in run.steps[index:]}
    rounds = {name: other for name, other in of_tick.items() if name not in own_rounds}
    unknown = {round_id(tick, run.pipeline, step.spec.name): step for step in writers}
    latest = _latest_attestation(run, index, writers, deadline) + grace
    results = [
        _round_readiness(other, _decidable_since(other, known, now), latest, grace, now)
        for other in rounds.values()
    ]
    unopened = [(name, step) for name, step in unknown.items() if name not in rounds]
    for name, step in unopened:
        until = step.times.get(StepPhase.SUCCEEDED, now) + deadline + grace
        results.append(_wait_or_late(f"round {name} of its input, which is not open yet", until, now))
    results.sort(key=lambda result: ("wait", "late", "go").index(result.state))
    return results[0] if results else READY


def _latest_attestation(run: Run, index: int, writers: Sequence[StepRun], deadline: timedelta) -> datetime:
    """Return the time by which a round that this run opens, or finds open, should be attested.

    Uses this node's own times, since any member can write any time into a round.
    """
    reading = run.steps[index].times.get(StepPhase.PREPARING)
    own = [step.times.get(StepPhase.SUCCEEDED) for step in writers] or [reading]
    since = max((time for time in own if time is not None), default=run.scheduled_for or run.created_at)
    return since + deadline + max(deadline, MIN_ATTEST_TIME)


def _decidable_since(round_: Round, known: Sequence[Round], now: datetime) -> datetime:
    """Return the time since when a round could progress: a dataset's rounds are decided one by one.

    If many are due at once, for instance after an outage, the last of them are closed late.
    """
    if round_.closed_at is not None:
        return round_.closed_at
    since = round_.deadline
    if round_.phase != "open" or now <= since:
        return since
    earlier = [
        other for other in known if has_matching_id(other) and round_order(other) < round_order(round_)
    ]
    if any(other.phase not in ROUND_ENDED for other in earlier):
        return NEVER
    return max([since, *(other.ended_at for other in earlier if other.ended_at is not None)])


def _round_readiness(
    round_: Round, since: datetime, latest: datetime, grace: timedelta, now: datetime
) -> InputReadiness:
    if round_.phase == "decided":
        return READY
    if round_.phase == "undecided":
        return InputReadiness("late", f"round {round_.id} of its input is undecided: {round_.reason}")
    allowance = grace
    if round_.closed_at is not None:
        allowance += max(timedelta(seconds=round_.definition.deadline), MIN_ATTEST_TIME)
    until = since + allowance if since < latest - allowance else latest  # this order avoids an overflow
    return _wait_or_late(f"round {round_.id} of its input", until, now)


def _wait_or_late(subject: str, until: datetime, now: datetime) -> InputReadiness:
    if now >= until:
        return InputReadiness("late", f"{subject} was not decided by {format_time(until)}")
    return InputReadiness("wait", f"waits for {subject}, at most until {format_time(until)}", until)


def skipped_alarm(run: Run, step: StepRun, reason: str, now: datetime) -> Alarm:
    """Return the alarm for a step that was skipped because its ground truth was late."""
    subject = f"Step {step.spec.name} of run {run.id} was skipped: {reason}."
    return Alarm(
        id=f"{run.id}.{step.spec.name}.skipped",
        kind="round",
        node=run.node,
        raised_at=now,
        pipeline=run.pipeline,
        step=step.spec.name,
        run=run.id,
        dataset=None if step.spec.input is None else step.spec.input.name,
        detail=f"{subject} What such a step does instead is set by its 'on_late_truth'.",
    )
