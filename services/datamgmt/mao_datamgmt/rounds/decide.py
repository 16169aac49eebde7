"""What to do next about a dataset's rounds: pure, from what lies in the federation's store and the time.

The phases and who writes what are in mao_shared/models/models_round.py. Every node decides for itself; what two of
them do at once is settled by the guard of each write. What is seen may lag behind the store, so a write that
rests on somebody's silence carries the revisions of all that it rests on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from mao_shared import keys
from mao_shared.models import Abstention, Announcement, Attestation, Dataset, Round
from mao_shared.models.models_round import ROUND_ENDED, most_of
from mao_shared.store import Check, Stored

from .past import SAID_FOR
from .seen import Action, Attest, Close, Decision, Deliver, Doubt, Open, Seen, Write
from .validation import begun_again, closed_early, is_upheld, mended, pins_each_once, span

OPENS_WITHIN = timedelta(days=30)  # age of a tick beyond which nobody opens its round any more
RETRY = 10.0  # seconds between two tries to attest what could not be computed
LEAST_SPAN = timedelta(minutes=5)  # for computing and attesting, however short the wait for snapshots is
PATIENCE = 10  # deadlines that a round waits for nodes which say that they cannot compute it yet
LEAST_PATIENCE = timedelta(days=1)
MAX_ATTEMPTS = 20  # of one round; each says why in `flagged` or by another `base`
MAX_CHECKS = 120  # keys that one write can rest on
NO_QUORUM = "no quorum: "  # begins what is said in `missing` where the snapshots themselves are too few
ALONE = "nobody else is left to vote"
DOUBTED_FOR = SAID_FOR - timedelta(hours=1)  # nodes' clocks differ, and each clears away by its own
UNSOUND = "was closed without saying of each of its nodes once what it brings"
EARLY = "was closed before its time, without nodes that still had some"


def decide(seen: Seen) -> Decision:
    """All that can be done now, the oldest round first."""
    actions: list[Action] = [Open(each) for each in _to_open(seen)]
    waits: list[float] = []
    caught: list[tuple[Round, dict[str, str]]] = []
    ordered = sorted(filter(seen_now(seen), seen.rounds.values()), key=lambda each: place(each.record))
    live = [each for each in ordered if each.record.phase not in ROUND_ENDED]
    for stored in ordered:
        right = _put_right(seen, stored)
        if right is not None:
            actions.append(right)
            continue
        if seen.me not in stored.record.nodes:
            continue
        if others := _outvoted(seen, stored.record):
            caught.append((stored.record, others))
        action, wait = _next(seen, stored, live, others)
        actions += [] if action is None else [action]
        waits += [] if wait is None else [max(wait, 0.0)]
    return Decision(actions, min(waits, default=None), caught)


def seen_now(seen: Seen) -> Callable[[Stored[Round]], bool]:
    """Which rounds there is anything to decide about: those that go on, or that nodes still speak of."""
    return lambda each: (
        each.record.phase not in ROUND_ENDED
        or each.record.id in seen.announced
        or each.record.id in seen.attested
    )


def _put_right(seen: Seen, stored: Stored[Round]) -> Write | Doubt | None:
    """Any member can write any round: one that is not as its dataset has it begins again."""
    round_, dataset = stored.record, seen.dataset
    if dataset is None or seen.me not in dataset.nodes:
        return None
    if seen.voters == {seen.me}:
        live = round_.phase not in ROUND_ENDED
        return Write(stored, undecided(round_, seen.now, ALONE)) if live else None
    if round_.phase in ROUND_ENDED:
        return Doubt(stored) if doubtful(seen, round_) else None
    if closed_early(seen, stored):
        return Write(stored, begun_again(round_, dataset, seen.now), doubt=EARLY)
    right = mended(round_, dataset, seen.now)
    if right is None:
        return None
    unsound = round_.phase == "closed" and not pins_each_once(round_)
    return Write(stored, right, doubt=UNSOUND if unsound else "")


def rests_on_voters(action: Action) -> bool:
    """Whether an action undoes or completes what others do, by who has a say."""
    if isinstance(action, Write):
        return action.round.phase == "open"
    return isinstance(action, (Deliver, Doubt))


def doubtful(seen: Seen, round_: Round) -> bool:
    """Whether a round is said to be decided that nodes have announced for and that too few attest.

    What nodes have said of it stays for `SAID_FOR` after its end, so nothing is known of older ones.
    """
    if round_.phase != "decided" or seen.now - round_.tick > DOUBTED_FOR:
        return False
    said = {node for node, each in seen.said(round_).items() if each.record.commit is not None} & seen.voters
    enough = len(said) >= most_of(len(seen.voters))
    return enough and not is_upheld(round_, seen.votes(round_))


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
    seen: Seen, stored: Stored[Round], live: Sequence[Stored[Round]], caught: Mapping[str, str]
) -> tuple[Action | None, float | None]:
    round_ = stored.record
    if round_.phase == "open":
        return _next_open(seen, stored, live)
    if round_.phase == "closed" and round_.commit is None:
        return _next_closed(seen, stored)
    if caught.keys() - round_.flagged.keys():
        return Write(stored, round_.changed(flagged={**round_.flagged, **caught})), None
    return (Deliver(stored), None) if round_.phase == "closed" else (None, None)


# open


def _next_open(
    seen: Seen, stored: Stored[Round], live: Sequence[Stored[Round]]
) -> tuple[Action | None, float | None]:
    round_ = stored.record
    said = seen.said(round_)
    due = late_from(seen, round_)
    if any(node not in said for node in round_.nodes) and seen.now < due:
        return None, (due - seen.now).total_seconds()
    voices = _voices(seen, round_)
    if voices < round_.needed:
        silent = silences(round_, said)
        reason = f"{_few(round_, voices)}{_told(silent)}"
        ended = undecided(round_.changed(abstained=silent), seen.now, reason)
        return Write(stored, ended, silence_checks(round_, said, seen.garbled)), None
    if _blocked(seen, round_, live):
        return None, None
    return Close(stored), None


def late_from(seen: Seen, round_: Round) -> datetime:
    """When nodes that have said nothing are late: by this node's own clock, if it heard the round begin."""
    begun = seen.since.get(round_.id)
    return max(round_.deadline if begun is None else begun + span(round_), seen.patient)


