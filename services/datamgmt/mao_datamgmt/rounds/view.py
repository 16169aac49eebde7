"""The state of a dataset's rounds from which a node decides, and the possible actions.

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

MAX_EXTENSIONS = 3  # further resets of a round extend its time no more, so that it ends


class RoundIndex:
    """The mirror of all rounds, by dataset. To be created before others subscribe to the mirror."""

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
        """Call `callback` with the last record of each round that is removed from the store."""
        self._on_removed.append(callback)

    def on_first(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with the name of each dataset that gets its first round."""
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
    """When a round was first seen open, and the attempt and time when it was first seen `closed`."""

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

    def _current_time(self) -> datetime | None:
        return self._now() if self._is_settled() else None

    def note_announced(self, dataset: str, round_id: str) -> None:
        """Note that a node has written a record about a round."""
        if round_id not in self._times[dataset]:
            self._times[dataset][round_id] = _FirstSeen(self._current_time())

    def note_record(self, round_: Round) -> None:
        """Note that a round's record has changed."""
        known = self._times[round_.dataset].get(round_.id)
        if known is None:
            known = self._times[round_.dataset][round_.id] = _FirstSeen(self._current_time(), round_.attempt)
        elif round_.phase == "open" and round_.attempt > known.attempt and known.extensions < MAX_EXTENSIONS:
            known.opened = self._current_time()
            known.extensions += 1
        known.attempt = max(known.attempt, round_.attempt)
        if round_.phase == "closed" and (known.closed is None or known.closed[0] != round_.attempt):
            known.closed = round_.attempt, self._now()

    def retain(self, dataset: str, round_ids: Collection[str]) -> None:
        """Forget the dataset's other rounds."""
        for forgotten in self._times[dataset].keys() - set(round_ids):
            del self._times[dataset][forgotten]

    def opened(self, dataset: str) -> dict[str, datetime]:
        """Return when each round began, for those that this node saw begin."""
        return {
            round_id: times.opened
            for round_id, times in self._times[dataset].items()
            if times.opened is not None
        }

    def closed(self, dataset: str) -> dict[str, datetime]:
        """Return when each round was first seen closed in its current attempt."""
        return {
            round_id: times.closed[1]
            for round_id, times in self._times[dataset].items()
            if times.closed is not None and times.closed[0] == times.attempt
        }


@dataclass(frozen=True)
class RoundView:
    """One dataset's rounds as `node` knows them.

    No deadline counts until `grace_until`, after an outage of the store. The `nodes` of `dataset` are the
    voters. This node's operator agreed to `definitions`. `opened_at` has the times when this node saw rounds
    begin, without those that it may have missed; `closed_at` those when it saw the current attempt closed.
    `unreadable` has the revisions by key of unreadable peer records.
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
        """Return all announcements for the round by node."""
        return self.announced.get(round_.id, {})

    def attestations(self, round_: Round) -> dict[str, Attestation]:
        """Return the attestations of the round's nodes for its current attempt."""
        return current_attestations(round_, self.attested.get(round_.id, {}))


@dataclass(frozen=True, slots=True)
class OpenRound:
    round: Round


@dataclass(frozen=True, slots=True)
class CloseRound:
    """Pin the announced commits that the dataset's remote has."""

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
    """Move the remote's ground truth to the commit that a quorum attests, then record it as decided."""

    stored: Stored[Round]


@dataclass(frozen=True, slots=True)
class RecheckRound:
    """Read a round's attestations from the store; reset it if it is recorded as decided without them."""

    stored: Stored[Round]


@dataclass(frozen=True, slots=True)
class UpdateRound:
    """Write the round's next record, guarded by its revision and `checks`. `fault` is the old record's."""

    stored: Stored[Round]
    round: Round
    checks: Sequence[Check] = ()
    fault: str = ""


Action = OpenRound | CloseRound | AttestRound | DeliverRound | RecheckRound | UpdateRound


@dataclass(frozen=True)
class RoundDecision:
    """The actions to execute, the seconds until the next pass (`again`), and the violations by node."""

    actions: list[Action] = field(default_factory=list)
    again: float | None = None
    violations: list[tuple[Round, dict[str, str]]] = field(default_factory=list)
