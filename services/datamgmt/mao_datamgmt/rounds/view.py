"""What a node knows about a dataset's rounds when it decides, and the possible actions.

Any member can write any time into a round's record, so a node records by its own clock when it first saw a
round open and close.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from mao_shared.models import Announcement, Attestation, Dataset, Round, VoteDefinition
from mao_shared.reconcile import Mirror
from mao_shared.store import Check, Stored

from .peer_records import current_attestations

MAX_EXTENSIONS = 3  # resets of a round after which it gets no more time, so that it cannot last for ever


class RoundIndex:
    """The mirror of all rounds, by dataset. Made before others subscribe to the mirror."""

    def __init__(self, mirror: Mirror[Round]) -> None:
        self.mirror = mirror
        self._rounds: dict[str, dict[str, Stored[Round]]] = {}
        self._on_removed: list[Callable[[Round], None]] = []
        self._on_first: list[Callable[[str], None]] = []
        for name, _ in mirror.items():
            self._changed(name)
        mirror.subscribe(self._changed)

    def of(self, dataset: str) -> dict[str, Stored[Round]]:
        """Return a copy of the dataset's rounds by id."""
        return dict(self._rounds.get(dataset, {}))

    def datasets(self) -> list[str]:
        """Return the datasets that have rounds."""
        return list(self._rounds)

    def on_removed(self, callback: Callable[[Round], None]) -> None:
        """Calls `callback` with each round that is removed from the store, as it was last."""
        self._on_removed.append(callback)

    def on_first(self, callback: Callable[[str], None]) -> None:
        """Calls `callback` with the name of a dataset that gets its first round."""
        self._on_first.append(callback)

    def _changed(self, name: str) -> None:
        dataset, _, round_id = name.partition("/")
        stored = self.mirror.get(name)
        if stored is not None:
            is_first = dataset not in self._rounds
            self._rounds.setdefault(dataset, {})[round_id] = stored
            for callback in self._on_first if is_first else ():
                callback(dataset)
            return
        rounds = self._rounds.get(dataset, {})
        removed = rounds.pop(round_id, None)
        if not rounds:
            self._rounds.pop(dataset, None)
        if removed is not None:
            for notify in self._on_removed:
                notify(removed.record)


@dataclass(slots=True)
class _FirstSeen:
    """`closed`: the attempt, and when it was first seen closed."""

    opened: datetime | None
    attempt: int = 1
    extensions: int = 0
    closed: tuple[int, datetime] | None = None


class FirstSeenTimes:
    """Records when this node first saw rounds open and close, by its clock `now`.

    Kept in memory only: rounds from before the process started count as not seen. `is_settled`: returns
    whether changes that arrive now have just happened. The `note_*` methods must be called as they arrive.
    """

    def __init__(self, now: Callable[[], datetime], is_settled: Callable[[], bool]) -> None:
        self._now, self._is_settled = now, is_settled
        self._times: defaultdict[str, dict[str, _FirstSeen]] = defaultdict(dict)

    def _moment(self) -> datetime | None:
        return self._now() if self._is_settled() else None

    def note_announced(self, dataset: str, round_id: str) -> None:
        """Note that a node has written a record about a round."""
        if round_id not in self._times[dataset]:
            self._times[dataset][round_id] = _FirstSeen(self._moment())

    def note_record(self, round_: Round) -> None:
        """Note that a round's record has changed."""
        known = self._times[round_.dataset].get(round_.id)
        if known is None:
            known = self._times[round_.dataset][round_.id] = _FirstSeen(self._moment(), round_.attempt)
        elif round_.phase == "open" and round_.attempt > known.attempt and known.extensions < MAX_EXTENSIONS:
            known.opened = self._moment()
            known.extensions += 1
        known.attempt = max(known.attempt, round_.attempt)
        if round_.phase == "closed" and (known.closed is None or known.closed[0] != round_.attempt):
            known.closed = round_.attempt, self._now()

    def retain(self, dataset: str, round_ids: Collection[str]) -> None:
        """Forget all other rounds of the dataset."""
        for gone in self._times[dataset].keys() - set(round_ids):
            del self._times[dataset][gone]

    def opened(self, dataset: str) -> dict[str, datetime]:
        """Round → when it began, of those that this node has seen begin."""
        return {each: seen.opened for each, seen in self._times[dataset].items() if seen.opened is not None}

    def closed(self, dataset: str) -> dict[str, datetime]:
        """Round → when it was first seen closed in its last attempt."""
        return {
            each: seen.closed[1]
            for each, seen in self._times[dataset].items()
            if seen.closed is not None and seen.closed[0] == seen.attempt
        }


@dataclass(frozen=True)
class RoundView:
    """One dataset's rounds as `node` knows them.

    `grace_until`: until then no deadline counts, since the store was away shortly before. `dataset`: its
    `nodes` are the voters. `definitions`: by which this node's operator agreed to vote. `opened_at`: round →
    when this node saw it begin; absent where it may have missed that. `closed_at`: round → when this node saw
    its present attempt closed. `unreadable`: key → revision of peer records that cannot be read.
    """

    node: str
    now: datetime
    grace_until: datetime
    dataset: Dataset | None
    definitions: Sequence[VoteDefinition]
    rounds: Mapping[str, Stored[Round]]
    announced: Mapping[str, Mapping[str, Stored[Announcement]]] = field(default_factory=dict)
    attested: Mapping[str, Mapping[str, Stored[Attestation]]] = field(default_factory=dict)
    unreadable: Mapping[str, int] = field(default_factory=dict)
    opened_at: Mapping[str, datetime] = field(default_factory=dict)
    closed_at: Mapping[str, datetime] = field(default_factory=dict)

    @property
    def voters(self) -> set[str]:
        return set() if self.dataset is None else set(self.dataset.nodes)

    def announcements(self, round_: Round) -> Mapping[str, Stored[Announcement]]:
        """All announcements for the round, by node."""
        return self.announced.get(round_.id, {})

    def attestations(self, round_: Round) -> dict[str, Attestation]:
        """The attestations of the round's nodes for its present attempt."""
        return current_attestations(round_, self.attested.get(round_.id, {}))


@dataclass(frozen=True, slots=True)
class OpenRound:
    round: Round


@dataclass(frozen=True, slots=True)
class CloseRound:
    """Pin what the nodes have announced, after a look at the dataset's remote."""

    stored: Stored[Round]


@dataclass(frozen=True, slots=True)
class AttestRound:
    """Check the pins, compute the vote and publish the result.

    If not `agreed`, publish instead that the operator has not agreed to the definition.
    """

    stored: Stored[Round]
    agreed: bool = True


@dataclass(frozen=True, slots=True)
class DeliverRound:
    """Move ground truth at the remote to the commit that a quorum attests, then record it as decided."""

    stored: Stored[Round]


@dataclass(frozen=True, slots=True)
class RecheckRound:
    """Read a round's attestations from the store; reset it if it is recorded as decided without them."""

    stored: Stored[Round]


@dataclass(frozen=True, slots=True)
class UpdateRound:
    """Write the round's next record, guarded by its revision and `checks`. `fault`: of the old record."""

    stored: Stored[Round]
    round: Round
    checks: Sequence[Check] = ()
    fault: str = ""


Action = OpenRound | CloseRound | AttestRound | DeliverRound | RecheckRound | UpdateRound


@dataclass(frozen=True)
class RoundDecision:
    """What to do now. `again`: seconds until the next pass. `violations`: round, and node → what it did."""

    actions: list[Action] = field(default_factory=list)
    again: float | None = None
    violations: list[tuple[Round, dict[str, str]]] = field(default_factory=list)
