"""Votes on a whole table: field by field, or with each record as one value.

Records and fields that are equal in all versions are found by comparing whole columns; ballots (ballots.py)
are made only for cells in which versions differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from mao_shared.models.round import FieldRule, FileRule
from mao_vote.records.fields.numbers import numbers
from mao_vote.records.fields.types import FieldType
from mao_vote.records.fields.values import infer_field, is_observed, parse_values
from mao_vote.records.keys.align import Aligned, Version, ordered_places, row_order
from mao_vote.records.keys.key import Key
from mao_vote.records.keys.rows import RowVote, count_rows, vote_rows
from mao_vote.records.nested.documents import PATH
from mao_vote.records.nested.paths import field_rule, leaf_pattern

from .ballots import COMPUTED, Judge, apply_judge, decide_cells
from .measures import Noise, estimate_noise, unwrapped
from .reliability import Family, learn_voices

if TYPE_CHECKING:
    from polars import DataFrame, Series

MAX_CAMPS = 10  # different splits of the nodes that are counted per field
_MATCH = "\0match:"
RowVoter = Callable[[Aligned, "Series | None"], RowVote]
"""Decides which records are in the result; the second argument is as of `vote_rows`."""
MIN_PATTERN_LEAVES = 20  # of a document, for its values to be voted by themselves
MAX_LEAF_GROUPS = 200  # voted by themselves
RECORD = "\0record"  # `load` lets no NUL through


def pack_records(table: DataFrame, fields: Sequence[str]) -> DataFrame:
    """Add a column RECORD: the JSON text of the `fields`, in which equal numbers have the same spelling.

    A field that the record lacks is null there, which differs from the text `null` and the empty text.
    """
    import polars

    if not fields or not table.height:
        return table.with_columns(polars.lit(None, polars.String).alias(RECORD))
    packed = polars.struct(_comparable(table, name) for name in fields)
    return table.with_columns(packed.struct.json_encode().alias(RECORD))


def _comparable(table: DataFrame, name: str) -> Series:
    import polars

    if name not in table.columns:
        return polars.repeat(None, table.height, dtype=polars.String, eager=True).alias(name)
    value = numbers(table[name]).cast(polars.String)
    return polars.select(polars.coalesce(value, table[name])).to_series().alias(name)


def pack_versions(versions: Sequence[Version], fields: Sequence[str]) -> list[Version]:
    return [replace(version, table=pack_records(version.table, fields)) for version in versions]


def unpack_records(
    table: DataFrame, versions: Sequence[Version], key: Key, fields: Sequence[str], blank: str
) -> DataFrame:
    """Return the fields of each RECORD as the first version spells them; `blank` if it is undecided."""
    import polars

    by = [*(_MATCH + name for name in key.columns), RECORD]
    tables = []
    for table_of_version in (version.table for version in versions):
        if table_of_version.height:
            absent = [name for name in fields if name not in table_of_version.columns]
            filled = table_of_version.with_columns(
                polars.lit(None, polars.String).alias(name) for name in absent
            )
            texts = key.texts(table_of_version)
            tables.append(
                filled.select(RECORD, *fields).with_columns(
                    texts[name].alias(_MATCH + name) for name in key.columns
                )
            )
    if not tables:
        tables.append(polars.DataFrame(schema=dict.fromkeys([*by, *fields], polars.String)))
    known = polars.concat(tables).unique(by, keep="first", maintain_order=True)
    texts = key.texts(table)
    table = table.with_columns(texts[name].alias(_MATCH + name) for name in key.columns)
    found = table.join(known, on=by, how="left", maintain_order="left", nulls_equal=True)
    undecided = polars.col(RECORD) == blank
    return found.with_columns(
        polars.when(undecided).then(polars.lit(blank)).otherwise(polars.col(name)).alias(name)
        for name in fields
    )


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


Camps = tuple[tuple[str, ...], tuple[str, ...]]
"""Two sets of nodes that together have all values of a cell, one value each."""


@dataclass(frozen=True, slots=True)
class FieldReport:
    """How a field in which versions differ was voted.

    `observed`: number of nodes → cells that so many observed. `disputed`: cells with several values; `camps`:
    how many of these split the nodes into the same two camps, each with several nodes.
    """

    name: str
    kind: FieldType
    noise: Noise
    families: Sequence[Family]
    observed: Mapping[int, int]
    disputed: int
    camps: Mapping[Camps, int]


@dataclass(slots=True)
class TableTally:
    """For each version, the number of `cells` in which it voted and of those `differing` from the result.

    `shared`: differing cells in which another node has the same value.
    `places`: those of the result's records, in order. `notes`: in words, on which records are in it.
    """

    cells: list[int]
    differing: list[int]
    shared: list[int]
    differences: list[FieldDifferences] = field(default_factory=list)
    fields: list[FieldReport] = field(default_factory=list)
    conflicts: int = 0
    places: Series | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """How a table is voted. `blank`: the text of an undecided cell.

    `judge`: decides the cells in which versions differ, instead of the default rules; with `keep_majority`
    not against more than half of the nodes. `groups`: nodes that are declared to be dependent. `error`:
    relative tolerance of numbers that the definition declares for the whole file. `is_document`: records are
    the values of a document.
    """

    file: FileRule
    blank: str
    is_json: bool
    error: float | None = None
    judge: Judge | None = None
    keep_majority: bool = False
    groups: Sequence[Sequence[str]] = ()
    is_document: bool = False

    def field(self, name: str) -> FieldRule:
        """Return what the definition declares for a field or pattern, or for all others as `*`."""
        return field_rule(self.file.fields, name, self.file.fields.get("*"))


def vote_table(
    aligned: Aligned,
    fields: Sequence[VotedField],
    truth: Incumbent,
    rules: Rules,
    row_voter: RowVoter | None = None,
) -> tuple[DataFrame, TableTally]:
    """Return the result's records (key columns first, then the fields), and the counts of the vote.

    Args:
        row_voter: decides which records are in the result, instead of `rules`.
    """
    count = len(aligned.versions)
    votes = TableTally([0] * count, [0] * count, [0] * count)
    is_same_keys = all(version_rows is None for version_rows in aligned.rows)
    previous_rows = None if is_same_keys else truth.rows()
    before = None if previous_rows is None else previous_rows.is_not_null()
    rows = vote_rows(aligned, before, rules.file.rows) if row_voter is None else row_voter(aligned, before)
    votes.notes = rows.notes
    if rows.partial.any():
        votes.differences.append(
            FieldDifferences("", count_rows(aligned, rows, votes.cells, votes.differing, votes.shared))
        )
        votes.conflicts += int(rows.undecided.sum())

    result = {}
    for voted in fields:
        vote = FieldVote(aligned, voted, rows, rules)
        if rules.is_document and not voted.volatile:
            result[voted.name] = _decide_leaves(vote, truth, votes)
        else:
            result[voted.name] = vote.decide(vote.columns[0], truth, votes)
    table = aligned.keys.with_columns(result.values())
    votes.places = places = row_order(aligned, rows.kept)
    is_in_order = places.len() == table.height and places.is_sorted()
    return table if is_in_order else table[places], votes


def leaf_names(paths: Sequence[str], declared: Container[str]) -> list[str]:
    """Return for each path of a document the name of the field to which its value belongs.

    That is its pattern if there are enough values of it or the definition names it, otherwise the last step:
    an object whose members are named by what they describe is like a list of records.
    """
    patterns = [leaf_pattern(path) for path in paths]
    counts = Counter(patterns)
    return [
        pattern
        if counts[pattern] >= MIN_PATTERN_LEAVES or pattern in declared
        else pattern.rpartition("/")[2]
        for pattern in patterns
    ]


def _decide_leaves(vote: FieldVote, truth: Incumbent, votes: TableTally) -> Series:
    """Return the values of a document, which is voted by what its values have in common (`leaf_names`)."""
    import polars

    column, differ = vote.columns[0], vote.differ()
    if not differ.any():
        return vote.decide(column, truth, votes)
    paths = vote.aligned.keys[PATH].to_list()
    names = polars.Series(leaf_names(paths, vote.rules.file.fields), dtype=polars.String)
    disputed = names.filter(differ).unique().sort().to_list()
    own = disputed[:MAX_LEAF_GROUPS]
    for name in own:
        column = vote.within(name, names == name).decide(column, truth, votes)
    rest = vote.within("", ~names.is_in(own))
    return rest.decide(column, truth, votes)


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
        kind = infer_field(
            self.name,
            self.columns if self.kept.all() else [column.filter(self.kept) for column in self.columns],
            [self.aligned.versions[version].votes for version in self.voted.versions],
            self.rules.field(self.name),
            is_json=self.rules.is_json,
        )
        is_declared = kind.tolerance is not None or kind.error is not None
        return kind if is_declared or kind.kind != "number" else replace(kind, error=self.rules.error)

    def _decide_ballots(
        self, ballots: DataFrame, kind: FieldType, truth: Incumbent, votes: TableTally
    ) -> DataFrame:
        """Decide the cells in which versions differ, and add their counts to `votes`."""
        import polars

        answered = Answered(self, kind)
        noise = estimate_noise(ballots, kind)
        voices = learn_voices(ballots, self.aligned.versions, answered.masks, noise, self.rules.groups)
        ballots = voices.cast(ballots)

        def incumbent(cells: Series) -> DataFrame:
            return parse_values(truth.texts(self.voted.name, cells), kind, is_json=self.rules.is_json)

        decided = default_vote = decide_cells(ballots, noise, incumbent)
        if self.rules.judge is not None:
            guard = noise.tolerance.agree if self.rules.keep_majority else None
            decided = apply_judge(default_vote, ballots, self.rules.judge, guard)
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
                find_camps(ballots, self.aligned.versions),
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
    decided_cells = decided.filter(polars.col("several") & (why != "undecided"))
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


def find_camps(ballots: DataFrame, versions: Sequence[Version]) -> dict[Camps, int]:
    """Count the cells that split the nodes into the same two camps, each with several nodes."""
    import polars

    value = polars.struct("number", "word")
    sides = (
        ballots.filter(value.n_unique().over("cell") == 2)
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
