"""What to do next about a dataset's rounds: pure, from what lies in the federation's store and the time.

The phases and who writes what are in mao_shared/models/round.py. Every node decides for itself; what two of
them do at once is settled by the guard of each write. What is seen may lag behind the store, so a write that
rests on somebody's silence carries the revisions of all that it rests on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from mao_shared import keys
from mao_shared.models import Abstention, Announcement, Attestation, Dataset, Round
from mao_shared.models.round import ROUND_ENDED, most_of
from mao_shared.store import Check, Stored

from .validation import (
    PEER_RECORDS_KEPT,
    announcement_period,
    closed_early,
    is_attested,
    pins_each_node_once,
    repaired,
    reset,
)
from .view import (
    Action,
    AttestRound,
    CloseRound,
    DeliverRound,
    OpenRound,
    RecheckRound,
    RoundDecision,
    RoundView,
    UpdateRound,
)

MAX_TICK_AGE = timedelta(days=30)  # age of a tick beyond which nobody opens its round any more
ATTEST_RETRY = 10.0  # seconds between two tries to attest what could not be computed
MIN_ATTEST_TIME = timedelta(minutes=5)  # for computing and attesting, however short the wait for snapshots is
PATIENCE_FACTOR = 10  # deadlines that a round waits for nodes which say that they cannot compute it yet
MIN_PATIENCE = timedelta(days=1)
MAX_ATTEMPTS = 20  # of one round; each says why in `flagged` or by another `base`
MAX_CHECKS = 120  # keys that one write can rest on
NO_QUORUM = "no quorum: "  # begins what is said in `missing` where the snapshots themselves are too few
NO_OTHER_VOTER = "nobody else is left to vote"
RECHECKED_FOR = PEER_RECORDS_KEPT - timedelta(
    hours=1
)  # nodes' clocks differ, and each clears away by its own
INCOMPLETE_CLOSE = "was closed without saying of each of its nodes once what it brings"
EARLY_CLOSE = "was closed before its time, without nodes that still had some"


def decide(seen: RoundView) -> RoundDecision:
    """All that can be done now, the oldest round first."""
    actions: list[Action] = [OpenRound(each) for each in _to_open(seen)]
    waits: list[float] = []
    caught: list[tuple[Round, dict[str, str]]] = []
    ordered = sorted(
        filter(is_relevant(seen), seen.rounds.values()), key=lambda each: round_order(each.record)
    )
    live = [each for each in ordered if each.record.phase not in ROUND_ENDED]
    for stored in ordered:
        right = _repair(seen, stored)
        if right is not None:
            actions.append(right)
            continue
        if seen.me not in stored.record.nodes:
            continue
        if others := _dissenters(seen, stored.record):
            caught.append((stored.record, others))
        action, wait = _next(seen, stored, live, others)
        actions += [] if action is None else [action]
        waits += [] if wait is None else [max(wait, 0.0)]
    return RoundDecision(actions, min(waits, default=None), caught)


def is_relevant(seen: RoundView) -> Callable[[Stored[Round]], bool]:
    """Which rounds there is anything to decide about: those that go on, or that nodes still speak of."""
    return lambda each: (
        each.record.phase not in ROUND_ENDED
        or each.record.id in seen.announced
        or each.record.id in seen.attested
    )


def _repair(seen: RoundView, stored: Stored[Round]) -> UpdateRound | RecheckRound | None:
    """Any member can write any round: one that is not as its dataset has it begins again."""
    round_, dataset = stored.record, seen.dataset
    if dataset is None or seen.me not in dataset.nodes:
        return None
    if seen.voters == {seen.me}:
        live = round_.phase not in ROUND_ENDED
        return UpdateRound(stored, ended_undecided(round_, seen.now, NO_OTHER_VOTER)) if live else None
    if round_.phase in ROUND_ENDED:
        return RecheckRound(stored) if lacks_attestations(seen, round_) else None
    if closed_early(seen, stored):
        return UpdateRound(stored, reset(round_, dataset, seen.now), doubt=EARLY_CLOSE)
    right = repaired(round_, dataset, seen.now)
    if right is None:
        return None
    unsound = round_.phase == "closed" and not pins_each_node_once(round_)
    return UpdateRound(stored, right, doubt=INCOMPLETE_CLOSE if unsound else "")


def depends_on_voters(action: Action) -> bool:
    """Whether an action undoes or completes what others do, by who has a say."""
    if isinstance(action, UpdateRound):
        return action.round.phase == "open"
    return isinstance(action, (DeliverRound, RecheckRound))


def lacks_attestations(seen: RoundView, round_: Round) -> bool:
    """Whether a round is said to be decided that nodes have announced for and that too few attest.

    What nodes have said of it stays for `SAID_FOR` after its end, so nothing is known of older ones.
    """
    if round_.phase != "decided" or seen.now - round_.tick > RECHECKED_FOR:
        return False
    said = {node for node, each in seen.said(round_).items() if each.record.commit is not None} & seen.voters
    enough = len(said) >= most_of(len(seen.voters))
    return enough and not is_attested(round_, seen.votes(round_))


def round_order(round_: Round) -> tuple[datetime, str]:
    """Rounds of a dataset are decided in this order."""
    return round_.tick, round_.id


def _to_open(seen: RoundView) -> list[Round]:
    dataset = seen.dataset
    if dataset is None or seen.me not in dataset.nodes or len(set(dataset.nodes)) < 2:
        return []
    firsts = [
        first
        for name, said in seen.announced.items()
        if name not in seen.rounds and (first := _first(said, dataset.nodes)) is not None
    ]
    young = [each for each in firsts if seen.now - each.tick < MAX_TICK_AGE]
    return [_opened(seen, dataset, each) for each in sorted(young, key=lambda each: (each.tick, each.round))]


def _first(said: Mapping[str, Stored[Announcement]], nodes: Sequence[str]) -> Announcement | None:
    """The announcement that opens a round: one that brings a commit."""
    bring = [said[node].record for node in nodes if node in said and said[node].record.commit is not None]
    return min(bring, key=lambda each: each.announced_at, default=None)


def _opened(seen: RoundView, dataset: Dataset, first: Announcement) -> Round:
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
    seen: RoundView, stored: Stored[Round], live: Sequence[Stored[Round]], caught: Mapping[str, str]
) -> tuple[Action | None, float | None]:
    round_ = stored.record
    if round_.phase == "open":
        return _next_open(seen, stored, live)
    if round_.phase == "closed" and round_.commit is None:
        return _next_closed(seen, stored)
    if caught.keys() - round_.flagged.keys():
        return UpdateRound(stored, round_.changed(flagged={**round_.flagged, **caught})), None
    return (DeliverRound(stored), None) if round_.phase == "closed" else (None, None)


# open


def _next_open(
    seen: RoundView, stored: Stored[Round], live: Sequence[Stored[Round]]
) -> tuple[Action | None, float | None]:
    round_ = stored.record
    said = seen.said(round_)
    due = late_after(seen, round_)
    if any(node not in said for node in round_.nodes) and seen.now < due:
        return None, (due - seen.now).total_seconds()
    voices = _snapshot_count(seen, round_)
    if voices < round_.needed:
        silent = abstentions(round_, said)
        reason = f"{_quorum_text(round_, voices)}{_abstentions_text(silent)}"
        ended = ended_undecided(round_.changed(abstained=silent), seen.now, reason)
        return UpdateRound(stored, ended, announcement_checks(round_, said, seen.garbled)), None
    if _blocked(seen, round_, live):
        return None, None
    return CloseRound(stored), None


def late_after(seen: RoundView, round_: Round) -> datetime:
    """When nodes that have said nothing are late: by this node's own clock, if it heard the round begin."""
    begun = seen.since.get(round_.id)
    return max(round_.deadline if begun is None else begun + announcement_period(round_), seen.patient)


