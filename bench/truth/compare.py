"""Compares the vote on a set of observations with the rules before and with simple ones."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench.report import Measure

from .peers import ALONE, score_methods
from .sets import Score, TruthSet, decide, score
from .simple import median, plurality

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
    """Measure the share of right cells. Its limit: not below the floors but for chance (McNemar, 3 sigma)."""
    ours = score(observed, decide(observed, folder))
    others = {}
    if ALONE not in os.environ:
        others[f"rules {BEFORE}"] = score(observed, decide(observed, folder, rules=BEFORE))
    others |= {
        "plurality": score(observed, [plurality(part.claims) for part in observed.scored]),
        "median": score(observed, [median(part.claims, observed.words) for part in observed.scored]),
    }
    floors = observed.floors
    others |= published
    if observed.definition.history != "NONE":
        plain = observed.definition.model_copy(update={"history": "NONE"})
        others["no history"] = score(observed, decide(replace(observed, definition=plain), folder))
        floors = (*floors, "no history")
    least = max([0.0, *(others[floor].share - ours.margin(others[floor]) for floor in floors)])
    fields = ours.by_field()
    about = f"{len(ours.names)} cells in {len(observed.scored)} rounds"
    if len(fields) > 1:
        about += "; by field: " + ", ".join(f"{name} {share:.3f}" for name, share in fields.items())
    return Measure(
        name=f"truth, {observed.name}",
        ours=ours.share,
        unit="",
        beside={name: other.share for name, other in others.items()},
        judged="ours",
        goal=max(least, observed.goal or 0),
        limit=least,
        is_lower_bound=True,
        note=about,
    )
