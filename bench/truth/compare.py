"""Compares the vote on a set of observations with the rules before and with simple ones."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench.report import Measure

from .peers import ALONE, score_methods
from .sets import ABSENT, Found, Score, TruthSet, decide, score
from .simple import clear_plurality, median, plurality, plurality_of_rows

MAX_FIELDS = 10  # described one by one
WITHOUT_HISTORY, OF_ROWS = "no history", "plurality of rows"
BEFORE = 3
"""The version of the voting rules that 'before' stands for."""


def compare(sets: Sequence[TruthSet], folder: Path) -> list[Measure]:
    """Measure the share of right cells of the vote on each set, beside that of other methods."""
    published = score_methods(sets)
    return [
        compare_one(observed, folder, published[number] if published else {})
        for number, observed in enumerate(sets)
    ]


def compare_one(observed: TruthSet, folder: Path, published: Mapping[str, Score]) -> Measure:
    """Measure the share of right cells.

    Its limit: not below the floors but for chance (three standard errors). Of plurality, the limit counts
    what it decides, and the goal also what it guesses where values tie, which the vote may leave open.
    """
    found = decide(observed, folder)
    ours = score(observed, found)
    others = {}
    if ALONE not in os.environ:
        others[f"rules {BEFORE}"] = score(observed, decide(observed, folder, rules=BEFORE))
    simple = simple_scores(observed, folder)
    others |= {**simple, **published}
    floors = floors_of(observed, simple)
    decided = score(observed, [clear_plurality(part.claims) for part in observed.scored])
    limit = at_least(ours, (floors | {"plurality": decided} if "plurality" in floors else floors).values())
    return Measure(
        name=f"truth, {observed.name}",
        ours=ours.share,
        unit="",
        beside={name: other.share for name, other in others.items()},
        judged="ours",
        goal=max(at_least(ours, floors.values()), observed.goal or 0),
        limit=limit,
        is_lower_bound=True,
        note="; ".join([describe(observed, ours, found), *below_plurality(observed, ours, simple)]),
    )


def simple_scores(observed: TruthSet, folder: Path) -> dict[str, Score]:
    """Score plurality, the median, and where the definition has a history, the vote without it."""
    claims = [part.claims for part in observed.scored]
    found = {
        "plurality": score(observed, [plurality(part) for part in claims]),
        "median": score(observed, [median(part, observed.words) for part in claims]),
    }
    if OF_ROWS in observed.floors:
        found[OF_ROWS] = score(observed, [plurality_of_rows(part) for part in observed.scored])
    if observed.definition.history != "NONE":
        plain = observed.definition.model_copy(update={"history": "NONE"})
        found[WITHOUT_HISTORY] = score(observed, decide(replace(observed, definition=plain), folder))
    return found


def floors_of(observed: TruthSet, simple: Mapping[str, Score]) -> dict[str, Score]:
    """Return the scores that the vote must equal."""
    return {name: found for name, found in simple.items() if name in (*observed.floors, WITHOUT_HISTORY)}


def below_plurality(observed: TruthSet, ours: Score, simple: Mapping[str, Score]) -> list[str]:
    """Say by how much the vote is below plurality, if it is, and why."""
    other = simple["plurality"]
    if ours.share >= other.share:
        return []
    by_chance = ours.share >= other.share - ours.margin(other)
    why = observed.below or ("by chance" if by_chance else "for no known reason")
    return [f"below plurality by {100 * (other.share - ours.share):.2g} points: {why}"]


def at_least(ours: Score, floors: Iterable[Score]) -> float:
    return max([0.0, *(floor.share - ours.margin(floor) for floor in floors)])


def describe(observed: TruthSet, ours: Score, found: Sequence[Found]) -> str:
    missing = sum(
        cell in part.claims and wanted != ABSENT and cell not in result
        for part, result in zip(observed.scored, found, strict=True)
        for cell, wanted in part.truth.items()
    )
    about = f"{len(ours.names)} cells in {len(observed.scored)} rounds, {missing} left open"
    fields = ours.by_field()
    if 1 < len(fields) < MAX_FIELDS:
        about += "; by field: " + ", ".join(f"{name} {share:.3f}" for name, share in fields.items())
    return about
