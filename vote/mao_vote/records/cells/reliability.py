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
from dataclasses import dataclass, field
from math import log, sqrt
from typing import TYPE_CHECKING

from mao_vote.records.keys.align import Version

from .measures import Noise

if TYPE_CHECKING:
    from polars import DataFrame, Expr, Series

VOICE = 10**6  # one voice, as an integer
MIN_NODES = 3
MIN_DISPUTED_CELLS = 5
MAX_SAMPLE_BALLOTS = (
    200_000  # from which families and weights are learnt; evenly spaced cells of larger fields
)
MIN_SHARED_ERRORS = 5
SHARED_ERRORS = 0.8  # of the cells in which one of two nodes errs, the part in which both err alike
SHARED_VALUES = 0.95  # of the disputed cells that both answer, the part with the same value
SHARED_COVERAGE = 0.95  # of the cells that one of two nodes answers, the part that both answer
MIN_FAMILIES = 3  # that answer a cell, for it to count for reliability
PRIOR_CELLS = 20  # of the mean accuracy, added to each node's own cells
SIGNIFICANT = 2.0  # standard deviations from the mean accuracy
ROUNDS, STEPS = 2, 5  # of finding families, and in each of weighing
ODDS = 10  # factor of a node's odds: the number of wrong values that are about equally likely
_CANDIDATE = ("cell", "number", "word")


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

    `members`: for each version, how many of its nodes are of which family (by number).
    """

    members: Sequence[Mapping[int, int]]
    families: Sequence[Family] = ()
    weights: Mapping[int, int] = field(default_factory=dict)

    def cast(self, ballots: DataFrame) -> DataFrame:
        """Add to each ballot its `votes`: the voices of the nodes that have this version, in a cell."""
        import polars

        if not self.families and not self.weights:
            return ballots.with_columns(votes=polars.col("nodes") * VOICE)
        shared = _with_shares(ballots, self.members)
        weights = [self.weights.get(version, VOICE) for version in range(len(self.members))]
        return shared.with_columns(votes=_weight(weights) * polars.col("share") // VOICE).drop(
            "share", "answering"
        )


def learn_voices(
    ballots: DataFrame,
    versions: Sequence[Version],
    answered: Callable[[], Sequence[Series]],
    noise: Noise,
    groups: Sequence[Sequence[str]],
) -> Voices:
    """Learn families and weights from a field's ballots.

    Args:
        ballots: cell, version, nodes, number, word; one row for each version that answers.
        answered: returns for each version, over all places of the table, whether it answers.
        groups: nodes that are declared to be dependent.
    """
    import polars

    partition = _Partition(versions, groups)
    several = polars.struct("number", "word").n_unique().over("cell") > 1
    disputed = ballots.filter(several)
    if sum(version.votes for version in versions) < MIN_NODES or len(versions) < 2:
        return partition.voices({})
    cells = disputed["cell"].unique(maintain_order=True).sort()
    if cells.len() < MIN_DISPUTED_CELLS:
        return partition.voices({})
    if disputed.height > MAX_SAMPLE_BALLOTS:
        step = -(-disputed.height // MAX_SAMPLE_BALLOTS)
        disputed = disputed.join(cells.gather_every(step).to_frame("cell"), on="cell")
    learner = _Learner(disputed, versions, answered(), noise)
    weights = _weights([(0.0, 0)] * len(versions), [version.votes for version in versions])
    for _ in range(ROUNDS):
        choice = learner.choose(partition, weights)
        learner.link(partition, choice)
        for _ in range(STEPS):
            weights = learner.weigh(partition, weights)
    return partition.voices(weights)


class _Partition:
    """The families so far, as sets of nodes that only grow."""

    def __init__(self, versions: Sequence[Version], groups: Sequence[Sequence[str]]) -> None:
        self._versions = versions
        self._family = {node: node for version in versions for node in version.nodes}
        self._evidence: dict[str, tuple[int, int]] = {}
        for group in groups:
            present = sorted(node for node in group if node in self._family)
            for node in present[1:]:
                self.join(present[0], node)

    def join(self, one: str, other: str, shared: int = 0, errors: int = 0) -> None:
        kept, gone = sorted((self._family[one], self._family[other]))
        evidence = max(self._evidence.pop(gone, (0, 0)), self._evidence.get(kept, (0, 0)), (shared, errors))
        self._evidence[kept] = evidence
        if kept != gone:
            self._family = {node: kept if name == gone else name for node, name in self._family.items()}

    def members(self) -> list[dict[int, int]]:
        """Return for each version how many of its nodes are of which family, by the family's number."""
        numbers = {name: number for number, name in enumerate(sorted(set(self._family.values())))}
        counts: list[dict[int, int]] = []
        for version in self._versions:
            count: dict[int, int] = {}
            for node in version.nodes:
                number = numbers[self._family[node]]
                count[number] = count.get(number, 0) + 1
            counts.append(count)
        return counts

    def voices(self, weights: Mapping[int, int]) -> Voices:
        families: dict[str, list[str]] = {}
        for node, name in sorted(self._family.items()):
            families.setdefault(name, []).append(node)
        named = [
            Family(tuple(nodes), *self._evidence.get(name, (0, 0)))
            for name, nodes in families.items()
            if len(nodes) > 1
        ]
        differing = weights if len(set(weights.values())) > 1 else {}
        return Voices(self.members(), named, differing)


