"""Refuses steps that the operator has not agreed to, before a container is created.

A run's document is in etcd and can be written by anybody with access to it. It only requests a step; what
may run here is decided by the registry's files alone (`mao_shared/agreements.py`). A refused step fails
with `not-agreed` and is reported as a condition, which becomes an alarm.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

from mao_runner.drivers.protocol import EngineRefused
from mao_runner.labels import StepAttempt
from mao_shared.agreements import AgreementFiles, refusal_reason
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.logs import get_logger
from mao_shared.models import ResolvedStep, Run

log = get_logger(__name__)

NOT_AGREED = "not-agreed"
RECHECK_PERIOD = 30.0  # seconds until what was refused is held against the agreements again
REFUSAL_SHOWN_FOR = timedelta(days=1)  # that a refusal counts as a condition; its alarm stays
MAX_REFUSALS_SHOWN = 100  # refusals, the newest


class AgreementsNotReady(Exception):
    """The registry has not yet written down what this node has agreed to: to be asked again."""


class StepNotAgreed(EngineRefused):
    """The step is not run: the operator has not agreed to it."""

    default_code = NOT_AGREED


@dataclass(frozen=True, slots=True)
class RefusedStep:
    """A step that was not run; `step` is None where agreeing to it would not help."""

    pipeline: str
    step: ResolvedStep | None
    at: datetime


class Admission:
    """Holds steps against the agreements of one node; nothing of them is remembered."""

    def __init__(self, files: AgreementFiles, node: str, conditions: Conditions, clock: Clock) -> None:
        self._files = files
        self._node = node
        self._conditions = conditions
        self._clock = clock
        self._refused: dict[
            str, RefusedStep
        ] = {}  # subject of the condition → what was refused, oldest first

    async def check(self, run: Run, key: StepAttempt) -> None:
        """Raises NotAgreed, or NotTakenOver while nobody can tell."""
        step = run.steps[key.step].spec
        subject = f"{key.run}/{step.name}"
        odd = identity_mismatch(run, key, self._node)
        why = odd or await asyncio.to_thread(self._why_not, run.pipeline, step)
        if why is None:
            self._forget(subject)
            return
        error = _not_agreed(run.pipeline, step, why)
        log.warning("step.not_agreed", run=key.run, step=step.name, why=why, asks=step.asked() or None)
        refusal = RefusedStep(run.pipeline, None if odd else step, self._clock.now())
        self._report(subject, refusal, error)
        raise error

    async def run(self) -> None:
        """Takes conditions back, for ever: once the step is agreed to after all, or after SHOWN_FOR."""
        while True:
            await asyncio.sleep(RECHECK_PERIOD)
            await self.look()

    async def look(self) -> None:
        """Holds what was refused against the agreements again."""
        for subject, refusal in list(self._refused.items()):
            old = self._clock.now() - refusal.at >= REFUSAL_SHOWN_FOR
            if old or await self._agreed_by_now(refusal):
                self._forget(subject)

    async def _agreed_by_now(self, refusal: RefusedStep) -> bool:
        if refusal.step is None:
            return False
        try:
            return await asyncio.to_thread(self._why_not, refusal.pipeline, refusal.step) is None
        except AgreementsNotReady:
            return False
        except Exception:  # of one of them; the others are looked at
            log.exception("agreed.not_looked", pipeline=refusal.pipeline)
            return False

    def _why_not(self, pipeline: str, step: ResolvedStep) -> str | None:
        try:
            if not self._files.is_taken_over():
                raise AgreementsNotReady
            return refusal_reason(self._files.read(pipeline), self._node, pipeline, step)
        except (MaoError, ValueError) as error:
            return str(error)

    def _report(self, subject: str, refusal: RefusedStep, error: StepNotAgreed) -> None:
        self._refused.pop(subject, None)
        self._refused[subject] = refusal
        while len(self._refused) > MAX_REFUSALS_SHOWN:
            self._forget(next(iter(self._refused)))
        self._conditions.report(NOT_AGREED, subject, detail=error.detail, next_step=error.next or "")

    def _forget(self, subject: str) -> None:
        if self._refused.pop(subject, None) is not None:
            self._conditions.clear(NOT_AGREED, subject)


def identity_mismatch(run: Run, key: StepAttempt, node: str) -> str | None:
    """Why a run is not what its key says, in words: its id names containers and folders. Pure."""
    if run.id != key.run:
        return "its run does not lie under its own id"
    if run.node != node:
        return f"its run is of the node {run.node!r}"
    return None


def _not_agreed(pipeline: str, step: ResolvedStep, why: str) -> StepNotAgreed:
    asks = f" It asks for {', '.join(step.asked())}." if step.asked() else ""
    return StepNotAgreed(
        f"The step {step.name!r} of pipeline {pipeline!r} is not run: {why}.{asks}",
        next=f"See what may run here: maoctl pipeline diff {pipeline}; agree to it: "
        f"maoctl pipeline approve {pipeline}. If you have changed nothing, somebody else writes into this "
        "node's etcd: keep others away from it.",
    )
