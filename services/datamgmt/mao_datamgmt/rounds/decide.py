"""What to do next about a dataset's rounds: pure, from what lies in the federation's store and the time.

The phases and who writes what are in mao_shared/models/round.py. Every node decides for itself; what two of
them do at once is settled by the guard of each write. What is seen may lag behind the store, so a write that
rests on somebody's silence carries the revisions of all that it rests on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mao_shared import keys
from mao_shared.models import Abstention, Announcement, Attestation, Dataset, Round, VoteDefinition
from mao_shared.models.round import ROUND_ENDED
from mao_shared.store import Check, Stored

from .founded import mended, names_itself

OPENS_WITHIN = timedelta(days=30)  # age of a tick beyond which nobody opens its round any more
RETRY = 10.0  # seconds between two tries to attest what could not be computed
LEAST_SPAN = timedelta(minutes=5)  # for computing and attesting, however short the wait for snapshots is
PATIENCE = 10  # deadlines that a round waits for nodes which say that they cannot compute it yet
LEAST_PATIENCE = timedelta(days=1)
MAX_ATTEMPTS = 20  # of one round; each says why in `flagged` or by another `base`
MAX_CHECKS = 120  # keys that one write can rest on
NO_QUORUM = "no quorum: "  # begins what is said in `missing` where the snapshots themselves are too few


@dataclass(frozen=True)
class Seen:
    """One dataset. `patient`: until then no deadline counts, since the store was away not long ago."""

    me: str
    now: datetime
    patient: datetime
    dataset: Dataset | None
    agreed: Sequence[VoteDefinition]  # by which this node's operator lets it vote
    rounds: Mapping[str, Stored[Round]]
    announced: Mapping[str, Mapping[str, Stored[Announcement]]] = field(default_factory=dict)
    attested: Mapping[str, Mapping[str, Stored[Attestation]]] = field(default_factory=dict)

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
class Write:
    """The round's next document; `checks` must hold besides its revision."""

    stored: Stored[Round]
    round: Round
    checks: Sequence[Check] = ()


Action = Open | Close | Attest | Deliver | Write


@dataclass(frozen=True)
class Decision:
    """`again`: seconds until time itself changes something."""

    actions: list[Action] = field(default_factory=list)
    again: float | None = None


def decide(seen: Seen) -> Decision:
    """All that can be done now, the oldest round first."""
    actions: list[Action] = [Open(each) for each in _to_open(seen)]
    waits: list[float] = []
    ordered = sorted(seen.rounds.values(), key=lambda each: place(each.record))
    live = [each for each in ordered if each.record.phase not in ROUND_ENDED]
    for stored in ordered:
        right = _put_right(seen, stored)
        if right is not None:
            actions.append(right)
            continue
        if seen.me not in stored.record.nodes or not names_itself(stored.record):
            continue
        action, wait = _next(seen, stored, live)
        actions += [] if action is None else [action]
        waits += [] if wait is None else [max(wait, 0.0)]
    return Decision(actions, min(waits, default=None))


def _put_right(seen: Seen, stored: Stored[Round]) -> Write | None:
    """Any member can write any round: one that is not as its dataset and its tick have it begins again."""
    round_, dataset = stored.record, seen.dataset
    if dataset is None or seen.me not in dataset.nodes or round_.phase in ROUND_ENDED:
        return None
    if names_itself(round_):
        right = mended(round_, dataset, seen.now)
        return None if right is None else Write(stored, right)
    first = _first(seen.announced.get(round_.id, {}), dataset.nodes)
    if first is None:
        return None
    return Write(stored, _opened(seen, dataset, first).changed(attempt=round_.attempt + 1))


def place(round_: Round) -> tuple[datetime, str]:
    """Rounds of a dataset are decided in this order."""
    return round_.tick, round_.id


def _to_open(seen: Seen) -> list[Round]:
    dataset = seen.dataset
    if dataset is None or seen.me not in dataset.nodes or len(set(dataset.nodes)) < 2:
        return []
    firsts = [
        first
        for name, said in seen.announced.items()
        if name not in seen.rounds and (first := _first(said, dataset.nodes)) is not None
    ]
    young = [each for each in firsts if seen.now - each.tick < OPENS_WITHIN]
    return [_opened(seen, dataset, each) for each in sorted(young, key=lambda each: (each.tick, each.round))]