def _snapshot_count(seen: RoundView, round_: Round) -> int:
    said = seen.said(round_)
    return sum(node in said and said[node].record.commit is not None for node in round_.nodes)


def _blocked(seen: RoundView, round_: Round, live: Sequence[Stored[Round]]) -> bool:
    """Whether another round of the dataset has to end first: one that is closed, or an earlier one.

    A round in which this node has no say is none that it waits for. Neither is one that cannot come to
    anything any more: nodes announce in the order of the ticks, so nobody holds rounds up with invented ones.

    Of two that have their quorum of snapshots the one goes first that had it first. In a dataset that several
    steps write, what a step brings that had to wait is later on the nodes' branches than what was observed
    meanwhile, for a later tick; decided in its tick's order, it would make those snapshots outdated.
    """
    due, since = late_after(seen, round_), _quorum_since(seen, round_)

    def goes_first(other: Round) -> bool:
        theirs = _quorum_since(seen, other)
        if since is not None and theirs is not None:
            return (theirs, round_order(other)) < (since, round_order(round_))
        if round_order(other) >= round_order(round_):
            return False
        hopeful = late_after(seen, other) <= due and _reachable_snapshots(seen, other, round_) >= other.needed
        return hopeful or theirs is not None

    others = (each.record for each in live if each.record.id != round_.id and seen.me in each.record.nodes)
    return any(other.phase == "closed" or goes_first(other) for other in others)


