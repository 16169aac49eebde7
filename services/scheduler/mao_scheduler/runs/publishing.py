"""Pure: this node's runs in short, as other nodes see them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from mao_scheduler.schedules.due import cron_of
from mao_scheduler.schedules.marks import Marks
from mao_shared.errors import InvalidInput
from mao_shared.models import PeerRuns, Run, RunBrief
from mao_shared.models.peer import KEPT_BRIEFS
from mao_shared.models.schedule import Schedule
from mao_shared.states import RUN_ENDED

MANY_SCHEDULES = 100  # of one pipeline; more are not looked at for the next tick


def next_tick(schedules: Iterable[Schedule], marks: Marks, now: datetime) -> datetime | None:
    """The first tick without an outcome; in the past while the timer lags."""
    coming = []
    for schedule in schedules:
        if schedule.paused:
            continue
        try:
            coming.append(cron_of(schedule).next(marks.get(schedule.id) or now))
        except InvalidInput:  # a zone that this machine does not know; the job says so
            continue
    return min((tick for tick in coming if tick is not None), default=None)


class Briefs:
    """The newest runs by pipeline."""

    def __init__(self) -> None:
        self._kept: defaultdict[str, dict[str, RunBrief]] = defaultdict(dict)

    def take(self, run: Run) -> None:
        """A reproduction is nobody's news."""
        if run.reproduces is None:
            self._put(run.pipeline, RunBrief.of(run))

    def take_published(self, published: PeerRuns) -> None:
        """What an earlier process has told; what is known already is newer."""
        for brief in published.runs:
            if brief.id not in self._kept[published.pipeline]:
                self._put(published.pipeline, brief)

    def _put(self, pipeline: str, brief: RunBrief) -> None:
        kept = self._kept[pipeline]
        kept[brief.id] = brief
        if len(kept) > KEPT_BRIEFS:
            del kept[min(kept)]  # ids begin with the time

    def of(self, pipeline: str) -> list[RunBrief]:
        """The newest first."""
        kept = self._kept.get(pipeline, {})
        return [kept[name] for name in sorted(kept, reverse=True)]

    def unfinished(self) -> list[str]:
        """Ids of runs that had not ended when they were last seen."""
        runs = (brief for kept in self._kept.values() for brief in kept.values())
        return [brief.id for brief in runs if brief.phase not in RUN_ENDED]

    def forget(self) -> None:
        self._kept.clear()
