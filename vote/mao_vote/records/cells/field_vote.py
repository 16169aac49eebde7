"""Votes on one field of a table.

Ballots (ballots.py) are made only for cells in which versions differ; these are found by comparing columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from mao_shared.models.round import FieldRule, FileRule, Ties
from mao_vote.records.fields.time_values import unwrapped
from mao_vote.records.fields.types import FieldType
from mao_vote.records.fields.values import infer_field, is_observed, parse_values
from mao_vote.records.keys.align import Aligned, Version, ordered_places
from mao_vote.records.keys.key import Key
from mao_vote.records.keys.rows import RowVote
from mao_vote.records.nested.paths import field_rule
from mao_vote.records.nested.sets import infer_set

from .ballots import COMPUTED, Judge, apply_judge, break_ties, decide_cells
from .measures import Noise, estimate_noise
from .memory import Memory, PastCells, recall, remember
from .reliability import learn_voices
from .voices import Family

if TYPE_CHECKING:
    from polars import DataFrame, Series

MAX_CAMPS = 10  # different splits of the nodes that are counted per field


@dataclass(frozen=True, slots=True)
class VotedField:
    """A field to vote on. `versions`: indices of the versions that have a vote."""

    name: str
    versions: tuple[int, ...]
    volatile: bool = False


@dataclass(slots=True)
class Incumbent:
    """The previous ground truth, read only to break a tie."""

    read: Callable[[], DataFrame | None]
    aligned: Aligned
    key: Key
    _rows: Series | None = None
    _table: DataFrame | None = None
    _is_read: bool = False

    def rows(self) -> Series | None:
        """Return the row in the previous ground truth for each place, or None if there is no ground truth."""
        import polars

        if not self._is_read:
            self._is_read, self._table = True, self.read()
            if self._table is not None:
                frame = polars.DataFrame({"place": ordered_places(self._table, self.aligned, self.key)})
                frame = frame.with_row_index("row").drop_nulls("place")
                every = self.aligned.keys.select(place=polars.int_range(polars.len(), dtype=polars.UInt32))
                self._rows = every.join(frame, on="place", how="left", maintain_order="left")["row"]
        return self._rows

    def texts(self, name: str, places: Series) -> Series:
        import polars

        rows = self.rows()
        if rows is None or self._table is None or name not in self._table.columns:
            return polars.repeat(None, places.len(), dtype=polars.String, eager=True)
        return self._table[name].gather(rows.gather(places))


@dataclass(frozen=True, slots=True)
class FieldDifferences:
    """The cells of a field in which versions differ. An empty name means the presence of the record.

    `cells`: cell (its place), chosen, why, contested, observed (number of nodes).
    """

    field: str
    cells: DataFrame


def sort_differences(differences: Sequence[FieldDifferences]) -> DataFrame:
    """Return the cells of fields by place, then by field: cell, field (its index), row (in `cells`)."""
    import polars

    frames = [polars.DataFrame(schema={"cell": polars.UInt32, "field": polars.UInt32, "row": polars.UInt32})]
    for number, of_field in enumerate(differences):
        numbered = of_field.cells.select(
            polars.col("cell").cast(polars.UInt32),
            field=polars.lit(number, polars.UInt32),
            row=polars.int_range(polars.len(), dtype=polars.UInt32),
        )
        frames.append(numbered)
    return polars.concat(frames).sort("cell", "field", "row")


Camps = tuple[tuple[str, ...], tuple[str, ...]]
"""Two sets of nodes that together have all values of a cell, one value each."""


@dataclass(frozen=True, slots=True)
class FieldReport:
    """How a field in which versions differ was voted.

    `observed`: number of nodes → cells that so many observed. `disputed`: cells with several values; `camps`:
    how many of these split the nodes into the same two camps, each with several nodes; `tied`: in how many of
    them the value has no more voices than another. `sample`: what the vote of a later round may learn from.
    """

    name: str
    kind: FieldType
    noise: Noise
    families: Sequence[Family]
    observed: Mapping[int, int]
    disputed: int
    camps: Mapping[Camps, int]
    tied: int
    sample: PastCells | None


@dataclass(slots=True)
class TableTally:
    """For each version, the number of `cells` in which it voted and of those `differing` from the result.

    `shared`: differing cells in which another node has the same value.
    `places`: those of the result's records, in order. `notes`, `warnings`: in words, on which records are
    in it.
    """

    cells: list[int]
    differing: list[int]
    shared: list[int]
    differences: list[FieldDifferences] = field(default_factory=list)
    fields: list[FieldReport] = field(default_factory=list)
    conflicts: int = 0
    places: Series | None = None
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """How a table is voted. `blank`: the text of an undecided cell.

    `judge`: decides the cells in which versions differ, instead of the default rules; with `keep_majority`
    not against more than half of the nodes, with `keep_agreeing` not between numbers that agree. `groups`:
    nodes that are declared to be dependent. `error`: relative tolerance of numbers that the definition
    declares for the whole file. `is_document`: records are the values of a document. `ties`: as of
    VoteDefinition. `memory`: what earlier rounds tell about fields, by name.
    """

    file: FileRule
    blank: str
    is_json: bool
    error: float | None = None
    judge: Judge | None = None
    keep_majority: bool = False
    keep_agreeing: bool = False
    groups: Sequence[Sequence[str]] = ()
    is_document: bool = False
    ties: Ties = "likeliest"
    memory: Mapping[str, Memory] = field(default_factory=dict)
    path: str = ""

    def field(self, name: str) -> FieldRule:
        """Return what the definition declares for a field or pattern, or for all others as `*`."""
        return field_rule(self.file.fields, name, self.file.fields.get("*"))

    def with_error(self, kind: FieldType) -> FieldType:
        """Return a field's type with the file's own tolerance, where the field has none."""
        is_declared = kind.tolerance is not None or kind.error is not None
        return kind if is_declared or kind.kind != "number" else replace(kind, error=self.error)


class FieldVote:
    """The vote on one field of a table, or on some of its places. `name`: as definitions call the field."""

    def __init__(
        self,
        aligned: Aligned,
        voted: VotedField,
        rows: RowVote,
        rules: Rules,
        name: str | None = None,
        within: Series | None = None,
    ) -> None:
        self.aligned, self.voted, self.rows, self.rules = aligned, voted, rows, rules
        self.name = voted.name if name is None else name
        self.kept = rows.kept if within is None else rows.kept & within
        self.columns = [aligned.column(version, voted.name) for version in voted.versions]

    def within(self, name: str, places: Series) -> FieldVote:
        """Return the vote on the places of a mask."""
        return FieldVote(self.aligned, self.voted, self.rows, self.rules, name, places)

    def differ(self) -> Series:
        """Return for each place whether it is in the result and versions differ there."""
        first = self.columns[0]
        differ = reduce(or_, (other.ne_missing(first) for other in self.columns[1:]), self.rows.partial)
        return differ & self.kept

    def decide(self, column: Series, truth: Incumbent, votes: TableTally) -> Series:
        """Return the column with the field's values, and add its counts to `votes`.

        Args:
            column: the values of the first version.
        """
        import polars

        places = self.differ().arg_true()
        column = column.alias(self.voted.name)
        if places.is_empty():
            self._count_unread(votes)
            return column
        kind = self._kind()
        texts = self._ballots(places)
        parsed = parse_values(texts["text"], kind, is_json=self.rules.is_json)
        ballots = texts.hstack(parsed).filter(
            polars.col("number").is_not_null() | polars.col("word").is_not_null()
        )
        if kind.kind == "time":
            ballots = unwrapped(ballots)
        unobserved = texts.join(ballots.select("cell").unique(), on="cell", how="anti")
        column = column.scatter(*_most_frequent(unobserved))
        if self.voted.volatile:
            # the lower median is one of the reported values and independent of their order
            count = polars.col("nodes")
            ordered = ballots.sort("cell", "number", "text", nulls_last=True)
            medians = ordered.group_by("cell", maintain_order=True).agg(
                polars.col("text").filter(2 * count.cum_sum() >= count.sum()).first()
            )
            return column.scatter(medians["cell"], medians["text"])
        decided = self._decide_ballots(ballots, kind, truth, votes)
        value = polars.when(polars.col("why") == "undecided").then(polars.lit(self.rules.blank))
        values = decided.select(value.otherwise("chosen").alias("value"))["value"]
        return column.scatter(decided["cell"], values)

    def _kind(self) -> FieldType:
        """Return what the definition declares of the field, or what all versions' values imply."""
        is_json = self.rules.is_json
        columns = self.columns if self.kept.all() else [column.filter(self.kept) for column in self.columns]
        votes = [self.aligned.versions[version].votes for version in self.voted.versions]
        kind = infer_field(self.name, columns, votes, self.rules.field(self.name), is_json=is_json)
        return self.rules.with_error(infer_set(kind, columns, votes, is_json=is_json))

    def _decide_ballots(
        self, ballots: DataFrame, kind: FieldType, truth: Incumbent, votes: TableTally
    ) -> DataFrame:
        """Decide the cells in which versions differ, and add their counts to `votes`."""
        import polars

        answered, versions = Answered(self, kind), self.aligned.versions
        disputed = ballots.filter(polars.struct("number", "word").n_unique().over("cell") > 1)
        latest = remember(disputed, versions, answered.masks(), self.rules.path, self.aligned.keys)
        memory = self.rules.memory.get(self.name, ())
        past = recall(memory, latest, versions, kind, is_json=self.rules.is_json)
        noise = estimate_noise(ballots, kind, past)
        voices = learn_voices(disputed, versions, answered.masks, noise, self.rules.groups, past)
        ballots = voices.cast(ballots)

        def incumbent(cells: Series) -> DataFrame:
            return parse_values(truth.texts(self.voted.name, cells), kind, is_json=self.rules.is_json)

        decided = decide_cells(ballots, noise, incumbent)
        if self.rules.ties == "likeliest":
            decided = break_ties(decided, ballots, voices)
        default_vote = decided
        if self.rules.judge is not None:
            decided = apply_judge(
                default_vote,
                ballots,
                self.rules.judge,
                noise.tolerance.agree,
                keep_majority=self.rules.keep_majority,
                keep_agreeing=self.rules.keep_agreeing,
            )
        decided = decided.sort("cell")
        for version, mask in enumerate(answered.masks()):
            votes.cells[version] += int(mask.sum())
        _count_differing(ballots, decided, default_vote, votes, noise)
        votes.conflicts += int((decided["why"] == "undecided").sum())
        differing = decided.filter("several").select(
            "cell",
            "chosen",
            "why",
            contested=2 * polars.col("behind") <= polars.col("total"),
            observed="total",
        )
        if not differing.is_empty():
            votes.differences.append(FieldDifferences(self.voted.name, differing))
        votes.fields.append(
            FieldReport(
                self.name,
                kind,
                noise,
                voices.families,
                answered.observers(),
                differing.height,
                find_camps(disputed, versions),
                int((decided["why"] == "tie").sum()),
                latest,
            )
        )
        return decided

    def _count_unread(self, votes: TableTally) -> None:
        """Count the cells of a field that all versions have alike, whatever they say."""
        if self.voted.volatile:
            return
        for version in self.voted.versions:
            votes.cells[version] += int((self.has_record(version) & self.kept).sum())

    def has_record(self, version: int) -> Series:
        """Return for each place whether a version has the record."""
        rows = self.aligned.rows[version]
        return self.rows.kept if rows is None else rows.is_not_null()

    def _ballots(self, places: Series) -> DataFrame:
        """Return each version's text at the places where versions differ; null: no such field."""
        import polars

        return polars.concat(
            polars.DataFrame({"cell": places, "text": column.gather(places)})
            .filter(self.aligned.has(version, places))
            .with_columns(
                version=polars.lit(version, polars.UInt32),
                nodes=polars.lit(self.aligned.versions[version].votes, polars.Int64),
                weight=polars.lit(self.aligned.versions[version].weight, polars.Int64),
            )
            for version, column in zip(self.voted.versions, self.columns, strict=True)
        )


