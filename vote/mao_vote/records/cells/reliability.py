"""How many voices each node has in a field: nodes that err together share one, reliable nodes have more.

Two facts about the nodes are learnt from the cells of the field in which they differ, and nothing else:

*Families.* Nodes are one family if, in nearly all cells where one of them differs from the result, both have
the same wrong value, they agree in the other disputed cells too, and they answer nearly the same cells.
Independent observers do not err in the same way so often. In a measured field, where each observer reports
its own number, nodes that report the same number nearly always are a family too. A family has one voice in
each cell, whatever its size, and the definition's `groups` are families without proof.

*Reliability.* A node's accuracy is the share of its cells in which it probably is right, shrunk towards the
mean of all nodes, and used only if it differs from the mean significantly; its voice is the logarithm of the
odds (ACCU, Dong et al., "Integrating conflicting data", VLDB 2009). Cells that fewer than three families
answer teach nothing.

Both depend on the result, and the result on them, so the vote is repeated a few times. With few disputed
cells, or where nothing is significant, each node has one voice. All sums are of integers, so that neither the
order of nodes nor that of records has an effect.

The constants were chosen on thirteen days of the flight data of "Truth finding on the deep web" (Li et al.,
VLDB 2013) and on made-up data; the result hardly depends on them (docs/ground-truth.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import log, sqrt
from typing import TYPE_CHECKING

from mao_vote.records.keys.align import Version

from .measures import Noise
from .memory import ENOUGH_CELLS, Recalled
from .voices import VOICE, Partition, Voices, weight_of, with_shares

if TYPE_CHECKING:
    from polars import DataFrame, Expr, Series

MIN_NODES = 3
MIN_DISPUTED_CELLS = 5
MAX_SAMPLE_BALLOTS = (
    200_000  # from which families and weights are learnt; evenly spaced cells of larger fields
)
MIN_SHARED_ERRORS = 5
SHARED_ERRORS = 0.8  # of the cells in which one of two nodes errs, the part in which both err alike
SHARED_VALUES = 0.95  # of the disputed cells that both answer, the part with the same value
SHARED_COVERAGE = 0.95  # of the cells that one of two nodes answers, the part that both answer
MIN_OVERRULING = 10  # families, for reliability to decide against more than half of them
MIN_FAMILIES = 3  # that answer a cell, for it to count for reliability
PRIOR_CELLS = 20  # of the mean accuracy, added to each node's own cells
SIGNIFICANT = 2.0  # standard deviations from the mean accuracy
ROUNDS, STEPS = 2, 5  # of finding families, and in each of weighing
ODDS = 10  # factor of a node's odds: the number of wrong values that are about equally likely
_CANDIDATE = ("cell", "number", "word")


def learn_voices(
    disputed: DataFrame,
    versions: Sequence[Version],
    answered: Callable[[], Sequence[Series]],
    noise: Noise,
    groups: Sequence[Sequence[str]],
    past: Recalled | None = None,
) -> Voices:
    """Learn families and weights from a field's ballots, and from those of earlier rounds if these are few.

    Args:
        disputed: the ballots of cells with several values: cell, version, nodes, number, word; one row for
            each version that answers.
        answered: returns for each version, over all places of the table, whether it answers.
        groups: nodes that are declared to be dependent.
    """

    partition = Partition([node for version in versions for node in version.nodes], groups)
    cells = disputed["cell"].unique(maintain_order=True).sort()
    if cells.len() >= ENOUGH_CELLS:
        past = None
    if len(partition.nodes) < MIN_NODES or cells.is_empty():
        return partition.voices(versions, {})
    if disputed.height > MAX_SAMPLE_BALLOTS:
        step = -(-disputed.height // MAX_SAMPLE_BALLOTS)
        disputed = disputed.join(cells.gather_every(step).to_frame("cell"), on="cell")

    def learner() -> _Learner:
        return _Learner(disputed, versions, partition.nodes, answered(), noise, past)

    weights = _weights([(0.0, 0)] * len(partition.nodes), SIGNIFICANT)
    if cells.len() + (0 if past is None else past.cells) < MIN_DISPUTED_CELLS:
        voices = partition.voices(versions, {})
        return replace(
            voices, leanings=lambda: partition.of_versions(versions, learner().lean(partition, weights))
        )
    learning = learner()
    for _ in range(ROUNDS):
        choice = learning.choose(partition, weights)
        learning.link(partition, choice)
        for _ in range(STEPS):
            before, weights = weights, learning.weigh(partition, weights)
            if weights == before:
                break
    return replace(
        partition.voices(versions, weights),
        bounded=past is not None or partition.families < MIN_OVERRULING,
        leanings=lambda: partition.of_versions(versions, learning.lean(partition, weights)),
    )


class _Learner:
    """The disputed cells of a field, prepared once: candidates have numbers in the order of their values.

    Nodes have numbers in the order of their names. `ballots`: cell, candidate, node, and `cells`, the number
    of cells that are like this one. Cells of earlier rounds follow those of the present one.
    """

    def __init__(
        self,
        disputed: DataFrame,
        versions: Sequence[Version],
        nodes: Sequence[str],
        answered: Sequence[Series],
        noise: Noise,
        past: Recalled | None,
    ) -> None:
        import polars

        self.measured = noise.measured
        numbers = {node: number for number, node in enumerate(nodes)}
        of_version = [
            (version, numbers[node]) for version, found in enumerate(versions) for node in found.nodes
        ]
        schema = {"version": polars.UInt32, "node": polars.UInt32}
        by_node = disputed.join(polars.DataFrame(of_version, schema=schema, orient="row"), on="version")
        told = by_node.select("cell", "node", "number", "word")
        masks = {node: answered[version] for version, node in of_version}
        self.agreed = [0] * len(nodes)
        places = answered[0].len()
        if past is not None:
            told = polars.concat([told, _numbered(past.ballots, numbers, places)])
            for node, mask in masks.items():
                cells = past.ballots.filter(polars.col("node") == nodes[node])["cell"]
                masks[node] = polars.concat([mask, _mask(past.cells, cells)])
            self.agreed = [past.agreed[node] for node in nodes]
        self.answered = [masks[number] for number in range(len(nodes))]
        candidates = told.select(_CANDIDATE).unique().sort(*_CANDIDATE).with_row_index("candidate")
        ballots = (
            told.join(candidates, on=_CANDIDATE, nulls_equal=True)
            .select("cell", "candidate", "node")
            .sort("candidate", "node")
        )
        self.near = self._pairs(candidates, noise) if noise.measured else None
        one_each = polars.lit(1, polars.Int64)
        self.ballots = _patterns(ballots) if self.near is None else ballots.with_columns(cells=one_each)
        self.candidates = self.ballots.select("cell", "candidate").unique()
        self._shared: tuple[list[dict[int, int]], DataFrame] | None = None  # by the families that it is for
        self.is_disputed = _mask(self.answered[0].len(), told["cell"].unique())

    @staticmethod
    def _pairs(candidates: DataFrame, noise: Noise) -> DataFrame:
        """Return candidate, other: each candidate with itself and those that agree with it."""
        import polars

        others = candidates.select("cell", other="candidate", second="number")
        pairs = candidates.filter(polars.col("number").is_not_null()).join(others, on="cell")
        agree = pairs.filter(noise.tolerance.agrees(polars.col("number"), polars.col("second")))
        words = candidates.filter(polars.col("number").is_null()).select("candidate", other="candidate")
        return polars.concat([agree.select("candidate", "other"), words])

    def _support(self, cast: DataFrame) -> DataFrame:
        """Return candidate, cell, support (voices), own, families, nodes for each candidate."""
        import polars

        own = cast.group_by("candidate").agg(
            own=polars.col("votes").sum(),
            families=polars.col("share").sum(),
            nodes=polars.len(),
        )
        if self.near is None:
            support = own.with_columns(support=polars.col("own"))
        else:
            summed = (
                self.near.join(own.select(other="candidate", amount="own"), on="other")
                .group_by("candidate")
                .agg(support=polars.col("amount").sum())
            )
            support = own.join(summed, on="candidate")
        return support.join(self.candidates, on="candidate")

    def _cast(self, partition: Partition, weights: Mapping[int, int]) -> DataFrame:
        import polars

        members = partition.members()
        if self._shared is None or self._shared[0] != members:
            self._shared = members, with_shares(self.ballots, members, "node")
        shared = self._shared[1]
        weight = weight_of(weights, len(partition.nodes), "node")
        return shared.with_columns(votes=weight * polars.col("share") // VOICE)

    def choose(self, partition: Partition, weights: Mapping[int, int]) -> DataFrame:
        """Return the best candidate of each cell: cell, chosen."""
        support = self._support(self._cast(partition, weights))
        best = support.sort(
            "cell",
            "support",
            "families",
            "nodes",
            "candidate",
            descending=[False, True, True, True, False],
        ).unique("cell", keep="first", maintain_order=True)
        return best.select("cell", chosen="candidate")

    def weigh(self, partition: Partition, weights: Mapping[int, int]) -> dict[int, int]:
        """Return each node's voice by its accuracy under the present result, where that is significant."""
        return _weights(self._records(partition, weights), SIGNIFICANT)

    def lean(self, partition: Partition, weights: Mapping[int, int]) -> dict[int, int]:
        """Return each node's voice by its accuracy under the present result, however little is known."""
        return _weights(self._records(partition, weights), 0)

    def _records(self, partition: Partition, weights: Mapping[int, int]) -> list[tuple[float, int]]:
        """Return for each node in how many cells it probably is right, and how many it has."""
        import polars

        cast = self._cast(partition, weights)
        support = self._support(cast)
        strength = polars.col("support") / VOICE
        odds = (strength - strength.max().over("cell")).exp()
        share = (odds / odds.sum().over("cell") * VOICE).round(0).cast(polars.Int64)
        chance = support.select("candidate", chance=share)
        if self.near is not None:
            chance = (
                self.near.join(chance.select(other="candidate", amount="chance"), on="other")
                .group_by("candidate")
                .agg(chance=polars.col("amount").sum().clip(upper_bound=VOICE))
            )
        taught = cast.filter(polars.col("answering") >= MIN_FAMILIES).join(chance, on="candidate")
        cells = polars.col("cells")
        counts = taught.group_by("node").agg(right=(polars.col("chance") * cells).sum(), cells=cells.sum())
        known = {node: (right, cells) for node, right, cells in counts.iter_rows()}
        records = []
        for node, undisputed in enumerate(self._undisputed(partition)):
            right, cells = known.get(node, (0, 0))
            agreed = undisputed + self.agreed[node]
            records.append((right / VOICE + agreed, cells + agreed))
        return records

    def _undisputed(self, partition: Partition) -> list[int]:
        """Return for each node the undisputed cells it answers that enough families answer."""
        import polars

        families: dict[int, Series] = {}
        for mask, counts in zip(self.answered, partition.members(), strict=True):
            for family in counts:
                families[family] = mask if family not in families else families[family] | mask
        answering = polars.select(
            polars.sum_horizontal(*(mask.cast(polars.UInt32) for mask in families.values()))
        ).to_series()
        enough = (answering >= MIN_FAMILIES) & ~self.is_disputed
        return [int((mask & enough).sum()) for mask in self.answered]

    def link(self, partition: Partition, choice: DataFrame) -> None:
        """Join nodes that err alike."""
        import polars

        wrong = self.ballots.join(choice, on="cell").filter(polars.col("candidate") != polars.col("chosen"))
        if self.measured:
            wrong = self.ballots  # whatever the result is, independent observers do not report one number
        elif self.near is not None:
            agreeing = self.near.select("candidate", chosen="other")
            wrong = wrong.join(agreeing, on=["candidate", "chosen"], how="anti")
        errors = dict(wrong.group_by("node").agg(polars.col("cells").sum()).iter_rows())
        often = wrong.filter(
            polars.col("node").is_in(sorted(n for n, count in errors.items() if count >= MIN_SHARED_ERRORS))
        ).select("candidate", "node", "cells")
        pairs = (
            often.join(often.select("candidate", second="node"), on="candidate")
            .filter(polars.col("node") < polars.col("second"))
            .group_by("node", "second")
            .agg(polars.col("cells").sum())
            .filter(polars.col("cells") >= MIN_SHARED_ERRORS)
            .sort("node", "second")
        )
        if pairs.is_empty():
            return
        table = self._wide(wrong, sorted(set(pairs["node"]) | set(pairs["second"])))
        counts = table.select(
            expression
            for one, other in pairs.select("node", "second").iter_rows()
            for expression in _pair_counts(one, other)
        ).row(0, named=True)
        for one, other, shared in pairs.iter_rows():
            both, same, either = (counts[f"{one} {other} {name}"] for name in ("both", "same", "either"))
            if shared < SHARED_ERRORS * (1 + either) or same < SHARED_VALUES * both:
                continue
            first, second = self.answered[one], self.answered[other]
            if int((first & second).sum()) >= SHARED_COVERAGE * int((first | second).sum()):
                partition.join(one, other, shared, either)

    def _wide(self, wrong: DataFrame, involved: Sequence[int]) -> DataFrame:
        """Return a row per kind of disputed cell: each node's candidate `c…`, and `w…` if it is wrong."""
        import polars

        table = self.ballots.group_by("cell").agg(polars.col("cells").first()).sort("cell")
        for node in involved:
            own = self.ballots.filter(polars.col("node") == node).select("cell", "candidate")
            of_node = wrong.filter(polars.col("node") == node).select("candidate")
            marked = own.join(of_node.with_columns(wrong=True), on="candidate", how="left")
            named = marked.rename({"candidate": f"c{node}", "wrong": f"w{node}"})
            table = table.join(named, on="cell", how="left", maintain_order="left")
        return table


