"""Lines of a step's log."""

from __future__ import annotations

from pydantic import Field

from .common import Name, Record


class LogLine(Record):
    """A line as a terminal shows it. `before`, `after`: bytes of it that were left out at its ends.

    Left out is what a carriage return overwrites, and what is too long.
    """

    number: int = Field(ge=1)
    text: str
    before: int = 0
    after: int = 0


class LogLines(Record):
    """Numbered lines of the log of a step's attempt, as it is now.

    `total`: lines in the log; `matches`: those that contain the text searched for. `size`: of the log in
    bytes. `follow_from`: the offset from which to follow it, the beginning of the last line unless that has
    ended. `grows`: its container has not ended.
    """

    step: Name
    index: int
    attempt: int
    items: list[LogLine] = Field(default_factory=list)
    total: int = 0
    matches: int | None = None
    size: int = 0
    follow_from: int = 0
    grows: bool = False
