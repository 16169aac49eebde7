"""What can be made of a tick before it is due, so that a thousand at once are written in time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from mao_shared.models.common import format_time
from mao_shared.models.enrolment import Enrolment
from mao_shared.models.run import Run
from mao_shared.models.schedule import Schedule
from mao_shared.store import Stored
from mao_shared.store.records import dump

from .cron import Cron
from .due import Tick
from .new_runs import tick_run


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run document with its stored form."""

    run: Run
    value: bytes


@dataclass(frozen=True, slots=True)
class Prepared:
    """The document of a coming tick, as if it were created at the tick; `following`: the tick after it."""

    tick: datetime
    document: NewRun
    following: datetime | None
    enrolment_revision: int

    def document_at(self, now: datetime) -> NewRun:
        """The document as created now. Only the time is exchanged: serialising again costs ten times more."""
        run = self.document.run.model_copy(update={"created_at": now})
        return NewRun(run, self.document.value.replace(_created(self.tick), _created(now), 1))


def prepare(
    schedule: Schedule, cron: Cron, enrolment: Stored[Enrolment], tick: datetime, node: str
) -> Prepared:
    """The document of a tick that is still to come and will not be late."""
    run = tick_run(schedule, Tick(tick), enrolment.record, node, tick)
    return Prepared(tick, NewRun(run, dump(run)), cron.next(tick), enrolment.revision)


@lru_cache(maxsize=64)
def _created(moment: datetime) -> bytes:
    return f'"created_at":"{format_time(moment)}"'.encode()
