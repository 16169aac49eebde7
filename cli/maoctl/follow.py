"""Waiting for runs and jobs, by server-sent events rather than polling."""

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
from .listing import Shown
from .lookup import RECENT
from .output import say
from .session import CliSession

if TYPE_CHECKING:
    from mao_shared.clients.responses import ServerEvent

MAX_FAILURES = 8  # connections in a row without an event
_MAX_PAUSE = 5.0  # seconds
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
    """Limit the time in the block, even in a blocking read. Raises CommandError (wait timed out).

    `what`: the beginning of the message, such as "The run X has not ended".
    """
    if seconds is None:
        yield
        return

    def on_alarm(_signal: int, _frame: FrameType | None) -> None:
        raise _TimedOut

    before = signal.signal(signal.SIGALRM, on_alarm)
    left = signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    except _TimedOut:
        raise CommandError(ExitCode.WAIT_TIMED_OUT, f"{what} after {seconds:g} s.", next_step) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, *left)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def run_continues(run_id: str) -> Iterator[None]:
    """On Ctrl-C in the block, say that only the waiting ended. Raises CommandError (interrupted)."""
    try:
        yield
    except KeyboardInterrupt:
        raise CommandError(
            ExitCode.INTERRUPTED,
            f"No longer waiting; the run {run_id} continues.",
            f"Wait again: maoctl run wait {run_id} ; or cancel it: maoctl run cancel {run_id}",
        ) from None


def resumed(
    session: CliSession,
    subscribe: Callable[[str | None], Iterator[ServerEvent]],
    finished: Callable[[], bool] = lambda: False,
) -> Iterator[ServerEvent]:
    """Yield the events of a stream, and reopen it after the last one whenever it breaks off or ends.

    Ends when the stream ends and `finished` returns true. Raises Unavailable after several connections in a
    row without an event.
    """
    last_id: str | None = None
    failures = 0
    while failures <= MAX_FAILURES:
        if failures:
            session.pause(min(_MAX_PAUSE, 0.1 * 2**failures))
        try:
            for event in subscribe(last_id):
                failures, last_id = 0, event.id or last_id
                yield event
            if finished():
                return
            last_error: Unavailable = PeerUnavailable("The node keeps closing the stream without an event.")
        except Unavailable as error:
            last_error = error
        failures += 1
    raise last_error


def run_changes(session: CliSession, run_id: str) -> Iterator[Run]:
    """Yield the run at every change, until it has ended."""
    for event in resumed(session, lambda after: session.client.runs.events(run_id, after)):
        run = Run.model_validate_json(event.data, context=STORED)
        yield run
        if run.phase in RUN_ENDED:
            return


def wait_for_run(session: CliSession, run_id: str, timeout: float | None = None) -> Run:
    """Wait until a run has ended and return it; reports progress on stderr. `timeout` in seconds."""
    last = ""
    with run_continues(run_id), limit_for_run(run_id, timeout):
        for run in run_changes(session, run_id):
            if (message := progress(run)) != last:
                say(message)
                last = message
            if run.phase in RUN_ENDED:
                return run
    raise LookupError("run_changes ends with the ended run, or raises")


def limit_for_run(run_id: str, timeout: float | None) -> AbstractContextManager[None]:
    """Return the `time_limit` for waiting for a run; `timeout` in seconds."""
    next_step = (
        f"The run continues. Wait again: maoctl run wait {run_id} ; or cancel it: maoctl run cancel {run_id}"
    )
    return time_limit(timeout, f"The run {run_id} has not ended", next_step)


def progress(run: Run) -> str:
    """Return one line with the run's phase and that of its current step."""
    text = f"run {run.id}: {run.phase}"
    if run.phase in RUN_ENDED:
        return text
    index = run.current()
    step = run.steps[index] if index is not None else None
    if step is not None and step.phase is not StepPhase.PENDING:
        text += f", step {step.spec.name}: {step.phase}"
        text += f" (attempt {step.attempt})" if step.attempt > 1 else ""
    waiting = (step and step.waiting) or run.reason
    return text + (f" ({waiting})" if waiting else "")


