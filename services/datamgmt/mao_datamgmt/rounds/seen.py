"""What one node knows of a dataset's rounds when it decides, and what it can decide to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from mao_shared.models import Announcement, Attestation, Dataset, Round, VoteDefinition
from mao_shared.store import Check, Stored


@dataclass(frozen=True)
class Seen:
    """One dataset. `patient`: until then no deadline counts, since the store was away not long ago.

    `since`: round → when this node heard it begin, by its own clock; none where it may have missed that.
    `closed`: round → when this node saw it closed as it is now. `garbled`: key → revision of what lies where
    a node's word on a round belongs and cannot be read.
    """

    me: str
    now: datetime
    patient: datetime
    dataset: Dataset | None  # its `nodes` are those who have a say
    agreed: Sequence[VoteDefinition]  # by which this node's operator lets it vote
    rounds: Mapping[str, Stored[Round]]
    announced: Mapping[str, Mapping[str, Stored[Announcement]]] = field(default_factory=dict)
    attested: Mapping[str, Mapping[str, Stored[Attestation]]] = field(default_factory=dict)
    garbled: Mapping[str, int] = field(default_factory=dict)
    since: Mapping[str, datetime] = field(default_factory=dict)
    closed: Mapping[str, datetime] = field(default_factory=dict)

    @property
    def voters(self) -> set[str]:
        return set() if self.dataset is None else set(self.dataset.nodes)

    def said(self, round_: Round) -> Mapping[str, Stored[Announcement]]:
        """What has been announced for the round, by whomever."""
        return self.announced.get(round_.id, {})

    def votes(self, round_: Round) -> dict[str, Attestation]:
        """What the round's nodes have attested for its present attempt."""
        found = self.attested.get(round_.id, {})
        return {
            node: found[node].record
            for node in round_.nodes
            if node in found and found[node].record.attempt == round_.attempt
        }


@dataclass(frozen=True, slots=True)
class Open:
    round: Round


@dataclass(frozen=True, slots=True)
class Close:
    """Pin what the nodes have announced; needs a look at the dataset's remote."""

    stored: Stored[Round]


@dataclass(frozen=True, slots=True)
class Attest:
    """Check what is pinned, compute it, and say the result; or that the operator has not agreed to it."""

    stored: Stored[Round]
    agreed: bool = True


@dataclass(frozen=True, slots=True)
class Deliver:
    """Move ground truth at the remote to the commit that a quorum attests, then note that it is decided."""

    stored: Stored[Round]


@dataclass(frozen=True, slots=True)
class Doubt:
    """It is said to have ended, and what the nodes say does not bear that out: read all anew."""

    stored: Stored[Round]


@dataclass(frozen=True, slots=True)
class Write:
    """The round's next document; `checks` must hold besides its revision. `doubt`: what was not so before."""

    stored: Stored[Round]
    round: Round
    checks: Sequence[Check] = ()
    doubt: str = ""


Action = Open | Close | Attest | Deliver | Doubt | Write


@dataclass(frozen=True)
class Decision:
    """`again`: seconds until time itself changes something. `caught`: of a round, who did what."""

    actions: list[Action] = field(default_factory=list)
    again: float | None = None
    caught: list[tuple[Round, dict[str, str]]] = field(default_factory=list)
