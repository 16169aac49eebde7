"""What a vote yields for cells and files; electing one thing, and the default vote on plain numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar, cast

from mao_shared.models.evidence import Tally

from .records import Key, vote_numbers

Why = Literal[
    "majority",
    "plurality",
    "tolerance",
    "median",
    "incumbent",
    "weight",
    "undecided",
    "row",
    "vdx",
    "computed",
]
WHOLE = "*"
"""In place of a field's name: all of a record, where the file's rule says `atomic: record`."""
Thing = TypeVar("Thing", bound=Hashable)
_SCALE = 10**6


@dataclass(frozen=True, slots=True)
class Cell:
    """A field of a record (or a record, a column, a file) that the nodes do not agree on.

    `values`: what each node that has the record says; None: its record has no such field. `why`: by what
    `chosen` was. `contested`: not more than half of those who voted stand behind it.
    Whether a record is there at all is a cell with `why` "row" and no field name, a CSV column one
    without a key: there the values are the name (or "row") of those who have it, and None of the others.
    """

    key: tuple[str, ...]
    field: str
    values: dict[str, str | None]
    chosen: str | None
    why: Why
    contested: bool


@dataclass(frozen=True, slots=True)
class FileDecision:
    """`content` None: no such file in the result. `cells`: where the nodes differ, in the file's order.

    `conflicts`: how many cells stayed undecided. `abstained`: node → why its version did not vote.
    """

    content: bytes | None
    kind: Literal["records", "opaque"]
    key: Key | None = None
    cells: Sequence[Cell] = ()
    votes: dict[str, Tally] = field(default_factory=dict)
    conflicts: int = 0
    notes: list[str] = field(default_factory=list)
    abstained: dict[str, str] = field(default_factory=dict)


def fixed(weight: float) -> int:
    """A weight as a whole number: sums of those are equal in whatever order they are added up."""
    return round(weight * _SCALE)


def elect(
    ballots: Mapping[str, Thing], *, incumbent: Thing | None, weights: Mapping[str, float]
) -> tuple[Thing | None, Why]:
    """What most nodes name: by majority or plurality; of those tied the incumbent, else the heaviest.

    None and "undecided" where that leaves a tie. A node without a weight has weight 1.
    """
    votes: dict[Thing, int] = defaultdict(int)
    heavy: dict[Thing, int] = defaultdict(int)
    for node, thing in ballots.items():
        votes[thing] += 1
        heavy[thing] += fixed(weights.get(node, 1.0))
    most = max(votes.values())
    leaders = [thing for thing, count in votes.items() if count == most]
    if len(leaders) == 1:
        return leaders[0], "majority" if 2 * most > len(ballots) else "plurality"
    if incumbent in leaders:
        return incumbent, "incumbent"
    heaviest = max(heavy[thing] for thing in leaders)
    leaders = [thing for thing in leaders if heavy[thing] == heaviest]
    return (leaders[0], "weight") if len(leaders) == 1 else (None, "undecided")


@dataclass(frozen=True, slots=True)
class NumberDecision:
    """`value` is one of those given; None where nobody voted. `contested`: no majority supports it."""

    value: float | None
    why: Why
    contested: bool


def decide_numbers(values: Sequence[float | None], error: float = 0.05) -> NumberDecision:
    """Decides one round; None is a voter that is absent. Raises ValueError for NaN and infinity."""
    return decide_rounds([values], error)[0]


def decide_rounds(rounds: Sequence[Sequence[float | None]], error: float = 0.05) -> list[NumberDecision]:
    """Decides many rounds at once, each for itself; much faster than one after the other."""
    return [
        NumberDecision(value, cast("Why", why), contested)
        for value, why, contested in vote_numbers(rounds, error)
    ]
