"""Plots of series as SVG, without style or script. Pure.

Only the area is stretched; labels are text of the page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from .formats import number


@dataclass(frozen=True, slots=True)
class PlotPoint:
    """A value of a series; None and values that are not finite are gaps. `expected` ± `band`, if known.

    `mark`: `bad` or `warn` for a point with an alarm. `label`: what the point is, as text.
    """

    value: float | None
    expected: float | None = None
    band: float | None = None
    mark: str | None = None
    label: str = ""
    href: str | None = None

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            object.__setattr__(self, "value", None)
        if not (math.isfinite(self.expected or 0) and math.isfinite(self.band or 0)):
            object.__setattr__(self, "expected", None)


def value_range(points: Sequence[PlotPoint]) -> tuple[float, float]:
    """Return the range of values and bands, never empty."""
    values = [point.value for point in points if point.value is not None]
    for point in points:
        if point.expected is not None and point.band is not None:
            values += [point.expected - point.band, point.expected + point.band]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low == high:
        space = abs(low) * 0.05 or 1.0
        return low - space, high + space
    return low, high


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return round numbers that enclose the range, about `count` + 1 of them, ascending."""
    step = 10 ** math.floor(math.log10((high - low) / count))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= count + 0.5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [index * step for index in range(first, last + 1)]


def sparkline(points: Sequence[PlotPoint], label: str) -> Markup:
    """Return a small line of the values with their band and the newest value as dot."""
    low, high = value_range(points)
    xy = _scale(points, low, high, 96.0, 24.0, inset=2.0)
    last = next((place for place in reversed(xy) if place is not None), None)
    dot = Markup("")
    if last is not None:
        kind = f"dot-{points[-1].mark}" if points[-1].mark else "dot-s"
        dot = Markup('<path class="{}" d="M{:.1f} {:.1f}h0"/>').format(kind, *last)
    return Markup(
        '<svg class="spark" role="img" aria-label="{}" viewBox="0 0 96 24" preserveAspectRatio="none">'
        "<title>{}</title>{}{}{}</svg>"
    ).format(label, label, _band(points, low, high, 96.0, 24.0, 2.0), _lines(xy), dot)


def plot(
    points: Sequence[PlotPoint],
    label: str,
    unit: str = "",
    labels_x: Sequence[str] = (),
    second: Sequence[PlotPoint] = (),
) -> Markup:
    """Return a plot with a grid, the band, marked points and labels; `labels_x` are spread over its width.

    `second`: as many points of another series, drawn as a dashed line.
    """
    low, high = value_range([*points, *second])
    grid = ticks(low, high)
    low, high = grid[0], grid[-1]
    xy = _scale(points, low, high, 1000.0, 100.0, inset=8.0)
    lines = Markup("").join(
        Markup('<path class="grid" d="M0 {:.1f}H1000"/>').format(100 - 100 * (value - low) / (high - low))
        for value in grid
    )
    other = _lines(_scale(second, low, high, 1000.0, 100.0, inset=8.0), "line2")
    dots = Markup("").join(
        _dot(point, place) for point, place in zip(points, xy, strict=True) if place is not None
    )
    names = [number(value) for value in reversed(grid)]
    names[-1] += f" {unit}" if unit else ""
    return Markup(
        '<div class="plot-y" aria-hidden="true">{}</div>'
        '<svg class="plot-area" role="img" aria-label="{}" viewBox="0 0 1000 100" preserveAspectRatio="none">'
        '{}{}{}{}{}</svg><div class="plot-x" aria-hidden="true">{}</div>'
    ).format(
        _spans(names),
        label,
        lines,
        _band(points, low, high, 1000.0, 100.0, 8.0),
        other,
        _lines(xy),
        dots,
        _spans(labels_x),
    )


def _spans(texts: Sequence[str]) -> Markup:
    return Markup("").join(Markup("<span>{}</span>").format(text) for text in texts)


def _dot(point: PlotPoint, place: tuple[float, float]) -> Markup:
    kind = f"dot-{point.mark}" if point.mark else "dot"
    drawn = Markup('<path class="{}" d="M{:.1f} {:.1f}h0"><title>{}</title></path>').format(
        kind, *place, point.label
    )
    if point.href is None or point.mark is None:
        return drawn
    return Markup('<a href="{}" aria-label="{}">{}</a>').format(point.href, point.label, drawn)


def _scale(
    points: Sequence[PlotPoint], low: float, high: float, width: float, height: float, inset: float
) -> list[tuple[float, float] | None]:
    step = (width - 2 * inset) / max(1, len(points) - 1)
    return [
        None if point.value is None else (inset + step * index, _y(point.value, low, high, height))
        for index, point in enumerate(points)
    ]


def _y(value: float, low: float, high: float, height: float) -> float:
    return height - height * (min(max(value, low), high) - low) / (high - low)


def _lines(xy: Sequence[tuple[float, float] | None], kind: str = "line1") -> Markup:
    """Return the line through the points, interrupted at gaps."""
    commands: list[str] = []
    pen = "M"
    for place in xy:
        if place is None:
            pen = "M"
        else:
            commands.append(f"{pen}{place[0]:.1f} {place[1]:.1f}")
            pen = "L"
    drawn = Markup('<path class="{}" d="{}"/>')
    return drawn.format(kind, "".join(commands)) if commands else Markup("")


def _band(
    points: Sequence[PlotPoint], low: float, high: float, width: float, height: float, inset: float
) -> Markup:
    """Return the area of what was expected, interrupted where nothing was."""
    step = (width - 2 * inset) / max(1, len(points) - 1)
    upper: list[str] = []
    lower: list[str] = []
    paths: list[str] = []

    def close() -> None:
        if upper:
            paths.append("M" + " ".join(upper + lower[::-1]) + "z")
            upper.clear()
            lower.clear()

    for index, point in enumerate(points):
        if point.expected is None or point.band is None:
            close()
            continue
        x = inset + step * index
        upper.append(f"{x:.1f} {_y(point.expected + point.band, low, high, height):.1f}")
        lower.append(f"{x:.1f} {_y(point.expected - point.band, low, high, height):.1f}")
    close()
    return Markup('<path class="band" d="{}"/>').format("".join(paths)) if paths else Markup("")