def _quorum_since(seen: RoundView, round_: Round) -> int | None:
    """Revision at which enough nodes had brought a snapshot; None while they have not."""
    said = seen.said(round_)
    brought = sorted(
        said[node].revision for node in round_.nodes if node in said and said[node].record.commit is not None
    )
    return brought[round_.needed - 1] if len(brought) >= round_.needed else None


def _reachable_snapshots(seen: RoundView, earlier: Round, later: Round) -> int:
    """How many nodes have brought a snapshot to the earlier round, or may still do so."""
    said, after = seen.said(earlier), seen.said(later)
    return sum(
        said[node].record.commit is not None if node in said else node not in after for node in earlier.nodes
    )


NOT_ANNOUNCED = Abstention(reason="late", detail="it had said nothing when the round was closed")


def abstentions(round_: Round, said: Mapping[str, Stored[Announcement]]) -> dict[str, Abstention]:
    """Why each node that brings no commit brings none."""
    without = (node for node in round_.nodes if node not in said or said[node].record.commit is None)
    return {node: (said[node].record.abstains if node in said else None) or NOT_ANNOUNCED for node in without}


def announcement_checks(
    round_: Round, said: Mapping[str, Stored[Announcement]], garbled: Mapping[str, int]
) -> list[Check]:
    """That the nodes have said this and no more."""
    return [
        _check(keys.announcement(node, round_.dataset, round_.id), said.get(node), garbled)
        for node in round_.nodes[:MAX_CHECKS]
    ]


def _check(
    key: str, there: Stored[Announcement] | Stored[Attestation] | None, garbled: Mapping[str, int]
) -> Check:
    return Check(key, garbled.get(key, 0) if there is None else there.revision)


def ended_undecided(round_: Round, now: datetime, reason: str) -> Round:
    """The round's end without a result."""
    return round_.changed(
        phase="undecided", ended_at=now, commit=None, tree=None, attested=[], reason=reason[:2000]
    )


def _quorum_text(round_: Round, voices: int) -> str:
    return f"{voices} of {len(round_.nodes)} nodes brought a snapshot, {round_.needed} are needed"


def quorum_missing(round_: Round, commits: Mapping[str, str], silent: Mapping[str, Abstention]) -> str | None:
    """Why so few snapshots decide nothing; None when they are enough."""
    return (
        None
        if len(commits) >= round_.needed
        else f"{_quorum_text(round_, len(commits))}{_abstentions_text(silent)}"
    )


def _abstentions_text(silent: Mapping[str, Abstention]) -> str:
    words = [f"{node}: {each.reason}, {each.detail}" for node, each in sorted(silent.items())]
    return f" ({'; '.join(words)})" if words else ""


# closed