def _voices(seen: Seen, round_: Round) -> int:
    said = seen.said(round_)
    return sum(node in said and said[node].record.commit is not None for node in round_.nodes)


def _blocked(seen: Seen, round_: Round, live: Sequence[Stored[Round]]) -> bool:
    """Whether another round of the dataset has to end first: one that is closed, or an earlier one.

    A round in which this node has no say is none that it waits for. Neither is one that cannot come to
    anything any more: nodes announce in the order of the ticks, so nobody holds rounds up with invented ones.

    Of two that have their quorum of snapshots the one goes first that had it first. In a dataset that several
    steps write, what a step brings that had to wait is later on the nodes' branches than what was observed
    meanwhile, for a later tick; decided in its tick's order, it would make those snapshots outdated.
    """
    due, since = late_from(seen, round_), _quorum_since(seen, round_)

    def goes_first(other: Round) -> bool:
        theirs = _quorum_since(seen, other)
        if since is not None and theirs is not None:
            return (theirs, place(other)) < (since, place(round_))
        if place(other) >= place(round_):
            return False
        hopeful = late_from(seen, other) <= due and _may_come_to(seen, other, round_) >= other.needed
        return hopeful or theirs is not None

    others = (each.record for each in live if each.record.id != round_.id and seen.me in each.record.nodes)
    return any(other.phase == "closed" or goes_first(other) for other in others)


def _quorum_since(seen: Seen, round_: Round) -> int | None:
    """Revision at which enough nodes had brought a snapshot; None while they have not."""
    said = seen.said(round_)
    brought = sorted(
        said[node].revision for node in round_.nodes if node in said and said[node].record.commit is not None
    )
    return brought[round_.needed - 1] if len(brought) >= round_.needed else None


def _may_come_to(seen: Seen, earlier: Round, later: Round) -> int:
    """How many nodes have brought a snapshot to the earlier round, or may still do so."""
    said, after = seen.said(earlier), seen.said(later)
    return sum(
        said[node].record.commit is not None if node in said else node not in after for node in earlier.nodes
    )


SILENT = Abstention(reason="late", detail="it had said nothing when the round was closed")


def silences(round_: Round, said: Mapping[str, Stored[Announcement]]) -> dict[str, Abstention]:
    """Why each node that brings no commit brings none."""
    without = (node for node in round_.nodes if node not in said or said[node].record.commit is None)
    return {node: (said[node].record.abstains if node in said else None) or SILENT for node in without}


def silence_checks(
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
    return round_.changed(commit=commit, tree=votes[those[0]].tree, attested=those)


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
    time = max(span(round_), LEAST_SPAN)
    if patiently:
        time = max(time * PATIENCE, LEAST_PATIENCE)
    return (closed or round_.closed_at or round_.opened_at) + time


def _results(votes: Mapping[str, Attestation]) -> str:
    return ", ".join(f"{node} {(vote.commit or 'none')[:10]}" for node, vote in sorted(votes.items()))


def _vote_checks(seen: Seen, round_: Round) -> list[Check]:
    found = seen.attested.get(round_.id, {})
    return [
        _check(keys.attestation(node, round_.dataset, round_.id), found.get(node), seen.garbled)
        for node in round_.nodes[:MAX_CHECKS]
    ]


def _outvoted(seen: Seen, round_: Round) -> dict[str, str]:
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
