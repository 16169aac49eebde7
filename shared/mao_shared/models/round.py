"""Rounds: how a dataset's ground truth is voted, and one vote over the nodes' snapshots for one tick.

open ──(all have announced, or the deadline)──► closed ──(a quorum attests the same commit)──► decided
  └─(too few snapshots at the deadline)─► undecided ◄─(no quorum attests within the deadline)─┘

What a node says of a round is stored under its own prefix, where nobody else can write (Announcement,
Attestation). The Round itself is shared: whichever node sees that it can move moves it by compare-and-swap,
and all check what it pins against what the nodes have announced.

VDX is the voting definition specification of the literature (EcePanos/vdx); its words and defaults are kept.
What it does not have (files, record keys, exact values) has fields of its own.
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
Percentage = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


Upper = BeforeValidator(
    lambda value: value.upper().replace("-", "_").replace(" ", "_") if isinstance(value, str) else value
)


class VoteParams(Record):
    """`error` is relative: two numbers agree when they differ by at most this part. `scaling`: HYBRID's."""

    model_config = ConfigDict(populate_by_name=True)

    error: float = Field(default=0.05, ge=0, lt=1, allow_inf_nan=False)
    scaling: float = Field(
        default=2,
        gt=1,
        le=1000,
        allow_inf_nan=False,
        validation_alias=AliasChoices("scaling", "soft_threshold"),
    )


class FileRule(Record):
    """How files whose path matches `path` (as fnmatch, the first rule that matches counts) are voted.

    `ignore`: fields that are left out of the vote and of the result. `volatile`: fields that are expected to
    differ, such as the time of collection: they are copied and count as no disagreement. `atomic`:
    `record` takes a record whole from one node, `field` decides field by field. `error`: tolerance for
    this file's numbers in place of `params.error`. `opaque`: the file is voted as a whole.
    """

    path: str = Field(default="*", min_length=1, max_length=1000, examples=["metrics/*.csv"])
    key: list[str] = Field(default_factory=list, max_length=50)
    ignore: list[str] = Field(default_factory=list, max_length=2000)
    volatile: list[str] = Field(default_factory=list, max_length=2000)
    atomic: Literal["field", "record"] = "field"
    error: float | None = Field(default=None, ge=0, lt=1, allow_inf_nan=False)
    opaque: bool = False


class VoteDefinition(Record):
    """The vote of one dataset. Unset `quorum`: more than half of the nodes, and at least two.

    `UNTIL`: at least `quorum_percentage` of the nodes must vote; `ALL_BUT`: at most so many may be missing.
    `exclusion_threshold`: how many values (FURTHEST) or how many sigma (OUTSIDE_SIGMA).
    `collation`: `AGREEMENT` (ours) takes the value that most nodes agree on, see docs/ground-truth.md.
    `deadline`: how long a round waits for the nodes' snapshots after the first one.
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
    files: list[FileRule] = Field(default_factory=list, max_length=1000)
    weights: dict[str, Annotated[float, Field(ge=1e-6, le=1e6)]] = Field(
        default_factory=dict, max_length=1000
    )

    @model_validator(mode="after")
    def _quorum_is_whole(self) -> Self:
        if (self.quorum is None) != (self.quorum_percentage is None):
            raise ValueError("'quorum' and 'quorum_percentage' go together")
        return self

    def rule_for(self, path: str) -> FileRule:
        """Return the rule of a file; the default one where none matches."""
        return next((rule for rule in self.files if fnmatchcase(path, rule.path)), FileRule())

    def needed(self, nodes: int) -> int:
        """Return how many of `nodes` must vote (and attest) for a result, at least one."""
        if self.quorum is None or self.quorum_percentage is None:
            return max(nodes // 2 + 1, min(2, nodes), 1)
        share = self.quorum_percentage if self.quorum == "UNTIL" else 100 - self.quorum_percentage
        return max(-int(-nodes * share // 100), 1)


RoundPhase = Literal["open", "closed", "decided", "undecided"]
ROUND_ENDED: frozenset[RoundPhase] = frozenset({"decided", "undecided"})
Oid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$|^[0-9a-f]{64}$")]
AbstainedWhy = Literal["late", "absent", "unavailable", "rewritten", "unreadable", "failed", "left"]


class Abstention(Record):
    """Why a node abstains from a round. `unavailable`: its commit could not be had."""

    reason: AbstainedWhy
    detail: str = Field(default="", max_length=2000)


class Announcement(Record):
    """Under the node's own prefix: what it contributes to a round; without `commit` it abstains, with the
    reason."""

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
    """Under the node's own prefix: what it has computed for the closed round of this attempt.

    `commit` is the ground-truth commit it would make: all of it is derived from what the round pins, so that
    all that agree make the same. None: it could not compute, for lack of `missing`.
    """

    dataset: Name
    round: str = Field(max_length=200)
    attempt: int = Field(default=1, ge=1)
    commit: Oid | None = None
    tree: Oid | None = None
    missing: str = Field(default="", max_length=2000)
    attested_at: Timestamp


class Watermark(Record):
    """Up to which `tick` all rounds of a pipeline's step have ended, and when the last of them did."""

    tick: Timestamp
    ended_at: Timestamp


