"""Made-up columns of exact values with close errors, and of measured ones with noise of other kinds."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from bench.report import Measure

from .compare import compare
from .made_up import NODES, ROWS, leave_empty, noisy, numbers_truth, observe_round, rng_of, within
from .sets import Cell, Observed, TruthSet

Draw = Callable[[random.Random], str]
Near = Callable[[str, random.Random], str]
EXACT: dict[str, tuple[Draw, Near]] = {
    "counts": (lambda rng: str(rng.randrange(1000, 9000)), lambda value, rng: shift(value, rng, 1)),
    "prices": (
        lambda rng: f"{rng.uniform(10, 90):.2f}",
        lambda value, rng: f"{float(value) * rng.uniform(0.99, 1.01):.2f}",
    ),
    "times": (
        lambda rng: f"{rng.randrange(10, 24)}:{rng.randrange(10, 50)}",
        lambda value, rng: f"{value[:3]}{shift(value[3:], rng, 9)}",
    ),
    "dates": (
        lambda rng: f"2026-{rng.randrange(10, 13)}-{rng.randrange(12, 26)}",
        lambda value, rng: f"{value[:8]}{shift(value[8:], rng, 2)}",
    ),
}
"""Kind -> how a true value is drawn, and a wrong one that is close to it."""


def measure(folder: Path, *, quick: bool) -> list[Measure]:
    """Score the vote on every kind of column. `quick`: with fewer records."""
    return compare(columns(ROWS // 3 if quick else ROWS), folder)


def columns(rows: int) -> list[TruthSet]:
    """Return a set of each kind of column."""
    return [*exact_columns(rows), *noises(rows)]


def exact_columns(rows: int) -> list[TruthSet]:
    """Values that are right or wrong, though the wrong ones are close: a tolerance would help these."""
    sets = []
    for about, (draw, near) in EXACT.items():
        for nodes in (3, 5):
            for empty in (0.0, 0.4):
                rng = rng_of("exact", about, nodes, empty)
                part = close_errors(rows, rng, draw, near, nodes, empty)
                name = (
                    f"exact {about}, {nodes} nodes with 20 % close errors, {100 * empty:.0f} % of cells empty"
                )
                sets.append(TruthSet(name, [part]))
    return sets


def close_errors(rows: int, rng: random.Random, draw: Draw, near: Near, nodes: int, empty: float) -> Observed:
    truth = {(f"r{row}", "value"): draw(rng) for row in range(rows)}
    observe = leave_empty(rng, empty, lambda _, __, value: near(value, rng) if rng.random() < 0.2 else value)
    return observe_round(truth, observe, NODES[:nodes])


def shift(digits: str, rng: random.Random, most: int) -> str:
    """Return a number that is larger or smaller by 1 to `most`, with as many digits."""
    return f"{int(digits) + rng.choice((-1, 1)) * rng.randint(1, most):0{len(digits)}}"


def noises(rows: int) -> list[TruthSet]:
    """Measured numbers: nodes of unequal noise, rounded ones, outliers, few and many nodes, huge ranges."""
    sets = []
    for about, noise_of in (
        ("1, 1, 1, 5 and 20 % noise", dict(zip(NODES, (0.01, 0.01, 0.01, 0.05, 0.2), strict=True))),
        ("1, 20, 20, 20 and 20 % noise", dict(zip(NODES, (0.01, 0.2, 0.2, 0.2, 0.2), strict=True))),
        ("2 % noise, 2 nodes", dict.fromkeys("ab", 0.02)),
        ("2 % noise, 15 nodes", dict.fromkeys("abcdefghijklmno", 0.02)),
    ):
        rng = rng_of("noise", about)
        part = uneven_noise(numbers_truth(rows, rng), rng, noise_of)
        observed = measured_set(f"numbers with {about}", part)
        if len(noise_of) == 2:  # the median of two is their mean, which nobody observed
            observed = replace(observed, floors=("plurality",))
        sets.append(observed)
    rng = rng_of("outliers")
    honest = noisy(rng, 0.02)
    wild = observe_round(
        numbers_truth(rows, rng),
        lambda *cell: f"{rng.uniform(0, 10**4):.3f}" if rng.random() < 0.25 else honest(*cell),
    )
    sets.append(measured_set("numbers with 2 % noise, 25 % of cells anywhere", wild))
    rng = rng_of("rounded")
    exact = observe_round(
        numbers_truth(rows, rng), lambda node, _, value: f"{float(value):.{'abcde'.index(node)}f}"
    )
    sets.append(measured_set("numbers rounded to 0 to 4 decimals", exact))
    rng = rng_of("range")
    wide = {cell: f"{math.exp(rng.uniform(-12, 20)):.9g}" for cell in numbers_truth(rows, rng)}
    sets.append(
        measured_set(
            "numbers from 1e-5 to 1e8 with 2 % noise", uneven_noise(wide, rng, dict.fromkeys(NODES, 0.02))
        )
    )
    return sets


def measured_set(name: str, part: Observed) -> TruthSet:
    return TruthSet(name, [part], is_right=within(0.05), floors=("plurality", "median"))


def uneven_noise(truth: Mapping[Cell, str], rng: random.Random, noise_of: Mapping[str, float]) -> Observed:
    return observe_round(
        truth,
        lambda node, _, value: f"{float(value) * (1 + rng.gauss(0, noise_of[node])):.9g}",
        list(noise_of),
    )
