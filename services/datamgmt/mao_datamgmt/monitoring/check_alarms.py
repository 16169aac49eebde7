"""Alarms about failed data checks: raised when a check begins to fail, over when it passes again.

Which checks fail, and the alarms about them, are kept in a record for each step, written in one transaction
with the alarms. Runs are judged in the order of their ends, each once, so the work may be repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mao_shared import keys
from mao_shared.clock import Clock
from mao_shared.logs import get_logger
from mao_shared.models import Alarm, Run, StepRun
from mao_shared.models.check import CheckHealth, CheckResult, OpenCheck, strongest_reaction
from mao_shared.reconcile import Mirror
from mao_shared.service.alarms import alarm_writes
from mao_shared.store import Check, Put, Records, Store, Unreadable, Write, dump, retry_lost

log = get_logger(__name__)

CHECK = "check"
_UPDATED = {"count", "detail", "value", "next"}
"""Fields of an open alarm that follow the newest run; its id and run are those of the first."""
_EFFECTS = {
    "warn": "the output was published all the same",
    "quarantine": "the output is quarantined",
    "block": "nothing was published",
}


@dataclass(frozen=True, slots=True)
class Change:
    """The new state of a step's checks, the alarms to raise, and the fields to change in open ones by id."""

    health: CheckHealth
    raised: list[Alarm] = field(default_factory=list)
    changed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def judge_checks(health: CheckHealth, run: Run, step: StepRun, ended: datetime) -> Change | None:
    """Return what the checks of a run's step change; None for nothing, as for one judged before. Pure."""
    if run.reproduces is not None or (step.spec.checks and not step.checks):
        return None  # it has failed before its checks
    if health.judged_at is not None and (ended, run.id) <= (health.judged_at, health.judged or ""):
        return None
    failing: dict[str, OpenCheck] = {}
    raised: list[Alarm] = []
    changed: dict[str, dict[str, Any]] = {}
    for result in step.checks:
        known = health.failing.get(result.name)
        if result.passed:
            continue
        count = 1 if known is None else known.count + 1
        alarm = _alarm(run, step, result, ended, count)
        if known is None:
            raised.append(alarm)
        else:
            changed[known.alarm] = alarm.model_dump(include=_UPDATED)
        failing[result.name] = OpenCheck(alarm=alarm.id if known is None else known.alarm, count=count)
    for name, known in sorted(health.failing.items()):
        if name not in failing:  # it passes, or the step has it no longer
            changed[known.alarm] = {"over": ended}
    after = health.model_copy(update={"failing": failing, "judged_at": ended, "judged": run.id})
    return Change(after, raised, changed) if raised or changed else None


def _alarm(run: Run, step: StepRun, result: CheckResult, ended: datetime, count: int) -> Alarm:
    reaction = strongest_reaction(step.checks) or "warn"
    row = f" {count} times in a row" if count > 1 else ""
    quarantined = step.quarantine
    see = f"See it: maoctl run show {run.id}"
    if quarantined is not None:
        where = f"{step.spec.output.name} {quarantined.commit[:10]}"
        see = f"Decide about it: maoctl dataset quarantine show {where}"
    return Alarm(
        id=f"{run.id}.{step.spec.name}.check-{result.name}",
        kind=CHECK,
        node=run.node,
        raised_at=ended,
        pipeline=run.pipeline,
        step=step.spec.name,
        run=run.id,
        dataset=step.spec.output.name,
        value=result.value,
        detail=f"Check {result.name} of step {step.spec.name} failed{row}: {result.detail.rstrip('.')}; "
        f"{_EFFECTS[reaction]}.",
        service="datamgmt",
        subject=result.name,
        next=see,
        count=count,
    )


def _name(run: Run, step: StepRun) -> str:
    return f"{run.pipeline}/{step.spec.name}"


class CheckAlarms:
    """Raises and ends the alarms about the checks of this node's runs."""

    def __init__(self, node: str, store: Store, clock: Clock, unreadable: Unreadable | None = None) -> None:
        self._node, self._store, self._clock = node, store, clock
        self._healths = Records(store, keys.check_health_prefix(node), CheckHealth, unreadable)
        self._alarms = Records(store, keys.alarms_prefix(node), Alarm, unreadable)
        self._known = Mirror(self._healths)

    async def run(self) -> None:
        """Follow which checks fail, until cancelled."""
        await self._known.run()

    def is_open(self, run: Run, step: StepRun) -> bool:
        """True if a check of the step is known to fail; its alarm ends even if the step has no checks now."""
        stored = self._known.get(_name(run, step))
        return stored is not None and bool(stored.record.failing)

    async def note(self, run: Run, step: StepRun) -> None:
        """Write what the checks of an ended run's step change. May be repeated."""
        ended = run.finished_at or run.created_at
        name = _name(run, step)

        async def attempt() -> bool | None:
            stored = await self._healths.get(name)
            known = (
                CheckHealth(pipeline=run.pipeline, step=step.spec.name) if stored is None else stored.record
            )
            change = judge_checks(known, run, step, ended)
            if change is None:
                return True
            key = self._healths.prefix + name
            checks = [Check(key, 0 if stored is None else stored.revision)]
            writes: list[Write] = [Put(key, dump(change.health))]
            for alarm in change.raised:
                place = self._alarms.prefix + alarm.id
                if await self._store.get(place) is None:
                    checks.append(Check(place, 0))
                    writes += await alarm_writes(self._store, self._node, place, alarm, self._clock.now())
            for alarm_id, fields in sorted(change.changed.items()):
                if (open_alarm := await self._alarms.find(alarm_id)) is not None:
                    place = self._alarms.prefix + alarm_id
                    checks.append(Check(place, open_alarm.revision))
                    writes.append(Put(place, dump(open_alarm.record.model_copy(update=dict(fields)))))
            if await self._store.transact(checks, writes) is None:
                return None
            for alarm in change.raised:
                log.warning("alarm.raised", alarm=alarm.id, kind=alarm.kind, detail=alarm.detail)
            return True

        await retry_lost(attempt, f"the state of the checks of {name}")
