"""What earlier rounds tell about a field: cells in which nodes differed, remembered in the ledger.

A small file has too few disputed cells to show its noise, or which nodes err alike or often. So a vote also
learns from a sample of the cells of earlier rounds. They are read as the field's values are now.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mao_vote.records.fields.time_values import unwrapped
from mao_vote.records.fields.types import FieldType
from mao_vote.records.fields.values import parse_values
from mao_vote.records.keys.align import Version

if TYPE_CHECKING:
    from polars import DataFrame, Series

MAX_PAST_VALUES = 1000  # remembered of a field, from all rounds and nodes
MAX_VALUE_CHARACTERS = 100  # cells in which most values are longer are not remembered
ENOUGH_CELLS = 200  # disputed in the present round, to learn from it alone
MIN_OBSERVERS = 3  # of an undisputed cell, to count


@dataclass(frozen=True, slots=True)
class PastCells:
    """Cells of one round in which nodes differed: node → text.

    `places`: a digest of each cell's file and record. `agreed`: for each node, how many cells it has in which
    nobody differs. If the cells are a sample, it is smaller by the same factor.
    """

    agreed: Mapping[str, int]
    cells: Sequence[Mapping[str, str]]
    places: Sequence[str]

    def without(self, other: PastCells) -> PastCells:
        """Return the cells in which nodes have told something else since: what they repeat is no news."""
        repeated = set(other._marks())
        kept = [number for number, mark in enumerate(self._marks()) if mark not in repeated]
        if len(kept) == len(self.cells):
            return self
        agreed = {node: count * len(kept) // len(self.cells) for node, count in self.agreed.items()}
        return PastCells(
            agreed, [self.cells[number] for number in kept], [self.places[number] for number in kept]
        )

    def _marks(self) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
        return [
            (place, tuple(sorted(cell.items()))) for place, cell in zip(self.places, self.cells, strict=True)
        ]

    @property
    def size(self) -> int:
        """The number of values."""
        return sum(map(len, self.cells))


Memory = Sequence[PastCells]
"""The past of one field, oldest first."""


def extend_memory(memory: Memory, latest: PastCells) -> Memory:
    """Return the memory with one more round, and without the oldest rounds that are too many values."""
    kept, size = [latest], latest.size
    for past in reversed([found for past in memory if (found := past.without(latest)).cells]):
        size += past.size
        if size > MAX_PAST_VALUES:
            break
        kept.insert(0, past)
    return kept


def is_within_bounds(memory: Memory) -> bool:
    """Return whether a memory is no larger than votes make them, so that learning from it takes no longer.

    A round that is larger than all rounds together may be is kept alone. Cells without values are never
    remembered.
    """
    values = [value for past in memory for cell in past.cells for value in cell.values()]
    largest = max((past.size for past in memory), default=0)
    return (
        sum(len(past.cells) for past in memory) <= len(values) <= max(MAX_PAST_VALUES, largest)
        and largest <= 2 * MAX_PAST_VALUES
        and all(len(value) <= MAX_VALUE_CHARACTERS for value in values)
        and all(len(past.places) == len(past.cells) for past in memory)
    )


@dataclass(frozen=True, slots=True)
class Recalled:
    """The past of a field as ballots: cell, node, version, number, word; the nodes are those that vote now.

    `version`: the one that the node has now. `cells`: how many there are. `agreed`: as of PastCells, of all
    rounds together.
    """

    ballots: DataFrame
    cells: int
    agreed: Mapping[str, int]


def recall(
    memory: Memory,
    latest: PastCells | None,
    versions: Sequence[Version],
    kind: FieldType,
    *,
    is_json: bool,
) -> Recalled | None:
    """Return what the nodes of these versions observed in a memory; None if that is nothing.

    Args:
        latest: cells of the present round, which do not count twice.
    """
    import polars

    if latest is not None:
        memory = [past.without(latest) for past in memory]
    cells = [cell for past in memory for cell in past.cells]
    known = {node: number for number, version in enumerate(versions) for node in version.nodes}
    rows = [
        (number, node, known[node], text)
        for number, cell in enumerate(cells)
        for node, text in sorted(cell.items())
        if node in known
    ]
    if not rows:
        return None
    schema = {"cell": polars.UInt32, "node": polars.String, "version": polars.UInt32, "text": polars.String}
    told = polars.DataFrame(rows, schema=schema, orient="row")
    ballots = told.hstack(parse_values(told["text"], kind, is_json=is_json)).filter(
        polars.col("number").is_not_null() | polars.col("word").is_not_null()
    )
    if kind.kind == "time":
        ballots = unwrapped(ballots)
    agreed = {node: sum(past.agreed.get(node, 0) for past in memory) for node in sorted(known)}
    return Recalled(ballots.drop("text"), len(cells), agreed)


def remember(
    disputed: DataFrame,
    versions: Sequence[Version],
    answered: Sequence[Series],
    path: str,
    keys: DataFrame,
) -> PastCells | None:
    """Return a sample of the disputed cells of a vote; None if nothing in them can be learnt from.

    A value that is too long is cut, so that no node can hide its errors by their length.

    Args:
        disputed: the ballots of these cells: cell, version, nodes, text; one row for each version that
            answers.
        answered: for each version, over all places of the table, whether it answers.
        path: of the file.
        keys: what identifies the records, by place.
    """
    import polars

    nodes = sum(version.votes for version in versions)
    cells = disputed["cell"].unique().sort()
    if cells.is_empty() or nodes > MAX_PAST_VALUES:
        return None
    chosen = cells.gather_every(-(-cells.len() * nodes // MAX_PAST_VALUES))
    text, count = polars.col("text"), polars.col("nodes")
    is_brief = text.str.len_chars() <= MAX_VALUE_CHARACTERS
    are_brief = 2 * count.filter(is_brief).sum().over("cell") > count.sum().over("cell")
    cut = text.str.head(MAX_VALUE_CHARACTERS - 1) + "…"  # which is no number, not even of 1.000…e9
    sample = (
        disputed.join(chosen.to_frame("cell"), on="cell")
        .filter(are_brief)
        .with_columns(polars.when(is_brief).then(text).otherwise(cut).alias("text"))
        .sort("cell", "version")
    )
    told: dict[int, dict[str, str]] = {}
    for cell, number, text in sample.select("cell", "version", "text").iter_rows():
        told.setdefault(cell, {}).update(dict.fromkeys(versions[number].nodes, text))
    if not told:
        return None
    observers = polars.repeat(0, answered[0].len(), dtype=polars.Int64, eager=True)
    for version, mask in zip(versions, answered, strict=True):
        observers = observers + mask.cast(polars.Int64) * version.votes
    agreed = (observers >= MIN_OBSERVERS).scatter(cells, False)
    undisputed = {
        node: int((mask & agreed).sum()) * len(told) // cells.len()
        for version, mask in zip(versions, answered, strict=True)
        for node in version.nodes
    }
    places = [
        hashlib.sha256(json.dumps([path, *record]).encode()).hexdigest()[:12]
        for record in keys[list(told)].iter_rows()
    ]
    values = [dict(sorted(cell.items())) for cell in told.values()]
    return PastCells(dict(sorted(undisputed.items())), values, places)
