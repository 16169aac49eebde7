"""Evidence: how a round's ground truth was decided, whether it is reproducible, and who deviates from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict, Field

from .common import Record, Timestamp
from .round import AbstainedWhy, Abstention, FieldKind, VoteDefinition

# A round's evidence


@dataclass(frozen=True, slots=True)
class Tally:
    """One node's votes: the cells it voted on, and how many of them differ from the result.

    A number agrees when it is within the tolerance of what was chosen, or where that is computed, of what
    most nodes say. Ignored and volatile fields and cells that the node did not observe do not count; an
    undecided cell counts as a vote and against nobody. `shared`: differing cells in which another node has
    the same value.
    """

    cells: int = 0
    differing: int = 0
    shared: int = 0

    def plus(self, other: Tally) -> Tally:
        return Tally(self.cells + other.cells, self.differing + other.differing, self.shared + other.shared)


class FieldEvidence(Record):
    """How a field was compared in which nodes differ.

    `source`: the definition declared its kind, or it was inferred; `unsure`: why that may be wrong.
    `measured`: each node measures its own number. `tolerance`: values that differ by at most this agree, in
    the field's unit; `error`: the same as a fraction of the larger value; `noise`: where these come from.
    `observed`: number of nodes → cells that so many observed. `tied`: cells whose value has no more voices
    than another.
    """

    name: str
    kind: FieldKind
    source: Literal["declared", "inferred"]
    unsure: str = ""
    measured: bool = False
    tolerance: float = 0
    error: float = 0
    noise: Literal["exact", "assumed", "declared", "estimated"] = "exact"
    observed: dict[int, int] = Field(default_factory=dict)
    tied: int = 0


class NodeGroup(Record):
    """Nodes that had one voice together in `fields`, since they were declared a group or err alike.

    `shared`: cells in which two of them have the same value, which is not the result's; `errors`: cells in
    which one of these two differs from the result; of the field in which they share most.
    """

    nodes: list[str]
    declared: bool
    fields: list[str] = Field(default_factory=list)
    shared: int = 0
    errors: int = 0


class FileEvidence(Record):
    """A file over which the nodes differ. `contents`: git's ids, of the nodes that have it.

    `result`: git's id of what was decided. `conflicts`: how many cells stayed undecided; `cells`: how many
    differ, see the file of cells; `contested`: in how many of them no value has a majority. `notes`: what was
    done; `warnings`: why it may be wrong. `fields`, `groups` and `warnings` are empty, and `contested` is 0,
    in rounds before version 4 of the rules.
    """

    path: str
    how: str
    why: str
    result: str | None
    contents: dict[str, str]
    key: list[str] | None = None
    key_source: str | None = None
    votes: dict[str, Tally]
    conflicts: int = 0
    cells: int = 0
    contested: int = 0
    notes: list[str] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    abstained: dict[str, str] = Field(default_factory=dict)
    fields: list[FieldEvidence] = Field(default_factory=list)
    groups: list[NodeGroup] = Field(default_factory=list)


class LedgerChange(Record):
    """Git's ids of `.mao/history.json` before and after."""

    before: str | None = None
    after: str | None = None


class Evidence(Record):
    """All that went into a round and what came out; `tree` is the data without `.mao`.

    `decided` counts the files that differ from the base by how they were decided; `files` describes the first
    over which nodes differ. `cells` counts what differs, of which `cells_listed` are in the file beside this
    one, and `contested` have no majority. `votes` sums over all files. Fields of another version are left
    out.
    """

    model_config = ConfigDict(extra="ignore")

    rules: int
    round: str
    tick: Timestamp
    nodes: list[str]
    commits: dict[str, str]
    abstained: dict[str, Abstention]
    base: str | None
    definition: VoteDefinition
    tree: str
    decided: dict[str, int]
    conflicts: int
    cells: int
    contested: int = 0
    cells_listed: int
    votes: dict[str, Tally]
    ledger: LedgerChange
    notes: list[str] = Field(default_factory=list)
    files: list[FileEvidence]


MAX_WARNINGS = 5  # of a round's files in its summary


class RoundSummary(Record):
    """A decided round in a line. `files`: how many differ from the round before.

    `warnings`: why decisions on files may be wrong, such as a key that was inferred from little; the first
    few. `differing`: by node that voted, in how many cells it differs; `abstained`: why the others did not.
    """

    round: str
    tick: Timestamp
    commit: str
    nodes: int
    voters: int
    files: int
    cells: int
    conflicts: int
    warnings: list[str] = Field(default_factory=list)
    differing: dict[str, int] = Field(default_factory=dict)
    abstained: dict[str, AbstainedWhy] = Field(default_factory=dict)


