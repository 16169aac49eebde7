"""Which parts of a round's record can be trusted, and whether a tick without a round is over. Pure.

What of a round's record is to be believed: pure.

Any member of the federation can write any round. So a record that lies where no round of its tick belongs is
none, a round that goes on has the nodes and the definition that its dataset has and times that can be true,
and none has ended but as nodes say under their own names. One that differs is put right by whoever sees it.

Whether a tick that has no round is over, or only had none yet: pure.

Rounds leave the store, and runs outlive them, so that there is no round proves nothing. Nor does age: after
an outage of the federation, ticks of many days are new, and wait to be decided in their order. What proves
it is a later round of the same pipeline and step that most of its nodes uphold as decided, and that was
computed long after this node's step was done. A step is done in the order of its ticks and announced in that
order, so whoever had a voice in the later round had said before what it brings to the earlier one; where
enough of them brought something, the earlier round was opened then, and closed first. So it was decided and
has gone, or it had no quorum. A tick made up for since, by a backfill or another try, is not over by that. A
round's record proves nothing here, as any member can write one; attestations do, and those of the last such
rounds stay for it (retain.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

from mao_shared.models import Announcement, Attestation, Dataset, Round, VoteDefinition, round_id
from mao_shared.models.round import most_of
from mao_shared.store import Entry, Records, Stored
from mao_shared.store.unreadable import Misplaced

from .view import RoundView

MAX_CLOCK_SKEW = timedelta(minutes=5)  # by which the clocks of two nodes may differ
PROPAGATION_TIME = timedelta(seconds=5)  # of a round's beginning, and a tenth of its time, it is heard of


class RoundRecords(Records[Round]):
    """Rounds; what lies under another name than its own, or than its tick gives it, counts as unreadable."""

    def check(self, entry: Entry, record: Round) -> None:
        """Raises Misplaced."""
        own = f"{record.dataset}/{record.id}"
        if entry.key.removeprefix(self.prefix) != own or not has_matching_id(record):
            raise Misplaced("it is the round of another tick, or of another dataset")


def has_matching_id(round_: Round) -> bool:
    """Whether its id is that of the round for its tick, pipeline and step."""
    return round_.id == round_id(round_.tick, round_.pipeline, round_.step)


def repaired(round_: Round, dataset: Dataset, now: datetime) -> Round | None:
    """A round that nothing is agreed on yet, begun again as it has to be; None where it is in order."""
    if round_.commit is not None or round_.phase not in ("open", "closed"):
        return None
    span = timedelta(seconds=_definition(dataset).deadline)
    if (
        sorted(round_.nodes) == sorted(set(dataset.nodes))
        and round_.definition == _definition(dataset)
        and max(round_.opened_at, round_.closed_at or now) <= now + MAX_CLOCK_SKEW
        and round_.deadline <= round_.opened_at + span
        and (round_.phase == "open" or pins_each_node_once(round_))
    ):
        return None
    return reset(round_, dataset, now)


def pins_each_node_once(round_: Round) -> bool:
    """Whether a closed round says of each of its nodes either what it brings or why it brings nothing, and
    speaks of no others: each that it pins would have a vote.
    """
    return sorted([*round_.commits, *round_.abstained]) == sorted(round_.nodes)


def reset(round_: Round, dataset: Dataset, now: datetime) -> Round:
    """The round as its dataset has it, with the whole time to announce, whatever was said of it before."""
    return round_.changed(
        phase="open",
        attempt=round_.attempt + 1,
        nodes=list(dict.fromkeys(dataset.nodes)),
        definition=_definition(dataset),
        opened_at=now,
        deadline=now + timedelta(seconds=_definition(dataset).deadline),
        closed_by=None,
        closed_at=None,
        base=None,
        commits={},
        abstained={},
        ended_at=None,
        commit=None,
        tree=None,
        attested=[],
        flagged={},
        reason=None,
    )


def _definition(dataset: Dataset) -> VoteDefinition:
    return dataset.vote or VoteDefinition()


def announcement_period(round_: Round) -> timedelta:
    """For how long the round waits for snapshots."""
    return timedelta(seconds=round_.definition.deadline)


def closed_early(seen: RoundView, stored: Stored[Round]) -> bool:
    """Whether a node is left out before its time was up, by this node's own clock, and had not spoken."""
    round_, said = stored.record, seen.said(stored.record)
    begun, closed = seen.since.get(round_.id), seen.closed.get(round_.id)
    if begun is None or closed is None or round_.commit is not None:
        return False
    out = (node for node in round_.nodes if node not in round_.commits)
    silent = any(node not in said or said[node].revision > stored.revision for node in out)
    return silent and closed < begun + announcement_period(round_) - min(
        PROPAGATION_TIME + announcement_period(round_) / 10, MAX_CLOCK_SKEW
    )


def is_attested(round_: Round, votes: Mapping[str, Attestation]) -> bool:
    """Whether so many nodes attest what the round says is agreed as that takes; one alone never does."""
    those = {node for node, vote in votes.items() if vote.commit == round_.commit and round_.commit}
    return len(set(round_.nodes)) > 1 and len(those) >= round_.to_attest


def is_attested_by_voters(round_: Round, supporters: set[str], voters: set[str]) -> bool:
    """Whether most of those who have a say attest what the round says is agreed, whatever nodes it names."""
    return len(voters) > 1 and len(supporters & voters) >= max(round_.to_attest, most_of(len(voters)))


PEER_RECORDS_KEPT = timedelta(
    days=1
)  # after a round has ended; attestations that come late are still compared
Series = tuple[str, str]  # pipeline and step
AttestationsOf = Callable[[Round], Mapping[str, Attestation]]


def series(of: Round | Announcement) -> Series:
    return of.pipeline, of.step


def is_tick_over(
    said: Announcement, done_at: datetime, rounds: Iterable[Round], votes: AttestationsOf
) -> bool:
    """Of a tick without a round. `rounds`: those of the dataset, best the newest first."""
    return any(
        is_decided_and_attested(each, votes) and _first_vote(each, votes) - done_at > PEER_RECORDS_KEPT
        for each in rounds
        if each.tick > said.tick and series(each) == series(said) and each.dataset == said.dataset
    )


def _first_vote(round_: Round, votes: AttestationsOf) -> datetime:
    """When the first of those attested it that uphold it: by a false time one can but move it back."""
    return min(vote.attested_at for vote in votes(round_).values() if vote.commit == round_.commit)


def latest_decided(rounds: Iterable[Round], votes: AttestationsOf) -> dict[Series, Round]:
    """Among the rounds of one dataset the newest of each pipeline and step that nodes uphold as decided."""
    found: dict[Series, Round] = {}
    for each in sorted(rounds, key=lambda each: (each.tick, each.id), reverse=True):
        if series(each) not in found and is_decided_and_attested(each, votes):
            found[series(each)] = each
    return found


def is_decided_and_attested(round_: Round, votes: AttestationsOf) -> bool:
    return round_.phase == "decided" and has_matching_id(round_) and is_attested(round_, votes(round_))
