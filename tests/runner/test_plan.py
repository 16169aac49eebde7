"""Decisions, as a table over phase, container and circumstances; and the fair queue."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mao_runner.containers.plan import (
    Action,
    AwaitEngine,
    AwaitSlot,
    Begin,
    Cancel,
    Confirm,
    Ignore,
    Kill,
    Launch,
    NoteRunning,
    RecordOutcome,
    StepObservation,
    Stop,
    Watch,
    decide,
    is_same_reason,
    waiting_reason,
)
from mao_runner.containers.slots import SlotClaim, assign_slots
from mao_runner.drivers.protocol import Container
from mao_shared.models import Limits, StepRun
from mao_shared.states import StepPhase

from .harness import step_spec

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
CREATED = Container("id", "name", {}, "created")
RUNNING = Container("id", "name", {}, "running")
EXITED = Container("id", "name", {}, "exited", exit_code=0)
READY, STARTING, RUN = StepPhase.READY, StepPhase.STARTING, StepPhase.RUNNING


def view(phase: StepPhase, container: Container | None = None, **changes: Any) -> StepObservation:
    """Decide at noon for a step that may run for an hour and has run for 10 minutes; its grace is 5 s."""
    spec = step_spec(limits=Limits(time=3600, grace=5))
    times = {READY: NOW - timedelta(minutes=11), RUN: NOW - timedelta(minutes=10)}
    step = StepRun(spec=spec, phase=phase, times=times)
    return replace(StepObservation(step, cancelled=False, container=container, now=NOW), **changes)


LATE = NOW + timedelta(hours=1)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (view(READY, granted=True), Begin()),
        (view(READY, ahead=3), AwaitSlot(3)),
        (view(READY, granted=True, engine=False), AwaitEngine()),
        (view(READY, cancelled=True, engine=False), Cancel(None)),
        (view(STARTING), Launch()),
        (view(STARTING, CREATED), Launch()),
        (view(STARTING, RUNNING), NoteRunning(RUNNING)),
        (view(STARTING, EXITED), RecordOutcome(EXITED)),
        (view(STARTING, engine=False), AwaitEngine()),
        (view(STARTING, cancelled=True), Cancel(None)),
        (view(STARTING, CREATED, cancelled=True), Cancel(CREATED)),
        (view(STARTING, RUNNING, cancelled=True), NoteRunning(RUNNING)),
        (view(RUN, RUNNING), Watch(RUNNING, 3000)),
        (view(RUN, RUNNING, now=NOW - timedelta(days=1)), Watch(RUNNING, 3600)),  # the clock was set back
        (view(RUN, RUNNING, cancelled=True), Stop(RUNNING, 5)),
        (view(RUN, RUNNING, now=LATE), Stop(RUNNING, 5)),
        (view(RUN, RUNNING, cancelled=True, stopped_at=NOW), Watch(RUNNING, 5)),
        (view(RUN, RUNNING, cancelled=True, stopped_at=NOW - timedelta(seconds=5)), Kill(RUNNING)),
        (view(RUN, EXITED), RecordOutcome(EXITED)),
        (view(RUN, EXITED, cancelled=True), RecordOutcome(EXITED)),
        (view(RUN), Confirm()),
        (view(RUN, CREATED), Confirm()),
        (view(RUN, engine=False), AwaitEngine()),
        (view(StepPhase.EXITED, EXITED), Ignore()),
        (view(StepPhase.PREPARING, granted=True), Ignore()),
    ],
)
def test_decide(given: StepObservation, wanted: Action) -> None:
    assert decide(given) == wanted


def claim(run: str, minute: int, *, holds: bool = False) -> SlotClaim:
    """Return a run whose pipeline is the first letter of its id."""
    return SlotClaim(run, run[0], holds, NOW + timedelta(minutes=minute))


def test_assign_slots_round_robin_oldest_first() -> None:
    claims = [claim("a1", 0), claim("a2", 1), claim("a3", 2), claim("b1", 3), claim("c1", 4)]
    granted, line = assign_slots(claims, 2)
    assert granted == {"a1", "b1"}
    assert line == ["c1", "a2", "a3"]


def test_assign_slots_counts_held_slots() -> None:
    granted, line = assign_slots([claim("a1", 0, holds=True), claim("a2", 1), claim("b1", 5)], 2)
    assert granted == {"b1"}
    assert line == ["a2"]


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_assign_slots_never_exceeds_slots(slots: int) -> None:
    claims = [claim(f"{p}{i}", i, holds=i == 0) for p in "abc" for i in range(4)]
    granted, line = assign_slots(claims, slots)
    assert len(granted) == max(0, slots - 3)
    assert len(granted) + len(line) == 9


def test_is_same_reason_ignores_numbers() -> None:
    assert is_same_reason(waiting_reason("slot", "3"), waiting_reason("slot", "2"))
    assert not is_same_reason(waiting_reason("engine"), waiting_reason("slot", "2"))
    assert not is_same_reason(None, waiting_reason("engine"))