def _next_closed(seen: RoundView, stored: Stored[Round]) -> tuple[Action | None, float | None]:
    round_ = stored.record
    votes = seen.votes(round_)
    counts = Counter(vote.commit for vote in votes.values() if vote.commit is not None)
    for commit, count in counts.items():
        if count >= round_.to_attest:
            return UpdateRound(stored, with_agreed_commit(round_, votes, commit)), None
    reason, wait = _no_agreement(seen, round_, votes, counts)
    if reason is not None:
        ended = ended_undecided(round_, seen.now, reason)
        return UpdateRound(stored, ended, _vote_checks(seen, round_)), None
    mine, attest = votes.get(seen.me), AttestRound(stored, round_.definition in seen.agreed)
    if mine is None:
        return attest, None
    if mine.commit is None:
        pause = ATTEST_RETRY - (seen.now - mine.attested_at).total_seconds()
        return (attest, None) if pause <= 0 else (None, min(pause, ATTEST_RETRY))
    return None, wait


def with_agreed_commit(round_: Round, votes: Mapping[str, Attestation], commit: str) -> Round:
    """The round with what a quorum attests; from here on only its delivery is left."""
    those = sorted(node for node, vote in votes.items() if vote.commit == commit)
    return round_.changed(commit=commit, tree=votes[those[0]].tree, attested=those)


def _no_agreement(
    seen: RoundView, round_: Round, votes: Mapping[str, Attestation], counts: Mapping[str, int]
) -> tuple[str | None, float | None]:
    """Why there will be no quorum of attestations, or seconds until that has to be asked again."""
    silent = [node for node in round_.nodes if node not in votes or votes[node].commit is None]
    if round_.attempt > MAX_ATTEMPTS:
        return f"it was closed {round_.attempt - 1} times and never held", None
    if max(counts.values(), default=0) + len(silent) < round_.to_attest:
        return f"the nodes computed different results: {_results(votes)}", None
    lacking = [vote.missing for vote in votes.values() if vote.commit is None]
    few = [words for words in lacking if words.startswith(NO_QUORUM)]
    if len(few) >= round_.to_attest:
        return few[0], None
    closed = seen.closed.get(round_.id)
    due = max(attested_by(round_, closed, patiently=bool(lacking)), seen.patient)
    if seen.now < due:
        return None, (due - seen.now).total_seconds()
    words = f"{max(counts.values(), default=0)} of {len(round_.nodes)} nodes attested the same result in time"
    return f"{words}, {round_.to_attest} are needed; without any: {', '.join(silent)}", None


def attested_by(round_: Round, closed: datetime | None = None, *, patiently: bool = False) -> datetime:
    """Until when a quorum has to attest a closed round. `closed`: when this node saw it closed."""
    time = max(announcement_period(round_), MIN_ATTEST_TIME)
    if patiently:
        time = max(time * PATIENCE_FACTOR, MIN_PATIENCE)
    return (closed or round_.closed_at or round_.opened_at) + time


def _results(votes: Mapping[str, Attestation]) -> str:
    return ", ".join(f"{node} {(vote.commit or 'none')[:10]}" for node, vote in sorted(votes.items()))


def _vote_checks(seen: RoundView, round_: Round) -> list[Check]:
    found = seen.attested.get(round_.id, {})
    return [
        _check(keys.attestation(node, round_.dataset, round_.id), found.get(node), seen.garbled)
        for node in round_.nodes[:MAX_CHECKS]
    ]


def _dissenters(seen: RoundView, round_: Round) -> dict[str, str]:
    """Nodes that attested something else than the quorum did.

    Whose word this rests on is what nodes say under their own names: anybody can write into the round.
    """
    if round_.commit is None:
        return {}
    votes = seen.votes(round_)
    those = sorted(node for node, vote in votes.items() if vote.commit == round_.commit)
    if len(those) < round_.to_attest:
        return {}
    return {
        node: f"it computed {(vote.commit or '')[:10]} where {', '.join(those)} computed "
        f"{(round_.commit or '')[:10]}"
        for node, vote in votes.items()
        if vote.commit not in (None, round_.commit)
    }
