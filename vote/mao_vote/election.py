"""What a vote yields, for a cell and for a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from .records import Key

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
class Tally:
    """Of one node in one file: in how many cells it had a say, and in how many its value lost.

    A number agrees when it is within the tolerance of what was chosen, or where that is computed, of what
    most nodes say. Ignored and volatile fields do not count; an undecided cell counts as a say and against
    nobody.
    """

    cells: int = 0
    differing: int = 0


@dataclass(frozen=True, slots=True)
class FileDecision:
    """`content` None: the file is absent in the result. `cells`: where the nodes differ, in the file's order.

    `conflicts` counts what stayed undecided. `abstained`: node → why its version had no say.
    """

    content: bytes | None
    kind: Literal["records", "opaque"]
    key: Key | None = None
    cells: Sequence[Cell] = ()
    votes: dict[str, Tally] = field(default_factory=dict)
    conflicts: int = 0
    notes: list[str] = field(default_factory=list)
    abstained: dict[str, str] = field(default_factory=dict)
