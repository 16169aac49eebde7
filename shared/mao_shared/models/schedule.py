"""Schedules (jobs): when an enrolled pipeline runs on this node, and how far its ticks are dealt with."""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import Field

from mao_shared.states import RunPhase

from .common import Name, Record, Seconds, Timestamp
from .pipeline import NameOrTitle, Overlap
from .run import MissedWhy

CatchUp = Literal["none", "latest", "all"]


class ScheduleSpec(Record):
    """The settings of a schedule."""

    cron: str = Field(max_length=200, examples=["*/15 * * * *", "@daily"])
    timezone: str = Field(default="UTC", max_length=64, examples=["Europe/Zurich"])
    seconds: bool = False  # whether `cron` has a sixth field in front
    start_deadline: Seconds = Field(default=60, gt=0)  # a tick later than this is missed
    catch_up: CatchUp = "latest"  # which missed ticks are run when the scheduler is back
    max_catch_up: int = Field(default=100, ge=1, le=10_000)
    overlap: Overlap | None = None  # else the pipeline's
    paused: bool = False


class Schedule(ScheduleSpec):
    """A stored schedule; `id` is derived, so that the same request twice makes one schedule."""

    key_field = "id"
    id: str
    pipeline: Name
    created_at: Timestamp
    paused_at: Timestamp | None = None  # of the last pause; a tick after it and up to
    resumed_at: Timestamp | None = None  # this is missed and never caught up by itself


class ScheduleRequest(ScheduleSpec):
    """Body of `POST /pipeline/run` with a cron string: schedules the pipeline of that name."""

    name: NameOrTitle


class TickOutcome(Record):
    """The outcome so far of a schedule's newest decided tick."""

    run: str
    scheduled_for: Timestamp
    phase: RunPhase
    missed: MissedWhy | None = None


class Job(Schedule):
    """A schedule as the API shows it: `next` is null while it is paused."""

    next: Timestamp | None = None
    last: TickOutcome | None = None


class NextTimes(Record):
    """Coming times of a cron string, in UTC."""

    times: list[Timestamp]


class CronPreview(Record):
    """Body of `POST /cron/preview`."""

    cron: str = Field(max_length=200, examples=["30 2 * * mon-fri"])
    timezone: str = Field(default="UTC", max_length=64, examples=["Europe/Zurich"])
    seconds: bool = False
    count: int = Field(default=10, ge=1, le=100)


class BackfillRequest(Record):
    """Body of `POST /jobs/{id}/backfill`: run what was missed from `since` up to and with `until` (now)."""

    since: Timestamp
    until: Timestamp | None = None


class BackfillResult(Record):
    """The runs that a backfill queued; if `more_since` is set, call again from there for the rest."""

    queued: list[str]
    present: int  # ticks that had been run or are being run
    more_since: Timestamp | None = None


class TickMark(Record):
    """Every tick of the schedule up to and with `decided_until` has a record."""

    decided_until: Timestamp


class Forgotten(Record):
    """The records of the pipeline's ticks up to `until` are gone."""

    until: Timestamp


class Remembered(Record):
    """Stored under `keys.remembered(node, pipeline)`: how far back its runs are known.

    Versions without a history of runs take those that were moved there for removed, so `Forgotten` is written
    for them when runs are moved; `moved_until` shows this version that they were moved. Ticks up to
    `forgotten_until` are those of which the records are really gone.
    """

    moved_until: Timestamp
    forgotten_until: Timestamp | None = None


def schedule_id(pipeline: str, spec: ScheduleSpec) -> str:
    """Return the id of a schedule, derived from pipeline, cron string and time zone."""
    text = "\n".join((pipeline, " ".join(spec.cron.split()), spec.timezone))
    return f"{pipeline}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
