"""The outcome of a step by the end of its container."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mao_runner.containers.outcome import ContainerEnd, mark_ended, plain_text
from mao_runner.drivers.protocol import Container
from mao_shared.models import Limits, StepRun
from mao_shared.states import StepPhase

from .harness import step_spec

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATE = NOW + timedelta(seconds=61)
SPEC = step_spec(limits=Limits(time=60, memory="64m"))
STEP = StepRun(spec=SPEC, phase=StepPhase.RUNNING, times={StepPhase.RUNNING: NOW})


def end(code: int, *, container: dict[str, Any] | None = None, **changes: Any) -> ContainerEnd:
    fields: dict[str, Any] = {"labels": {}, "killed": False, "finished_at": NOW + timedelta(seconds=5)}
    ended = Container("id", "name", state="exited", exit_code=code, **(fields | (container or {})))
    return replace(ContainerEnd(ended, NOW + timedelta(seconds=6)), **changes)


@pytest.mark.parametrize(
    ("given", "phase", "code"),
    [
        (end(0), StepPhase.EXITED, None),
        (end(1), StepPhase.FAILED, "tool-failed"),
        (end(0, cancelled=True), StepPhase.CANCELLED, None),
        (end(143, stopped=True), StepPhase.FAILED, "tool-timed-out"),
        (end(0, container={"finished_at": LATE, "killed": None}), StepPhase.FAILED, "tool-timed-out"),
        (end(0, container={"finished_at": LATE}), StepPhase.EXITED, None),  # the clock was set meanwhile
        (end(137), StepPhase.FAILED, "tool-failed"),
        (end(137, container={"oom": True}), StepPhase.FAILED, "tool-out-of-memory"),
        (end(3, container={"oom": True}), StepPhase.FAILED, "tool-out-of-memory"),
        (end(137, container={"killed": True}), StepPhase.LOST, "container-killed"),
        (end(137, container={"killed": None}), StepPhase.LOST, "container-killed"),
        (end(255, container={"killed": None}), StepPhase.LOST, "container-killed"),
        (end(1, container={"killed": None}), StepPhase.FAILED, "tool-failed"),
        (end(126), StepPhase.FAILED, "tool-cannot-start"),
        (end(127), StepPhase.FAILED, "tool-cannot-start"),
    ],
)
def test_mark_ended_outcomes(given: ContainerEnd, phase: StepPhase, code: str | None) -> None:
    step = mark_ended(STEP, given)
    assert (step.phase, step.error and step.error.code) == (phase, code)
    assert step.exit is not None
    assert step.exit.code == given.container.exit_code
    assert step.error is None or step.error.next


def test_mark_ended_step_never_seen_running() -> None:
    starting = StepRun(spec=SPEC, phase=StepPhase.STARTING)
    step = mark_ended(starting, end(0))
    assert step.phase is StepPhase.EXITED
    assert StepPhase.RUNNING in step.times


def test_mark_ended_shows_last_lines_as_plain_text() -> None:
    tail = "\n".join(f"line {i}" for i in range(30)) + "\r\n\x1b[31mred\x1b[0m \x07bell\n"
    step = mark_ended(STEP, end(1, tail=tail))
    assert step.error is not None
    assert step.error.detail.endswith("line 29\nred bell")
    assert "line 20\n" not in step.error.detail


def test_mark_ended_names_log_command() -> None:
    step = mark_ended(STEP, end(3, container={"labels": {"mao.run": "20260101T120000Z-x-0a1b2c3d"}}))
    assert step.error is not None
    assert step.error.next == "See its log: maoctl run logs 20260101T120000Z-x-0a1b2c3d"


def test_plain_text_keeps_lines_and_tabs() -> None:
    assert plain_text("a\tb\r\nc\rd\x00") == "a\tb\nc\nd"
