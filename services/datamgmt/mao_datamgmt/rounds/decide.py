"""Decides the next actions for a dataset's rounds, from the federation store's records and the time. Pure.

The phases and their transitions are in mao_shared/models/round.py. Every node decides on its own; the guard
of each write resolves conflicts between nodes. The view may lag behind the store, so a write that relies on a
node's silence is guarded by the revisions of all records that it relies on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta

from mao_shared import keys
from mao_shared.models import Abstention, Announcement, Attestation, Dataset, Round
from mao_shared.models.round import ROUND_ENDED, majority_count
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

MAX_TICK_AGE = timedelta(days=30)  # no round is opened for an older tick
ATTEST_RETRY_SECONDS = 10.0  # between two attempts to compute and attest a round
MIN_ATTEST_TIME = timedelta(minutes=5)  # for computing and attesting, however short the deadline is
PATIENCE_FACTOR = 10  # deadlines to wait for nodes that report that they cannot compute a round yet
MIN_PATIENCE = timedelta(days=1)
MAX_ATTEMPTS = 20  # to close one round; the reason is in `flagged` or another `base`
MAX_CHECKS = 120  # keys that one write can depend on
NO_QUORUM = "no quorum: "  # prefix of `missing` if there are too few snapshots
NO_OTHER_VOTER = "no other node is left to vote"
RECHECKED_FOR = PEER_RECORDS_KEPT - timedelta(hours=1)  # nodes remove peer records by their own clocks
INCOMPLETE_CLOSE = "was closed without exactly one entry for each of its nodes"
EARLY_CLOSE = "was closed before its deadline, without nodes that still had time"
NOT_ANNOUNCED = Abstention(reason="late", detail="it had said nothing when the round was closed")


def decide(view: RoundView) -> RoundDecision:
    """Return all actions that are possible now, for the earliest round first."""
    actions: list[Action] = [OpenRound(opened) for opened in _rounds_to_open(view)]
    waits: list[float] = []
    violations: list[tuple[Round, dict[str, str]]] = []
    ordered = sorted(
        filter(is_relevant(view), view.rounds.values()), key=lambda stored: round_order(stored.record)
    )
    live = [stored for stored in ordered if stored.record.phase not in ROUND_ENDED]
    for stored in ordered:
        correction = _repair(view, stored)
        if correction is not None:
            actions.append(correction)
            continue
        if view.node not in stored.record.nodes:
            continue
        if dissenters := _dissenters(view, stored.record):
            violations.append((stored.record, dissenters))
        action, wait = _next(view, stored, live, dissenters)
        actions += [] if action is None else [action]
        waits += [] if wait is None else [max(wait, 0.0)]
    return RoundDecision(actions, min(waits, default=None), violations)


def is_relevant(view: RoundView) -> Callable[[Stored[Round]], bool]:
    """Return a predicate for rounds that need a decision: live ones, and those with peer records."""
    return lambda stored: (
        stored.record.phase not in ROUND_ENDED
        or stored.record.id in view.announced
        or stored.record.id in view.attested
    )


def _repair(view: RoundView, stored: Stored[Round]) -> UpdateRound | RecheckRound | None:
    """Reset a round that does not match its dataset, since any member can write any round."""
    round_, dataset = stored.record, view.dataset
    if dataset is None or view.node not in dataset.nodes:
        return None
    if view.voters == {view.node}:
        live = round_.phase not in ROUND_ENDED
        return UpdateRound(stored, ended_undecided(round_, view.now, NO_OTHER_VOTER)) if live else None
    if round_.phase in ROUND_ENDED:
        return RecheckRound(stored) if lacks_attestations(view, round_) else None
    if closed_early(view, stored):
        return UpdateRound(stored, reset(round_, dataset, view.now), fault=EARLY_CLOSE)
    correction = repaired(round_, dataset, view.now)
    if correction is None:
        return None
    unsound = round_.phase == "closed" and not pins_each_node_once(round_)
    return UpdateRound(stored, correction, fault=INCOMPLETE_CLOSE if unsound else "")


def depends_on_voters(action: Action) -> bool:
    """True for actions that undo or complete those of other nodes, depending on the voters."""
    if isinstance(action, UpdateRound):
        return action.round.phase == "open"
    return isinstance(action, (DeliverRound, RecheckRound))


def lacks_attestations(view: RoundView, round_: Round) -> bool:
    """True if a round is recorded as decided, and most nodes have announced to it but too few attest it.

    Peer records are removed `PEER_RECORDS_KEPT` after a round's end, so older rounds are not checked.
    """
    if round_.phase != "decided" or view.now - round_.tick > RECHECKED_FOR:
        return False
    announced = view.announcements(round_)
    with_snapshot = {
        node for node in view.voters & announced.keys() if announced[node].record.commit is not None
    }
    return len(with_snapshot) >= majority_count(len(view.voters)) and not is_attested(
        round_, view.attestations(round_)
    )


def round_order(round_: Round) -> tuple[datetime, str]:
    """Return the sort key for the order in which rounds of a dataset are decided."""
    return round_.tick, round_.id


def _rounds_to_open(view: RoundView) -> list[Round]:
    dataset = view.dataset
    if dataset is None or view.node not in dataset.nodes or len(set(dataset.nodes)) < 2:
        return []
    first_announcements: list[Announcement] = []  # for each new round the first announcement with a commit
    for round_id, announced in view.announced.items():
        if round_id in view.rounds:
            continue
        records = (announced[node].record for node in dataset.nodes if node in announced)
        with_commit = [record for record in records if record.commit is not None]
        if with_commit:
            first_announcements.append(min(with_commit, key=lambda record: record.announced_at))
    recent = [first for first in first_announcements if view.now - first.tick < MAX_TICK_AGE]
    return [
        _new_round(view, dataset, first)
        for first in sorted(recent, key=lambda first: (first.tick, first.round))
    ]


def _new_round(view: RoundView, dataset: Dataset, first: Announcement) -> Round:
    fields: dict[str, object] = {} if dataset.vote is None else {"definition": dataset.vote}
    opened = Round(
        dataset=dataset.name,
        id=first.round,
        pipeline=first.pipeline,
        step=first.step,
        tick=first.tick,
        nodes=list(dict.fromkeys(dataset.nodes)),
        opened_by=view.node,
        opened_at=view.now,
        deadline=view.now,
    ).changed(**fields)
    return opened.changed(deadline=view.now + timedelta(seconds=opened.definition.deadline))


def _next(
    view: RoundView, stored: Stored[Round], live: Sequence[Stored[Round]], dissenters: Mapping[str, str]
) -> tuple[Action | None, float | None]:
    round_ = stored.record
    if round_.phase == "open":
        return _next_open(view, stored, live)
    if round_.phase == "closed" and round_.commit is None:
        return _next_closed(view, stored)
    if dissenters.keys() - round_.flagged.keys():
        return UpdateRound(stored, round_.changed(flagged={**round_.flagged, **dissenters})), None
    return (DeliverRound(stored), None) if round_.phase == "closed" else (None, None)


# open


def _next_open(
    view: RoundView, stored: Stored[Round], live: Sequence[Stored[Round]]
) -> tuple[Action | None, float | None]:
    round_ = stored.record
    announced = view.announcements(round_)
    late_at = late_after(view, round_)
    if any(node not in announced for node in round_.nodes) and view.now < late_at:
        return None, (late_at - view.now).total_seconds()
    silent = abstentions(round_, announced)
    snapshots = {node for node in round_.nodes if node not in silent}
    if (reason := quorum_missing(round_, snapshots, silent)) is not None:
        ended = ended_undecided(round_.changed(abstained=silent), view.now, reason)
        return UpdateRound(stored, ended, announcement_checks(round_, announced, view.unreadable)), None
    if _blocked(view, round_, live):
        return None, None
    return CloseRound(stored), None


def late_after(view: RoundView, round_: Round) -> datetime:
    """Return when silent nodes are late, by this node's clock if it saw the round begin."""
    opened = view.opened_at.get(round_.id)
    return max(round_.deadline if opened is None else opened + announcement_period(round_), view.grace_until)


