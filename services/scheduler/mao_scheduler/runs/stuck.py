"""Reports steps that make no progress (condition `step-stuck`) and jumps of the clock (`clock`).

A step may take long: a tool has its own time limit, and a step waits while others run. A step is stuck if it
stays in a phase for longer than these reasons explain.
"""

from __future__ import annotations

import heapq
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.models import Run, StepRun, format_time
from mao_shared.reconcile import Guard, Mirror, every
from mao_shared.states import HOLDS_DATASET, RunPhase, StepPhase

CHECK_PERIOD = 60.0  # seconds between checks
MAX_CLOCK_JUMP = timedelta(seconds=5)  # by which the clock may deviate from the monotonic one between checks
CLOCK_STABLE_AFTER = 900.0  # seconds without a jump after which the clock counts as stable
_UNTIL = re.compile(r"until (\d{4}-\d\d-\d\dT[\d:.]+Z)")  # in the reason of a step that waits for a round
_TAKES_TURNS = frozenset({StepPhase.PREPARING, StepPhase.READY})  # for a dataset, for a slot


@dataclass(frozen=True, slots=True)
class StuckStep:
    """A step that has been in `phase` since `since`; `reason` is from its document."""

    run: str
    step: str
    phase: StepPhase
    since: datetime
    reason: str


def stuck_steps(runs: Iterable[Run], now: datetime, patience: timedelta) -> list[StuckStep]:
    """Return the steps that stay in their phase longer than `patience` plus the expected wait (pure)."""
    active = active_steps(runs)
    held = HeldDatasets.of(active)
    candidates = (find_stuck_step(run, step, held, now, patience) for run, step in active)
    return [stuck for stuck in candidates if stuck is not None]


def active_steps(runs: Iterable[Run]) -> list[tuple[Run, StepRun]]:
    """Return the running runs, each with its active step."""
    running = (run for run in runs if run.phase is RunPhase.RUNNING)
    return [(run, run.steps[index]) for run in running if (index := run.active_step()) is not None]


@dataclass(frozen=True, slots=True)
class HeldDatasets:
    """The datasets in use, for which other steps may wait.

    Attributes:
        longest: the two longest time limits, in seconds, of steps that hold a dataset, each with its run.
        moved: dataset → when the step that holds it entered its phase.
    """

    longest: list[tuple[float, str]]
    moved: dict[str, datetime]

    @staticmethod
    def of(active: Iterable[tuple[Run, StepRun]]) -> HeldDatasets:
        holding = [(run, step) for run, step in active if step.phase in HOLDS_DATASET]
        moved: dict[str, datetime] = {}
        for run, step in holding:
            since, dataset = _since(run, step), step.spec.output.name
            moved[dataset] = max(since, moved.get(dataset, since))
        limits = ((step.spec.limits.time, run.id) for run, step in holding)
        return HeldDatasets(heapq.nlargest(2, limits), moved)

    def longest_beside(self, run: str) -> timedelta:
        return timedelta(seconds=next((limit for limit, other in self.longest if other != run), 0.0))


def find_stuck_step(
    run: Run, step: StepRun, held: HeldDatasets, now: datetime, patience: timedelta
) -> StuckStep | None:
    """Return the step if it is stuck, given the datasets in use (pure)."""
    since = _since(run, step)
    waiting_since = since
    if step.phase is StepPhase.PREPARING:  # several may wait for a dataset, one after another
        waiting_since = max(since, held.moved.get(step.spec.output.name, since))
    if now - waiting_since <= patience + _expected_wait(run, step, held, waiting_since):
        return None
    reason = step.error.detail if step.error is not None else step.waiting or ""
    return StuckStep(run.id, step.spec.name, step.phase, since, reason)


def _since(run: Run, step: StepRun) -> datetime:
    return step.times.get(step.phase, run.started_at or run.created_at)


def _expected_wait(run: Run, step: StepRun, held: HeldDatasets, since: datetime) -> timedelta:
    """Return how long the phase may take beyond `patience`."""
    if step.phase is StepPhase.RUNNING:
        limits = step.spec.limits
        return timedelta(seconds=limits.time + limits.grace)
    if step.phase is StepPhase.PENDING and step.not_before is not None:
        return max(step.not_before - since, timedelta(0))
    until = _UNTIL.search(step.waiting or "")
    if until is not None:  # it continues then at the latest
        return max(datetime.fromisoformat(until[1]) - since, timedelta(0))
    if step.phase in _TAKES_TURNS:
        return held.longest_beside(run.id)
    return timedelta(0)


class StuckStepMonitor:
    """Reports stuck steps of the runs in a mirror, and clock jumps. `patience` is in seconds."""

    def __init__(self, mirror: Mirror[Run], conditions: Conditions, clock: Clock, patience: float) -> None:
        self._mirror = mirror
        self._conditions = conditions
        self._clock = clock
        self._patience = timedelta(seconds=patience)
        self._guard = Guard("stuck", conditions)
        self._lead = self._clock_lead()
        self._jumped_at: float | None = None

    async def run(self) -> None:
        """Check until cancelled."""
        await self._mirror.synced.wait()
        await every(CHECK_PERIOD, self._check, name="stuck", conditions=self._conditions)

    async def _check(self) -> None:
        self.check_clock()
        self.check_steps()

    def check_steps(self) -> None:
        """Check all active runs; an error in one of them does not hide the others."""
        active = active_steps(stored.record for _, stored in self._mirror.items())
        held = HeldDatasets.of(active)
        self._guard.keep({run.id for run, _ in active})
        stuck_steps: list[StuckStep] = []
        for run, step in active:
            with self._guard.item(run.id):
                stuck_step = find_stuck_step(run, step, held, self._clock.now(), self._patience)
                stuck_steps += [] if stuck_step is None else [stuck_step]
        for stuck in stuck_steps:
            why = f": {stuck.reason.rstrip('.')}" if stuck.reason else ""
            self._conditions.report(
                "step-stuck",
                f"{stuck.run}/{stuck.step}",
                detail=f"Step {stuck.step} of run {stuck.run} has been {stuck.phase} since "
                f"{format_time(stuck.since.replace(microsecond=0))}{why}.",
                next_step=f"See it: maoctl run show {stuck.run}; cancel it: maoctl run cancel {stuck.run}",
            )
        self._conditions.clear_all_but("step-stuck", [f"{stuck.run}/{stuck.step}" for stuck in stuck_steps])

    def check_clock(self) -> None:
        """Report a jump of the wall clock against the monotonic clock; clear it once the clock is stable."""
        lead, before = self._clock_lead(), self._lead
        self._lead = lead
        if abs(lead - before) > MAX_CLOCK_JUMP:
            self._jumped_at = _boot_time()
            way = "ahead" if lead > before else "back"
            by = abs(lead - before).total_seconds()
            self._conditions.report(
                "clock",
                detail=f"The node's clock was set {way} by {by:.0f} s at about "
                f"{format_time(self._clock.now().replace(microsecond=0))}.",
                next_step="Synchronise the node's clock by NTP, since ticks depend on it, and check the runs "
                "of that time: maoctl run list",
            )
        elif self._jumped_at is not None and _boot_time() - self._jumped_at > CLOCK_STABLE_AFTER:
            self._jumped_at = None
            self._conditions.clear("clock")

    def _clock_lead(self) -> timedelta:
        return self._clock.now() - datetime.fromtimestamp(_boot_time(), UTC)


def _boot_time() -> float:
    """Return the seconds since boot, by a clock that cannot be set and that includes suspended time."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
