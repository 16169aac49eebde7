"""Text for people: values from outside made harmless, times and sizes short. Pure."""

from __future__ import annotations

import codecs
import re
from datetime import UTC, datetime, timedelta
from typing import Any

# C0 but tab and newline, DEL, C1, and the marks that turn the direction of writing: each of them can make a
# terminal show something else than what is there.
_HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_HARMFUL_IN_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    code = f"\\x{ord(char):02x}" if ord(char) < 0x100 else f"\\u{ord(char):04x}"
    return _SHORT.get(char, code)


def harmless(text: str) -> str:
    """Text of several lines in which control characters are spelt out; tabs and newlines stay."""
    return _HARMFUL.sub(_escape, text.replace("\r\n", "\n"))


def harmless_line(text: str) -> str:
    """One line: newlines and tabs are spelt out as well."""
    return _HARMFUL_IN_LINE.sub(_escape, text)


def harmless_json(text: str) -> str:
    """JSON text in which the characters that JSON lets through are escaped in JSON's own way."""
    return _HARMFUL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class TerminalText:
    """Turns a stream of log bytes into harmless text, whatever the chunks cut through."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, chunk: bytes, final: bool = False) -> str:
        """The text of `chunk`; a carriage return is held back until the next character is known."""
        text = self._held + self._decoder.decode(chunk, final)
        self._held = "\r" if text.endswith("\r") and not final else ""
        return harmless(text.removesuffix(self._held) if self._held else text)


def parse_time(text: str) -> datetime:
    """A timestamp of the API (ISO 8601 with zone); raises ValueError for anything else."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no zone")
    return moment


def span(delta: timedelta) -> str:
    """A length of time in its one or two leading units: `42s`, `3m`, `2h5m`, `3d4h`, `400d`."""
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
    """How long ago it was, or `in …` for the future; empty when there is none."""
    if moment is None:
        return ""
    delta = now - moment
    return f"in {span(delta)}" if delta.total_seconds() <= -1 else span(delta)


def took(start: datetime | None, end: datetime | None, now: datetime) -> str:
    """How long something took, or has taken until now; empty when it has not started."""
    return "" if start is None else span((end or now) - start)


def size(value: float | None) -> str:
    """Bytes in the largest binary unit that keeps the number at least 1: `512Mi`, `1.5Gi`."""
    if value is None:
        return ""
    number, unit = float(value), ""
    for larger in ("Ki", "Mi", "Gi", "Ti", "Pi"):
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{number:.1f}".removesuffix(".0") + unit


def short_commit(commit: str | None) -> str:
    """The first ten digits; empty for none."""
    return (commit or "")[:10]


def one_line(text: str) -> str:
    """Lines joined by ` | `, or by a space after a colon."""
    return " | ".join(line.strip() for line in text.splitlines() if line.strip()).replace(": | ", ": ")


def plain(value: Any) -> str:
    """A value of a record in words: nothing for null, comma lists, `key=value` for maps."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.15g}"  # all that a float has, and no more
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    if isinstance(value, dict):
        return ", ".join(f"{key}={plain(item)}" for key, item in value.items())
    return str(value)
