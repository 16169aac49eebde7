"""Determines the outcome of a step from the end of its container (pure)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from mao_runner import labels
from mao_runner.drivers.protocol import Container, EngineRefused, fault_of_refusal
from mao_shared.models import Exit, Failure, StepRun
from mao_shared.states import StepPhase

from .plan import deadline

SIGKILLED, SIGTERMED, ENGINE_DIED = 137, 143, 255
CANNOT_EXECUTE, NO_SUCH_COMMAND = 126, 127
_SIGNALS = {
    SIGKILLED: " (killed by SIGKILL, by itself or because the host ran out of memory; the engine did not "
    "report that it reached its own memory limit)",
    SIGTERMED: " (terminated by SIGTERM)",
    139: " (crashed with a segmentation fault)",
}
TAIL_LINES = 10
TAIL_CHARACTERS = 1500
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class ContainerEnd:
    """A container's end and its circumstances. `tail` is the end of its log."""

    container: Container
    now: datetime
    cancelled: bool = False
    stopped: bool = False  # this process sent SIGTERM
    tail: str = ""
    log_bytes: int | None = None
    log_sha256: str | None = None
    engine: str | None = None


def mark_ended(step: StepRun, end: ContainerEnd) -> StepRun:
    """Return the step after its container ended. One that was never seen running passes through `running`."""
    if step.phase is StepPhase.STARTING:
        step = mark_running(step, end.container, end.now, end.engine)
    phase, failure = _judge(step, end)
    code = end.container.exit_code if end.container.exit_code is not None else ENGINE_DIED
    out_of_memory = failure is not None and failure.code == "tool-out-of-memory"
    timed_out = failure is not None and failure.code == "tool-timed-out"
    return step.move(
        phase,
        end.now,
        container_id=end.container.id,
        exit=Exit(code=code, oom=out_of_memory, timed_out=timed_out),
        log_bytes=end.log_bytes,
        log_sha256=end.log_sha256,
        error=failure,
    )


def mark_running(step: StepRun, container: Container, now: datetime, engine: str | None) -> StepRun:
    """Return the step as running, with the user and the engine of its container."""
    user = container.labels.get(labels.USER)
    return step.move(StepPhase.RUNNING, now, container_id=container.id, user=user, engine=engine)


def mark_lost(step: StepRun, now: datetime) -> StepRun:
    """Return the step as lost: the engine no longer knows its container."""
    failure = Failure(
        code="container-lost",
        detail="The container of this step is gone; how it ended is unknown.",
        next="It was removed, or the engine was reset; run the pipeline again.",
        fault="engine",
    )
    return step.move(StepPhase.LOST, now, error=failure)


def mark_refused(step: StepRun, error: EngineRefused, now: datetime) -> StepRun:
    """Return the step as failed: the engine refused to create or start its container."""
    fault = fault_of_refusal(error)
    failure = Failure(code=error.code, detail=error.detail, next=error.next, fault=fault)
    return step.move(StepPhase.FAILED, now, error=failure)


def _judge(step: StepRun, end: ContainerEnd) -> tuple[StepPhase, Failure | None]:
    code = end.container.exit_code
    if end.cancelled:
        return StepPhase.CANCELLED, None
    if _timed_out(step, end):
        return StepPhase.FAILED, Failure(
            code="tool-timed-out",
            detail=f"The tool was stopped at its time limit of {step.spec.limits.time:g} s.",
            next="Raise limits.time of the tool or step, or see in its log what it waits for.",
            fault="tool",
        )
    if code == 0:
        return StepPhase.EXITED, None
    if end.container.oom:
        return StepPhase.FAILED, Failure(
            code="tool-out-of-memory",
            detail=f"The tool ran out of its memory limit of {step.spec.limits.memory / 1024**2:.0f} MiB.",
            next="Raise limits.memory of the tool or step, or reduce its memory use.",
            fault="tool",
        )
    # It was stopped through the engine, or ended by a signal while this process did not watch.
    if code in (SIGKILLED, SIGTERMED, ENGINE_DIED) and end.container.killed is not False:
        return StepPhase.LOST, Failure(
            code="container-killed",
            detail=f"The container was ended from outside with exit code {code}: by a command to the "
            "container engine, or by a restart of the engine or the machine.",
            next="Run the pipeline again.",
            fault="engine",
        )
    if code in (CANNOT_EXECUTE, NO_SUCH_COMMAND):
        return StepPhase.FAILED, _cannot_start_failure(step, end)
    return StepPhase.FAILED, _exit_failure(end)


def _timed_out(step: StepRun, end: ContainerEnd) -> bool:
    """Return True if it was stopped by this process or, as far as is known, by an earlier one.

    A tool that was watched and ended by itself was in time, whatever the system clock shows.
    """
    finished = end.container.finished_at
    unwatched = end.container.killed is not False
    return end.stopped or (unwatched and finished is not None and finished >= deadline(step))


def _cannot_start_failure(step: StepRun, end: ContainerEnd) -> Failure:
    command = " ".join(step.spec.command) if step.spec.command else "the image's own command"
    problem = "was not found" if end.container.exit_code == NO_SUCH_COMMAND else "cannot be executed"
    return Failure(
        code="tool-cannot-start",
        detail=f"A command {problem} (exit code {end.container.exit_code}) when running {command}."
        + _last_lines(end.tail),
        next=f"Try the image by itself: maoctl tool check {step.spec.image.name}",
        fault="tool",
    )


def _exit_failure(end: ContainerEnd) -> Failure:
    run = end.container.labels.get(labels.RUN, "RUN")
    code = end.container.exit_code
    return Failure(
        code="tool-failed",
        detail=f"The tool exited with code {code}{_SIGNALS.get(code or 0, '')}." + _last_lines(end.tail),
        next=f"See its log: maoctl run logs {run}",
        fault="tool",
    )


def _last_lines(tail: str) -> str:
    lines = [line for line in plain_text(tail).splitlines() if line.strip()][-TAIL_LINES:]
    text = "\n".join(lines)[-TAIL_CHARACTERS:]
    return f" Its last output:\n{text}" if text else " It had no output."


def plain_text(text: str) -> str:
    """Remove escape sequences, and control characters other than line breaks and tabs."""
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
