"""Round: one vote over the nodes' snapshots of one dataset for one tick.

open ──(all have announced, or the deadline)──► closed ──(a quorum attests the same commit)──► decided
  └─(too few snapshots at the deadline)─► undecided ◄─(no quorum attests within the deadline)─┘

What a node says of a round lies under its own prefix, where nobody else can write (Announcement,
Attestation). The Round itself is shared: whoever sees that it can move, moves it by compare-and-swap, and
everybody checks what it pins against what the nodes themselves have announced.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from .common import Name, NodeName, NodeNames, Record, Timestamp
from .round import VoteDefinition

RoundPhase = Literal["open", "closed", "decided", "undecided"]
ROUND_ENDED: frozenset[RoundPhase] = frozenset({"decided", "undecided"})
Oid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$|^[0-9a-f]{64}$")]
AbstainedWhy = Literal["late", "absent", "unavailable", "rewritten", "unreadable", "failed", "left"]


class Abstention(Record):
    """Why a node has no voice in a round. `unavailable`: its commit could not be had."""

    reason: AbstainedWhy
    detail: str = Field(default="", max_length=2000)


class Announcement(Record):
    """Under the node's own prefix: what it brings to a round; without `commit` it abstains, and says why."""

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

    `commit` is the ground-truth commit it would make: all of it is derived from what the round pins, so
    that all who agree make the same. None: it could not compute, `missing` says for the lack of what.
    """

    dataset: Name
    round: str = Field(max_length=200)
    attempt: int = Field(default=1, ge=1)
    commit: Oid | None = None
    tree: Oid | None = None
    missing: str = Field(default="", max_length=2000)
    attested_at: Timestamp


class Passage(Record):
    """The latest tick of rounds that have ended, and the latest end of one."""

    tick: Timestamp
    ended_at: Timestamp


class Shared(Record):
    """Stored in the node's own store under `keys.shared_prefix(node)` + dataset.

    Ticks before `since` have no rounds: the node alone decided its ground truth, or had not joined yet. None:
    the node has run nothing for it since others take part.
    `apart`: nobody else takes part any more, say after the node has left; its operator has not said yet that
    it may decide alone. `passed`: by pipeline/step, until where all was said here and the rounds have ended.
    """

    dataset: Name
    since: Timestamp | None = None
    apart: bool = False
    passed: dict[str, Passage] = Field(default_factory=dict)


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
    attempt: int = Field(default=1, ge=1)  # grows when ground truth had moved and all is computed anew
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
    flagged: dict[NodeName, str] = Field(default_factory=dict, max_length=1000)  # who was said to do what
    reason: str | None = Field(default=None, max_length=2000)

    @property
    def needed(self) -> int:
        """How many nodes must bring a snapshot."""
        return self.definition.needed(len(self.nodes))

    @property
    def to_attest(self) -> int:
        """How many nodes must attest: never fewer than most of them, whatever the definition says."""
        return max(self.needed, most_of(len(self.nodes)))

    def changed(self, **changes: Any) -> Round:
        return self.model_copy(update=changes)


def most_of(nodes: int) -> int:
    """More than half of so many nodes."""
    return nodes // 2 + 1


def round_id(tick: datetime, pipeline: str, step: str) -> str:
    """The id of the round for a step's output of one tick, the same on all nodes; sorts by tick."""
    return f"{tick:%Y%m%dT%H%M%SZ}-{pipeline}-{step}"
