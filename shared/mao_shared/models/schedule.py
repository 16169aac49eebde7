"""Schedules (jobs): when an enrolled pipeline runs on this node, and up to which tick that is decided."""

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
    seconds: bool = False  # `cron` has a leading field for seconds
    start_deadline: Seconds = Field(default=60, gt=0)  # a tick later than this is missed
    catch_up: CatchUp = "latest"  # which missed ticks run after an outage of the scheduler
    max_catch_up: int = Field(default=100, ge=1, le=10_000)
    overlap: Overlap | None = None  # None: the pipeline's
    paused: bool = False


class Schedule(ScheduleSpec):
    """A stored schedule. `id` is derived from its settings, so that a repeated request changes nothing."""

    key_field = "id"
    id: str
    pipeline: Name
    created_at: Timestamp
    paused_at: Timestamp | None = None  # start of the last pause; ticks after it and up to
    resumed_at: Timestamp | None = None  # its end are missed, and never caught up automatically


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
    """The next times of a cron string, in UTC."""

    times: list[Timestamp]


class CronPreview(Record):
    """Body of `POST /cron/preview`."""

    cron: str = Field(max_length=200, examples=["30 2 * * mon-fri"])
    timezone: str = Field(default="UTC", max_length=64, examples=["Europe/Zurich"])
    seconds: bool = False
    count: int = Field(default=10, ge=1, le=100)


class BackfillRequest(Record):
    """Body of `POST /jobs/{id}/backfill`: missed ticks from `since` to `until` (default: now)."""

    since: Timestamp = Field(examples=["2026-01-31T12:00:00Z"])
    until: Timestamp | None = Field(default=None, examples=["2026-02-01T12:00:00Z"])
    dry_run: bool = Field(default=False, description="Only tell which ticks would run, in `ticks`")


class BackfillTick(Record):
    """A tick that a backfill would run. `missed`: why it was not run; null if it has no record."""

    run: str
    scheduled_for: Timestamp
    missed: MissedWhy | None = None
    reason: str | None = None  # the same for people


class BackfillResult(Record):
    """The runs queued by a backfill. `more_since`: set if there are more; repeat the call from there.

    With `dry_run` nothing is queued, and `ticks` has what would be.
    """

    queued: list[str]
    present: int  # ticks that already have a run
    more_since: Timestamp | None = None
    ticks: list[BackfillTick] = Field(default_factory=list, exclude_if=lambda ticks: not ticks)


class TickMark(Record):
    """Watermark of a schedule: every tick up to and including `decided_until` has a record."""

    decided_until: Timestamp


class Forgotten(Record):
    """Watermark of retention: records of the pipeline's ticks up to `until` were removed."""

    until: Timestamp


class Remembered(Record):
    """How far back a pipeline's runs are known, stored under `keys.remembered(node, pipeline)`.

    Versions without a history consider runs moved there as removed, so `Forgotten` is written for them as
    well; `moved_until` tells this version that they were only moved. Records of ticks up to `forgotten_until`
    were removed.
    """

    moved_until: Timestamp
    forgotten_until: Timestamp | None = None


def schedule_id(pipeline: str, spec: ScheduleSpec) -> str:
    """Return the id of a schedule, derived from pipeline, cron string and time zone."""
    text = "\n".join((pipeline, " ".join(spec.cron.split()), spec.timezone))
    return f"{pipeline}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
