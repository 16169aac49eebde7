"""Steps without progress are reported with the reason, except those whose wait is expected."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from mao_scheduler.runs import stuck
from mao_scheduler.runs.stuck import StuckStepMonitor, stuck_steps
from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.models import Failure, Run, format_time
from mao_shared.reconcile import Mirror
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store import Records
from mao_shared.store.memory import MemoryStore

from .samples import NODE, START, ManualClock, run

PATIENCE = timedelta(minutes=15)
LATE = START + PATIENCE + timedelta(seconds=1)
HOUR = timedelta(hours=1)


def at_work(phase: StepPhase, run_id: str = "r1", **changes: object) -> Run:
    """Return a run whose only step entered `phase` at START."""
    made = run(run_id, phase=RunPhase.RUNNING, started_at=START)
    step = made.steps[0].model_copy(update={"phase": phase, "times": {phase: START}, **changes})
    return made.with_step(0, step)


def found(runs: list[Run], now: datetime) -> list[str]:
    return [f"{stuck.run}/{stuck.step}" for stuck in stuck_steps(runs, now, PATIENCE)]


@pytest.mark.parametrize(
    "phase",
    [
        StepPhase.PENDING,
        StepPhase.PREPARING,
        StepPhase.READY,
        StepPhase.STARTING,
        StepPhase.EXITED,
        StepPhase.PUBLISHING,
    ],
)
def test_stuck_step_in_any_phase_beyond_patience(phase: StepPhase) -> None:
    assert found([at_work(phase)], START + PATIENCE) == []
    assert found([at_work(phase)], LATE) == ["r1/step-0"]


def test_stuck_respects_time_limit_of_tool() -> None:
    running = at_work(StepPhase.RUNNING)
    limits = running.steps[0].spec.limits
    ends = START + timedelta(seconds=limits.time + limits.grace)
    assert found([running], ends + PATIENCE) == []
    assert found([running], ends + PATIENCE + timedelta(seconds=1)) == ["r1/step-0"]


@pytest.mark.parametrize("phase", [StepPhase.PREPARING, StepPhase.READY])
def test_stuck_waiting_step_allows_for_running_tool(phase: StepPhase) -> None:
    other = at_work(StepPhase.RUNNING, "r0")
    assert found([at_work(phase), other], LATE) == []
    assert "r1/step-0" in found([at_work(phase), other], LATE + HOUR)


def test_stuck_moving_queue_is_not_stuck() -> None:
    """Many steps are due at once when rounds that waited for a node are decided."""
    moved = LATE - timedelta(minutes=1)
    busy = at_work(StepPhase.RUNNING, "r0", times={StepPhase.RUNNING: moved})
    waiting = [at_work(StepPhase.PREPARING, f"w{number}") for number in range(3)]
    day = START + timedelta(days=1)
    limit = timedelta(seconds=busy.steps[0].spec.limits.time)
    assert found([busy, *waiting], moved + PATIENCE + limit) == []
    assert found([busy, *waiting], day) == ["r0/step-0", "w0/step-0", "w1/step-0", "w2/step-0"]
    elsewhere = busy.steps[0].spec.model_copy(
        update={"output": busy.steps[0].spec.output.model_copy(update={"name": "x"})}
    )
    other = busy.with_step(0, busy.steps[0].model_copy(update={"spec": elsewhere}))
    assert found([other, waiting[0]], START + PATIENCE + limit + timedelta(seconds=1)) == ["w0/step-0"]


def test_stuck_wait_with_known_end_is_not_stuck() -> None:
    until = START + 2 * HOUR
    waiting = f"waits for round x of its input, until {format_time(until)} at most"
    for step in (
        at_work(StepPhase.PREPARING, waiting=waiting),
        at_work(StepPhase.PENDING, not_before=until),
    ):
        assert found([step], until + PATIENCE) == []
        assert found([step], until + PATIENCE + timedelta(seconds=1)) == ["r1/step-0"]


def test_stuck_ignores_queued_and_ended_runs() -> None:
    ended = run("r2", phase=RunPhase.SUCCEEDED)
    assert found([run("r1"), ended], START + 1000 * HOUR) == []


async def watch_of(*runs: Run) -> tuple[StuckStepMonitor, Conditions, ManualClock, Mirror[Run]]:
    mirror = Mirror(Records(MemoryStore(), keys.runs_prefix(NODE), Run))
    for number, run_ in enumerate(runs):
        mirror.note(run_.id, run_, number + 1)
    conditions, clock = Conditions(), ManualClock()
    return StuckStepMonitor(mirror, conditions, clock, PATIENCE.total_seconds()), conditions, clock, mirror


async def test_stuck_step_is_reported_until_it_moves() -> None:
    failure = Failure(code="disk-trouble", detail="The remote is read-only.", fault="infrastructure")
    held = at_work(StepPhase.PUBLISHING, error=failure)
    watch, conditions, clock, mirror = await watch_of(held)
    watch.check_steps()
    assert conditions.current() == []
    clock.turn(minutes=16)
    watch.check_steps()
    [told] = conditions.current()
    assert (told.name, told.subject, told.state) == ("step-stuck", "r1/step-0", "degraded")
    assert "publishing" in told.detail
    assert "The remote is read-only." in told.detail
    assert "maoctl run cancel r1" in told.next
    mirror.note("r1", held.with_step(0, held.steps[0].move(StepPhase.SUCCEEDED, clock.now())), 99)
    watch.check_steps()
    assert conditions.current() == []


@pytest.mark.parametrize("odd", ["until 2026-13-40T00:00:00Z at most", "until 2026-01-31T99:00:00Z"])
async def test_stuck_unreadable_step_does_not_hide_others(odd: str) -> None:
    held = at_work(StepPhase.PUBLISHING, "r2")
    watch, conditions, clock, mirror = await watch_of(at_work(StepPhase.PREPARING, waiting=odd), held)
    clock.turn(minutes=16)
    watch.check_steps()
    told = {(condition.name, condition.subject) for condition in conditions.current()}
    assert told == {("item-failing", "stuck/r1"), ("step-stuck", "r2/step-0")}
    mirror.note("r1", run("r1", phase=RunPhase.SUCCEEDED), 99)
    watch.check_steps()
    assert [condition.name for condition in conditions.current()] == ["step-stuck"]


@pytest.mark.parametrize(("jump", "way"), [(3600, "ahead by 3600 s"), (-120, "back by 120 s")])
async def test_clock_jump_is_reported_until_clock_is_stable(
    monkeypatch: pytest.MonkeyPatch, jump: float, way: str
) -> None:
    steady = 1000.0
    monkeypatch.setattr(stuck, "_boot_time", lambda: steady)
    watch, conditions, clock, _ = await watch_of()

    def passes(seconds: float, jumps: float = 0) -> list[str]:
        nonlocal steady
        steady += seconds
        clock.turn(seconds=seconds + jumps)
        watch.check_clock()
        return [condition.detail for condition in conditions.current() if condition.name == "clock"]

    assert passes(30) == []
    assert passes(30, jumps=2) == []  # as NTP does
    assert way in passes(30, jumps=jump)[0]
    assert passes(stuck.CLOCK_STABLE_AFTER) != []
    assert passes(30) == []
