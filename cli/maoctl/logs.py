"""Logs of a run's steps, so far or as they are written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mao_shared.clients.gateway import log_text
from mao_shared.models import Run, StepRun
from mao_shared.states import RUN_ENDED, StepPhase

from .follow import resumed, run_changes, run_continues
from .output import say, write, write_bytes
from .session import CliSession
from .text import TerminalText, harmless, harmless_line

if TYPE_CHECKING:
    from mao_shared.clients.responses import ServerEvent

_MAY_STILL_WRITE = frozenset(
    {StepPhase.PENDING, StepPhase.PREPARING, StepPhase.READY, StepPhase.STARTING, StepPhase.RUNNING}
)


class TextWriter:
    """Writer of bytes to stdout: escaped for terminals unless `raw`, unchanged otherwise."""

    def __init__(self, raw: bool = False) -> None:
        self._text = None if raw or not sys.stdout.isatty() else TerminalText()

    def write(self, data: bytes) -> int:
        """Write a chunk, which may end anywhere; return the number of bytes, as files do."""
        if self._text is None:
            write_bytes(data)
        else:
            write(self._text.feed(data))
        return len(data)

    def end(self) -> None:
        """End the stream and write what was held back."""
        if self._text is not None:
            write(self._text.feed(b"", final=True))


def logged_steps(run: Run, only: str | None = None) -> list[tuple[int, StepRun]]:
    """Return index and step of the steps whose container has run in this attempt, so that they have a log."""
    return [
        (index, step)
        for index, step in enumerate(run.steps)
        if only in (None, step.spec.name) and StepPhase.RUNNING in step.times
    ]


def print_logs(
    session: CliSession, run: Run, writer: TextWriter, only: str | None, attempt: int | None
) -> None:
    """Write the logs of a run's steps so far, or of one step or attempt."""
    for index, step in logged_steps(run, only):
        number = attempt or step.attempt
        _say_heading(run, step, number)
        writer.write(session.client.runs.log(run.id, step=index, attempt=number).encode())
        writer.end()


def print_node_log(session: CliSession, node: str, run: str, step: str | None, *, raw: bool) -> None:
    """Write the end of a log on another node, with control characters escaped unless `raw`."""
    answer = session.client.nodes.log(node, run, step=step)
    say(f"==> node {node}, step {harmless_line(answer.step)}{' (end only)' if answer.cut else ''} <==")
    write(answer.text if raw else harmless(answer.text))


def follow_logs(session: CliSession, run_id: str, writer: TextWriter, only: str | None = None) -> Run:
    """Write the logs of all steps, or of one, as they are written; return the run when it has ended."""
    shown: set[tuple[int, int]] = set()

    def new_steps(run: Run) -> list[tuple[int, StepRun]]:
        return [
            (index, step) for index, step in logged_steps(run, only) if (index, step.attempt) not in shown
        ]

    def next_change() -> Run:
        for run in run_changes(session, run_id):
            if run.phase in RUN_ENDED or new_steps(run):
                return run
        raise LookupError("run_changes ends with the ended run, or raises")

    with run_continues(run_id):
        while new := new_steps(run := next_change()):
            for index, step in new:
                shown.add((index, step.attempt))
                _say_heading(run, step, step.attempt)
                _follow_step(session, run_id, index, step.attempt, writer)
    return run


def _say_heading(run: Run, step: StepRun, attempt: int) -> None:
    if len(run.steps) > 1 or attempt > 1:
        say(f"==> step {step.spec.name}, attempt {attempt} <==")


def _follow_step(session: CliSession, run_id: str, index: int, attempt: int, writer: TextWriter) -> None:
    def subscribe(after: str | None) -> Iterator[ServerEvent]:
        return session.client.runs.follow_log(run_id, step=index, attempt=attempt, after=after)

    def finished() -> bool:
        step = session.client.runs.get(run_id).steps[index]
        return step.attempt > attempt or step.phase not in _MAY_STILL_WRITE

    for event in resumed(session, subscribe, finished):
        if event.event == "end":
            break
        writer.write(log_text(event).encode())
    writer.end()