class SharedDataset(Record):
    """Stored in the node's own store under `keys.shared_prefix(node)` + dataset.

    Ticks before `since` have no rounds: the node alone decided its ground truth, or had not joined yet. None:
    the node has run nothing for it since others take part. `apart`: nobody else takes part any more, say
    after the node has left; its operator has not confirmed yet that it may decide alone. `passed`: by
    pipeline/step, up to which tick this node has announced everything and the rounds have ended.
    """

    dataset: Name
    since: Timestamp | None = None
    apart: bool = False
    passed: dict[str, Watermark] = Field(default_factory=dict)


class Round(Record):
    """Stored under `keys.round(dataset, id)`."""

    dataset: Name
    id: str = Field(max_length=200)
    pipeline: Name
    step: Name
    tick: Timestamp
    nodes: NodeNames = Field(min_length=1)  # who has a say: those of the dataset
    definition: VoteDefinition = Field(default_factory=VoteDefinition)
    phase: RoundPhase = "open"
    opened_by: NodeName
    opened_at: Timestamp
    deadline: Timestamp
    # closed
    attempt: int = Field(default=1, ge=1)  # grows when ground truth has moved and all is computed again
    closed_by: NodeName | None = None
    closed_at: Timestamp | None = None
    base: Oid | None = None  # the ground-truth commit it builds upon
    commits: dict[NodeName, Oid] = Field(default_factory=dict)
    abstained: dict[NodeName, Abstention] = Field(default_factory=dict)
    # decided or undecided
    ended_at: Timestamp | None = None
    commit: Oid | None = None
    tree: Oid | None = None
    attested: list[NodeName] = Field(default_factory=list)
    flagged: dict[NodeName, str] = Field(
        default_factory=dict, max_length=1000
    )  # node → what it was accused of
    reason: str | None = Field(default=None, max_length=2000)

    @property
    def needed(self) -> int:
        """How many nodes must submit a snapshot."""
        return self.definition.needed(len(self.nodes))

    @property
    def to_attest(self) -> int:
        """How many nodes must attest: never fewer than a majority, whatever the definition has."""
        return max(self.needed, majority_count(len(self.nodes)))

    def changed(self, **changes: Any) -> Round:
        return self.model_copy(update=changes)


def majority_count(nodes: int) -> int:
    """Return the smallest majority of so many nodes."""
    return nodes // 2 + 1


def round_id(tick: datetime, pipeline: str, step: str) -> str:
    """Return the id of the round for a step's output of one tick, the same on all nodes; sorts by tick."""
    return f"{tick:%Y%m%dT%H%M%SZ}-{pipeline}-{step}"


class LiveRound(Round):
    """A round and what each node has announced and attested.

    `needed_nodes`: so many must submit a snapshot and attest the same.

    `announced` and `computed` hold commits by node, null where a node abstains or could not compute.
    `silent`: nodes that have announced nothing. `missing`: what nodes lack that could not compute.
    `waits_for`: the round that has to end before this one can be closed.
    """

    needed_nodes: int
    announced: dict[NodeName, str | None]
    silent: list[NodeName]
    computed: dict[NodeName, str | None]
    missing: dict[NodeName, str]
    waits_for: str | None = None


class LiveRounds(Listing[LiveRound]):
    """`waiting`: how many announcements of this node (for the dataset asked for) are still to be made."""

    waiting: int = 0
