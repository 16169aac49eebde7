"""Figures of the benchmarks, their verdicts and their output."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

Verdict = Literal["goal met", "goal missed", "within limit", "PAST LIMIT", "-"]


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure, and that of the program to compare with, measured in the same run.

    `judged`: whether goal and limit apply to `ours` or to the ratio; None: for information only. They are
    upper bounds, or lower ones with `is_lower_bound`. Without a limit, a figure never fails a run. `rounds`:
    the results behind `ours`, in its unit. `beside`: what other methods reach, by name, in the same unit.
    """

    name: str
    ours: float
    unit: str
    than: str | None = None
    theirs: float | None = None
    judged: Literal["ours", "ratio"] | None = None
    goal: float | None = None
    limit: float | None = None
    note: str = ""
    rounds: tuple[float, ...] = ()
    paired_ratio: float | None = None  # median over pairs measured back to back; default: ours / theirs
    is_lower_bound: bool = False
    beside: Mapping[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        if self.paired_ratio is not None:
            return self.paired_ratio
        return self.ours / self.theirs if self.theirs else None

    @property
    def verdict(self) -> Verdict:
        figure = self.ratio if self.judged == "ratio" else self.ours
        if self.judged is None or figure is None or self.goal is None:
            return "-"
        if self._keeps(figure, self.goal):
            return "goal met"
        if self.limit is None:
            return "goal missed"
        return "within limit" if self._keeps(figure, self.limit) else "PAST LIMIT"

    def _keeps(self, figure: float, bound: float) -> bool:
        return figure >= bound if self.is_lower_bound else figure <= bound


def past_limit(measures: Sequence[Measure]) -> list[Measure]:
    return [measure for measure in measures if measure.verdict == "PAST LIMIT"]


def machine() -> dict[str, str]:
    """Return the machine and the versions of its software, for the report."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "cpu": f"{_cpu()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "docker": _output_of("docker", "version", "--format", "{{.Server.Version}}"),
        "etcd": _output_of("etcd", "--version").splitlines()[0].removeprefix("etcd Version: "),
        "git": _output_of("git", "--version").removeprefix("git version "),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _output_of(*argv: str) -> str:
    """Return a program's output; a dash if it is missing or fails."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "-"


def as_json(machine: dict[str, str], measures: Sequence[Measure]) -> str:
    rows = [asdict(measure) | {"ratio": measure.ratio, "verdict": measure.verdict} for measure in measures]
    return json.dumps({"machine": machine, "measures": rows}, indent=2)


def as_line(measure: Measure) -> str:
    """Return one figure as a line of text."""
    parts = [_figure(measure.ours, measure.unit)]
    if measure.than is not None:
        parts.append(
            f"{measure.than} {_figure(measure.theirs, measure.unit)}, ratio {_figure(measure.ratio, '')}"
        )
    parts += [f"{name} {_figure(figure, '')}" for name, figure in measure.beside.items()]
    if measure.goal is not None:
        unit = measure.unit if measure.judged == "ours" else ""
        parts.append(f"goal {_figure(measure.goal, unit)}: {measure.verdict}")
    return f"{measure.name}: {'; '.join(parts)}"


_HEAD = ("measure", "MAO", "compared with", "its figure", "ratio", "goal", "limit", "")


def as_table(machine: dict[str, str], measures: Sequence[Measure]) -> str:
    """Return the figures as Markdown tables, readable on a terminal, followed by notes.

    Those with others beside them have a table of their own, with a column for each method.
    """
    alone = [measure for measure in measures if not measure.beside]
    compared = [measure for measure in measures if measure.beside]
    tables = [_lines([_HEAD, *map(_row, alone)])] if alone or not compared else []
    tables += [["", *_lines(_rows_beside(compared))]] if compared else []
    lines = [line for table in tables for line in table]
    notes = [f"* {measure.name}: {measure.note}" for measure in measures if measure.note]
    about = ", ".join(f"{name} {value}" for name, value in machine.items())
    return "\n".join([*lines, "", *notes, "", f"Machine: {about}"])


def _lines(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def _rows_beside(measures: Sequence[Measure]) -> list[Sequence[str]]:
    """Return a head and a row for each figure, with what each of the other methods reaches."""
    methods = list(dict.fromkeys(method for measure in measures for method in measure.beside))
    rows: list[Sequence[str]] = [("measure", "MAO", *methods, "goal", "limit", "")]
    for measure in measures:
        others = [_figure(measure.beside.get(method), "") for method in methods]
        bounds = [_figure(bound, "") for bound in (measure.goal, measure.limit)]
        rows.append((measure.name, _figure(measure.ours, measure.unit), *others, *bounds, measure.verdict))
    return rows


def _row(measure: Measure) -> tuple[str, ...]:
    unit = measure.unit if measure.judged == "ours" else ""
    return (
        measure.name,
        _figure(measure.ours, measure.unit),
        measure.than or "",
        _figure(measure.theirs, measure.unit),
        _figure(measure.ratio, ""),
        _figure(measure.goal, unit),
        _figure(measure.limit, unit),
        measure.verdict,
    )


def _figure(value: float | None, unit: str) -> str:
    """Return a number with three significant digits, without exponent, and its unit."""
    if value is None:
        return ""
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text} {unit}".rstrip()
