"""What the page of a pipeline shows of its schedules: times in their zone, and the contents of its forms.

The forms of a schedule and of a backfill are sent by GET first, so that the address has what was typed; the
page then shows what would happen, or what is wrong, below the form, with a second button.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from markupsafe import Markup

from mao_gateway.pages.formats import Clock, ago
from mao_shared.errors import InvalidInput, MaoError
from mao_shared.models import BackfillResult, Job, ScheduleSpec, format_time
from mao_shared.models.common import FIRST_YEAR, LAST_YEAR

MAX_AGO = 100 * 366 * 86400  # seconds
MAX_TICKS_SHOWN = 50  # of a backfill that is not begun yet
_AGO = re.compile(r"(\d{1,6})\s*(d|h|min|m)")
_UNITS = {"d": 86400, "h": 3600, "min": 60, "m": 60}
KEPT_SETTINGS = ("start_deadline", "catch_up", "max_catch_up", "overlap", "paused")
"""Settings that a schedule keeps when its cron string or zone is changed."""


@dataclass(frozen=True, slots=True)
class FormError:
    """Why a form was refused, as the API words it."""

    detail: str
    next: str | None = None

    @classmethod
    def of(cls, error: MaoError) -> FormError:
        return cls(error.detail, error.next)


@dataclass(frozen=True, slots=True)
class ComingTick:
    """A next time: on the clock of the schedule's zone, in UTC, and how long until then."""

    local: Markup
    utc: str
    until: str


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """A schedule with its next times."""

    job: Job
    times: tuple[ComingTick, ...]
    commands: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ScheduleForm:
    """The form of a schedule. `job`: the one to change; None adds one. `times`: the preview, if asked for."""

    cron: str = ""
    timezone: str = "UTC"
    seconds: bool = False
    job: Job | None = None
    times: tuple[ComingTick, ...] | None = None
    error: FormError | None = None
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BackfillForm:
    """The form of a backfill; `result` is what the range would do, if it was asked for."""

    job: str = ""
    since: str = ""
    until: str = ""
    begin: datetime | None = None
    end: datetime | None = None
    result: BackfillResult | None = None
    error: FormError | None = None
    command: str = ""
    zones: Mapping[str, str] = field(default_factory=dict)

    @property
    def left_out(self) -> int:
        """Return the number of ticks that are not listed."""
        return max(0, len(self.result.ticks) - MAX_TICKS_SHOWN) if self.result else 0


def zone_named(name: str) -> ZoneInfo:
    """Return a zone; UTC for a name that this machine does not know."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def time_in(moment: datetime, zone: ZoneInfo, now: datetime) -> Markup:
    """Return a time on the clock of a zone, with seconds if it has any."""
    clock = Clock(now, zone)
    local = moment.astimezone(zone)
    time = f"{local:%H:%M:%S}" if local.second else f"{local:%H:%M}"
    today = "today" if local.date() == now.astimezone(zone).date() else clock.day(moment)
    return Markup('<time datetime="{}" title="{}">{}, {} {}</time>').format(
        local.isoformat(timespec="seconds"), clock.full(moment), today, time, f"{local:%Z}"
    )


def coming_ticks(times: Sequence[datetime], zone: str, now: datetime) -> tuple[ComingTick, ...]:
    """Return next times for people. A zone that is UTC does not repeat it."""
    found = zone_named(zone)
    return tuple(
        ComingTick(
            time_in(moment, found, now),
            "" if found.key == "UTC" else f"{moment.astimezone(UTC):%H:%M} UTC",
            ago(moment, now),
        )
        for moment in times
    )


def parse_moment(text: str, clock: Clock, label: str) -> datetime:
    """Parse a time of a form: ISO 8601, in the page's zone unless it has one, or how long ago: `12d`, `6 h`.

    Raises InvalidInput.
    """
    text = text.strip()
    if (match := _AGO.fullmatch(text)) and int(match[1]) * _UNITS[match[2]] <= MAX_AGO:
        return clock.now - timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    try:
        moment = datetime.fromisoformat(text)
        if FIRST_YEAR < moment.year < LAST_YEAR:  # as the API, so that no zone leads out of the calendar
            return (moment if moment.tzinfo else moment.replace(tzinfo=clock.zone)).astimezone(UTC)
    except ValueError:
        pass
    raise InvalidInput(
        f"{label}: {text[:80]!r} is no time between the years {FIRST_YEAR} and {LAST_YEAR}."
        if text
        else f"{label} is empty.",
        next="Write a day or time such as 2026-01-31 or 2026-01-31 12:00, or how long ago, such as 12d.",
    )


def schedule_commands(pipeline: str, cron: str, timezone: str, seconds: bool, job: Job | None) -> list[str]:
    """Return the commands that do the same as saving the form of a schedule."""
    words = ["maoctl", "pipeline", "run", pipeline, "--cron", cron, "--timezone", timezone]
    words += ["--seconds"] if seconds else []
    if job is not None:
        default = ScheduleSpec(cron=cron)
        words += ["--catch-up", job.catch_up] if job.catch_up != default.catch_up else []
        if job.start_deadline != default.start_deadline:
            words += ["--start-deadline", f"{job.start_deadline:g}s"]
        words += ["--overlap", job.overlap] if job.overlap else []
    commands = [shlex.join(words)]
    return commands if job is None else [*commands, f"maoctl job remove {shlex.quote(job.id)} --yes"]


def changed_schedule(job: Job, cron: str, timezone: str, seconds: bool) -> dict[str, Any]:
    """Return the request of a schedule that replaces `job` and keeps its other settings."""
    kept = job.model_dump(mode="json", include=set(KEPT_SETTINGS), exclude_none=True)
    return kept | {"name": job.pipeline, "cron": cron, "timezone": timezone, "seconds": seconds}


def job_view(job: Job, times: Sequence[datetime], now: datetime) -> ScheduleView:
    """Return a schedule with its next times and the commands of its buttons."""
    name = shlex.quote(job.id)
    commands = {
        "pause": f"maoctl job pause {name}",
        "resume": f"maoctl job resume {name}",
        "remove": f"maoctl job remove {name} --yes",
    }
    return ScheduleView(job, coming_ticks(times, job.timezone, now), commands)


def backfill_command(job: str, begin: datetime, end: datetime) -> str:
    """Return the command that queues what the page has shown."""
    return f"maoctl job backfill {shlex.quote(job)} --since {format_time(begin)} --until {format_time(end)}"