class DecidedRound(Record):
    """A round and the ground-truth commit that it made."""

    commit: str
    evidence: Evidence

    def summary(self) -> RoundSummary:
        found = self.evidence
        warnings = [f"{file.path}: {why}" for file in found.files for why in file.warnings]
        more = [f"{len(warnings) - MAX_WARNINGS} more"] if len(warnings) > MAX_WARNINGS else []
        return RoundSummary(
            round=found.round,
            tick=found.tick,
            commit=self.commit,
            nodes=len(found.nodes),
            voters=len(found.votes),
            files=sum(found.decided.values()),
            cells=found.cells,
            conflicts=found.conflicts,
            warnings=[*warnings[:MAX_WARNINGS], *more],
            differing={node: tally.differing for node, tally in found.votes.items()},
            abstained={node: entry.reason for node, entry in found.abstained.items()},
        )


class UnattestedCommits(Record):
    """`after` the newest round, `between` rounds; `before` the first round a node alone made them, which is
    no fault. `commits`: the newest of those that are a fault, at most 100."""

    tip: str
    newest_round: str
    after: int
    between: int
    before: int
    commits: list[str] = Field(default_factory=list)

    @property
    def fault(self) -> str | None:
        """Description of the fault; None if a round made each commit since the first round."""
        count = self.after + self.between
        if not count:
            return None
        commits = "1 commit on ground-truth was" if count == 1 else f"{count} commits on ground-truth were"
        where = f"newest round is {self.newest_round}, tip is {self.tip[:10]}"
        return f"{commits} made by no round; {where}"


class RoundPage(Record):
    """The newest first; `cursor`: where the next page begins. With the first page: what commits of ground
    truth no round made."""

    items: list[RoundSummary]
    cursor: str | None = None
    strays: UnattestedCommits | None = None


# A single value


class ContestedCell(Record):
    """A cell over which nodes differ, as it was written down. `values` lacks nodes without the record.

    `observed`: how many nodes observed it; None in rounds before version 4 of the rules.
    """

    file: str
    key: list[str]
    field: str
    values: dict[str, str | None]
    chosen: str | None
    why: str
    contested: bool
    observed: int | None = None


class CellPage(Record):
    """Cells over which nodes differ. `cursor`: how many cells come before the next page."""

    items: list[ContestedCell]
    cursor: str | None = None


class Explanation(Record):
    """`values`: node → what it says (none: its record has no such field); `silent`: node → why nothing.

    `observed`: how many nodes observed the cell, if that is known. Where nodes differ in its field:
    `compared`, how it was compared, and `groups`, the nodes that had one voice in it.

    Of the newest round, where commits that no round made follow it: `tip`, the value there, and `fault`, when
    it is another than was voted.
    """

    round: str
    commit: str
    file: str
    key: list[str]
    field: str
    values: dict[str, str | None]
    chosen: str | None
    why: str
    contested: bool
    words: str
    observed: int | None = None
    compared: FieldEvidence | None = None
    groups: list[NodeGroup] = Field(default_factory=list)
    silent: dict[str, str] = Field(default_factory=dict)
    tip: str | None = None
    at_tip: str | None = None
    fault: str | None = None


# Many rounds


class Audit(Record):
    """`ok`: the same commit came out, and ground truth has no commits since the first round that no round
    made. `differing`: paths (at most 100) at which the trees are not the same.

    `faults` says in words what is not as it should be, `notes` what is worth knowing besides.
    """

    round: str
    ok: bool
    commit: str
    tree: str
    recomputed_commit: str
    recomputed_tree: str
    data_is_same: bool
    commits: dict[str, str]
    differing: list[str] = Field(default_factory=list)
    faults: list[str] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    strays: UnattestedCommits | None = None


class OutlierScore(Record):
    """A node. `rate`: the share of its cells that differ; `others`: that of all other nodes together.

    `excess`: by how much its rate exceeds theirs at least (99 %); 0 or less when it may be chance. `chance`:
    the one-sided p-value. `shared`: the share of its differing cells in which another node has the same
    value. `strange`: significant even among that many nodes, and most of what it differs in is its alone.
    """

    node: str
    cells: int
    differing: int
    rate: float
    others: float | None
    excess: float
    chance: float
    shared: float = 0
    strange: bool


class RankedNode(OutlierScore):
    """`voted`, `abstained`: in how many rounds."""

    voted: int
    abstained: int


class Ranking(Record):
    """The most deviating first. `rounds`: how many count; `since`, `until`: their first and last tick."""

    rounds: int
    since: Timestamp | None = None
    until: Timestamp | None = None
    items: list[RankedNode]
