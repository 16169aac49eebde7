"""Rounds: votes over the nodes' snapshots of a dataset for one tick, and how the dataset is voted on.

open ──(all have announced, or the deadline)──► closed ──(a quorum attests the same commit)──► decided
  └─(too few snapshots at the deadline)─► undecided ◄─(no quorum attests within the deadline)─┘

A node's announcement and attestation are stored under its own prefix, where no other node can write. The
Round itself is shared: any node advances it by compare-and-swap, and all nodes check the pinned commits
against the announcements.

VDX is a published voting definition specification (EcePanos/vdx); its terms and defaults are kept.
Files, record keys and exact values, which it lacks, have additional fields.
"""

from __future__ import annotations

from datetime import datetime
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from .common import Listing, Name, NodeName, NodeNames, Record, Seconds, Timestamp

Quorum = Literal["UNTIL", "ALL_BUT"]
Exclusion = Literal["NONE", "FURTHEST", "OUTSIDE_SIGMA"]
HistoryRule = Literal["NONE", "STANDARD", "MODULE_ELIMINATION", "HYBRID"]
Collation = Literal["AGREEMENT", "MEAN", "MEAN_NEAREST_NEIGHBOR"]
FieldKind = Literal[
    "text",
    "identifier",
    "category",
    "boolean",
    "integer",
    "number",
    "time",
    "date",
    "datetime",
    "duration",
    "set",
    "list",
    "object",
]
Ties = Literal["likeliest", "open"]
Fold = Literal["case", "space", "accents"]
Percentage = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


Upper = BeforeValidator(
    lambda value: value.upper().replace("-", "_").replace(" ", "_") if isinstance(value, str) else value
)


class VoteParams(Record):
    """Parameters of a vote. `error`: relative tolerance between numbers; `scaling`: of HYBRID.

    Without `error`, the tolerance is estimated from the noise of each field, and VDX's rules take its 0.05.
    """

    model_config = ConfigDict(populate_by_name=True)

    error: float | None = Field(default=None, ge=0, lt=1, allow_inf_nan=False)
    scaling: float = Field(
        default=2,
        gt=1,
        le=1000,
        allow_inf_nan=False,
        validation_alias=AliasChoices("scaling", "soft_threshold"),
    )

    @property
    def vdx_error(self) -> float:
        """The relative tolerance of VDX's own rules; 0.05 in its specification."""
        return 0.05 if self.error is None else self.error


class FieldRule(Record):
    """How the values of a field are compared; what is not given is inferred from the values of all nodes.

    `tolerance`: values that differ by at most this agree; in the field's unit, for times and dates in seconds
    or as `10m`, `2d`. `error`: the same as a fraction of the larger value. `missing`: further texts that are
    no observation, beside the empty text, null and NA; `missing_is_value`: all of these are values like any
    other. `fold`: differences that do not count. `key`: the members that identify the entries of a list of
    objects.
    """

    type: FieldKind | None = None
    tolerance: Seconds | None = Field(default=None, ge=0, allow_inf_nan=False)
    error: float | None = Field(default=None, ge=0, lt=1, allow_inf_nan=False)
    missing: list[str] = Field(default_factory=list, max_length=100)
    missing_is_value: bool = False
    fold: list[Fold] = Field(default_factory=list, max_length=3)
    key: list[str] = Field(default_factory=list, max_length=10)


class FileRule(Record):
    """Voting rule for files whose path matches the fnmatch pattern `path`; the first matching rule applies.

    `ignore`: fields excluded from the vote and the result. `volatile`: fields that are expected to differ,
    such as the time of collection; they are copied and never count as disagreement. `atomic`: `record` takes
    whole records from one node, `field` decides field by field. `error`: tolerance for numbers, overrides
    `params.error`. `opaque`: vote on the file as a whole. `fields`: how each field is compared, by name or
    JSON pointer, in which `*` stands for any entry; `*` alone: all other fields. `fold`: what does not count
    in keys. `rows`: which records are in the result: those that most nodes have of
    those that could have seen them (`majority`), that a node has (`any`), or that at least so many have.
    """

    path: str = Field(default="*", min_length=1, max_length=1000, examples=["metrics/*.csv"])
    key: list[str] = Field(default_factory=list, max_length=50)
    ignore: list[str] = Field(default_factory=list, max_length=2000)
    volatile: list[str] = Field(default_factory=list, max_length=2000)
    atomic: Literal["field", "record"] = "field"
    error: float | None = Field(default=None, ge=0, lt=1, allow_inf_nan=False)
    opaque: bool = False
    fields: dict[str, FieldRule] = Field(default_factory=dict, max_length=2000)
    fold: list[Fold] = Field(default_factory=list, max_length=3)
    rows: Literal["majority", "any"] | Annotated[int, Field(ge=1, le=1000)] = "majority"


