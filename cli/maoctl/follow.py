"""Waiting for runs and following their logs over server-sent events; no polling."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mao_shared.errors import PeerUnavailable, Unavailable
from mao_shared.states import RUN_ENDED, RunPhase

from .api import Api, Event
from .exits import ExitCode, Stop
from .lookup import segment
from .output import Record, say, write, write_bytes
from .session import Session
from .text import TerminalText

GIVE_UP_AFTER = 8  # tries in a row that brought no event
_LONGEST_PAUSE = 5.0  # seconds
_LOG_HAS_BEGUN = frozenset({"running", "exited", "publishing", "succeeded", "failed", "lost", "cancelled"})
_LOG_IS_WHOLE = _LOG_HAS_BEGUN - {"running"}


class _TimeIsUp(Exception):
    pass


@contextmanager
def time_limit(seconds: float | None, what: str, next_step: str) -> Iterator[None]:
    """Raises Stop (wait timed out) in the block after that many seconds, also out of a blocking read."""
    if seconds is None:
        yield
        return

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise _TimeIsUp

    before = signal.signal(signal.SIGALRM, ring)
    left = signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    except _TimeIsUp:
        raise Stop(ExitCode.WAIT_TIMED_OUT, f"{what} after {seconds:g} s.", next_step) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, *left)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def run_goes_on(run_id: str) -> Iterator[None]:
    """Ctrl-C in the block ends the waiting, not the run: exit code 130, and the person is told."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stop(
            ExitCode.INTERRUPTED,
            f"No longer waiting; the run {run_id} goes on.",
            f"maoctl run wait {run_id}, or maoctl run cancel {run_id}",
        ) from None


def resumed(
    session: Session, path: str, finished: Callable[[], bool] = lambda: False, **params: Any
) -> Iterator[Event]:
    """Events of a stream that is opened again behind the last one whenever it breaks or ends.

    It is over when the consumer stops, or when `finished` holds after an end of the stream. Raises
    PeerUnavailable after several tries in a row without an event.
    """
    last_id: str | None = None
    failures = 0
    while True:
        trouble: Unavailable | None = None
        try:
            with session.api.events(path, last_id, **params) as events:
                for event in events:
                    failures, last_id = 0, event.id or last_id
                    yield event
            if finished():
                return
        except Unavailable as error:
            trouble = error
        failures += 1
        if failures > GIVE_UP_AFTER:
            raise trouble or PeerUnavailable(f"{path} ends again and again without an event.")
        session.pause(min(_LONGEST_PAUSE, 0.1 * 2**failures))


def run_changes(session: Session, run_id: str) -> Iterator[Record]:
    """The run's document at every change; ends after the one in which it has ended."""
    for event in resumed(session, f"/runs/{segment(run_id)}/events"):
        run = _document(event)
        if run is None or run.get("id") != run_id:
            continue
        yield run
        if has_ended(run):
            return


def _document(event: Event) -> Record | None:
    try:
        document = json.loads(event.data)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def has_ended(run: Record) -> bool:
    return run.get("phase") in RUN_ENDED


def wait_for_run(session: Session, run_id: str, timeout: float | None = None) -> Record:
    """The run when it has ended; tells on stderr what it is at meanwhile."""
    last: Record = {}
    told = ""
    with run_goes_on(run_id), _limit_for_run(run_id, timeout):
        for last in run_changes(session, run_id):
            news = progress(last)
            if news != told:
                say(news)
                told = news
    return last


def _limit_for_run(run_id: str, timeout: float | None) -> Any:
    goes_on = f"It goes on: maoctl run wait {run_id}, or maoctl run cancel {run_id}"
    return time_limit(timeout, f"The run {run_id} has not ended", goes_on)


def progress(run: Record) -> str:
    """One line: the run's phase and what its current step is at."""
    steps = run.get("steps") or []
    current = next((step for step in steps if step.get("phase") not in ("succeeded", "skipped")), None)
    words = f"run {run.get('id')}: {run.get('phase')}"
    if has_ended(run):
        return words
    if current is not None:
        words += f", step {current['spec']['name']}: {current['phase']}"
        words += f" (attempt {current['attempt']})" if current.get("attempt", 1) > 1 else ""
    waiting = (current or {}).get("waiting") or run.get("reason")
    return words + (f" – {waiting}" if waiting else "")


