"""Applies a VDX definition to the columns and cells of record files.

All cells of a file are one round: they are judged by the earlier standings, in any order of the rows, and
the ledger counts the round once. Values that differ only in spelling agree; a number is written as most of
its voters write it. If VDX makes no decision (too few numbers, texts of equal weight), the default rules
decide the cell.
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
    """The vote on a cell. `observed` are the nodes with exactly this value, sorted; none if it is computed.

    `value` is None if there was no decision, and `reason` says why; the caller may then use the incumbent.
    """

    value: T | None
    observed: tuple[str, ...]
    excluded: tuple[str, ...]
    reason: Reason

    @property
    def computed(self) -> bool:
        """True if no node has observed this value."""
        return self.value is not None and not self.observed


def vote_column(
    columns: Mapping[str, Sequence[float | None]],
    definition: VoteDefinition,
    standings: Mapping[str, Standing] | None = None,
) -> list[CellOutcome[float]]:
    """Decide each row of one field.

    Args:
        columns: node → its values, all of the same length; None is no number.
        standings: the nodes' standings before this round; a node without an entry is new.
    """
    nodes, voter, history = _voter(columns, definition, standings or {})
    return [_with_nodes(voter.decide(row, history), nodes) for row in _rows(columns, nodes)]


def vote_text_column(
    columns: Mapping[str, Sequence[str | None]],
    definition: VoteDefinition,
    standings: Mapping[str, Standing] | None = None,
) -> list[CellOutcome[str]]:
    """Decide each row of one field of texts, with the arguments of `vote_column`."""
    nodes, voter, history = _voter(columns, definition, standings or {})
    return [_with_nodes(voter.decide_text(row, history), nodes) for row in _rows(columns, nodes)]


def _voter(
    nodes: Mapping[str, object], definition: VoteDefinition, standings: Mapping[str, Standing]
) -> tuple[list[str], Voter, tuple[Standing, ...]]:
    names = sorted(nodes)
    shares = tuple(definition.weights.get(name, 1.0) for name in names)
    return names, Voter(definition, shares), tuple(standings.get(name, NEW) for name in names)


def _rows(columns: Mapping[str, Sequence[T | None]], nodes: Sequence[str]) -> Iterator[tuple[T | None, ...]]:
    return zip(*(columns[node] for node in nodes), strict=True)


def _with_nodes(outcome: Outcome[T], nodes: Sequence[str]) -> CellOutcome[T]:
    observed, excluded = (
        tuple(nodes[index] for index in sorted(indices_by_version))
        for indices_by_version in (outcome.observed, outcome.excluded)
    )
    return CellOutcome(outcome.output, observed, excluded, outcome.reason)


def uses_vdx(definition: VoteDefinition) -> bool:
    """True if the definition uses features of VDX beyond the default vote."""
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
    """Return a judge that decides cells by a VDX definition.

    Args:
        versions: for each version of the file, the nodes that have it.
        error: the file's own tolerance.
    """
    nodes = sorted(node for holders in versions for node in holders)
    indices = {node: index for index, node in enumerate(nodes)}
    params = definition.params.model_copy(update={"error": error})
    voter = Voter(
        definition.model_copy(update={"params": params}),
        tuple(definition.weights.get(node, 1.0) for node in nodes),
    )
    history = tuple(standings.get(node, NEW) for node in nodes)
    indices_by_version = [tuple(indices[node] for node in holders) for holders in versions]

    def judge(ballots: Sequence[CellBallot]) -> Verdict | None:
        votes = sum(ballot.votes for ballot in ballots)
        if 2 * sum(ballot.votes for ballot in ballots if ballot.number is not None) > votes:
            values = _spread(ballots, indices_by_version, [ballot.number for ballot in ballots], len(nodes))
            return _number(ballots, voter.decide(values, history).output)
        texts = _spread(
            ballots, indices_by_version, [repr(ballot.candidate) for ballot in ballots], len(nodes)
        )
        output = voter.decide_text(texts, history).output
        chosen = next((ballot for ballot in ballots if repr(ballot.candidate) == output), None)
        if chosen is None:
            return None
        return (
            Verdict(chosen.text, None, OBSERVED) if chosen.number is None else _number(ballots, chosen.number)
        )

    return judge


def _spread(
    ballots: Sequence[CellBallot],
    indices_by_version: Sequence[tuple[int, ...]],
    values: Sequence[Value | None],
    nodes: int,
) -> list[Value | None]:
    """Turn one value per version into one value per node."""
    spread: list[Value | None] = [None] * nodes
    for ballot, value in zip(ballots, values, strict=True):
        for indices in indices_by_version[ballot.version]:
            spread[indices] = value
    return spread


def _number(ballots: Sequence[CellBallot], output: float | None) -> Verdict | None:
    if output is None:
        return None
    spellings: Counter[str] = Counter()
    for ballot in ballots:
        if ballot.number == output and ballot.text is not None:
            spellings[ballot.text] += ballot.votes
    if not spellings:  # computed: with a decimal comma if most ballots have one
        numeric = [ballot for ballot in ballots if ballot.number is not None]
        with_comma = sum(ballot.votes for ballot in numeric if "," in (ballot.text or ""))
        has_comma = 2 * with_comma > sum(ballot.votes for ballot in numeric)
        return Verdict(repr(output).replace(".", ",") if has_comma else repr(output), output, COMPUTED)
    best = min(spellings, key=lambda text: (-spellings[text], len(text), text))
    return Verdict(best, output, OBSERVED)
