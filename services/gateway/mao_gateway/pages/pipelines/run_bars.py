"""The last runs of a pipeline as bars: how long each took and how it ended. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from mao_gateway.pages.formats import Clock, span
from mao_gateway.pages.node_api import path_of
from mao_shared.models import Run
from mao_shared.states import RunPhase

MAX_RUNS = 60
FEW_RUNS = 12
_WIDTH = 1000.0
_KINDS = {
    RunPhase.SUCCEEDED: "ok",
    RunPhase.FAILED: "bad",
    RunPhase.MISSED: "missed",
    RunPhase.RUNNING: "open",
    RunPhase.QUEUED: "open",
}
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
"""Seconds between the lines of the grid; longer ones are whole days."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A run. `kind`: ok, bad, missed, open or other; `seconds`: how long it took, if it began."""

    kind: str
    seconds: float | None
    label: str
    href: str


@dataclass(frozen=True, slots=True)
class History:
    """The last runs, oldest first, with what they tell as text."""

    bars: tuple[Bar, ...]
    succeeded: int
    median: float | None
    text: str
    days: tuple[str, ...]


def make_history(runs: Sequence[Run], clock: Clock) -> History:
    """Return the history of runs (newest first); reproductions are left out."""
    shown = [run for run in runs if run.trigger != "reproduce"][:MAX_RUNS][::-1]
    bars = tuple(_bar(run, clock) for run in shown)
    taken = [bar.seconds for bar in bars if bar.kind == "ok" and bar.seconds is not None]
    median = statistics.median(taken) if taken else None
    counts: dict[str, int] = {}
    for run in shown:
        counts[run.phase] = counts.get(run.phase, 0) + 1
    words = [f"{counts[phase]} {phase}" for phase in RunPhase if phase in counts]
    text = ", ".join(words) + (f"; median {span(median)}" if median is not None else "")
    days = [run.scheduled_for or run.created_at for run in shown]
    few = len(days) < FEW_RUNS  # they do not reach the end of the plot
    chosen = days[:1] if few else [days[round(index * (len(days) - 1) / 3)] for index in range(4)]
    return History(
        bars=bars,
        succeeded=counts.get(RunPhase.SUCCEEDED, 0),
        median=median,
        text=text,
        days=tuple(clock.day(day) or f"{day.astimezone(clock.zone):%H:%M}" for day in chosen),
    )


def _bar(run: Run, clock: Clock) -> Bar:
    at = run.scheduled_for or run.created_at
    seconds = None
    if run.started_at is not None:
        seconds = max(0.0, ((run.finished_at or clock.now) - run.started_at).total_seconds())
    if run.phase is RunPhase.MISSED:
        seconds = None
    ending = f", {span(seconds)}" if seconds is not None else ""
    many = f" ({run.covers.count} ticks)" if run.covers else ""
    label = f"{_moment(at, clock)}: {run.phase}{many}{ending}"
    return Bar(_KINDS.get(run.phase, "other"), seconds, label, path_of("ui", "runs", run.id))


def _moment(at: datetime, clock: Clock) -> str:
    local = at.astimezone(clock.zone)
    return f"{clock.day(at)} {local:%H:%M} {local:%Z}".strip()


def grid_top(longest: float) -> float:
    """Return the duration at the top of the plot: twice a round step, at least as long as the longest."""
    step = next((step for step in _STEPS if 2 * step >= longest), None)
    return 2.0 * (step if step is not None else 86400 * -(-longest // (2 * 86400)))


def draw_history(history: History) -> Markup:
    """Return the bars as SVG with labels; each run that did not succeed is a link."""
    top = grid_top(max((bar.seconds or 0 for bar in history.bars), default=0))
    place = _WIDTH / max(len(history.bars), FEW_RUNS)  # few runs do not become walls
    parts = [Markup('<path class="grid" d="M0 {}H1000"/>').format(y) for y in (0, 50, 100)]
    parts += [_draw(bar, index * place, place * 0.76, top) for index, bar in enumerate(history.bars)]
    if history.median is not None:
        y = 100 - 100 * history.median / top
        parts.append(Markup('<path class="line2" d="M0 {:.1f}H1000"/>').format(y))
    labels = (span(top), span(top / 2), "0")
    return Markup(
        '<div class="plot-y" aria-hidden="true">{}</div><svg class="plot-area low" role="group" '
        'aria-label="{}" viewBox="0 0 1000 100" preserveAspectRatio="none">{}</svg>'
        '<div class="plot-x" aria-hidden="true">{}</div>'
    ).format(
        Markup("").join(Markup("<span>{}</span>").format(label) for label in labels),
        f"Duration of the last runs: {history.text}",
        Markup("").join(parts),
        Markup("").join(Markup("<span>{}</span>").format(day) for day in history.days),
    )


def _draw(bar: Bar, x: float, width: float, top: float) -> Markup:
    height = max(2.0, 100 * (bar.seconds or 0) / top)
    rect = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')
    match bar.kind:
        case "ok":
            drawn = rect.format("h-ok", x, 100 - height, width, height)
            return Markup("<g><title>{}</title>{}</g>").format(bar.label, drawn)
        case "bad":
            square = Markup('<path class="dot-bad" d="M{:.1f} {:.1f}h0"/>')
            drawn = rect.format("h-bad", x, 100 - height, width, height)
            drawn += square.format(x + width / 2, max(0.0, 96 - height))
        case "missed":
            drawn = Markup(
                '<path class="t-warnline" vector-effect="non-scaling-stroke" d="M{:.1f} 99h{:.1f}"/>'
            )
            drawn = drawn.format(x, width)
        case "open":
            drawn = rect.format("g-open", x, 100 - height, width, height)
        case _:
            drawn = rect.format("g-wait", x, 100 - height, width, height)
    return Markup('<a href="{}" aria-label="{}"><title>{}</title>{}</a>').format(
        bar.href, bar.label, bar.label, drawn
    )
