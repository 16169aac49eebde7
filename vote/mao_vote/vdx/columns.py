"""A VDX definition at work on a column of a record file.

All cells of a file are one round: they are judged by the standings that the nodes had before it, whatever the
order of the rows, and the round is counted once, by the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from mao_shared.models.round import VoteDefinition

from .standing import NEW, Standing
from .vdx_voter import Outcome, Reason, Voter

T = TypeVar("T", float, str)


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
        """Whether nobody has observed this value."""
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
