"""Waiting for runs and for jobs over server-sent events; no polling."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from types import FrameType
from typing import TYPE_CHECKING

from pydantic import ValidationError

from mao_shared.errors import PeerUnavailable, Unavailable
from mao_shared.models import Run, Schedule
from mao_shared.models.common import STORED
from mao_shared.states import RUN_ENDED, RunPhase, StepPhase

from .exits import CommandError, ExitCode
from .lookup import RECENT
from .output import say
from .session import CliSession

if TYPE_CHECKING:
    from mao_shared.clients.responses import ServerEvent

GIVE_UP_AFTER = 8  # tries in a row that brought no event
_LONGEST_PAUSE = 5.0  # seconds
_ENDED_AS = {
    RunPhase.FAILED: "failed",
    RunPhase.LOST: "was lost",
    RunPhase.CANCELLED: "was cancelled",
    RunPhase.MISSED: "was not run",
}


class _TimedOut(Exception):
    pass


@contextmanager
def time_limit(seconds: float | None, what: str, next_step: str) -> Iterator[None]:
    """Raises CommandError (wait timed out) after that many seconds in the block, even in a read."""
    if seconds is None:
        yield
        return

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise _TimedOut

    before = signal.signal(signal.SIGALRM, ring)
    left = signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    except _TimedOut:
        raise CommandError(ExitCode.WAIT_TIMED_OUT, f"{what} after {seconds:g} s.", next_step) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, *left)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def run_goes_on(run_id: str) -> Iterator[None]:
    """Ctrl-C in the block ends the waiting, not the run: exit code 130, and a message."""
    try:
        yield
    except KeyboardInterrupt:
        raise CommandError(
            ExitCode.INTERRUPTED,
            f"No longer waiting; the run {run_id} continues.",
            f"maoctl run wait {run_id}, or maoctl run cancel {run_id}",
        ) from None


def resumed(
    session: CliSession,
    subscribe: Callable[[str | None], Iterator[ServerEvent]],
    finished: Callable[[], bool] = lambda: False,
) -> Iterator[ServerEvent]:
    """Events of a stream that is opened again after the last one whenever it breaks or ends.

    It is over when the consumer stops, or when `finished` holds after an end of the stream. Raises
    PeerUnavailable after several tries in a row without an event.
    """
    last_id: str | None = None
    failures = 0
    while failures <= GIVE_UP_AFTER:
        if failures:
            session.pause(min(_LONGEST_PAUSE, 0.1 * 2**failures))
        try:
            for event in subscribe(last_id):
                failures, last_id = 0, event.id or last_id
                yield event
            if finished():
                return
            trouble: Unavailable = PeerUnavailable("The node keeps closing the stream without an event.")
        except Unavailable as error:
            trouble = error
        failures += 1
    raise trouble


def run_changes(session: CliSession, run_id: str) -> Iterator[Run]:
    """The run at every change; ends after the one in which it has ended."""
    for event in resumed(session, lambda after: session.client.runs.events(run_id, after)):
        run = Run.model_validate_json(event.data, context=STORED)
        yield run
        if run.phase in RUN_ENDED:
            return


def wait_for_run(session: CliSession, run_id: str, timeout: float | None = None) -> Run:
    """The run when it has ended; says on stderr what it is doing."""
    last = ""
    with run_goes_on(run_id), limit_for_run(run_id, timeout):
        for run in run_changes(session, run_id):
            news = progress(run)
            if news != last:
                say(news)
                last = news
            if run.phase in RUN_ENDED:
                return run
    raise LookupError("run_changes ends with the ended run, or raises")


def limit_for_run(run_id: str, timeout: float | None) -> AbstractContextManager[None]:
    """`time_limit` for waiting for a run; `timeout` in seconds."""
    goes_on = f"It continues: maoctl run wait {run_id}, or maoctl run cancel {run_id}"
    return time_limit(timeout, f"The run {run_id} has not ended", goes_on)


def progress(run: Run) -> str:
    """One line: the run's phase and what its current step is at."""
    words = f"run {run.id}: {run.phase}"
    if run.phase in RUN_ENDED:
        return words
    index = run.current()
    step = run.steps[index] if index is not None else None
    if step is not None and step.phase is not StepPhase.PENDING:
        words += f", step {step.spec.name}: {step.phase}"
        words += f" (attempt {step.attempt})" if step.attempt > 1 else ""
    waiting = (step and step.waiting) or run.reason
    return words + (f" ({waiting})" if waiting else "")