class Answered:
    """Which versions answer which cells of a field, computed once."""

    def __init__(self, vote: FieldVote, kind: FieldType) -> None:
        self._vote, self._kind = vote, kind
        self._masks: list[Series] | None = None

    def masks(self) -> list[Series]:
        """Return for each version, over all places, whether it observed the cell."""
        import polars

        if self._masks is None:
            vote, masks = self._vote, []
            for version, column in zip(vote.voted.versions, vote.columns, strict=True):
                is_value = is_observed(column, self._kind, is_json=vote.rules.is_json)
                masks.append(is_value & vote.has_record(version) & vote.kept)
            absent = polars.repeat(value=False, n=vote.aligned.keys.height, eager=True)
            known = dict(zip(vote.voted.versions, masks, strict=True))
            self._masks = [known.get(version, absent) for version in range(len(vote.aligned.versions))]
        return self._masks

    def observers(self) -> dict[int, int]:
        """Return the number of nodes that observed a cell → the number of such cells."""
        import polars

        counts = polars.repeat(0, self._vote.aligned.keys.height, dtype=polars.Int64, eager=True)
        for version, mask in zip(self._vote.aligned.versions, self.masks(), strict=True):
            counts = counts + mask.cast(polars.Int64) * version.votes
        found = counts.filter(self._vote.kept).value_counts(name="cells")
        return {int(nodes): int(cells) for nodes, cells in sorted(found.iter_rows())}