def _first(said: Mapping[str, Stored[Announcement]], nodes: Sequence[str]) -> Announcement | None:
    """The announcement that opens a round: one that brings a commit."""
    bring = [said[node].record for node in nodes if node in said and said[node].record.commit is not None]
    return min(bring, key=lambda each: each.announced_at, default=None)


def _opened(seen: Seen, dataset: Dataset, first: Announcement) -> Round:
    fields: dict[str, object] = {} if dataset.vote is None else {"definition": dataset.vote}
    opened = Round(
        dataset=dataset.name,
        id=first.round,
        pipeline=first.pipeline,
        step=first.step,
        tick=first.tick,
        nodes=list(dict.fromkeys(dataset.nodes)),
        opened_by=seen.me,
        opened_at=seen.now,
        deadline=seen.now,
    ).changed(**fields)
    return opened.changed(deadline=seen.now + timedelta(seconds=opened.definition.deadline))


def _next(
    seen: Seen, stored: Stored[Round], live: Sequence[Stored[Round]]
) -> tuple[Action | None, float | None]:
    round_ = stored.record
    if round_.phase == "open":
        return _next_open(seen, stored, live)
    if round_.phase == "closed" and round_.commit is None:
        return _next_closed(seen, stored)
    caught = _outvoted(seen, round_) if round_.commit is not None else {}
    if caught:
        return Write(stored, round_.changed(flagged={**round_.flagged, **caught})), None
    return (Deliver(stored), None) if round_.phase == "closed" else (None, None)


# open


def _next_open(
    seen: Seen, stored: Stored[Round], live: Sequence[Stored[Round]]
) -> tuple[Action | None, float | None]:
    round_ = stored.record
    said = seen.announced.get(round_.id, {})
    due = max(round_.deadline, seen.patient)
    if any(node not in said for node in round_.nodes) and seen.now < due:
        return None, (due - seen.now).total_seconds()
    voices = [node for node in round_.nodes if node in said and said[node].record.commit is not None]
    if len(voices) < round_.needed:
        silent = silences(round_, said)
        reason = f"{_few(round_, len(voices))}{_told(silent)}"
        ended = undecided(round_.changed(abstained=silent), seen.now, reason)
        return Write(stored, ended, silence_checks(round_, said)), None
    if _blocked(seen, round_, live):
        return None, None
    return Close(stored), None


def _blocked(seen: Seen, round_: Round, live: Sequence[Stored[Round]]) -> bool:
    """Whether another round of the dataset has to end first: an earlier one, or one that is closed.

    A round in which this node has no say is none that it waits for: nobody holds it up by making one.
    """
    others = (
        each.record
        for each in live
        if each.record.id != round_.id and seen.me in each.record.nodes and names_itself(each.record)
    )
    return any(other.phase == "closed" or place(other) < place(round_) for other in others)


def silences(round_: Round, said: Mapping[str, Stored[Announcement]]) -> dict[str, Abstention]:
    """Why each node that brings no commit brings none."""
    late = Abstention(reason="late", detail="it had said nothing when the round was closed")
    without = (node for node in round_.nodes if node not in said or said[node].record.commit is None)
    return {node: (said[node].record.abstains if node in said else None) or late for node in without}


def silence_checks(round_: Round, said: Mapping[str, Stored[Announcement]]) -> list[Check]:
    """That the nodes have said this and no more."""
    return [
        Check(keys.announcement(node, round_.dataset, round_.id), said[node].revision if node in said else 0)
        for node in round_.nodes[:MAX_CHECKS]
    ]


def undecided(round_: Round, now: datetime, reason: str) -> Round:
    """The round's end without a result."""
    return round_.changed(
        phase="undecided", ended_at=now, commit=None, tree=None, attested=[], reason=reason[:2000]
    )


def _few(round_: Round, voices: int) -> str:
    return f"{voices} of {len(round_.nodes)} nodes brought a snapshot, {round_.needed} are needed"


def too_few(round_: Round, commits: Mapping[str, str], silent: Mapping[str, Abstention]) -> str | None:
    """Why so few snapshots decide nothing; None when they are enough."""
    return None if len(commits) >= round_.needed else f"{_few(round_, len(commits))}{_told(silent)}"


