"""Time from a request to pushed ground truth, compared with a shell script."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from .by_hand import make_clone, run_argv
from .node import append_command, bench_node, enrol, run_once
from .report import Measure

GOAL, LIMIT = 1.15, 1.3
PAIRS, PAIRS_SLEEPING = 15, 5
WARM_UP = 2
WORKING_SECONDS = 2


def measure(folder: Path, *, quick: bool = False) -> list[Measure]:
    """Measure the ratio for a trivial tool (the worst case) and for one that works for 2 s."""
    with bench_node(folder) as node:
        measures = []
        for name, seconds, pairs in (("no-op", 0, PAIRS), ("working", WORKING_SECONDS, PAIRS_SLEEPING)):
            command = append_command(seconds)
            enrol(node, name, command)
            argv = run_argv(make_clone(folder / f"{name}-by-hand"), command)
            runs: list[dict[str, Any]] = []
            ours, theirs = interleaved(
                lambda name=name, runs=runs: runs.append(run_once(node, name)),  # type: ignore[misc]
                lambda argv=argv: subprocess.run(argv, check=True),  # type: ignore[misc]
                3 if quick else pairs,
            )
            measures.append(_judge(seconds, ours, theirs, _phases(runs[WARM_UP:])))
        return measures


def interleaved(
    first: Callable[[], object], second: Callable[[], object], pairs: int
) -> tuple[list[float], list[float]]:
    """Return the seconds of each call, measured alternately so that other load affects both."""
    for _ in range(WARM_UP):
        first()
        second()
    times = [(_seconds(first), _seconds(second)) for _ in range(pairs)]
    return [a for a, _ in times], [b for _, b in times]


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _judge(seconds: float, ours: list[float], theirs: list[float], phases: str) -> Measure:
    what = f"works for {seconds:.0f} s" if seconds else "appends a line"
    return Measure(
        name=f"overhead, tool {what}",
        ours=statistics.median(ours) * 1000,
        unit="ms",
        than="shell script",
        theirs=statistics.median(theirs) * 1000,
        paired_ratio=statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
        judged=None if seconds else "ratio",
        goal=None if seconds else GOAL,
        limit=None if seconds else LIMIT,
        rounds=tuple(round(a * 1000, 1) for a in ours),
        note=f"medians of {len(ours)} runs each, in turns; the ratio is the median of the pairs' ratios "
        f"({_range(ours)} and {_range(theirs)}). MAO's phases: {phases}",
    )


def _range(seconds: list[float]) -> str:
    return f"{min(seconds) * 1000:.0f} to {max(seconds) * 1000:.0f} ms"


def _phases(runs: list[dict[str, Any]]) -> str:
    """Return the median time in each phase of the step, in ms."""
    times = [run["steps"][0]["times"] for run in runs]
    return ", ".join(
        f"{before} {statistics.median(_between(entered, before, after) for entered in times):.0f}"
        for before, after in pairwise(times[0])
    )


def _between(times: dict[str, str], before: str, after: str) -> float:
    """Return the milliseconds from one phase to the next."""
    first, second = (datetime.fromisoformat(times[phase]) for phase in (before, after))
    return (second - first).total_seconds() * 1000