def check_succeeded(run: Record) -> None:
    """Raises Stop (run failed) unless the run has succeeded."""
    if run.get("phase") == RunPhase.SUCCEEDED:
        return
    error = run.get("error") or {}
    detail = f"The run {run.get('id')} {_ENDED_AS.get(str(run.get('phase')), 'did not succeed')}"
    reason = error.get("detail") or run.get("reason")
    next_step = error.get("next") or f"maoctl run show {run.get('id')}; maoctl run logs {run.get('id')}"
    raise Stop(ExitCode.RUN_FAILED, f"{detail}: {reason}" if reason else f"{detail}.", next_step)


_ENDED_AS = {
    "failed": "failed",
    "lost": "was lost",
    "cancelled": "was cancelled",
    "missed": "was not run",
}


class LogWriter:
    """Log bytes to stdout: as they are for programs, harmless for terminals unless `raw`."""

    def __init__(self, raw: bool = False) -> None:
        self._text = None if raw or not sys.stdout.isatty() else TerminalText()

    def write(self, chunk: bytes, final: bool = False) -> None:
        if self._text is None:
            write_bytes(chunk)
        else:
            write(self._text.feed(chunk, final))


def follow_logs(session: Session, run_id: str, writer: LogWriter, only: str | None = None) -> Record:
    """Writes the logs of all steps (or of one) as they come; the run when there is no more to come."""
    shown: set[tuple[str, int]] = set()
    with run_goes_on(run_id):
        while True:
            run = _until_more_logs(session, run_id, shown, only)
            steps = _with_new_logs(run, shown, only)
            if not steps:
                return run
            for step in steps:
                name, attempt = step["spec"]["name"], step["attempt"]
                shown.add((name, attempt))
                _heading(run, step)
                _follow_step(session, run_id, name, attempt, writer)


def _until_more_logs(session: Session, run_id: str, shown: set[tuple[str, int]], only: str | None) -> Record:
    run: Record = {}
    for run in run_changes(session, run_id):
        if _with_new_logs(run, shown, only):
            break
    return run


def _with_new_logs(run: Record, shown: set[tuple[str, int]], only: str | None) -> list[Record]:
    return [
        step
        for step in logged_steps(run, only)
        if (step["spec"]["name"], step["attempt"]) not in shown
    ]


def logged_steps(run: Record, only: str | None = None) -> list[Record]:
    """The steps whose container has started, so that there is a log."""
    return [
        step
        for step in run.get("steps") or []
        if only in (None, step["spec"]["name"])
        and step["phase"] in _LOG_HAS_BEGUN
        and "running" in (step.get("times") or {})
    ]


def _heading(run: Record, step: Record) -> None:
    if len(run["steps"]) > 1 or step["attempt"] > 1:
        say(f"==> step {step['spec']['name']}, attempt {step['attempt']} <==")


def _follow_step(session: Session, run_id: str, name: str, attempt: int, writer: LogWriter) -> None:
    path = f"/runs/{segment(run_id)}"

    def whole() -> bool:
        steps = session.api.get(path).get("steps") or []
        return any(
            step["spec"]["name"] == name and (step["attempt"] > attempt or step["phase"] in _LOG_IS_WHOLE)
            for step in steps
        )

    for event in resumed(session, f"{path}/logs", whole, step=name, attempt=attempt, follow="true"):
        if event.event == "end":
            break
        writer.write(log_chunk(event))
    writer.write(b"", final=True)


def log_chunk(event: Event) -> bytes:
    """The bytes of a log event."""
    return event.data.encode()


def print_logs(session: Session, run: Record, writer: LogWriter, only: str | None, attempt: int | None) -> None:
    """Writes what there is of the logs of a run's steps, or of one step or attempt."""
    for step in logged_steps(run, only):
        number = attempt or step["attempt"]
        _heading(run, {**step, "attempt": number})
        path = f"/runs/{segment(run['id'])}/logs"
        with session.api.stream(path, step=step["spec"]["name"], attempt=number) as chunks:
            for chunk in chunks:
                writer.write(chunk)
        writer.write(b"", final=True)


__all__ = ["Api"]
