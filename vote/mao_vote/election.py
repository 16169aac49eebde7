"""Results of votes on cells and files, elections of whole values, and votes on plain numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar, cast

from mao_shared.models.evidence import FieldEvidence, NodeGroup, Tally
from mao_shared.models.round import Ties

from .records import Key, PastCells, vote_numbers

Why = Literal[
    "majority",
    "plurality",
    "tolerance",
    "median",
    "incumbent",
    "weight",
    "reliability",
    "tie",
    "undecided",
    "row",
    "vdx",
    "computed",
]
WHOLE = "*"
"""Field name that stands for the whole record, for files with the rule `atomic: record`."""
Candidate = TypeVar("Candidate", bound=Hashable)
_SCALE = 10**6


@dataclass(frozen=True, slots=True)
class Cell:
    """A field of a record (or a record, column or file) on which the nodes disagree.

    `values`: node → its value, for nodes that have the record; None if the record lacks the field. `why`: the
    rule by which `chosen` was chosen. `contested`: no more than half of the voters have the chosen value.
    The presence of a record is a cell with `why` "row" and no field name; that of a CSV column is a cell
    without a key. Their values are "row" or the column's name for nodes that have it, and None for others.
    `observed`: how many nodes observed the cell; None where that is not counted.
    """

    key: tuple[str, ...]
    field: str
    values: dict[str, str | None]
    chosen: str | None
    why: Why
    contested: bool
    observed: int | None = None


@dataclass(frozen=True, slots=True)
class FileDecision:
    """The decision on a file. `content` is None if the result has no such file.

    `cells` are those in which nodes differ, in the file's order; `contested` of them have no majority.
    `conflicts` is the number of undecided cells. `notes`: what was done; `warnings`: why it may be wrong.
    `abstained` has the reason for each node whose version did not vote. `fields`: how those in which nodes
    differ were compared; `groups`: nodes that had one voice together. `samples`: what a later vote may learn
    about a field.
    """

    content: bytes | None
    kind: Literal["records", "opaque"]
    key: Key | None = None
    cells: Sequence[Cell] = ()
    votes: dict[str, Tally] = field(default_factory=dict)
    conflicts: int = 0
    notes: list[str] = field(default_factory=list)
    abstained: dict[str, str] = field(default_factory=dict)
    fields: list[FieldEvidence] = field(default_factory=list)
    groups: list[NodeGroup] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    samples: Mapping[str, PastCells] = field(default_factory=dict)
    contested: int = 0


def fixed_point(weight: float) -> int:
    """Return a weight as a fixed-point integer, so that sums do not depend on their order."""
    return round(weight * _SCALE)


def elect(
    ballots: Mapping[str, Candidate], *, incumbent: Candidate | None, weights: Mapping[str, float]
) -> tuple[Candidate | None, Why]:
    """Return the most frequent ballot and the reason; if tied, the incumbent, otherwise the heaviest.

    Returns None and "undecided" if it is still tied. A node without an entry in `weights` has weight 1.
    """
    votes: dict[Candidate, int] = defaultdict(int)
    vote_weights: dict[Candidate, int] = defaultdict(int)
    for node, candidate in ballots.items():
        votes[candidate] += 1
        vote_weights[candidate] += fixed_point(weights.get(node, 1.0))
    max_votes = max(votes.values())
    leaders = [candidate for candidate, count in votes.items() if count == max_votes]
    if len(leaders) == 1:
        return leaders[0], "majority" if 2 * max_votes > len(ballots) else "plurality"
    if incumbent in leaders:
        return incumbent, "incumbent"
    heaviest = max(vote_weights[candidate] for candidate in leaders)
    leaders = [candidate for candidate in leaders if vote_weights[candidate] == heaviest]
    return (leaders[0], "weight") if len(leaders) == 1 else (None, "undecided")


def elect_presence(
    has: Mapping[str, bool], *, incumbent: bool | None, weights: Mapping[str, float], ties: Ties
) -> tuple[bool | None, Why]:
    """Return whether something that some nodes have is in the result, and the reason.

    As `elect`, but what is still tied, or new, is in the result if ties get the `likeliest` decision, since
    nodes rather miss something than invent it. The reason is then `tie`.
    """
    present, why = elect(has, incumbent=incumbent, weights=weights)
    if ties == "likeliest" and not present and why in ("undecided", "incumbent"):
        return True, "tie"
    return present, why


@dataclass(frozen=True, slots=True)
class NumberDecision:
    """A decided number: one of those given, None if nobody voted. `contested`: no majority supports it."""

    value: float | None
    why: Why
    contested: bool


def decide_numbers(values: Sequence[float | None], error: float = 0.05) -> NumberDecision:
    """Decide one round; None is an absent voter. Raises ValueError for NaN and infinity."""
    return decide_rounds([values], error)[0]


def decide_rounds(rounds: Sequence[Sequence[float | None]], error: float = 0.05) -> list[NumberDecision]:
    """Decide many independent rounds at once, which is much faster than one by one."""
    return [
        NumberDecision(value, cast("Why", why), contested)
        for value, why, contested in vote_numbers(rounds, error)
    ]