def _numbered(past: DataFrame, numbers: Mapping[str, int], places: int) -> DataFrame:
    """Return the ballots of earlier rounds with the nodes' numbers, in cells after the `places`."""
    import polars

    schema = {"node": polars.String, "number_of_node": polars.UInt32}
    known = polars.DataFrame(list(numbers.items()), schema=schema, orient="row")
    return past.join(known, on="node").select(
        polars.col("cell") + places, polars.col("number_of_node").alias("node"), "number", "word"
    )


def _pair_counts(one: int, other: int) -> tuple[Expr, Expr, Expr]:
    import polars

    first, second = polars.col(f"c{one}"), polars.col(f"c{other}")
    both = first.is_not_null() & second.is_not_null()
    either = polars.col(f"w{one}").fill_null(value=False) | polars.col(f"w{other}").fill_null(value=False)
    cells = polars.col("cells")
    return (
        cells.filter(both).sum().alias(f"{one} {other} both"),
        cells.filter((first == second).fill_null(value=False)).sum().alias(f"{one} {other} same"),
        cells.filter(both & either).sum().alias(f"{one} {other} either"),
    )


def _patterns(ballots: DataFrame) -> DataFrame:
    """Return the ballots of one cell for each way in which nodes agree with one another.

    What is learnt depends on nothing else, and few nodes have few ways. `cells`: how many cells are like it.
    """
    import polars

    leader = polars.col("node").min().over("candidate")
    patterns = (
        ballots.with_columns(mark=polars.concat_str("node", leader, separator=":"))
        .sort("cell", "node")
        .group_by("cell", maintain_order=True)
        .agg(polars.col("mark").str.join(" "))
        .group_by("mark", maintain_order=True)
        .agg(polars.col("cell").min(), cells=polars.len().cast(polars.Int64))
    )
    return ballots.join(patterns.select("cell", "cells"), on="cell").sort("candidate", "node")


def _mask(length: int, places: Series) -> Series:
    import polars

    return polars.repeat(value=False, n=length, eager=True).scatter(places, True)


def _weights(records: Sequence[tuple[float, int]], significant: float) -> dict[int, int]:
    """Return each node's voice from the cells in which it is right, and all its cells.

    Args:
        significant: by how many standard deviations its accuracy must differ from the mean to count.
    """
    right = sum(round(good * VOICE) for good, _ in records) / VOICE
    cells = sum(cells for _, cells in records)
    mean = min(max((right + 0.8 * PRIOR_CELLS) / (cells + PRIOR_CELLS), 0.05), 0.98)
    weights = {}
    for node, (good, count) in enumerate(records):
        accuracy = (good + PRIOR_CELLS * mean) / (count + PRIOR_CELLS)
        if abs(good - count * mean) <= significant * sqrt(count * mean * (1 - mean)):
            accuracy = mean
        accuracy = min(max(accuracy, 0.02), 0.99)
        weights[node] = round(max(0.1, log(ODDS * accuracy / (1 - accuracy))) * VOICE)
    return weights