def _blocked(view: RoundView, round_: Round, live: Sequence[Stored[Round]]) -> bool:
    """True if another round of the dataset has to end first: a closed one, or an earlier one.

    Rounds in which this node does not vote do not block, nor do those that can no longer reach their quorum.
    Nodes announce in the order of the ticks, so that invented rounds cannot block others.

    Of two rounds with a quorum of snapshots, the one that reached it first goes first. If several steps write
    the dataset, the snapshot of a step that had to wait comes later on a node's branch than snapshots of
    later ticks; deciding in tick order would make those outdated.
    """
    late_at, since = late_after(view, round_), _quorum_since(view, round_)

    def goes_first(other: Round) -> bool:
        other_since = _quorum_since(view, other)
        if since is not None and other_since is not None:
            return (other_since, round_order(other)) < (since, round_order(round_))
        if round_order(other) >= round_order(round_):
            return False
        # Snapshots that nodes have submitted to the earlier round, or may still submit to it.
        announced, later = view.announcements(other), view.announcements(round_)
        reachable = sum(
            announced[node].record.commit is not None if node in announced else node not in later
            for node in other.nodes
        )
        return other_since is not None or (late_after(view, other) <= late_at and reachable >= other.needed)

    others = (
        stored.record for stored in live if stored.record.id != round_.id and view.node in stored.record.nodes
    )
    return any(other.phase == "closed" or goes_first(other) for other in others)