class _Learner:
    """The disputed cells of a field, prepared once: candidates have numbers in the order of their values.

    `ballots`: cell, candidate, version, nodes, and `cells`, the number of cells that are like this one.
    """

    def __init__(
        self, disputed: DataFrame, versions: Sequence[Version], answered: Sequence[Series], noise: Noise
    ) -> None:
        import polars

        self.versions, self.answered, self.measured = versions, answered, noise.measured
        candidates = disputed.select(_CANDIDATE).unique().sort(*_CANDIDATE).with_row_index("candidate")
        ballots = (
            disputed.join(candidates, on=_CANDIDATE, nulls_equal=True)
            .select("cell", "candidate", "version", "nodes")
            .sort("candidate", "version")
        )
        self.near = self._pairs(candidates, noise) if noise.groups else None
        one_each = polars.lit(1, polars.Int64)
        self.ballots = _patterns(ballots) if self.near is None else ballots.with_columns(cells=one_each)
        self.candidates = self.ballots.select("cell", "candidate").unique()
        self.is_disputed = _mask(answered[0].len(), disputed["cell"].unique())

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
            nodes=polars.col("nodes").sum(),
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

    def _cast(self, partition: _Partition, weights: Mapping[int, int]) -> DataFrame:
        import polars

        shared = _with_shares(self.ballots, partition.members())
        of_versions = [weights.get(version, VOICE) for version in range(len(self.versions))]
        return shared.with_columns(votes=_weight(of_versions) * polars.col("share") // VOICE)

    def choose(self, partition: _Partition, weights: Mapping[int, int]) -> DataFrame:
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

    def weigh(self, partition: _Partition, weights: Mapping[int, int]) -> dict[int, int]:
        """Return each version's voice by its accuracy under the present result."""
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
        counts = taught.group_by("version").agg(right=(polars.col("chance") * cells).sum(), cells=cells.sum())
        known = {version: (right, cells) for version, right, cells in counts.iter_rows()}
        unanimous = self._unanimous(partition)
        records = []
        for version, agreed in enumerate(unanimous):
            right, cells = known.get(version, (0, 0))
            records.append((right / VOICE + agreed, cells + agreed))
        return _weights(records, [version.votes for version in self.versions])

    def _unanimous(self, partition: _Partition) -> list[int]:
        """Return for each version the undisputed cells it answers that enough families answer."""
        import polars

        families: dict[int, Series] = {}
        for version, counts in enumerate(partition.members()):
            for number in counts:
                mask = self.answered[version]
                families[number] = mask if number not in families else families[number] | mask
        answering = polars.select(
            polars.sum_horizontal(*(mask.cast(polars.UInt32) for mask in families.values()))
        ).to_series()
        enough = (answering >= MIN_FAMILIES) & ~self.is_disputed
        return [int((mask & enough).sum()) for mask in self.answered]

    def link(self, partition: _Partition, choice: DataFrame) -> None:
        """Join nodes that err alike."""
        import polars

        wrong = self.ballots.join(choice, on="cell").filter(polars.col("candidate") != polars.col("chosen"))
        if self.measured:
            wrong = self.ballots  # whatever the result is, independent observers do not report one number
        elif self.near is not None:
            agreeing = self.near.select("candidate", chosen="other")
            wrong = wrong.join(agreeing, on=["candidate", "chosen"], how="anti")
        errors = dict(wrong.group_by("version").agg(polars.col("cells").sum()).iter_rows())
        for version, count in sorted(errors.items()):
            nodes = self.versions[version].nodes
            if len(nodes) > 1 and count >= MIN_SHARED_ERRORS and count >= SHARED_ERRORS * (1 + count):
                for node in nodes[1:]:
                    partition.join(nodes[0], node, count, count)
        often = wrong.filter(
            polars.col("version").is_in(
                sorted(v for v, count in errors.items() if count >= MIN_SHARED_ERRORS)
            )
        ).select("candidate", "version", "cells")
        pairs = (
            often.join(often.select("candidate", second="version"), on="candidate")
            .filter(polars.col("version") < polars.col("second"))
            .group_by("version", "second")
            .agg(polars.col("cells").sum())
            .filter(polars.col("cells") >= MIN_SHARED_ERRORS)
            .sort("version", "second")
        )
        if pairs.is_empty():
            return
        involved = sorted(set(pairs["version"]) | set(pairs["second"]))
        table = self._wide(wrong, involved)
        counts = table.select(
            expression
            for one, other in pairs.select("version", "second").iter_rows()
            for expression in _pair_counts(one, other)
        ).row(0, named=True)
        for one, other, shared in pairs.iter_rows():
            both, same, either = (counts[f"{one} {other} {name}"] for name in ("both", "same", "either"))
            if shared < SHARED_ERRORS * (1 + either) or same < SHARED_VALUES * both:
                continue
            first, second = self.answered[one], self.answered[other]
            if int((first & second).sum()) >= SHARED_COVERAGE * int((first | second).sum()):
                partition.join(self.versions[one].nodes[0], self.versions[other].nodes[0], shared, either)

    def _wide(self, wrong: DataFrame, involved: Sequence[int]) -> DataFrame:
        """Return a row per kind of disputed cell: each version's candidate `c…`, and `w…` if it is wrong."""
        import polars

        table = self.ballots.group_by("cell").agg(polars.col("cells").first()).sort("cell")
        for version in involved:
            own = self.ballots.filter(polars.col("version") == version).select("cell", "candidate")
            of_version = wrong.filter(polars.col("version") == version).select("candidate")
            marked = own.join(of_version.with_columns(wrong=True), on="candidate", how="left")
            named = marked.rename({"candidate": f"c{version}", "wrong": f"w{version}"})
            table = table.join(named, on="cell", how="left", maintain_order="left")
        return table


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
    """Return the ballots of one cell for each way in which versions agree with one another.

    What is learnt depends on nothing else, and few nodes have few ways. `cells`: how many cells are like it.
    """
    import polars

    leader = polars.col("version").min().over("candidate")
    patterns = (
        ballots.with_columns(mark=polars.concat_str("version", leader, separator=":"))
        .sort("cell", "version")
        .group_by("cell", maintain_order=True)
        .agg(polars.col("mark").str.join(" "))
        .group_by("mark", maintain_order=True)
        .agg(polars.col("cell").min(), cells=polars.len().cast(polars.Int64))
    )
    return ballots.join(patterns.select("cell", "cells"), on="cell").sort("candidate", "version")


def _mask(length: int, places: Series) -> Series:
    import polars

    return polars.repeat(value=False, n=length, eager=True).scatter(places, True)


def _with_shares(ballots: DataFrame, members: Sequence[Mapping[int, int]]) -> DataFrame:
    """Add `share`, the voices of a version in a cell if all nodes weigh the same, and `answering`.

    `answering`: how many families answer the cell.
    """
    import polars

    rows = [
        (version, family, count) for version, counts in enumerate(members) for family, count in counts.items()
    ]
    schema = {"version": polars.UInt32, "family": polars.UInt32, "count": polars.Int64}
    spread = ballots.select("cell", "version").join(
        polars.DataFrame(rows, schema=schema, orient="row"), on="version"
    )
    total = polars.col("count").sum().over("cell", "family")
    shares = (
        spread.with_columns(
            part=polars.col("count") * VOICE // total, answering=polars.col("family").n_unique().over("cell")
        )
        .group_by("cell", "version")
        .agg(share=polars.col("part").sum(), answering=polars.col("answering").first())
    )
    return ballots.join(shares, on=["cell", "version"], how="left", maintain_order="left")


def _weight(weights: Sequence[int]) -> Expr:
    """Return each ballot's weight by its version."""
    import polars

    table = polars.Series(weights, dtype=polars.Int64)
    return polars.col("version").map_batches(table.gather, return_dtype=polars.Int64)


def _weights(records: Sequence[tuple[float, int]], nodes: Sequence[int]) -> dict[int, int]:
    """Return each version's voice from the cells in which it is right, and all its cells."""
    right = sum(round(good * VOICE) * count for (good, _), count in zip(records, nodes, strict=True)) / VOICE
    cells = sum(cells * count for (_, cells), count in zip(records, nodes, strict=True))
    mean = min(max((right + 0.8 * PRIOR_CELLS) / (cells + PRIOR_CELLS), 0.05), 0.98)
    weights = {}
    for version, (good, count) in enumerate(records):
        accuracy = (good + PRIOR_CELLS * mean) / (count + PRIOR_CELLS)
        if abs(good - count * mean) <= SIGNIFICANT * sqrt(count * mean * (1 - mean)):
            accuracy = mean
        accuracy = min(max(accuracy, 0.02), 0.99)
        weights[version] = round(max(0.1, log(ODDS * accuracy / (1 - accuracy))) * VOICE)
    return weights
