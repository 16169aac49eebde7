"""Waiting until runs of a job have ended."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from pydantic import ValidationError

from mao_shared.models import Run, Schedule
from mao_shared.models.common import STORED
from mao_shared.states import RUN_ENDED, RunPhase

from .exits import ExitCode, Stop
from .follow import resumed, time_limit
from .lookup import RECENT
from .output import say
from .session import Session

if TYPE_CHECKING:
    from mao_shared.clients.sse import ServerEvent


class EndedRuns:
    """The runs of a job that have ended, as far as they are known."""

    def __init__(self, session: Session, job: Schedule, wanted: int) -> None:
        self._session = session
        self._job = job
        self._wanted = wanted
        self._by_id: dict[str, Run] = {}

    @property
    def enough(self) -> bool:
        return len(self._by_id) >= self._wanted

    def note(self, run: Run) -> None:
        """Takes a run into account, whatever it is of, until there are enough.

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
        """Takes the job's runs that there are into account, the oldest first."""
        found = self._session.client.runs(pipeline=self._job.pipeline, schedule=self._job.id)
        for run in reversed(list(islice(found, RECENT))):
            if run.schedule is not None:
                self._take(run)

    def subscribe(self, after: str | None) -> Iterator[ServerEvent]:
        """The node's events; subscribed to before looking, so that no run ends in between unnoticed."""
        events = self._session.client.events(after)
        self.note_all()
        return events

    def first(self) -> list[Run]:
        """As many as are wanted, the oldest tick first."""
        return sorted(self._by_id.values(), key=lambda run: run.id)[: self._wanted]


def wait_for_job_runs(session: Session, job: Schedule, count: int, timeout: float | None) -> list[Run]:
    """The first `count` runs of a job, as soon as so many have ended. `timeout` in seconds."""
    ended = EndedRuns(session, job, count)
    ended.note_all()
    what = f"{count} runs of the job {job.id} have not ended"
    with time_limit(timeout, what, f"The job goes on: maoctl job show {job.id}"):
        changes = resumed(session, ended.subscribe, lambda: ended.enough)
        while not ended.enough and (event := next(changes, None)) is not None:
            if event.event == "gone":  # what happened meanwhile is not told any more
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
    """Raises Stop (run failed) when a run failed or was lost; a missed or cancelled one may be meant."""
    failed = [run.id for run in runs if run.phase in (RunPhase.FAILED, RunPhase.LOST)]
    if failed:
        detail = f"{len(failed)} of {len(runs)} runs failed."
        raise Stop(ExitCode.RUN_FAILED, detail, f"maoctl run show {failed[0]}")