class VoteDefinition(Record):
    """Voting definition of a dataset. Default `quorum`: more than half of the nodes, and at least two.

    `UNTIL`: at least `quorum_percentage` of the nodes must vote; `ALL_BUT`: at most that many may be missing.
    `exclusion_threshold`: number of values (FURTHEST) or of sigmas (OUTSIDE_SIGMA). `collation`: `AGREEMENT`
    (an extension of VDX) takes the value that most nodes agree on, see docs/ground-truth.md. `deadline`: how
    long a round waits for snapshots after the first one. `groups`: nodes that are not independent of one
    another (the same site, the same source); a group has one voice. `ties`: a cell for which two values have
    as many voices gets the likeliest of them, or stays open. `memory`: learn from earlier rounds how large
    the noise of fields is, and which nodes err alike or often.
    """

    algorithm_name: str = Field(default="", max_length=200)
    quorum: Annotated[Quorum, Upper] | None = None
    quorum_percentage: Percentage | None = None
    exclusion: Annotated[Exclusion, Upper] = "NONE"
    exclusion_threshold: float = Field(default=0, ge=0, allow_inf_nan=False)
    history: Annotated[HistoryRule, Upper] = "NONE"
    params: VoteParams = Field(default_factory=VoteParams)
    collation: Annotated[Collation, Upper] = "AGREEMENT"
    bootstrapping: bool = False
    deadline: Seconds = Field(default=3600, ge=1, le=30 * 86400)
    ties: Ties = "likeliest"
    memory: bool = True
    files: list[FileRule] = Field(default_factory=list, max_length=1000)
    weights: dict[str, Annotated[float, Field(ge=1e-6, le=1e6)]] = Field(
        default_factory=dict, max_length=1000
    )
    groups: list[Annotated[list[NodeName], Field(min_length=2, max_length=1000)]] = Field(
        default_factory=list, max_length=1000
    )

    @model_validator(mode="after")
    def _quorum_is_whole(self) -> Self:
        if (self.quorum is None) != (self.quorum_percentage is None):
            raise ValueError("'quorum' and 'quorum_percentage' go together")
        return self

    def rule_for(self, path: str) -> FileRule:
        """Return the first rule that matches a file, or the default rule."""
        return next((rule for rule in self.files if fnmatchcase(path, rule.path)), FileRule())

    def needed(self, nodes: int) -> int:
        """Return how many of `nodes` must vote and attest for a result; at least 1."""
        if self.quorum is None or self.quorum_percentage is None:
            return max(nodes // 2 + 1, min(2, nodes), 1)
        share = self.quorum_percentage if self.quorum == "UNTIL" else 100 - self.quorum_percentage
        return max(-int(-nodes * share // 100), 1)


RoundPhase = Literal["open", "closed", "decided", "undecided"]
ROUND_ENDED: frozenset[RoundPhase] = frozenset({"decided", "undecided"})
Oid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$|^[0-9a-f]{64}$")]
AbstainedWhy = Literal["late", "absent", "unavailable", "rewritten", "unreadable", "failed", "left"]


class Abstention(Record):
    """Why a node abstains from a round. `unavailable`: its commit could not be fetched."""

    reason: AbstainedWhy
    detail: str = Field(default="", max_length=2000)


class Announcement(Record):
    """A node's contribution to a round, stored under its own prefix.

    Without `commit` the node abstains, for the reason given.
    """

    dataset: Name
    round: str = Field(max_length=200)
    pipeline: Name
    step: Name
    tick: Timestamp
    run: str = Field(max_length=200)
    commit: Oid | None = None
    abstains: Abstention | None = None
    announced_at: Timestamp


class Attestation(Record):
    """A node's result for one attempt of a closed round, stored under its own prefix.

    `commit`: the ground-truth commit that it computed from the commits pinned in the round; nodes that agree
    compute the same commit id. None: it could not compute because it lacks `missing`.
    """

    dataset: Name
    round: str = Field(max_length=200)
    attempt: int = Field(default=1, ge=1)
    commit: Oid | None = None
    tree: Oid | None = None
    missing: str = Field(default="", max_length=2000)
    attested_at: Timestamp


class Watermark(Record):
    """The tick up to which all rounds of a pipeline's step have ended, and when the last one ended."""

    tick: Timestamp
    ended_at: Timestamp


class SharedDataset(Record):
    """This node's participation in a shared dataset, under `keys.shared_prefix(node)` in its own store.

    `since`: earlier ticks have no rounds, since the node decided alone or had not joined yet; None: no run
    since other nodes take part. `apart`: no other node takes part any more (for example after leaving), and
    the operator has not confirmed yet that this node decides alone. `passed`: watermarks by pipeline/step, up
    to which this node has announced everything and all rounds have ended.
    """

    dataset: Name
    since: Timestamp | None = None
    apart: bool = False
    passed: dict[str, Watermark] = Field(default_factory=dict)


class Round(Record):
    """A round, stored under `keys.round(dataset, id)`."""

    dataset: Name
    id: str = Field(max_length=200)
    pipeline: Name
    step: Name
    tick: Timestamp
    nodes: NodeNames = Field(min_length=1)  # the electorate: the dataset's nodes
    definition: VoteDefinition = Field(default_factory=VoteDefinition)
    phase: RoundPhase = "open"
    opened_by: NodeName
    opened_at: Timestamp
    deadline: Timestamp
    # closed
    attempt: int = Field(default=1, ge=1)  # incremented when ground truth has moved and nodes compute again
    closed_by: NodeName | None = None
    closed_at: Timestamp | None = None
    base: Oid | None = None  # parent of the new ground-truth commit
    commits: dict[NodeName, Oid] = Field(default_factory=dict)
    abstained: dict[NodeName, Abstention] = Field(default_factory=dict)
    # decided or undecided
    ended_at: Timestamp | None = None
    commit: Oid | None = None
    tree: Oid | None = None
    attested: list[NodeName] = Field(default_factory=list)
    flagged: dict[NodeName, str] = Field(default_factory=dict, max_length=1000)  # suspected fault by node
    reason: str | None = Field(default=None, max_length=2000)

    @property
    def needed(self) -> int:
        """Number of nodes that must submit a snapshot."""
        return self.definition.needed(len(self.nodes))

    @property
    def to_attest(self) -> int:
        """Number of nodes that must attest; at least a majority, whatever the definition says."""
        return max(self.needed, majority_count(len(self.nodes)))

    def changed(self, **changes: Any) -> Round:
        return self.model_copy(update=changes)


def majority_count(nodes: int) -> int:
    """Return the smallest majority of `nodes`."""
    return nodes // 2 + 1


def round_id(tick: datetime, pipeline: str, step: str) -> str:
    """Return the id of the round for a step and tick; the same on all nodes, sorted by tick."""
    return f"{tick:%Y%m%dT%H%M%SZ}-{pipeline}-{step}"


class LiveRound(Round):
    """A round with each node's announcement and attestation.

    `needed_nodes`: number of nodes that must submit a snapshot and attest the same commit. `announced`,
    `computed`: commits by node, null if a node abstains or could not compute. `silent`: nodes without an
    announcement. `missing`: what nodes that could not compute lack. `waits_for`: the round that must end
    before this one can be closed.
    """

    needed_nodes: int
    announced: dict[NodeName, str | None]
    silent: list[NodeName]
    computed: dict[NodeName, str | None]
    missing: dict[NodeName, str]
    waits_for: str | None = None


class LiveRounds(Listing[LiveRound]):
    """A list of rounds. `waiting`: number of this node's announcements (for that dataset) still pending."""

    waiting: int = 0
