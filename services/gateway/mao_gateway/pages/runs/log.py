"""The log of a run on its page: which part is shown, and its lines as text. Pure, apart from reading it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from markupsafe import Markup, escape

from mao_gateway.pages.formats import plural, size
from mao_gateway.pages.node_api import NodeApi, path_of
from mao_shared.errors import MaoError
from mao_shared.models import Run, StepRun
from mao_shared.models.log import LogLine, LogLines
from mao_shared.states import RUN_ENDED, StepPhase
from mao_shared.text import harmless_line

LINES = 300  # shown at once
BEFORE_MATCH = 20  # lines shown before one that was found
MAX_WANTED_TEXT = 200


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which part of which log. `step`: its name, with `:attempt` for an earlier one; empty for the latest."""

    step: str = ""
    text: str = ""
    first: int | None = None
    follow: bool = True

    @property
    def name(self) -> str | None:
        return self.step.partition(":")[0] or None

    @property
    def attempt(self) -> int | None:
        number = self.step.partition(":")[2]
        return int(number) if number.isdecimal() and 0 < len(number) < 4 and int(number) else None

    def address(self, **changes: str | int | None) -> str:
        """Return the query string of the page with some of it changed; None removes a part."""
        fields: dict[str, str | int | None] = {
            "step": self.step or None,
            "q": self.text or None,
            "from": self.first,
            "follow": None if self.follow else 0,
        }
        pairs = [(name, value) for name, value in (fields | changes).items() if value is not None]
        return "?" + urlencode(pairs) + "#log"


@dataclass(frozen=True, slots=True)
class LogPart:
    """What the page shows of a log. `problem`: why there is nothing; `options`: value and text of each."""

    query: LogQuery
    options: list[tuple[str, str]]
    found: LogLines | None = None
    problem: MaoError | None = None

    @property
    def first(self) -> int | None:
        return self.found.items[0].number if self.found and self.found.items else None

    @property
    def last(self) -> int:
        return self.found.items[-1].number if self.found and self.found.items else 0

    @property
    def follows(self) -> bool:
        """True if new lines are added to what is shown."""
        shows_end = not self.query.text and self.query.first is None
        return bool(self.found and self.found.grows and self.query.follow and shows_end)

    @property
    def next_number(self) -> int:
        """The number of the line that begins where following begins."""
        found = self.found
        if found is None:
            return 1
        return found.total if found.follow_from < found.size else found.total + 1

    @property
    def chosen(self) -> str:
        """The option of the log that is shown."""
        if self.found is None:
            return self.query.step
        exact = f"{self.found.step}:{self.found.attempt}"
        return exact if exact in {value for value, _ in self.options} else self.found.step

    @property
    def title(self) -> str:
        """What the log is of: the step, and the attempt if it had several."""
        return dict(self.options).get(self.chosen, "")

    def facts(self) -> str:
        """Return size and lines, as text."""
        if self.found is None:
            return ""
        return f"{size(self.found.size)}, {plural(self.found.total, 'line')}"

    def status(self) -> str:
        """Return what a search has found."""
        if self.found is None or self.found.matches is None:
            return ""
        shown, all_of_them = len(self.found.items), self.found.matches
        if not all_of_them:
            return "no line"
        return (
            plural(all_of_them, "line")
            if shown == all_of_them
            else f"{shown} of {plural(all_of_them, 'line')}"
        )


def log_options(steps: Sequence[StepRun]) -> list[tuple[str, str]]:
    """Return the logs that a run may have, as value of the field and text, oldest attempts first."""
    found: list[tuple[str, str]] = []
    for step in steps:
        name = step.spec.name
        found += [(f"{name}:{number}", f"{name}, attempt {number}") for number in range(1, step.attempt)]
        latest = f"{name}, attempt {step.attempt}" if step.attempt > 1 else name
        if step.phase is not StepPhase.SKIPPED:
            found.append((name, latest))
    return found


async def read_log(api: NodeApi, run: Run, query: LogQuery) -> LogPart:
    """Read the lines of a log that the page shows; an error becomes a part of the page."""
    options = log_options(run.steps)
    if not options:
        return LogPart(query, options)
    asked = {
        "step": query.name,
        "attempt": query.attempt,
        "q": query.text[:MAX_WANTED_TEXT] or None,
        "from": query.first,
        "limit": LINES,
    }
    try:
        found = await api.get(path_of("runs", run.id, "logs", "lines"), LogLines, **asked)
    except MaoError as error:
        waits = error.code == "log-not-found" and run.phase not in RUN_ENDED
        return LogPart(query, options, problem=None if waits else error)
    return LogPart(query, options, found)


def line_text(line: LogLine, wanted: str = "") -> Markup:
    """Return a line as text, with what was searched for marked and a note of what was left out."""
    text = Markup("").join(
        Markup("<mark>{}</mark>").format(_harmless(piece)) if index % 2 else escape(_harmless(piece))
        for index, piece in enumerate(_split(line.text, wanted))
    )
    if line.before:
        title = f"{size(line.before)} before this are overwritten or too long to show; the download has them"
        text = Markup('<span class="left" title="{}">… </span>{}').format(title, text)
    if line.after:
        text = Markup('{}<span class="left"> … {} more in the download</span>').format(text, size(line.after))
    return text


def _split(text: str, wanted: str) -> list[str]:
    """Split a text so that every second piece is what was searched for; the case of ASCII is ignored."""
    return re.split(f"({re.escape(wanted)})", text, flags=re.IGNORECASE | re.ASCII) if wanted else [text]


def _harmless(text: str) -> str:
    return "\t".join(harmless_line(piece) for piece in text.split("\t"))