def check_succeeded(run: Run) -> None:
    """Raises CommandError (run failed) unless the run has succeeded."""
    if run.phase is RunPhase.SUCCEEDED:
        return
    detail = f"The run {run.id} {_ENDED_AS.get(run.phase, 'has not succeeded')}"
    error = run.error or next((step.error for step in run.steps if step.error), None)
    reason = error.detail if error else run.reason
    next_step = (error and error.next) or f"maoctl run show {run.id}; maoctl run logs {run.id}"
    raise CommandError(ExitCode.RUN_FAILED, f"{detail}: {reason}" if reason else f"{detail}.", next_step)


# Jobs


class EndedRuns:
    """The ended runs of a job that are known so far."""

    def __init__(self, session: CliSession, job: Schedule, wanted: int) -> None:
        self._session = session
        self._job = job
        self._wanted = wanted
        self._by_id: dict[str, Run] = {}

    @property
    def enough(self) -> bool:
        return len(self._by_id) >= self._wanted

    def note(self, run: Run) -> None:
        """Counts a run, if it is one of the job, until there are enough.

        A run that names another job of the pipeline may be of a tick that this one shares: the node knows.
        """
        if run.schedule == self._job.id:
            self._take(run)
        elif run.pipeline == self._job.pipeline and run.schedule is not None and run.phase in RUN_ENDED:
            self.note_all()

    def _take(self, run: Run) -> None:
        if not self.enough and run.phase in RUN_ENDED and run.id not in self._by_id:
            self._by_id[run.id] = run
            say(f"run {run.id}: {run.phase} ({len(self._by_id)} of {self._wanted})")

    def note_all(self) -> None:
        """Counts the existing runs of the job, the oldest first."""
        found = self._session.client.runs.list(pipeline=self._job.pipeline, schedule=self._job.id)
        for run in reversed(list(islice(found, RECENT))):
            if run.schedule is not None:
                self._take(run)

    def subscribe(self, after: str | None) -> Iterator[ServerEvent]:
        """The node's events; subscribed to before looking, so that no run ends in between unnoticed."""
        events = self._session.client.events(after)
        self.note_all()
        return events

    def first(self) -> list[Run]:
        """As many as wanted, the oldest tick first."""
        return sorted(self._by_id.values(), key=lambda run: run.id)[: self._wanted]


def wait_for_job_runs(session: CliSession, job: Schedule, count: int, timeout: float | None) -> list[Run]:
    """The first `count` runs of a job, as soon as that many have ended. `timeout` in seconds."""
    ended = EndedRuns(session, job, count)
    ended.note_all()
    what = f"{count} runs of the job {job.id} have not ended"
    with time_limit(timeout, what, f"The job continues: maoctl job show {job.id}"):
        changes = resumed(session, ended.subscribe, lambda: ended.enough)
        while not ended.enough and (event := next(changes, None)) is not None:
            if event.event == "gone":  # what happened meanwhile is not sent any more
                ended.note_all()
            elif run := _run_in(event):
                ended.note(run)
    return ended.first()


def _run_in(event: ServerEvent) -> Run | None:
    """The run that an event is about; None when it is about something else."""
    try:
        return Run.model_validate_json(event.data, context=STORED)
    except ValidationError:
        return None


def check_none_failed(runs: list[Run]) -> None:
    """Raises CommandError (run failed) when a run failed or was lost, which nobody wanted."""
    failed = [run.id for run in runs if run.phase in (RunPhase.FAILED, RunPhase.LOST)]
    if failed:
        detail = f"{len(failed)} of {len(runs)} runs failed."
        raise CommandError(ExitCode.RUN_FAILED, detail, f"maoctl run show {failed[0]}")
