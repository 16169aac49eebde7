"""Schedule (job): when an enrolled pipeline runs on this node, and how far its ticks are dealt with."""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import Field

from .common import Name, Record, Seconds, Timestamp
from .pipeline import Overlap

CatchUp = Literal["none", "latest", "all"]


class ScheduleSpec(Record):
    """What a person decides about a schedule."""

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

    id: str
    pipeline: Name
    created_at: Timestamp


class TickMark(Record):
    """Every tick of the schedule up to and with `decided_until` has a record."""

    decided_until: Timestamp


def schedule_id(pipeline: str, spec: ScheduleSpec) -> str:
    """The same pipeline, cron string and zone give the same id."""
    text = "\n".join((pipeline, " ".join(spec.cron.split()), spec.timezone))
    return f"{pipeline}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
