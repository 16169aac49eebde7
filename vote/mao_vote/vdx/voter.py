"""One vote of VDX: quorum, exclusion, weights by history, collation, and the updated history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum, isclose, isfinite
from typing import Generic, Literal, TypeVar

from mao_shared.models.round import HistoryRule, VoteDefinition

from .collation import (
    WeightedValue,
    agree_with_most,
    bootstrapped,
    collate,
    excluded,
    soft_agreement,
    soft_shares,
)
from .standing import (
    NEW,
    History,
    advance_history,
    base_weights,
    earn_weights,
    hybrid_weights,
    is_first,
    set_weights,
)

T = TypeVar("T", float, str)
Reason = Literal["decided", "bootstrapped", "quorum", "tie"]


def text_weights(texts: Mapping[int, str], standings_before: History, rule: HistoryRule) -> dict[int, float]:
    """Return the weights of texts; agreement is the fraction of other voters with the same text."""
    standings = [standings_before[index] for index in texts]
    if rule == "HYBRID":
        return dict(zip(texts, hybrid_weights(standings, _shares(texts)), strict=True))
    return dict(zip(texts, base_weights(rule, standings), strict=True))


def heaviest_text(texts: Mapping[int, str], weights: Mapping[int, float]) -> str | None:
    """Return the heaviest text, or None if tied. Voters without weight count only if all have none."""
    counted = weights if any(weights.values()) else dict.fromkeys(texts, 1.0)
    parts: dict[str, list[float]] = {}
    for index, text in texts.items():
        parts.setdefault(text, []).append(counted[index])
    total = {text: fsum(weights_of_text) for text, weights_of_text in parts.items()}
    heaviest = max(total.values())
    winners = [text for text, weight in total.items() if isclose(weight, heaviest, rel_tol=1e-9)]
    return winners[0] if len(winners) == 1 else None


def text_history(
    texts: Mapping[int, str], standings_before: History, rule: HistoryRule, output: str | None
) -> History:
    """Return the standings after this vote. Without an output, HYBRID judges as in its first vote."""
    if rule == "NONE":
        return standings_before
    if rule == "HYBRID" and output is not None and not is_first([standings_before[index] for index in texts]):
        right = {index: float(text == output) for index, text in texts.items()}
        return earn_weights(advance_history(standings_before, right), texts, _shares(texts))
    alike = zip(texts, _alike(texts), strict=True)
    most = {index: float(2 * count >= len(texts) - 1) for index, count in alike}
    after = advance_history(standings_before, most)
    return set_weights(after, dict.fromkeys(texts, 1.0)) if rule == "HYBRID" else after


def _alike(texts: Mapping[int, str]) -> list[int]:
    """Return for each text the number of other voters with the same text."""
    counts = Counter(texts.values())
    return [counts[text] - 1 for text in texts.values()]


def _shares(texts: Mapping[int, str]) -> list[float]:
    return [count / (len(texts) - 1) for count in _alike(texts)] if len(texts) > 1 else [1.0]


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """The result of one vote. Voters are identified by the index of their value.

    `output`: None if there is no decision: too few voted (`quorum`), or texts have equal weight (`tie`).
    `observed`: the voters with exactly this value; empty if it is computed. `weights`: 0 for voters that did
    not take part. `history`: the standings after this vote.
    """

    output: T | None
    weights: tuple[float, ...]
    history: History
    reason: Reason
    excluded: frozenset[int] = frozenset()
    observed: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Voter:
    """Votes by a vote definition. `shares` are factors for the voters' weights."""

    definition: VoteDefinition
    shares: tuple[float, ...] = ()

    def decide(self, values: Sequence[float | None], history: History = ()) -> Outcome[float]:
        """Vote on numbers; None and numbers that are not finite are absent voters.

        `history` has one standing per value, or is empty for a first vote. Raises ValueError if the lengths
        differ.
        """
        numbers = {
            index: value for index, value in enumerate(values) if value is not None and isfinite(value)
        }
        standings_before = self._standings(len(values), history)
        if len(numbers) < self.definition.needed(len(values)):
            return Outcome(None, (0.0,) * len(values), standings_before, "quorum")
        limits = self.definition.exclusion, self.definition.exclusion_threshold
        indices = list(numbers)
        excluded_voters = frozenset(
            indices[position] for position in excluded(list(numbers.values()), *limits)
        )
        included = {index: value for index, value in numbers.items() if index not in excluded_voters}
        standings = [standings_before[index] for index in included]
        if self.definition.history == "HYBRID":
            base = hybrid_weights(standings, self._soft(included))
        else:
            base = base_weights(self.definition.history, standings)
        weights = self._shared(dict(zip(included, base, strict=True)))
        votes = [WeightedValue(value, weights[index]) for index, value in included.items()]
        is_bootstrapped = self.definition.bootstrapping and is_first(standings)
        if is_bootstrapped:
            votes = bootstrapped(votes, self.definition.params.vdx_error)
        collated = collate(votes, self.definition.collation, self.definition.params.vdx_error)
        return Outcome(
            collated.output,
            tuple(weights.get(index, 0.0) for index in range(len(values))),
            self._after(numbers, standings_before, collated.centre),
            "bootstrapped" if is_bootstrapped else "decided",
            excluded_voters,
            frozenset(index for index, value in included.items() if value == collated.output),
        )

    def decide_text(self, values: Sequence[str | None], history: History = ()) -> Outcome[str]:
        """Vote on texts, which agree if they are equal: the heaviest wins, and equal weights tie.

        Exclusion, bootstrapping and collation need distances and do not apply to texts.
        """
        texts = {index: value for index, value in enumerate(values) if value is not None}
        standings_before = self._standings(len(values), history)
        if len(texts) < self.definition.needed(len(values)):
            return Outcome(None, (0.0,) * len(values), standings_before, "quorum")
        weights = self._shared(text_weights(texts, standings_before, self.definition.history))
        output = heaviest_text(texts, weights)
        return Outcome(
            output,
            tuple(weights.get(index, 0.0) for index in range(len(values))),
            text_history(texts, standings_before, self.definition.history, output),
            "tie" if output is None else "decided",
            observed=frozenset(index for index, value in texts.items() if value == output),
        )

    def _standings(self, voters: int, history: History) -> History:
        if history and len(history) != voters:
            raise ValueError(f"{voters} values and a history of {len(history)} voters")
        if self.shares and len(self.shares) != voters:
            raise ValueError(f"{voters} values and the shares of {len(self.shares)} voters")
        return history or (NEW,) * voters

    def _shared(self, weights: dict[int, float]) -> dict[int, float]:
        return (
            {index: weight * self.shares[index] for index, weight in weights.items()}
            if self.shares
            else weights
        )

    def _soft(self, numbers: Mapping[int, float]) -> list[float]:
        params = self.definition.params
        return soft_shares(list(numbers.values()), params.vdx_error, params.scaling)

    def _after(self, numbers: Mapping[int, float], standings_before: History, centre: float) -> History:
        """Return the history with this round.

        HYBRID judges a value by its distance from the centre. Its first vote, whose centre is only a plain
        mean, is judged as by the other rules, by agreement with most of the others, and earns no weights.
        """
        rule, params = self.definition.history, self.definition.params
        if rule == "NONE":
            return standings_before
        if rule == "HYBRID" and not is_first([standings_before[index] for index in numbers]):
            near = {
                index: soft_agreement(x, centre, params.vdx_error, params.scaling)
                for index, x in numbers.items()
            }
            return earn_weights(advance_history(standings_before, near), numbers, self._soft(numbers))
        most = agree_with_most(list(numbers.values()), params.vdx_error)
        after = advance_history(
            standings_before, {index: float(agrees) for index, agrees in zip(numbers, most, strict=True)}
        )
        return set_weights(after, dict.fromkeys(numbers, 1.0)) if rule == "HYBRID" else after
