"""The logs of a run's steps, as they are or as they come, and bytes on stdout.

The logs of a run's steps: what there is of them, or as they come.

Files and logs on stdout.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mao_shared.clients.gateway import log_text
from mao_shared.models import Run, StepRun
from mao_shared.states import RUN_ENDED, StepPhase

from .follow import resumed, run_changes, run_goes_on
from .output import say, write, write_bytes
from .session import CliSession
from .text import TerminalText, harmless, harmless_line

if TYPE_CHECKING:
    from mao_shared.clients.responses import ServerEvent

_MAY_STILL_WRITE = frozenset(
    {StepPhase.PENDING, StepPhase.PREPARING, StepPhase.READY, StepPhase.STARTING, StepPhase.RUNNING}
)


def logged_steps(run: Run, only: str | None = None) -> list[tuple[int, StepRun]]:
    """Index and step of those whose container has run in this attempt, so that there is a log."""
    return [
        (index, step)
        for index, step in enumerate(run.steps)
        if only in (None, step.spec.name) and StepPhase.RUNNING in step.times
    ]


def print_logs(
    session: CliSession, run: Run, writer: TextWriter, only: str | None, attempt: int | None
) -> None:
    """Writes what there is of the logs of a run's steps, or of one step or attempt."""
    for index, step in logged_steps(run, only):
        number = attempt or step.attempt
        _heading(run, step, number)
        writer.write(session.client.log(run.id, step=index, attempt=number).encode())
        writer.end()


def print_node_log(session: CliSession, node: str, run: str, step: str | None, *, raw: bool) -> None:
    """Writes the end of a log on another node, made harmless wherever it goes unless `raw`."""
    answer = session.client.node_log(node, run, step=step)
    say(f"==> node {node}, step {harmless_line(answer.step)}{', its end' if answer.cut else ''} <==")
    write(answer.text if raw else harmless(answer.text))


def follow_logs(session: CliSession, run_id: str, writer: TextWriter, only: str | None = None) -> Run:
    """Writes the logs of all steps (or of one) as they come; the run when there is no more to come."""
    shown: set[tuple[int, int]] = set()
    with run_goes_on(run_id):
        while True:
            run = _until_more(session, run_id, shown, only)
            new = _unshown(run, shown, only)
            if not new:
                return run
            for index, step in new:
                shown.add((index, step.attempt))
                _heading(run, step, step.attempt)
                _follow_step(session, run_id, index, step.attempt, writer)


def _until_more(session: CliSession, run_id: str, shown: set[tuple[int, int]], only: str | None) -> Run:
    for run in run_changes(session, run_id):
        if run.phase in RUN_ENDED or _unshown(run, shown, only):
            return run
    raise LookupError("run_changes ends with the ended run, or raises")


def _unshown(run: Run, shown: set[tuple[int, int]], only: str | None) -> list[tuple[int, StepRun]]:
    return [(index, step) for index, step in logged_steps(run, only) if (index, step.attempt) not in shown]


def _heading(run: Run, step: StepRun, attempt: int) -> None:
    if len(run.steps) > 1 or attempt > 1:
        say(f"==> step {step.spec.name}, attempt {attempt} <==")


def _follow_step(session: CliSession, run_id: str, index: int, attempt: int, writer: TextWriter) -> None:
    def subscribe(after: str | None) -> Iterator[ServerEvent]:
        return session.client.follow_log(run_id, step=index, attempt=attempt, after=after)

    def whole() -> bool:
        step = session.client.run(run_id).steps[index]
        return step.attempt > attempt or step.phase not in _MAY_STILL_WRITE

    for event in resumed(session, subscribe, whole):
        if event.event == "end":
            break
        writer.write(log_text(event).encode())
    writer.end()


class TextWriter:
    """Bytes to stdout: as they are for programs, made harmless for terminals unless `raw`."""

    def __init__(self, raw: bool = False) -> None:
        self._text = None if raw or not sys.stdout.isatty() else TerminalText()

    def write(self, data: bytes) -> int:
        """Takes a piece, wherever it is cut; the number of bytes, as files have it."""
        if self._text is None:
            write_bytes(data)
        else:
            write(self._text.feed(data))
        return len(data)

    def end(self) -> None:
        """There is no more to come."""
        if self._text is not None:
            write(self._text.feed(b"", final=True))
