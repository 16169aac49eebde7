"""Compares the vote on a set of observations with the rules before and with simple ones."""

from __future__ import annotations

from pathlib import Path

from bench.report import Measure

from .sets import TruthSet, decide, score
from .simple import median, plurality

BEFORE = 3
"""The version of the voting rules that 'before' stands for."""


def compare(observed: TruthSet, folder: Path, *, goal: float | None = None) -> Measure:
    """Measure the share of right cells of the vote. Its limit: not below plurality, but for the sampling."""
    ours = score(observed, decide(observed, folder))
    most = score(observed, [plurality(part.claims) for part in observed.rounds])
    beside = {
        f"rules {BEFORE}": score(observed, decide(observed, folder, rules=BEFORE)).share,
        "plurality": most.share,
        "median": score(observed, [median(part.claims, observed.words) for part in observed.rounds]).share,
    }
    fields = ours.by_field()
    least = most.share - ours.margin(most)
    return Measure(
        name=f"truth, {observed.name}",
        ours=ours.share,
        unit="right",
        beside=beside,
        judged="ours",
        goal=max(least, goal or 0),
        limit=least,
        is_lower_bound=True,
        note=f"{len(ours.names)} cells in {len(observed.rounds)} rounds; by field: "
        + ", ".join(f"{name} {share:.3f}" for name, share in fields.items()),
    )
