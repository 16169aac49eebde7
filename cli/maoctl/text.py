"""Text for people: control characters escaped, short times and sizes. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any

from mao_shared.text import HARMFUL
from mao_shared.text import harmless as harmless
from mao_shared.text import harmless_line as harmless_line
from mao_shared.text import one_line as one_line


def harmless_json(text: str) -> str:
    """Return JSON text with the control characters that JSON permits escaped as JSON does."""
    return HARMFUL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class TerminalText:
    """Decoder of a stream of log bytes into harmless text; chunks may end anywhere."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, chunk: bytes, final: bool = False) -> str:
        """Return the text of a chunk; a carriage return at its end is held back until the next one."""
        text = self._held + self._decoder.decode(chunk, final)
        self._held = "\r" if text.endswith("\r") and not final else ""
        return harmless(text.removesuffix(self._held) if self._held else text)


def parse_time(text: str) -> datetime:
    """Parse a timestamp of the API (ISO 8601 with a zone). Raises ValueError for anything else."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment


def span(delta: timedelta) -> str:
    """Return a duration in one or two units: `42s`, `3m`, `2h5m`, `3d4h`, `400d`."""
    seconds = int(abs(delta.total_seconds()))
    if seconds < 120:
        return f"{seconds}s"
    minutes = seconds // 60
    if minutes < 120:
        return f"{minutes}m"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h{rest}m" if rest and hours < 10 else f"{hours}h"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours}h" if hours and days < 10 else f"{days}d"


def relative(moment: datetime | None, now: datetime) -> str:
    """Return how long ago a moment was, or `in …` for the future; empty for None."""
    if moment is None:
        return ""
    delta = now - moment
    return f"in {span(delta)}" if delta.total_seconds() <= -1 else span(delta)


def took(start: datetime | None, end: datetime | None, now: datetime) -> str:
    """Return how long something took, or has taken so far; empty if it has not started."""
    return "" if start is None else span((end or now) - start)


def size(value: float | None) -> str:
    """Return a number of bytes in a binary unit: `512Mi`, `1.5Gi`; empty for None."""
    if value is None:
        return ""
    number, unit = float(value), ""
    for larger in ("Ki", "Mi", "Gi", "Ti", "Pi"):
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{number:.1f}".removesuffix(".0") + unit


def short_commit(commit: str | None) -> str:
    """Return the first ten digits of a commit id; empty for None."""
    return (commit or "")[:10]


def plain(value: Any) -> str:
    """Return a value of a record as text: empty for None, comma-separated lists, `key=value` for maps."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.15g}"  # all significant digits
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    if isinstance(value, dict):
        return ", ".join(f"{key}={plain(item)}" for key, item in value.items())
    return str(value)


def close_names(typed: str, names: Iterable[str]) -> list[str]:
    """Return up to three names similar to what was typed, most similar first."""
    by_folded = {name.casefold(): name for name in names}
    return [
        by_folded[match] for match in get_close_matches(typed.casefold(), list(by_folded), n=3, cutoff=0.6)
    ]
