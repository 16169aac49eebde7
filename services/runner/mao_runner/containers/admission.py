"""Refuses steps that the operator has not agreed to, before a container is created.

Anybody with access to etcd can write a run's document, so it is only a request. What may run here is decided
by the registry's files alone (`mao_shared/agreements.py`). A refused step fails with `not-agreed` and is
reported as a condition, which raises an alarm.
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
from mao_shared.reconcile import every

log = get_logger(__name__)

NOT_AGREED = "not-agreed"
RECHECK_PERIOD = 30.0  # seconds between checks whether refused steps are agreed to now
REFUSAL_SHOWN_FOR = timedelta(days=1)  # after that the condition is cleared; its alarm stays
MAX_REFUSALS_SHOWN = 100  # the newest ones


class AgreementsNotReady(Exception):
    """The registry has not yet written what this node agreed to; the caller retries."""


class StepNotAgreed(EngineRefused):
    """The operator has not agreed to the step."""

    default_code = NOT_AGREED


@dataclass(frozen=True, slots=True)
class RefusedStep:
    """A step that was refused; `step` is None if an agreement would not help."""

    pipeline: str
    step: ResolvedStep | None
    at: datetime


class Admission:
    """Checks steps against the agreements of one node, which are read for each check."""

    def __init__(self, files: AgreementFiles, node: str, conditions: Conditions, clock: Clock) -> None:
        self._files = files
        self._node = node
        self._conditions = conditions
        self._clock = clock
        self._refused: dict[str, RefusedStep] = {}  # by subject of the condition, oldest first

    async def check(self, run: Run, key: StepAttempt) -> None:
        """Raise StepNotAgreed, or AgreementsNotReady until the registry has written its files."""
        step = run.steps[key.step].spec
        subject = f"{key.run}/{step.name}"
        mismatch = identity_mismatch(run, key, self._node)
        reason = mismatch or await asyncio.to_thread(self._refusal_reason, run.pipeline, step)
        if reason is None:
            self._forget(subject)
            return
        requests = f" It requests {', '.join(step.asked())}." if step.asked() else ""
        error = StepNotAgreed(
            f"The step {step.name!r} of pipeline {run.pipeline!r} is not run: {reason}.{requests}",
            next=f"See what may run here: maoctl pipeline diff {run.pipeline}; agree to it: "
            f"maoctl pipeline approve {run.pipeline}. If you have changed nothing, somebody else writes to "
            "this node's etcd: restrict access to it.",
        )
        log.warning("step.not_agreed", run=key.run, step=step.name, reason=reason, asks=step.asked() or None)
        self._refused.pop(subject, None)
        self._refused[subject] = RefusedStep(run.pipeline, None if mismatch else step, self._clock.now())
        while len(self._refused) > MAX_REFUSALS_SHOWN:
            self._forget(next(iter(self._refused)))
        self._conditions.report(NOT_AGREED, subject, detail=error.detail, next_step=error.next or "")
        raise error

    async def run(self) -> None:
        """Clear conditions until cancelled: once a step is agreed to, or after REFUSAL_SHOWN_FOR."""
        await every(RECHECK_PERIOD, self.recheck, name="agreements", initial_delay=RECHECK_PERIOD)

    async def recheck(self) -> None:
        """Check the refused steps against the agreements again."""
        for subject, refused in list(self._refused.items()):
            if self._clock.now() - refused.at >= REFUSAL_SHOWN_FOR:
                self._forget(subject)
            elif refused.step is not None:
                try:
                    reason = await asyncio.to_thread(self._refusal_reason, refused.pipeline, refused.step)
                except AgreementsNotReady:
                    continue
                except Exception:  # of one step; the others are still checked
                    log.exception("agreements.recheck_failed", pipeline=refused.pipeline)
                    continue
                if reason is None:
                    self._forget(subject)

    def _refusal_reason(self, pipeline: str, step: ResolvedStep) -> str | None:
        try:
            if not self._files.is_taken_over():
                raise AgreementsNotReady
            return refusal_reason(self._files.read(pipeline), self._node, pipeline, step)
        except (MaoError, ValueError) as error:
            return str(error)

    def _forget(self, subject: str) -> None:
        if self._refused.pop(subject, None) is not None:
            self._conditions.clear(NOT_AGREED, subject)


def identity_mismatch(run: Run, key: StepAttempt, node: str) -> str | None:
    """Return why a run does not match its key, whose id names containers and folders (pure)."""
    if run.id != key.run:
        return "its run is not stored under its own id"
    if run.node != node:
        return f"its run belongs to the node {run.node!r}"
    return None