def check_succeeded(run: Run) -> None:
    """Raise CommandError (run failed) unless the run has succeeded."""
    if run.phase is RunPhase.SUCCEEDED:
        return
    detail = f"The run {run.id} {_ENDED_AS.get(run.phase, 'has not succeeded')}"
    error = run.error or next((step.error for step in run.steps if step.error), None)
    reason = error.detail if error else run.reason
    next_step = (
        error and error.next
    ) or f"See its steps: maoctl run show {run.id} ; and its log: maoctl run logs {run.id}"
    raise CommandError(ExitCode.RUN_FAILED, f"{detail}: {reason}" if reason else f"{detail}.", next_step)


# Lists


def watch(session: CliSession, show: Callable[[], None]) -> None:
    """Show a list, then what changes in it at every event of the node's runs, until the user interrupts."""
    session.shown = Shown()

    def subscribe(after: str | None) -> Iterator[ServerEvent]:
        events = session.client.events(after)
        show()  # after subscribing, so that no change is missed
        return events

    for _ in resumed(session, subscribe):
        show()


# Jobs


class EndedRuns:
    """The ended runs of a job that are known so far, up to the wanted number."""

    def __init__(self, session: CliSession, job: Schedule, wanted: int) -> None:
        self._session = session
        self._job = job
        self._wanted = wanted
        self._by_id: dict[str, Run] = {}

    @property
    def enough(self) -> bool:
        return len(self._by_id) >= self._wanted

    def add(self, run: Run) -> None:
        """Add a run if it belongs to the job.

        A run of another job of the pipeline may be of a tick that both share: only the node knows.
        """
        if run.schedule == self._job.id:
            self._add(run)
        elif run.pipeline == self._job.pipeline and run.schedule is not None and run.phase in RUN_ENDED:
            self.add_existing()

    def _add(self, run: Run) -> None:
        if not self.enough and run.phase in RUN_ENDED and run.id not in self._by_id:
            self._by_id[run.id] = run
            say(f"run {run.id}: {run.phase} ({len(self._by_id)} of {self._wanted})")

    def add_existing(self) -> None:
        """Add the existing runs of the job, oldest first."""
        found = self._session.client.runs.list(pipeline=self._job.pipeline, schedule=self._job.id)
        for run in reversed(list(islice(found, RECENT))):
            if run.schedule is not None:
                self._add(run)

    def subscribe(self, after: str | None) -> Iterator[ServerEvent]:
        """Subscribe to the node's events first, then add existing runs, so that no run is missed."""
        events = self._session.client.events(after)
        self.add_existing()
        return events

    def first(self) -> list[Run]:
        """Return as many runs as wanted, oldest tick first."""
        return sorted(self._by_id.values(), key=lambda run: run.id)[: self._wanted]


def wait_for_job_runs(session: CliSession, job: Schedule, count: int, timeout: float | None) -> list[Run]:
    """Wait until `count` runs of a job have ended, and return the first ones. `timeout` in seconds."""
    ended = EndedRuns(session, job, count)
    ended.add_existing()
    what = f"{count} runs of the job {job.id} have not ended"
    with time_limit(timeout, what, f"The job continues: maoctl job show {job.id}"):
        changes = resumed(session, ended.subscribe, lambda: ended.enough)
        while not ended.enough and (event := next(changes, None)) is not None:
            if event.event == "gone":  # the missed events are no longer available
                ended.add_existing()
                continue
            try:
                run = Run.model_validate_json(event.data, context=STORED)
            except ValidationError:  # the event is not about a run
                continue
            ended.add(run)
    return ended.first()


def check_none_failed(runs: list[Run]) -> None:
    """Raise CommandError (run failed) if a run failed or was lost; cancelled runs do not count."""
    failed = [run.id for run in runs if run.phase in (RunPhase.FAILED, RunPhase.LOST)]
    if failed:
        detail = f"{len(failed)} of {len(runs)} runs failed."
        raise CommandError(ExitCode.RUN_FAILED, detail, f"See why: maoctl run show {failed[0]}")
