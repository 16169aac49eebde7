"""One vote of VDX: quorum, exclusion, weights by history, collation, and what it adds to the history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Generic, Literal, TypeVar

from mao_shared.models.round import VoteDefinition

from . import voter
from .agreement import soft_shares, softly, with_most
from .exclusion import excluded
from .standing import NEW, History, advanced, base_weights, hybrid_weights, is_first, reweighed, weighed
from .vdx_collation import Vote, bootstrapped, collate

T = TypeVar("T", float, str)
Reason = Literal["decided", "bootstrapped", "quorum", "tie"]


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What one vote came to. Places are those of the values that were handed in.

    `output` is None where nothing was decided: too few voted (`quorum`), or texts of equal weight (`tie`).
    `observed`: who gave just this value; empty for a computed one. `weights`: 0 for who had no part.
    `history`: the standings after this vote; those of who did not vote are as before.
    """

    output: T | None
    weights: tuple[float, ...]
    history: History
    reason: Reason
    excluded: frozenset[int] = frozenset()
    observed: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Voter:
    """A vote definition at work. `shares`: by place, what each voter's weight is multiplied with."""

    definition: VoteDefinition
    shares: tuple[float, ...] = ()

    def decide(self, values: Sequence[float | None], history: History = ()) -> Outcome[float]:
        """One vote on numbers; None, or what is no finite number, did not vote. `history` has a standing a
        value, or is empty for a first vote. ValueError if the lengths differ."""
        numbers = {at: each for at, each in enumerate(values) if each is not None and isfinite(each)}
        before = self._standings(len(values), history)
        if len(numbers) < self.definition.needed(len(values)):
            return Outcome(None, (0.0,) * len(values), before, "quorum")
        out = self._excluded(numbers)
        heard = {at: each for at, each in numbers.items() if at not in out}
        weights = self._weights(heard, before)
        votes = [Vote(each, weights[at]) for at, each in heard.items()]
        first = self.definition.bootstrapping and is_first([before[at] for at in heard])
        if first:
            votes = bootstrapped(votes, self.definition.params.error)
        collated = collate(votes, self.definition.collation, self.definition.params.error)
        return Outcome(
            collated.output,
            tuple(weights.get(at, 0.0) for at in range(len(values))),
            self._after(numbers, before, collated.centre),
            "bootstrapped" if first else "decided",
            out,
            frozenset(at for at, each in heard.items() if each == collated.output),
        )

    def decide_text(self, values: Sequence[str | None], history: History = ()) -> Outcome[str]:
        """One vote on texts, which agree when they are equal: the heaviest wins, equally heavy ones tie.

        Exclusion, bootstrapping and collation are about distances, and texts have none.
        """
        texts = {at: each for at, each in enumerate(values) if each is not None}
        before = self._standings(len(values), history)
        if len(texts) < self.definition.needed(len(values)):
            return Outcome(None, (0.0,) * len(values), before, "quorum")
        weights = self._shared(voter.weights(texts, before, self.definition.history))
        output = voter.heaviest(texts, weights)
        return Outcome(
            output,
            tuple(weights.get(at, 0.0) for at in range(len(values))),
            voter.after(texts, before, self.definition.history, output),
            "tie" if output is None else "decided",
            observed=frozenset(at for at, each in texts.items() if each == output),
        )

    def _standings(self, voters: int, history: History) -> History:
        if history and len(history) != voters:
            raise ValueError(f"{voters} values and a history of {len(history)} voters")
        if self.shares and len(self.shares) != voters:
            raise ValueError(f"{voters} values and the shares of {len(self.shares)} voters")
        return history or (NEW,) * voters

    def _excluded(self, numbers: Mapping[int, float]) -> frozenset[int]:
        places = list(numbers)
        out = excluded(list(numbers.values()), self.definition.exclusion, self.definition.exclusion_threshold)
        return frozenset(places[each] for each in out)

    def _weights(self, heard: Mapping[int, float], before: History) -> dict[int, float]:
        standings = [before[at] for at in heard]
        if self.definition.history == "HYBRID":
            weights = hybrid_weights(standings, self._soft(heard))
        else:
            weights = base_weights(self.definition.history, standings)
        return self._shared(dict(zip(heard, weights, strict=True)))

    def _shared(self, weights: dict[int, float]) -> dict[int, float]:
        return {at: each * self.shares[at] for at, each in weights.items()} if self.shares else weights

    def _soft(self, numbers: Mapping[int, float]) -> list[float]:
        params = self.definition.params
        return soft_shares(list(numbers.values()), params.error, params.scaling)

    def _after(self, numbers: Mapping[int, float], before: History, centre: float) -> History:
        """The history with this round. HYBRID judges by how near a value is to the centre; its first vote,
        whose centre is but a plain mean, is judged as the other rules judge, by agreement with most of the
        others, and weighs nobody's next vote."""
        rule, params = self.definition.history, self.definition.params
        if rule == "NONE":
            return before
        if rule == "HYBRID" and not is_first([before[at] for at in numbers]):
            near = {at: softly(x, centre, params.error, params.scaling) for at, x in numbers.items()}
            return reweighed(advanced(before, near), numbers, self._soft(numbers))
        most = with_most(list(numbers.values()), params.error)
        after = advanced(before, {at: float(each) for at, each in zip(numbers, most, strict=True)})
        return weighed(after, dict.fromkeys(numbers, 1.0)) if rule == "HYBRID" else after
