"""A voter's record in past rounds, and the weight that VDX's history rules derive from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum

from mao_shared.models.round import HistoryRule

_ROUNDING = 1e-12  # ratios that are equal but for the rounding of their mean


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
History = tuple[Standing, ...]  # one a voter, in the order of the values


def advanced(before: History, successes: Mapping[int, float]) -> History:
    """Return the history after one more round of the voters at these places."""
    return tuple(each.after(successes[at]) if at in successes else each for at, each in enumerate(before))


def weighed(history: History, weights: Mapping[int, float]) -> History:
    """Return the history with these weights for the next round of the voters at these places."""
    return tuple(
        replace(each, weight=weights[at]) if at in weights else each for at, each in enumerate(history)
    )


def is_first(history: Sequence[Standing]) -> bool:
    """True if no voter has a past round."""
    return not any(each.rounds for each in history)


def ratios(history: Sequence[Standing]) -> list[float]:
    """Return each voter's rate of success; new voters count as the mean of the others."""
    known = [each.ratio for each in history if each.ratio is not None]
    usual = fsum(known) / len(known) if known else 1.0
    return [usual if each.ratio is None else each.ratio for each in history]


def base_weights(rule: HistoryRule, history: Sequence[Standing]) -> list[float]:
    """Return the weights that follow from the rates of success; HYBRID multiplies them by agreement.

    Voters are eliminated by their rate and not by their number of successes, since late joiners have fewer.
    """
    if rule == "NONE" or is_first(history):
        return [1.0] * len(history)
    parts = ratios(history)
    if rule == "STANDARD":
        return [part**2 for part in parts]
    least = fsum(parts) / len(parts) - _ROUNDING
    if rule == "MODULE_ELIMINATION":
        return [part**2 if part >= least else 0.0 for part in parts]
    return [1.0 if part >= least else 0.0 for part in parts]


def hybrid_weights(history: Sequence[Standing], agreements: Sequence[float]) -> list[float]:
    """Return HYBRID's weights. `agreements`: in this vote, used for voters without an earlier weight."""
    if is_first(history):
        return [1.0] * len(history)
    now = earned(history, agreements)
    return [own if each.weight is None else each.weight for each, own in zip(history, now, strict=True)]


def earned(history: Sequence[Standing], agreements: Sequence[float]) -> list[float]:
    """Return the agreements, with 0 for eliminated voters."""
    return [base * each for base, each in zip(base_weights("HYBRID", history), agreements, strict=True)]


def reweighed(history: History, voters: Collection[int], agreements: Sequence[float]) -> History:
    """Return the history with the weights that voters at these places earn by this round's agreements."""
    weights = earned([history[at] for at in voters], agreements)
    return weighed(history, dict(zip(voters, weights, strict=True)))
