"""What one node knows of a dataset's rounds when it decides, and the actions that it can decide on.

Rounds in memory, found by their dataset: a look at one dataset does not go through those of all.

When a node itself heard rounds begin and saw them closed: a record's times are anybody's to write.

What one node knows of a dataset's rounds when it decides, and what it can decide to do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from mao_shared.models import Announcement, Attestation, Dataset, Round, VoteDefinition
from mao_shared.reconcile import Mirror
from mao_shared.store import Check, Stored


class RoundIndex:
    """Follows a mirror of all rounds; made before others subscribe to it, so that those see it up to date."""

    def __init__(self, mirror: Mirror[Round]) -> None:
        self._mirror = mirror
        self._of: dict[str, dict[str, Stored[Round]]] = {}
        self._subscribers: list[Callable[[Round], None]] = []
        self._of_first: list[Callable[[str], None]] = []
        for name, _ in mirror.items():
            self._changed(name)
        mirror.subscribe(self._changed)

    def of(self, dataset: str) -> dict[str, Stored[Round]]:
        """The dataset's rounds by id, as they are now: what the caller gets does not change any more."""
        return dict(self._of.get(dataset, {}))

    def datasets(self) -> list[str]:
        """Those that have rounds."""
        return list(self._of)

    def on_gone(self, callback: Callable[[Round], None]) -> None:
        """Has `callback` called with each round that goes from the store, as it was last seen."""
        self._subscribers.append(callback)

    def on_first(self, callback: Callable[[str], None]) -> None:
        """Has `callback` called with the name of a dataset that has its first round."""
        self._of_first.append(callback)

    def _changed(self, name: str) -> None:
        dataset, _, round_id = name.partition("/")
        stored = self._mirror.get(name)
        if stored is not None:
            first = dataset not in self._of
            self._of.setdefault(dataset, {})[round_id] = stored
            for told in self._of_first if first else ():
                told(dataset)
            return
        rounds = self._of.get(dataset, {})
        gone = rounds.pop(round_id, None)
        if not rounds:
            self._of.pop(dataset, None)
        if gone is not None:
            for callback in self._subscribers:
                callback(gone.record)


MAX_EXTENSIONS = (
    3  # times that a round which begins again has its whole time again: else it could go on for ever
)


@dataclass(slots=True)
class _FirstSeen:
    """`closed`: the attempt, and when it was first seen closed."""

    begun: datetime | None
    attempt: int = 1
    again: int = 0
    closed: tuple[int, datetime] | None = None


class FirstSeenTimes:
    """Of one node, by its own clock `now`. Lost with the process: what was there before counts as missed.

    `settled`: whether what is heard has happened just now. To be called as things are heard, not later.
    """

    def __init__(self, now: Callable[[], datetime], settled: Callable[[], bool]) -> None:
        self._now, self._settled = now, settled
        self._of: defaultdict[str, dict[str, _FirstSeen]] = defaultdict(dict)

    def _moment(self) -> datetime | None:
        return self._now() if self._settled() else None

    def hear(self, dataset: str, round_id: str) -> None:
        """Something was said of a round."""
        if round_id not in self._of[dataset]:
            self._of[dataset][round_id] = _FirstSeen(self._moment())

    def see(self, round_: Round) -> None:
        """A round's record has changed."""
        known = self._of[round_.dataset].get(round_.id)
        if known is None:
            known = self._of[round_.dataset][round_.id] = _FirstSeen(self._moment(), round_.attempt)
        elif round_.phase == "open" and round_.attempt > known.attempt and known.again < MAX_EXTENSIONS:
            known.begun = self._moment()
            known.again += 1
        known.attempt = max(known.attempt, round_.attempt)
        if round_.phase == "closed" and (known.closed is None or known.closed[0] != round_.attempt):
            known.closed = round_.attempt, self._now()

    def keep(self, dataset: str, rounds: Collection[str]) -> None:
        """Forgets all others."""
        for gone in self._of[dataset].keys() - set(rounds):
            del self._of[dataset][gone]

    def begun(self, dataset: str) -> dict[str, datetime]:
        """Round → when it began, of those that this node has heard begin."""
        return {each: seen.begun for each, seen in self._of[dataset].items() if seen.begun is not None}

    def closed(self, dataset: str) -> dict[str, datetime]:
        """Round → when it was first seen closed in its last attempt."""
        found = self._of[dataset].items()
        return {
            each: seen.closed[1]
            for each, seen in found
            if seen.closed is not None and seen.closed[0] == seen.attempt
        }


@dataclass(frozen=True)
class RoundView:
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
class OpenRound:
    round: Round


@dataclass(frozen=True, slots=True)
class CloseRound:
    """Pin what the nodes have announced; needs a look at the dataset's remote."""

    stored: Stored[Round]


@dataclass(frozen=True, slots=True)
class AttestRound:
    """Check what is pinned, compute it, and say the result; or that the operator has not agreed to it."""

    stored: Stored[Round]
    agreed: bool = True


@dataclass(frozen=True, slots=True)
class DeliverRound:
    """Move ground truth at the remote to the commit that a quorum attests, then note that it is decided."""

    stored: Stored[Round]


@dataclass(frozen=True, slots=True)
class RecheckRound:
    """It is said to have ended, and what the nodes say does not bear that out: read all anew."""

    stored: Stored[Round]


@dataclass(frozen=True, slots=True)
class UpdateRound:
    """The round's next document; `checks` must hold besides its revision. `doubt`: what was not so before."""

    stored: Stored[Round]
    round: Round
    checks: Sequence[Check] = ()
    doubt: str = ""


Action = OpenRound | CloseRound | AttestRound | DeliverRound | RecheckRound | UpdateRound


@dataclass(frozen=True)
class RoundDecision:
    """`again`: seconds until time itself changes something. `caught`: of a round, who did what."""

    actions: list[Action] = field(default_factory=list)
    again: float | None = None
    caught: list[tuple[Round, dict[str, str]]] = field(default_factory=list)
