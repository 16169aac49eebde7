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
from .standing import NEW, History, advanced, base_weights, hybrid_weights, is_first, reweighed, weighed

T = TypeVar("T", float, str)
Reason = Literal["decided", "bootstrapped", "quorum", "tie"]


def text_weights(texts: Mapping[int, str], before: History, rule: HistoryRule) -> dict[int, float]:
    """Return the weights of texts; agreement is the fraction of other voters with the same text."""
    standings = [before[at] for at in texts]
    if rule == "HYBRID":
        return dict(zip(texts, hybrid_weights(standings, _shares(texts)), strict=True))
    return dict(zip(texts, base_weights(rule, standings), strict=True))


def heaviest_text(texts: Mapping[int, str], weights: Mapping[int, float]) -> str | None:
    """Return the heaviest text, None if tied. Voters without weight do not count unless all have none."""
    counted = weights if any(weights.values()) else dict.fromkeys(texts, 1.0)
    parts: dict[str, list[float]] = {}
    for at, each in texts.items():
        parts.setdefault(each, []).append(counted[at])
    total = {each: fsum(some) for each, some in parts.items()}
    most = max(total.values())
    winners = [each for each, weight in total.items() if isclose(weight, most, rel_tol=1e-9)]
    return winners[0] if len(winners) == 1 else None


def text_history(texts: Mapping[int, str], before: History, rule: HistoryRule, output: str | None) -> History:
    """Return the standings after this vote. Without an output HYBRID judges as in its first vote."""
    if rule == "NONE":
        return before
    if rule == "HYBRID" and output is not None and not is_first([before[at] for at in texts]):
        right = {at: float(each == output) for at, each in texts.items()}
        return reweighed(advanced(before, right), texts, _shares(texts))
    most = {at: float(2 * each >= len(texts) - 1) for at, each in zip(texts, _alike(texts), strict=True)}
    after = advanced(before, most)
    return weighed(after, dict.fromkeys(texts, 1.0)) if rule == "HYBRID" else after


def _alike(texts: Mapping[int, str]) -> list[int]:
    """Return for each text the number of other voters with the same text."""
    counts = Counter(texts.values())
    return [counts[each] - 1 for each in texts.values()]


def _shares(texts: Mapping[int, str]) -> list[float]:
    return [each / (len(texts) - 1) for each in _alike(texts)] if len(texts) > 1 else [1.0]


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
    """Votes by one vote definition. `shares`: a factor for each voter's weight."""

    definition: VoteDefinition
    shares: tuple[float, ...] = ()

    def decide(self, values: Sequence[float | None], history: History = ()) -> Outcome[float]:
        """Vote on numbers; None and numbers that are not finite are absent voters.

        `history` has one standing per value, or is empty for a first vote. Raises ValueError if the lengths
        differ.
        """
        numbers = {at: each for at, each in enumerate(values) if each is not None and isfinite(each)}
        before = self._standings(len(values), history)
        if len(numbers) < self.definition.needed(len(values)):
            return Outcome(None, (0.0,) * len(values), before, "quorum")
        limits = self.definition.exclusion, self.definition.exclusion_threshold
        places = list(numbers)
        left_out = frozenset(places[each] for each in excluded(list(numbers.values()), *limits))
        included = {at: each for at, each in numbers.items() if at not in left_out}
        standings = [before[at] for at in included]
        if self.definition.history == "HYBRID":
            base = hybrid_weights(standings, self._soft(included))
        else:
            base = base_weights(self.definition.history, standings)
        weights = self._shared(dict(zip(included, base, strict=True)))
        votes = [WeightedValue(each, weights[at]) for at, each in included.items()]
        first = self.definition.bootstrapping and is_first(standings)
        if first:
            votes = bootstrapped(votes, self.definition.params.error)
        collated = collate(votes, self.definition.collation, self.definition.params.error)
        return Outcome(
            collated.output,
            tuple(weights.get(at, 0.0) for at in range(len(values))),
            self._after(numbers, before, collated.centre),
            "bootstrapped" if first else "decided",
            left_out,
            frozenset(at for at, each in included.items() if each == collated.output),
        )

    def decide_text(self, values: Sequence[str | None], history: History = ()) -> Outcome[str]:
        """Vote on texts, which agree if they are equal: the heaviest wins, and equal weights tie.

        Exclusion, bootstrapping and collation need distances and do not apply to texts.
        """
        texts = {at: each for at, each in enumerate(values) if each is not None}
        before = self._standings(len(values), history)
        if len(texts) < self.definition.needed(len(values)):
            return Outcome(None, (0.0,) * len(values), before, "quorum")
        weights = self._shared(text_weights(texts, before, self.definition.history))
        output = heaviest_text(texts, weights)
        return Outcome(
            output,
            tuple(weights.get(at, 0.0) for at in range(len(values))),
            text_history(texts, before, self.definition.history, output),
            "tie" if output is None else "decided",
            observed=frozenset(at for at, each in texts.items() if each == output),
        )

    def _standings(self, voters: int, history: History) -> History:
        if history and len(history) != voters:
            raise ValueError(f"{voters} values and a history of {len(history)} voters")
        if self.shares and len(self.shares) != voters:
            raise ValueError(f"{voters} values and the shares of {len(self.shares)} voters")
        return history or (NEW,) * voters

    def _shared(self, weights: dict[int, float]) -> dict[int, float]:
        return {at: each * self.shares[at] for at, each in weights.items()} if self.shares else weights

    def _soft(self, numbers: Mapping[int, float]) -> list[float]:
        params = self.definition.params
        return soft_shares(list(numbers.values()), params.error, params.scaling)

    def _after(self, numbers: Mapping[int, float], before: History, centre: float) -> History:
        """Return the history with this round.

        HYBRID judges a value by its distance from the centre. Its first vote, whose centre is only a plain
        mean, is judged as by the other rules, by agreement with most of the others, and earns no weights.
        """
        rule, params = self.definition.history, self.definition.params
        if rule == "NONE":
            return before
        if rule == "HYBRID" and not is_first([before[at] for at in numbers]):
            near = {at: soft_agreement(x, centre, params.error, params.scaling) for at, x in numbers.items()}
            return reweighed(advanced(before, near), numbers, self._soft(numbers))
        most = agree_with_most(list(numbers.values()), params.error)
        after = advanced(before, {at: float(each) for at, each in zip(numbers, most, strict=True)})
        return weighed(after, dict.fromkeys(numbers, 1.0)) if rule == "HYBRID" else after