def _quorum_since(view: RoundView, round_: Round) -> int | None:
    """Return the revision at which a quorum of snapshots was reached, or None."""
    announced = view.announcements(round_)
    with_snapshot = sorted(
        announced[node].revision
        for node in round_.nodes
        if node in announced and announced[node].record.commit is not None
    )
    return with_snapshot[round_.needed - 1] if len(with_snapshot) >= round_.needed else None


def abstentions(round_: Round, announced: Mapping[str, Stored[Announcement]]) -> dict[str, Abstention]:
    """Return the abstention of each node that submits no commit."""
    without = (
        node for node in round_.nodes if node not in announced or announced[node].record.commit is None
    )
    return {
        node: (announced[node].record.abstains if node in announced else None) or NOT_ANNOUNCED
        for node in without
    }


def announcement_checks(
    round_: Round, announced: Mapping[str, Stored[Announcement]], unreadable: Mapping[str, int]
) -> list[Check]:
    """Return guards for the announcements of the round's nodes."""
    return _checks(round_, keys.announcement, announced, unreadable)


def _checks(
    round_: Round,
    key_of: Callable[[str, str, str], str],
    found: Mapping[str, Stored[Announcement] | Stored[Attestation]],
    unreadable: Mapping[str, int],
) -> list[Check]:
    """Return guards that the nodes' records are unchanged: absent, unreadable, or at the revision found."""
    wanted = {node: key_of(node, round_.dataset, round_.id) for node in round_.nodes[:MAX_CHECKS]}
    return [
        Check(key, found[node].revision if node in found else unreadable.get(key, 0))
        for node, key in wanted.items()
    ]


def ended_undecided(round_: Round, now: datetime, reason: str) -> Round:
    """Return the round as ended without a result."""
    return round_.changed(
        phase="undecided", ended_at=now, commit=None, tree=None, attested=[], reason=reason[:2000]
    )


def quorum_missing(round_: Round, snapshots: Collection[str], silent: Mapping[str, Abstention]) -> str | None:
    """Return why the nodes with `snapshots` are too few, or None if they are enough."""
    if len(snapshots) >= round_.needed:
        return None
    count = f"{len(snapshots)} of {len(round_.nodes)} nodes submitted a snapshot, {round_.needed} are needed"
    details = sorted(silent.items())
    reasons = [f"{node}: {abstention.reason}, {abstention.detail}" for node, abstention in details]
    return f"{count} ({'; '.join(reasons)})" if reasons else count


