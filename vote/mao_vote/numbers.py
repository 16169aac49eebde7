"""The default vote on plain numbers, for one round or many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from .election import Why
from .records import vote_numbers


@dataclass(frozen=True, slots=True)
class Decided:
    """`value` is one of those given; None where nobody voted. `contested`: no majority stands behind it."""

    value: float | None
    why: Why
    contested: bool


def decide_numbers(values: Sequence[float | None], error: float = 0.05) -> Decided:
    """Decides one round; None is a voter that is absent. Raises ValueError for NaN and infinity."""
    return decide_rounds([values], error)[0]


def decide_rounds(rounds: Sequence[Sequence[float | None]], error: float = 0.05) -> list[Decided]:
    """Decides many rounds at once, each for itself; much faster than one after the other."""
    return [
        Decided(value, cast("Why", why), contested) for value, why, contested in vote_numbers(rounds, error)
    ]
