"""Whether the vote is below simple methods by chance: every made-up set drawn again and again.

A single draw of a few hundred cells differs by a point or two for no reason. So each set is drawn with other
random numbers, and the difference to each method that the vote must equal is taken draw by draw.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

from bench.report import Measure

from .compare import floors_of, simple_scores
from .flight import choose_sources, load_days
from .made_up import ROWS, draw_again, sequences, tables
from .measured import columns
from .sets import TruthSet, decide, score
from .structure import structures

DRAWS = 20
SUBSETS = {5: 200, 10: 80, 20: 20}
"""Number of sources of flight -> number of random choices of so many, each of one day."""
CHANCE = 3.0
"""Standard errors by which a mean difference below zero is no chance."""
Differences = dict[str, dict[str, list[tuple[float, float]]]]
"""Set -> method -> the shares of right cells of the vote and of the method, by draw."""


def measure(folder: Path, *, quick: bool) -> list[Measure]:
    """Measure by how many points the vote is above each method that it must equal, on average.

    The goal is not to be below, the limit not to be below by more than chance. `quick`: few draws.
    """
    found: Differences = {}
    reasons: dict[str, str] = {}
    for observed in drawn_sets(3 if quick else DRAWS):
        add(found, reasons, observed.name, observed, folder)
    for name, choice in flight_choices(quick=quick):
        add(found, reasons, name, choice, folder)
    return [
        describe(name, method, pairs, reasons.get(name, "") if method == "plurality" else "")
        for name, by_method in found.items()
        for method, pairs in by_method.items()
    ]


def drawn_sets(draws: int) -> Iterator[TruthSet]:
    for number in range(1, draws + 1):
        with draw_again(number):
            yield from [*tables(ROWS), *columns(ROWS), *structures(15), *sequences(ROWS // 3)]


def flight_choices(*, quick: bool) -> Iterator[tuple[str, TruthSet]]:
    """Yield random choices of the sources of flight; nothing if the data is absent."""
    days = load_days(quick=quick)
    for count, choices in SUBSETS.items() if days else ():
        chosen = choose_sources(days or [], count, 2 if quick else choices)
        for part in chosen.rounds:
            yield f"flight, {count} random sources", replace(chosen, rounds=[part])


def add(found: Differences, reasons: dict[str, str], name: str, observed: TruthSet, folder: Path) -> None:
    """Score one draw of a set. `reasons`: why sets may be below plurality, by name."""
    ours = score(observed, decide(observed, folder)).share
    simple = simple_scores(observed, folder)
    others = floors_of(observed, simple)
    if observed.below:
        others["plurality"] = simple["plurality"]
        reasons[name] = observed.below
    for method, other in others.items():
        found.setdefault(name, {}).setdefault(method, []).append((ours, other.share))


def describe(name: str, method: str, pairs: Sequence[tuple[float, float]], reason: str = "") -> Measure:
    """Return the mean difference. `reason`: why it may be below zero, then it is not judged."""
    points = [100 * (ours - other) for ours, other in pairs]
    error = stdev(points) / math.sqrt(len(points)) if len(points) > 1 else math.inf
    ours, others = (fmean(shares) for shares in zip(*pairs, strict=True))
    return Measure(
        f"truth, repeated, {name}: above {method}",
        fmean(points),
        "points",
        judged=None if reason else "ours",
        goal=None if reason else 0,
        limit=None if reason else -CHANCE * error,
        is_lower_bound=True,
        note=f"{len(pairs)} draws, standard error {error:.2g} points{f'; {reason}' if reason else ''}",
        beside={"standard error": error, "share of MAO": ours, "of the other": others},
    )
