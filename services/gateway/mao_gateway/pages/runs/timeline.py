"""The timeline of a run: each attempt of each step as a bar of its phases, as SVG. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from markupsafe import Markup

from mao_gateway.pages.formats import span
from mao_shared.models import Run, StepRun
from mao_shared.states import STEP_ENDED, StepPhase

KINDS: dict[StepPhase, str] = {
    StepPhase.PENDING: "wait",
    StepPhase.PREPARING: "prep",
    StepPhase.READY: "wait",
    StepPhase.STARTING: "prep",
    StepPhase.RUNNING: "run",
    StepPhase.EXITED: "pub",
    StepPhase.PUBLISHING: "pub",
}
"""Phase → how it is drawn (`.g-…` in style.css)."""
_BOXES = {"wait": (8, 6), "prep": (8, 6), "run": (1, 20), "pub": (4, 14), "open": (1.5, 19), "bad": (1, 20)}
_FAULTS = {StepPhase.FAILED, StepPhase.LOST, StepPhase.CANCELLED}
_ORDER = {phase: index for index, phase in enumerate(StepPhase)}
_INTERVALS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200)
INTERVALS_SHOWN = 4
WIDTH = 1000.0
MIN_WIDTH = 3.0  # of a phase, so that it is seen


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """A phase from its beginning to the next one's; `is_open`: it has not ended. `kind`: how it is drawn."""

    phase: StepPhase
    word: str
    kind: str
    start: datetime
    end: datetime
    is_open: bool = False

    @property
    def seconds(self) -> float:
        return max(0.0, (self.end - self.start).total_seconds())


@dataclass(frozen=True, slots=True)
class AttemptBar:
    """An attempt of a step. `of_several`: the step had more than one; `seconds`: None before it begins."""

    step: str
    attempt: int
    of_several: bool
    phase: StepPhase
    spans: list[PhaseSpan]
    seconds: float | None
    note: str
    svg: Markup


@dataclass(frozen=True, slots=True)
class Timeline:
    """`axis`: the times at the lines of the grid; `phases`: how many there are in all."""

    bars: list[AttemptBar]
    axis: list[str]

    @property
    def phases(self) -> int:
        return sum(len(bar.spans) for bar in self.bars)


def make_timeline(run: Run, now: datetime, zone: ZoneInfo) -> Timeline:
    """Return the timeline of a run up to `now`, its axis in `zone`."""
    attempts = [attempt for step in run.steps for attempt in _attempts(step, now)]
    spans = [each for _, _, _, found, _ in attempts for each in found]
    first = min((each.start for each in spans), default=run.started_at or run.created_at)
    last = max((each.end for each in spans), default=now)
    begin, interval, count = _grid(first, last)
    length = interval * count
    grid = Markup("").join(
        Markup('<path class="g-line" d="M{:g} 0V22"/>').format(WIDTH * index / count)
        for index in range(count + 1)
    )
    several = {step.spec.name for step in run.steps if step.attempt > 1}
    bars = [
        AttemptBar(
            step=name,
            attempt=number,
            of_several=name in several,
            phase=phase,
            spans=found,
            seconds=(found[-1].end - found[0].start).total_seconds() if found else None,
            note=note,
            svg=_draw(name, number, phase, found, begin, length, grid),
        )
        for name, number, phase, found, note in attempts
    ]
    form = "%H:%M:%S" if interval < 60 else "%H:%M"
    times = (begin + timedelta(seconds=interval * index) for index in range(count + 1))
    return Timeline(bars, [f"{time.astimezone(zone):{form}}" for time in times])


_Attempt = tuple[str, int, StepPhase, list[PhaseSpan], str]


def _attempts(step: StepRun, now: datetime) -> list[_Attempt]:
    """Return the step's attempts, the earlier ones first."""
    found: list[_Attempt] = []
    for past in step.earlier:
        end = past.times.get(StepPhase.FAILED) or past.times.get(StepPhase.LOST)
        phase = StepPhase.LOST if StepPhase.LOST in past.times else StepPhase.FAILED
        note = past.error.detail if past.error else ""
        found.append(
            (step.spec.name, past.attempt, phase, phase_spans(past.times, past.attempt, end or now), note)
        )
    note = step.error.detail if step.error else step.waiting or ""
    spans = phase_spans(step.times, step.attempt, now)
    return [*found, (step.spec.name, step.attempt, step.phase, spans, note)]


def phase_spans(times: Mapping[StepPhase, datetime], attempt: int, now: datetime) -> list[PhaseSpan]:
    """Return the phases in their order, each up to the next one's beginning; the last one up to `now`."""
    ordered = sorted(times.items(), key=lambda item: (item[1], _ORDER[item[0]]))
    spans: list[PhaseSpan] = []
    for index, (phase, start) in enumerate(ordered):
        if phase in STEP_ENDED:
            continue
        is_last = index + 1 == len(ordered)
        end = max(start, now) if is_last else ordered[index + 1][1]
        word = "back-off" if phase is StepPhase.PENDING and attempt > 1 else str(phase)
        spans.append(PhaseSpan(phase, word, KINDS[phase], start, end, is_last))
    return spans


def _grid(first: datetime, last: datetime) -> tuple[datetime, int, int]:
    """Return a round beginning, the seconds between lines and the number of intervals that cover a time."""
    seconds = max(1.0, (last - first).total_seconds())
    for interval in _INTERVALS:
        begin = math.floor(first.timestamp() / interval) * interval
        if begin + interval * INTERVALS_SHOWN >= first.timestamp() + seconds:
            return datetime.fromtimestamp(begin, UTC), interval, INTERVALS_SHOWN
    days = math.ceil(seconds / 86400 / INTERVALS_SHOWN + 1) * 86400
    begin = math.floor(first.timestamp() / 86400) * 86400
    return datetime.fromtimestamp(begin, UTC), days, INTERVALS_SHOWN


def _draw(
    name: str,
    attempt: int,
    phase: StepPhase,
    spans: Sequence[PhaseSpan],
    begin: datetime,
    length: float,
    grid: Markup,
) -> Markup:
    """Return an attempt's bar. All that is drawn is in its label as well."""

    def place(moment: datetime) -> float:
        return min(WIDTH, max(0.0, WIDTH * (moment - begin).total_seconds() / length))

    boxes = [_box(_kind(each), place(each.start), place(each.end), _describe(each)) for each in spans]
    if phase in _FAULTS and spans:
        end = place(spans[-1].end)
        boxes.append(_box("bad", min(end, WIDTH - 6), min(end, WIDTH - 6) + 6, str(phase)))
    told = [_describe(each) for each in spans] or ["not begun"]
    if spans and not spans[-1].is_open:
        told.append(str(phase))
    return Markup(
        '<svg class="bar" role="img" aria-label="{}, attempt {}: {}" viewBox="0 0 1000 22" '
        'preserveAspectRatio="none">{}{}</svg>'
    ).format(name, attempt, ", ".join(told), grid, Markup("").join(boxes))


def _kind(each: PhaseSpan) -> str:
    return "open" if each.is_open and each.kind == "run" else each.kind


def _describe(each: PhaseSpan) -> str:
    return f"{each.word} {span(each.seconds)}" + (", not ended" if each.is_open else "")


def _box(kind: str, start: float, end: float, title: str) -> Markup:
    y, height = _BOXES[kind]
    return Markup(
        '<rect class="g-{}" x="{:.1f}" y="{:g}" width="{:.1f}" height="{:g}"><title>{}</title></rect>'
    ).format(kind, min(start, WIDTH - MIN_WIDTH), y, max(MIN_WIDTH, end - start), height, title)