def _most_frequent(texts: DataFrame) -> tuple[Series, Series]:
    """Return the cells that nobody observed, and the text of most nodes for it: empty, null, NA …"""
    import polars

    counts = texts.group_by("cell", "text").agg(polars.col("nodes").sum())
    best = counts.sort("cell", "nodes", "text", descending=[False, True, False], nulls_last=True).unique(
        "cell", keep="first", maintain_order=True
    )
    return best["cell"], best["text"]


def _count_differing(
    ballots: DataFrame, decided: DataFrame, default_vote: DataFrame, votes: TableTally, noise: Noise
) -> None:
    """Count for each version the cells in which it differs from the decision.

    A computed number may agree with no ballot; versions are then compared with the default vote. In an exact
    field, a tolerance that was not declared counts only where no value has a majority or plurality.
    """
    import polars

    why = polars.col("why")
    computed = decided.filter(why == COMPUTED).select("cell")
    if not computed.is_empty():
        others = decided.join(computed, on="cell", how="anti")
        decided = polars.concat([others, default_vote.join(computed, on="cell")])
    decided_cells = decided.filter(polars.col("several") & ~why.is_in(["undecided", "tie"]))
    decided_cells = decided_cells.select("cell", "why", chosen_number="number", chosen_word="word")
    number, chosen = polars.col("number"), polars.col("chosen_number")
    same = number.eq_missing(chosen) & polars.col("word").eq_missing(polars.col("chosen_word"))
    is_tolerant = polars.lit(noise.groups) | ~why.is_in(["majority", "plurality", "reliability"])
    agrees = is_tolerant & noise.tolerance.agrees(number, chosen).fill_null(value=False)
    shared = polars.col("nodes").sum().over("cell", "number", "word") > 1
    differing = ballots.with_columns(shared=shared).join(decided_cells, on="cell").filter(~(same | agrees))
    counts = differing.group_by("version").agg(polars.len(), polars.col("shared").sum())
    for version, count, shared_count in counts.iter_rows():
        votes.differing[version] += count
        votes.shared[version] += shared_count


def find_camps(disputed: DataFrame, versions: Sequence[Version]) -> dict[Camps, int]:
    """Count the cells that split the nodes into the same two camps, each with several nodes."""
    import polars

    value = polars.struct("number", "word")
    sides = (
        disputed.filter(value.n_unique().over("cell") == 2)
        .sort("cell", "version")
        .with_columns(first=value == value.first().over("cell"))
        .group_by("cell", "first", maintain_order=True)
        .agg("version", polars.col("nodes").sum())
        .filter((polars.col("nodes") > 1).all().over("cell"))
    )
    split = sides.group_by("cell", maintain_order=True).agg(polars.col("version").sort_by("first"))
    counts = split.group_by("version").len().sort("len", "version", descending=[True, False])
    found: dict[Camps, int] = {}
    for sets, cells in counts.head(MAX_CAMPS).iter_rows():
        one, other = (
            tuple(sorted(node for version in numbers for node in versions[version].nodes)) for numbers in sets
        )
        found[min(one, other), max(one, other)] = cells
    return found
