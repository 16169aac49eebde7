"""A voter's record in past rounds, and the weight that VDX's history rules derive from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum

from mao_shared.models.round import HistoryRule

_ROUNDING = 1e-12  # tolerance for the rounding of a mean of ratios


@dataclass(frozen=True, slots=True)
class Standing:
    """A voter's `successes` in the `rounds` in which it voted; partial successes count as fractions.

    `weight`: earned in its last round for the next one, under HYBRID, which weighs a vote by the agreement in
    the previous vote. None if the history is kept by file and not by value; HYBRID then uses the agreement in
    the current vote.
    """

    successes: float = 0.0
    rounds: int = 0
    weight: float | None = None

    @property
    def ratio(self) -> float | None:
        """The rate of success; None before the first round."""
        return self.successes / self.rounds if self.rounds else None

    def after(self, success: float, weight: float | None = None) -> Standing:
        """Return the standing after one more round with this success (0 to 1)."""
        return Standing(self.successes + success, self.rounds + 1, weight)


NEW = Standing()
History = tuple[Standing, ...]  # one per voter, in the order of the values


def advance_history(history: History, successes: Mapping[int, float]) -> History:
    """Return the history after one more round of the voters with these indices."""
    return tuple(
        standing.after(successes[index]) if index in successes else standing
        for index, standing in enumerate(history)
    )


def set_weights(history: History, weights: Mapping[int, float]) -> History:
    """Return the history with these weights, by index of the voter, for the next round."""
    return tuple(
        replace(standing, weight=weights[index]) if index in weights else standing
        for index, standing in enumerate(history)
    )


def is_first(history: Sequence[Standing]) -> bool:
    """True if no voter has a past round."""
    return not any(standing.rounds for standing in history)


def ratios(history: Sequence[Standing]) -> list[float]:
    """Return each voter's rate of success; new voters count as the mean of the others."""
    known = [standing.ratio for standing in history if standing.ratio is not None]
    default = fsum(known) / len(known) if known else 1.0
    return [default if standing.ratio is None else standing.ratio for standing in history]


def base_weights(rule: HistoryRule, history: Sequence[Standing]) -> list[float]:
    """Return the weights that follow from the rates of success; HYBRID multiplies them by agreement.

    Voters are eliminated by their rate and not by their number of successes, since late joiners have fewer.
    """
    if rule == "NONE" or is_first(history):
        return [1.0] * len(history)
    parts = ratios(history)
    if rule == "STANDARD":
        return [part**2 for part in parts]
    minimum = fsum(parts) / len(parts) - _ROUNDING
    if rule == "MODULE_ELIMINATION":
        return [part**2 if part >= minimum else 0.0 for part in parts]
    return [1.0 if part >= minimum else 0.0 for part in parts]


def hybrid_weights(history: Sequence[Standing], agreements: Sequence[float]) -> list[float]:
    """Return HYBRID's weights; `agreements` in this vote count for voters without an earlier weight."""
    if is_first(history):
        return [1.0] * len(history)
    current = earned_weights(history, agreements)
    return [
        weight if standing.weight is None else standing.weight
        for standing, weight in zip(history, current, strict=True)
    ]


def earned_weights(history: Sequence[Standing], agreements: Sequence[float]) -> list[float]:
    """Return the agreements, with 0 for eliminated voters."""
    return [
        base * standing for base, standing in zip(base_weights("HYBRID", history), agreements, strict=True)
    ]


def earn_weights(history: History, voters: Collection[int], agreements: Sequence[float]) -> History:
    """Return the history with the weights that voters earn by their agreements in this round."""
    weights = earned_weights([history[index] for index in voters], agreements)
    return set_weights(history, dict(zip(voters, weights, strict=True)))
