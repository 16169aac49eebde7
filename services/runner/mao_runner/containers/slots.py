"""Assigns slots fairly: round-robin over pipelines, oldest step first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from mao_shared.models import Run, StepRun
from mao_shared.reconcile import Mirror
from mao_shared.states import StepPhase

from .plan import HOLDS_SLOT, runner_step


class SlotQueue:
    """The fair queue over a mirror of runs.

    Slots are assigned once per iteration of the event loop, however many runs changed. Granted and held
    slots together never exceed `slots`.

    Args:
        wake: called with each run that gets a slot.
        counted: called with the numbers of steps that hold a slot and that wait for one.
        idle: returns True if a run's step neither needs a slot nor could use one now, whatever its phase.
    """

    def __init__(
        self,
        mirror: Mirror[Run],
        slots: int,
        wake: Callable[[str], None],
        counted: Callable[[int, int], None],
        idle: Callable[[str, StepRun], bool] = lambda *_: False,
    ) -> None:
        self._slots = slots
        self._mirror = mirror
        self._wake = wake
        self._counted = counted
        self._idle = idle
        self._parked: set[str] = set()
        self._taking: set[str] = set()
        self._granted: set[str] = set()
        self._ahead: dict[str, int] = {}
        self._due = False
        mirror.subscribe(lambda _: self.schedule_assignment())

    def granted(self, run: str) -> bool:
        return run in self._granted

    def ahead(self, run: str) -> int:
        """Return the number of runs that get a slot before this one."""
        return self._ahead.get(run, len(self._ahead))

    def holding(self) -> int:
        """Return the number of steps that hold a slot."""
        return sum(claim.holds for claim in self._claims())

    @contextmanager
    def taking(self, run: str) -> Iterator[None]:
        """Reserve the slot while the write that takes it is in progress."""
        self._taking.add(run)
        try:
            yield
        finally:
            self._taking.discard(run)
            self.schedule_assignment()

    def park(self, run: str) -> None:
        """Free the slot of a step that is `starting` and cannot start; it waits for a slot again."""
        if run not in self._parked:
            self._parked.add(run)
            self.schedule_assignment()

    def is_parked(self, run: str) -> bool:
        return run in self._parked

    def unpark(self, run: str) -> None:
        """End the wait of a parked step: it takes the slot that it was granted, or has ended."""
        if run in self._parked:
            self._parked.discard(run)
            self.schedule_assignment()

    def schedule_assignment(self) -> None:
        """Assign the slots again in the next iteration of the event loop."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._assign)

    def _assign(self) -> None:
        self._due = False
        claims = list(self._claims())
        before = self._granted
        self._granted, line = assign_slots(claims, self._slots)
        self._ahead = {run: place for place, run in enumerate(line)}
        self._counted(sum(claim.holds for claim in claims), len(line))
        for run in self._granted - before:
            self._wake(run)

    def _claims(self) -> Iterator[SlotClaim]:
        for name, stored in self._mirror.items():
            run = stored.record
            index = runner_step(run)
            if index is None or self._idle(name, run.steps[index]):
                continue
            if run.cancel is None or run.steps[index].phase in HOLDS_SLOT:
                step = run.steps[index]
                holds = name in self._taking or (step.phase in HOLDS_SLOT and name not in self._parked)
                since = step.times.get(StepPhase.READY, run.created_at)
                yield SlotClaim(name, run.pipeline, holds, since)


@dataclass(frozen=True, slots=True)
class SlotClaim:
    """A step that holds a slot or waits for one; `since`: when it became ready."""

    run: str
    pipeline: str
    holds: bool
    since: datetime


def assign_slots(claims: Iterable[SlotClaim], slots: int) -> tuple[set[str], list[str]]:
    """Return the runs that get a slot now, and those that wait, in the order in which they will get one.

    Round-robin over pipelines, oldest first within each: a step's turn is the number of its pipeline's
    steps that hold a slot or are ahead of it. There is no other state: a restart does not change the order.
    """
    held: dict[str, int] = {}
    waiting: list[SlotClaim] = []
    for claim in claims:
        if claim.holds:
            held[claim.pipeline] = held.get(claim.pipeline, 0) + 1
        else:
            waiting.append(claim)
    free = max(0, slots - sum(held.values()))
    ranked: list[tuple[int, datetime, str]] = []
    for claim in sorted(waiting, key=lambda claim: (claim.since, claim.run)):
        turn = held[claim.pipeline] = held.get(claim.pipeline, 0) + 1
        ranked.append((turn, claim.since, claim.run))
    line = [run for *_, run in sorted(ranked)]
    return set(line[:free]), line[free:]
