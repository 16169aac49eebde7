"""Families of nodes that share a voice, and the voices that each version of a file has in a field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mao_vote.records.keys.align import Version

if TYPE_CHECKING:
    from polars import DataFrame, Expr

VOICE = 10**6  # one voice, as an integer


@dataclass(frozen=True, slots=True)
class Family:
    """Nodes that share one voice. `shared`: cells in which two of them have the same wrong value, at most.

    `errors`: cells in which one of these two differs from the result. Both are 0 for declared groups.
    """

    nodes: tuple[str, ...]
    shared: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True)
class Voices:
    """The families with several nodes, and each version's voice in multiples of VOICE where it is not one.

    `members`: for each version, how many of its nodes are of which family (by number). `bounded`: weights do
    not count in cells in which one value has more than half of the families. `leanings`: returns weights
    that break ties, even where they differ by chance.
    """

    members: Sequence[Mapping[int, int]]
    families: Sequence[Family] = ()
    weights: Mapping[int, int] = field(default_factory=dict)
    bounded: bool = False
    leanings: Callable[[], Mapping[int, int]] = dict

    def cast(self, ballots: DataFrame) -> DataFrame:
        """Add to each ballot its `votes`: the voices of the nodes that have this version, in a cell."""
        import polars

        if not self.families and not self.weights:
            return ballots.with_columns(votes=polars.col("nodes") * VOICE)
        shared = with_shares(ballots, self.members)
        share, votes = polars.col("share"), self._weighted(self.weights)
        if self.bounded:
            most = share.sum().over("cell", "number", "word").max().over("cell")
            votes = polars.when(2 * most > share.sum().over("cell")).then(share).otherwise(votes)
        return shared.with_columns(votes=votes).drop("share", "answering")

    def lean(self, ballots: DataFrame) -> DataFrame:
        """Add to each ballot its `leaning`: voices by which ties are broken."""
        shared = with_shares(ballots, self.members)
        return shared.with_columns(leaning=self._weighted(self.leanings())).drop("share", "answering")

    def _weighted(self, weights: Mapping[int, int]) -> Expr:
        import polars

        return weight_of(weights, len(self.members)) * polars.col("share") // VOICE


class Partition:
    """The families so far, as sets of nodes that only grow. Nodes have numbers, in the order of names."""

    def __init__(self, nodes: Sequence[str], groups: Sequence[Sequence[str]]) -> None:
        self.nodes = sorted(nodes)
        self._number = {node: number for number, node in enumerate(self.nodes)}
        self._family = list(range(len(self.nodes)))
        self._evidence: dict[int, tuple[int, int]] = {}
        for group in groups:
            present = sorted(self._number[node] for node in group if node in self._number)
            for number in present[1:]:
                self.join(present[0], number)

    @property
    def families(self) -> int:
        """The number of families, of which most have a single node."""
        return len(set(self._family))

    def join(self, one: int, other: int, shared: int = 0, errors: int = 0) -> None:
        """Join the families of two nodes, of which these counts tell that they err alike."""
        kept, gone = sorted((self._family[one], self._family[other]))
        evidence = max(self._evidence.pop(gone, (0, 0)), self._evidence.get(kept, (0, 0)), (shared, errors))
        self._evidence[kept] = evidence
        self._family = [kept if family == gone else family for family in self._family]

    def members(self) -> list[dict[int, int]]:
        """Return for each node its family's number and 1, as `Voices.members` has it for versions."""
        return [{family: 1} for family in self._family]

    def voices(self, versions: Sequence[Version], weights: Mapping[int, int]) -> Voices:
        """Return the voices of versions, from the nodes' weights by number, where these differ."""
        families: dict[int, list[str]] = {}
        for node, family in zip(self.nodes, self._family, strict=True):
            families.setdefault(family, []).append(node)
        named = [
            Family(tuple(nodes), *self._evidence.get(number, (0, 0)))
            for number, nodes in families.items()
            if len(nodes) > 1
        ]
        members = [
            Counter(self._family[self._number[node]] for node in version.nodes) for version in versions
        ]
        return Voices(members, named, self.of_versions(versions, weights))

    def of_versions(self, versions: Sequence[Version], weights: Mapping[int, int]) -> dict[int, int]:
        """Return the mean weight of each version's nodes; nothing if all nodes have the same."""
        if len(set(weights.values())) < 2:
            return {}
        return {
            number: sum(weights[self._number[node]] for node in version.nodes) // version.votes
            for number, version in enumerate(versions)
        }


def with_shares(ballots: DataFrame, members: Sequence[Mapping[int, int]], of: str = "version") -> DataFrame:
    """Add `share`, the voices of a version (or node) in a cell if all nodes weigh the same, and `answering`.

    `answering`: how many families answer the cell.
    """
    import polars

    rows = [
        (number, family, count) for number, counts in enumerate(members) for family, count in counts.items()
    ]
    schema = {of: polars.UInt32, "family": polars.UInt32, "count": polars.Int64}
    spread = ballots.select("cell", of).join(polars.DataFrame(rows, schema=schema, orient="row"), on=of)
    total = polars.col("count").sum().over("cell", "family")
    shares = (
        spread.with_columns(
            part=polars.col("count") * VOICE // total, answering=polars.col("family").n_unique().over("cell")
        )
        .group_by("cell", of)
        .agg(share=polars.col("part").sum(), answering=polars.col("answering").first())
    )
    return ballots.join(shares, on=["cell", of], how="left", maintain_order="left")


def weight_of(weights: Mapping[int, int], count: int, of: str = "version") -> Expr:
    """Return each ballot's weight by its version (or node) of `count`; VOICE if it has none."""
    import polars

    table = polars.Series([weights.get(number, VOICE) for number in range(count)], dtype=polars.Int64)
    return polars.col(of).map_batches(table.gather, return_dtype=polars.Int64)
