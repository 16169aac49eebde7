"""A VDX definition applied to the columns and cells of record files.

All cells of a file are one round: they are judged by the standings that the nodes had before it, whatever the
order of the rows, and the ledger counts the round once. Values that differ only in spelling agree; a number
is written as most of its voters write it. Where VDX decides nothing (too few gave a number, texts of equal
weight) the cell is left to the plain vote.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from mao_shared.models.round import VoteDefinition
from mao_vote.records import COMPUTED, CellBallot, Judge, Verdict

from .standing import NEW, Standing
from .voter import Outcome, Reason, Voter

T = TypeVar("T", float, str)
Value = TypeVar("Value")
OBSERVED = "vdx"


@dataclass(frozen=True, slots=True)
class CellOutcome(Generic[T]):
    """One cell's vote. `observed`: the nodes that gave just this value, sorted; empty for a computed one.

    `value` is None where nothing was decided, `reason` says why: it is then for who asks to fall back upon
    the incumbent.
    """

    value: T | None
    observed: tuple[str, ...]
    excluded: tuple[str, ...]
    reason: Reason

    @property
    def computed(self) -> bool:
        """Whether no node has observed this value."""
        return self.value is not None and not self.observed


def vote_column(
    columns: Mapping[str, Sequence[float | None]],
    definition: VoteDefinition,
    standings: Mapping[str, Standing] | None = None,
) -> list[CellOutcome[float]]:
    """Decides each row of one field; `columns` has a list a node, all of one length, None for no number.

    `standings`: those before this round, from the ledger; a node that is missing there is new.
    """
    nodes, voter, history = _voter(columns, definition, standings or {})
    return [_named(voter.decide(row, history), nodes) for row in _rows(columns, nodes)]


def vote_text_column(
    columns: Mapping[str, Sequence[str | None]],
    definition: VoteDefinition,
    standings: Mapping[str, Standing] | None = None,
) -> list[CellOutcome[str]]:
    """The same for texts."""
    nodes, voter, history = _voter(columns, definition, standings or {})
    return [_named(voter.decide_text(row, history), nodes) for row in _rows(columns, nodes)]


def _voter(
    nodes: Mapping[str, object], definition: VoteDefinition, standings: Mapping[str, Standing]
) -> tuple[list[str], Voter, tuple[Standing, ...]]:
    names = sorted(nodes)
    shares = tuple(definition.weights.get(each, 1.0) for each in names)
    return names, Voter(definition, shares), tuple(standings.get(each, NEW) for each in names)


def _rows(columns: Mapping[str, Sequence[T | None]], nodes: Sequence[str]) -> Iterator[tuple[T | None, ...]]:
    return zip(*(columns[each] for each in nodes), strict=True)


def _named(outcome: Outcome[T], nodes: Sequence[str]) -> CellOutcome[T]:
    observed, out = (
        tuple(nodes[at] for at in sorted(places)) for places in (outcome.observed, outcome.excluded)
    )
    return CellOutcome(outcome.output, observed, out, outcome.reason)


def uses_vdx(definition: VoteDefinition) -> bool:
    """Whether the definition is more than a plain vote on what most nodes say."""
    plain = ("AGREEMENT", "NONE", "NONE", False)
    return (
        definition.collation,
        definition.exclusion,
        definition.history,
        definition.bootstrapping,
    ) != plain


def vdx_judge(
    definition: VoteDefinition,
    versions: Sequence[tuple[str, ...]],
    standings: Mapping[str, Standing],
    error: float,
) -> Judge:
    """`versions`: of each version of the file, the nodes that have it; `error`: the file's own tolerance."""
    nodes = sorted(node for each in versions for node in each)
    place = {node: at for at, node in enumerate(nodes)}
    params = definition.params.model_copy(update={"error": error})
    voter = Voter(
        definition.model_copy(update={"params": params}),
        tuple(definition.weights.get(node, 1.0) for node in nodes),
    )
    history = tuple(standings.get(node, NEW) for node in nodes)
    places = [tuple(place[node] for node in each) for each in versions]

    def judge(said: Sequence[CellBallot]) -> Verdict | None:
        votes = sum(each.votes for each in said)
        if 2 * sum(each.votes for each in said if each.number is not None) > votes:
            values = _spread(said, places, [each.number for each in said], len(nodes))
            return _number(said, voter.decide(values, history).output)
        texts = _spread(said, places, [repr(each.candidate) for each in said], len(nodes))
        return _text(said, voter.decide_text(texts, history).output)

    return judge


def _spread(
    said: Sequence[CellBallot], places: Sequence[tuple[int, ...]], values: Sequence[Value | None], nodes: int
) -> list[Value | None]:
    """A value a node, of those a version each."""
    spread: list[Value | None] = [None] * nodes
    for each, value in zip(said, values, strict=True):
        for place in places[each.version]:
            spread[place] = value
    return spread


def _number(said: Sequence[CellBallot], output: float | None) -> Verdict | None:
    if output is None:
        return None
    spellings: Counter[str] = Counter()
    for each in said:
        if each.number == output and each.text is not None:
            spellings[each.text] += each.votes
    if not spellings:
        return Verdict(_computed(said, output), output, COMPUTED)
    best = min(spellings, key=lambda text: (-spellings[text], len(text), text))
    return Verdict(best, output, OBSERVED)


def _computed(said: Sequence[CellBallot], number: float) -> str:
    """With a decimal comma where most have one."""
    votes = sum(each.votes for each in said if each.number is not None)
    commas = sum(each.votes for each in said if each.number is not None and "," in (each.text or ""))
    return repr(number).replace(".", ",") if 2 * commas > votes else repr(number)


def _text(said: Sequence[CellBallot], output: str | None) -> Verdict | None:
    chosen = [each for each in said if repr(each.candidate) == output]
    if not chosen:
        return None
    number = chosen[0].number
    return Verdict(chosen[0].text, None, OBSERVED) if number is None else _number(said, number)
