"""Times, sizes, numbers and ids as text and HTML. Pure."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from markupsafe import Markup, escape

from mao_shared.text import harmless_line

NONE = "\u2013"  # where there is no value
_THIN = "\u202f"  # narrow no-break space
_ID = re.compile(r"\d{8}T\d{6}Z-.*-[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Clock:
    """The moment of a page and the zone in which it shows times."""

    now: datetime
    zone: ZoneInfo

    @property
    def is_utc(self) -> bool:
        return self.zone.key in ("UTC", "Etc/UTC")

    def when(self, moment: datetime | None, *, prefix: str = "") -> Markup:
        """Return how long ago a moment was, with the full time as title; a dash for None."""
        if moment is None:
            return escape(NONE)
        return self._time(moment, f"{prefix}{ago(moment, self.now)}")

    def at(self, moment: datetime | None) -> Markup:
        """Return the time of a moment with its zone, and the day unless it is today; a dash for None."""
        if moment is None:
            return escape(NONE)
        return self._time(moment, self.moment(moment))

    def moment(self, moment: datetime) -> str:
        """Return day, time and zone as text, for labels."""
        local = moment.astimezone(self.zone)
        return f"{self.day(moment)} {local:%H:%M} {local:%Z}".strip()

    def day(self, moment: datetime) -> str:
        """Return the day of a moment, without the year if it is this one; empty for today."""
        local, now = moment.astimezone(self.zone), self.now.astimezone(self.zone)
        if local.date() == now.date():
            return ""
        near = abs(local.date() - now.date()) < timedelta(days=300)
        return f"{local:%a} {local.day} {local:%b}" + ("" if near else f" {local:%Y}")

    def date(self, moment: datetime) -> str:
        """Return the weekday and date of a moment."""
        local = moment.astimezone(self.zone)
        return f"{local:%A} {local.day} {local:%B %Y}"

    def full(self, moment: datetime) -> str:
        """Return the full time, in the page's zone and in UTC."""
        local, utc = moment.astimezone(self.zone), moment.astimezone(UTC)
        text = f"{local:%a} {local.day} {local:%b %Y, %H:%M:%S} {local:%Z}"
        return text if self.is_utc else f"{text} ({utc:%H:%M:%S} UTC)"

    def _time(self, moment: datetime, text: str) -> Markup:
        return Markup('<time datetime="{}" title="{}">{}</time>').format(
            moment.astimezone(self.zone).isoformat(timespec="seconds"), self.full(moment), text
        )


def node_zone() -> ZoneInfo:
    """Return the machine's zone: TZ, otherwise that of /etc/localtime, otherwise UTC."""
    name = os.environ.get("TZ", "").removeprefix(":")
    if not name:
        _, _, name = str(Path("/etc/localtime").resolve()).partition("/zoneinfo/")
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")


def span(seconds: float) -> str:
    """Return a duration in one or two units: `0.4 s`, `42 s`, `3 min 5 s`, `2 h 5 min`, `3 days`."""
    seconds = abs(seconds)
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest and minutes < 10 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes and hours < 10 else f"{hours} h"
    return f"{hours // 24} days"


def ago(moment: datetime, now: datetime) -> str:
    """Return `3 min ago`, `in 13 h` or `now`."""
    seconds = (now - moment).total_seconds()
    if abs(seconds) < 2:
        return "now"
    if abs(seconds) >= 600:  # one unit is enough
        minutes = round(abs(seconds) / 60)
        unit = f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
        text = unit if minutes < 48 * 60 else f"{minutes // 1440} days"
    else:
        text = span(round(seconds)) if abs(seconds) < 120 else f"{abs(seconds) // 60:.0f} min"
    return f"in {text}" if seconds < 0 else f"{text} ago"


def took(start: datetime | None, end: datetime | None) -> str:
    """Return how long something took; a dash if it has not begun or not ended."""
    return NONE if start is None or end is None else span((end - start).total_seconds())


def size(value: float | None) -> str:
    """Return a number of bytes: `512 B`, `8.4 kB`, `1.2 GB`; a dash for None."""
    if value is None:
        return NONE
    number, unit = float(value), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if number < 1000:
            break
        number, unit = number / 1000, larger
    return f"{number:.1f}".removesuffix(".0") + f" {unit}"


def number(value: float | None) -> str:
    """Return a number with groups of three digits, and at least four significant ones."""
    if value is None:
        return NONE
    if not math.isfinite(value):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", _THIN)
    if not 1 <= abs(value) < 1e15:
        return f"{value:.4g}"
    return f"{value:,.{max(0, 4 - len(str(int(abs(value)))))}f}".replace(",", _THIN)


def memory(value: int) -> str:
    """Return a limit as the record of a tool is written: `512m`, `2g`; other sizes in bytes."""
    for unit, letter in ((1024**3, "g"), (1024**2, "m")):
        if value % unit == 0:
            return f"{value // unit}{letter}"
    return plural(value, "byte")


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return `1 run`, `2 runs`."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def short_id(text: str) -> Markup:
    """Return an id of which only the telling part is seen; the page has all of it (`.id` in CSS)."""
    text = harmless_line(text)
    if _ID.fullmatch(text):
        return Markup("<b>{}</b>{}").format(text[:-8], text[-8:])
    if len(text) >= 40 and all(digit in "0123456789abcdef" for digit in text):  # a commit
        return Markup("{}<b>{}</b>").format(text[:10], text[10:])
    return escape(text)