def _told(silent: Mapping[str, Abstention]) -> str:
    words = [f"{node}: {each.reason}, {each.detail}" for node, each in sorted(silent.items())]
    return f" ({'; '.join(words)})" if words else ""


# closed


def _next_closed(seen: Seen, stored: Stored[Round]) -> tuple[Action | None, float | None]:
    round_ = stored.record
    votes = seen.votes(round_)
    counts = Counter(vote.commit for vote in votes.values() if vote.commit is not None)
    for commit, count in counts.items():
        if count >= round_.to_attest:
            return Write(stored, agreed(round_, votes, commit)), None
    reason, wait = _hopeless(seen, round_, votes, counts)
    if reason is not None:
        ended = undecided(round_, seen.now, reason)
        return Write(stored, ended, _vote_checks(seen, round_)), None
    mine, attest = votes.get(seen.me), Attest(stored, round_.definition in seen.agreed)
    if mine is None:
        return attest, None
    if mine.commit is None:
        pause = RETRY - (seen.now - mine.attested_at).total_seconds()
        return (attest, None) if pause <= 0 else (None, min(pause, RETRY))
    return None, wait


def agreed(round_: Round, votes: Mapping[str, Attestation], commit: str) -> Round:
    """The round with what a quorum attests; from here on only its delivery is left."""
    those = sorted(node for node, vote in votes.items() if vote.commit == commit)
    flagged = dict(round_.flagged)
    for node in those:
        flagged = {**votes[node].flagged, **flagged}
    return round_.changed(commit=commit, tree=votes[those[0]].tree, attested=those, flagged=flagged)


def _hopeless(
    seen: Seen, round_: Round, votes: Mapping[str, Attestation], counts: Mapping[str, int]
) -> tuple[str | None, float | None]:
    """Why there will be no quorum of attestations, or seconds until that has to be asked again."""
    silent = [node for node in round_.nodes if node not in votes or votes[node].commit is None]
    if round_.attempt > MAX_ATTEMPTS:
        return f"it was closed {round_.attempt - 1} times and never held", None
    if max(counts.values(), default=0) + len(silent) < round_.to_attest:
        return f"the nodes computed different results: {_results(votes)}", None
    lacking = [vote.missing for vote in votes.values() if vote.commit is None]
    few = [words for words in lacking if words.startswith(NO_QUORUM)]
    if len(few) >= round_.needed:
        return few[0], None
    due = max(attested_by(round_, patiently=bool(lacking)), seen.patient)
    if seen.now < due:
        return None, (due - seen.now).total_seconds()
    words = f"{max(counts.values(), default=0)} of {len(round_.nodes)} nodes attested the same result in time"
    return f"{words}, {round_.to_attest} are needed; without any: {', '.join(silent)}", None


def attested_by(round_: Round, *, patiently: bool = False) -> datetime:
    """Until when a quorum has to attest a closed round."""
    span = max(timedelta(seconds=round_.definition.deadline), LEAST_SPAN)
    if patiently:
        span = max(span * PATIENCE, LEAST_PATIENCE)
    return (round_.closed_at or round_.opened_at) + span


def _results(votes: Mapping[str, Attestation]) -> str:
    return ", ".join(f"{node} {(vote.commit or 'none')[:10]}" for node, vote in sorted(votes.items()))


def _vote_checks(seen: Seen, round_: Round) -> list[Check]:
    found = seen.attested.get(round_.id, {})
    return [
        Check(keys.attestation(node, round_.dataset, round_.id), found[node].revision if node in found else 0)
        for node in round_.nodes[:MAX_CHECKS]
    ]


def _outvoted(seen: Seen, round_: Round) -> dict[str, str]:
    """Nodes that attested something else than the quorum did, as far as that is not noted yet.

    Whose word this rests on is what nodes say under their own names: anybody can write into the round.
    """
    votes = seen.votes(round_)
    those = sorted(node for node, vote in votes.items() if vote.commit == round_.commit)
    if len(those) < round_.to_attest:
        return {}
    return {
        node: f"it computed {(vote.commit or '')[:10]} where {', '.join(those)} computed "
        f"{(round_.commit or '')[:10]}"
        for node, vote in votes.items()
        if vote.commit not in (None, round_.commit) and node not in round_.flagged
    }