# closed


def _next_closed(view: RoundView, stored: Stored[Round]) -> tuple[Action | None, float | None]:
    round_ = stored.record
    votes = view.attestations(round_)
    counts = Counter(vote.commit for vote in votes.values() if vote.commit is not None)
    for commit, count in counts.items():
        if count >= round_.to_attest:
            return UpdateRound(stored, with_agreed_commit(round_, votes, commit)), None
    reason, wait = _no_agreement(view, round_, votes, counts)
    if reason is not None:
        ended = ended_undecided(round_, view.now, reason)
        attested = view.attested.get(round_.id, {})
        return UpdateRound(stored, ended, _checks(round_, keys.attestation, attested, view.unreadable)), None
    own_vote, attest = votes.get(view.node), AttestRound(stored, round_.definition in view.definitions)
    if own_vote is None:
        return attest, None
    if own_vote.commit is None:
        pause = ATTEST_RETRY_SECONDS - (view.now - own_vote.attested_at).total_seconds()
        return (attest, None) if pause <= 0 else (None, min(pause, ATTEST_RETRY_SECONDS))
    return None, wait


def with_agreed_commit(round_: Round, votes: Mapping[str, Attestation], commit: str) -> Round:
    """Return the round with the commit that a quorum attests, ready for delivery."""
    attesting = sorted(node for node, vote in votes.items() if vote.commit == commit)
    return round_.changed(commit=commit, tree=votes[attesting[0]].tree, attested=attesting)


def _no_agreement(
    view: RoundView, round_: Round, votes: Mapping[str, Attestation], counts: Mapping[str, int]
) -> tuple[str | None, float | None]:
    """Return why no quorum of attestations is possible any more, and the seconds until the next check."""
    silent = [node for node in round_.nodes if node not in votes or votes[node].commit is None]
    if round_.attempt > MAX_ATTEMPTS:
        return f"it was closed {round_.attempt - 1} times without an agreement", None
    if max(counts.values(), default=0) + len(silent) < round_.to_attest:
        results = ", ".join(f"{node} {(vote.commit or 'none')[:10]}" for node, vote in sorted(votes.items()))
        return f"the nodes computed different results: {results}", None
    lacking = [vote.missing for vote in votes.values() if vote.commit is None]
    no_quorum = [reason for reason in lacking if reason.startswith(NO_QUORUM)]
    if len(no_quorum) >= round_.to_attest:
        return no_quorum[0], None
    closed = view.closed_at.get(round_.id)
    late_at = max(attested_by(round_, closed, patiently=bool(lacking)), view.grace_until)
    if view.now < late_at:
        return None, (late_at - view.now).total_seconds()
    count = f"{max(counts.values(), default=0)} of {len(round_.nodes)} nodes attested the same result in time"
    return f"{count}, {round_.to_attest} are needed; no attestation from: {', '.join(silent)}", None


def attested_by(round_: Round, closed: datetime | None = None, *, patiently: bool = False) -> datetime:
    """Return the deadline for attesting a round. `closed` is the time when this node saw it closed."""
    time = max(announcement_period(round_), MIN_ATTEST_TIME)
    if patiently:
        time = max(time * PATIENCE_FACTOR, MIN_PATIENCE)
    return (closed or round_.closed_at or round_.opened_at) + time


def _dissenters(view: RoundView, round_: Round) -> dict[str, str]:
    """Return node → violation for nodes that attested another commit than the quorum."""
    if round_.commit is None:
        return {}
    votes = view.attestations(round_)
    attesting = sorted(node for node, vote in votes.items() if vote.commit == round_.commit)
    if len(attesting) < round_.to_attest:
        return {}
    return {
        node: f"it computed {(vote.commit or '')[:10]} where {', '.join(attesting)} computed "
        f"{(round_.commit or '')[:10]}"
        for node, vote in votes.items()
        if vote.commit not in (None, round_.commit)
    }
