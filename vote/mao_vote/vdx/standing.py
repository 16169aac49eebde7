"""What a voter's past rounds say of it, and the weight that VDX's history rules give it for that."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum

from mao_shared.models.round import HistoryRule

_ROUNDING = 1e-12  # ratios that are equal but for the rounding of their mean


@dataclass(frozen=True, slots=True)
class Standing:
    """`successes` of `rounds` in which it voted; a success may be a part of one, so it is no whole number.

    `weight`: what its last round earned it for the next one under HYBRID, which weighs a vote by the
    agreement in the vote before. None where the history is kept by file and not by value: HYBRID then goes
    by the agreement in the vote at hand.
    """

    successes: float = 0.0
    rounds: int = 0
    weight: float | None = None

    @property
    def ratio(self) -> float | None:
        """None before its first round."""
        return self.successes / self.rounds if self.rounds else None

    def after(self, success: float, weight: float | None = None) -> Standing:
        """Its standing after one more round, in which it had this part (0 to 1) of a success."""
        return Standing(self.successes + success, self.rounds + 1, weight)


NEW = Standing()
History = tuple[Standing, ...]  # one a voter, in the order of the values


def advanced(before: History, successes: Mapping[int, float]) -> History:
    """With one more round of the voters at these places; those of the others are as before."""
    return tuple(each.after(successes[at]) if at in successes else each for at, each in enumerate(before))


def weighed(history: History, weights: Mapping[int, float]) -> History:
    """With the weights for the next round of the voters at these places."""
    return tuple(
        replace(each, weight=weights[at]) if at in weights else each for at, each in enumerate(history)
    )


def is_first(history: Sequence[Standing]) -> bool:
    """Whether nothing is known about any of them."""
    return not any(each.rounds for each in history)


def ratios(history: Sequence[Standing]) -> list[float]:
    """Each one's part of successes. Who is new counts as the mean of the others, for better or worse."""
    known = [each.ratio for each in history if each.ratio is not None]
    usual = fsum(known) / len(known) if known else 1.0
    return [usual if each.ratio is None else each.ratio for each in history]


def base_weights(rule: HistoryRule, history: Sequence[Standing]) -> list[float]:
    """The weights that follow from successes and rounds; HYBRID multiplies them by agreement.

    Voters are eliminated by their share of successes, not by the count: who joined late has fewer.
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
    """HYBRID's weights of a vote; `agreements` are those in it, for voters without a weight from before."""
    if is_first(history):
        return [1.0] * len(history)
    now = earned(history, agreements)
    return [own if each.weight is None else each.weight for each, own in zip(history, now, strict=True)]


def earned(history: Sequence[Standing], agreements: Sequence[float]) -> list[float]:
    """The agreements, without those of who is eliminated."""
    return [base * each for base, each in zip(base_weights("HYBRID", history), agreements, strict=True)]


def reweighed(history: History, voters: Collection[int], agreements: Sequence[float]) -> History:
    """With the weights that this round's agreements earn the voters at these places for the next one."""
    weights = earned([history[at] for at in voters], agreements)
    return weighed(history, dict(zip(voters, weights, strict=True)))
