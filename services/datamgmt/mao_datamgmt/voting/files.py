"""Deciding the content of one file from several nodes' versions of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mao_datamgmt.records import Key
from mao_shared.models.vote import VoteDefinition

from .whole import choose

CellWhy = Literal["majority", "plurality", "tolerance", "median", "incumbent", "weight", "undecided", "row"]


@dataclass(frozen=True, slots=True)
class Tally:
    """Of one voter: how many cells it had a say in, and in how many it differs from the result."""

    cells: int
    differing: int


@dataclass(frozen=True, slots=True)
class Cell:
    key: tuple[str, ...]
    field: str
    values: dict[str, str | None]
    chosen: str | None
    why: CellWhy
    contested: bool


@dataclass(frozen=True, slots=True)
class FileDecision:
    content: bytes | None
    kind: Literal["records", "opaque"]
    key: Key | None
    cells: Sequence[Cell] = ()
    votes: dict[str, Tally] = field(default_factory=dict)
    conflicts: int = 0
    notes: list[str] = field(default_factory=list)
    abstained: dict[str, str] = field(default_factory=dict)


def decide_file(
    path: str,  # noqa: ARG001
    versions: Mapping[str, bytes],
    *,
    incumbent: bytes | None,
    definition: VoteDefinition,  # noqa: ARG001
    weights: Mapping[str, float],
) -> FileDecision:
    """The content of a record file."""
    choice = choose(versions, incumbent, weights)
    votes = {node: Tally(1, int(content != choice.value)) for node, content in versions.items()}
    return FileDecision(choice.value, "opaque", None, (), votes, int(choice.value is None))
