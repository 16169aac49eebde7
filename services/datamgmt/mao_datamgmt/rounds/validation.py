"""Checks which parts of a round's record can be trusted, and whether a tick without a round is over. Pure.

Any member of the federation can write any round. So a record under the key of another tick's round counts as
unreadable; a round that has not ended must have the nodes and the definition of its dataset and plausible
times; and a round has only ended if nodes attest that under their own prefixes. Any node resets a round that
violates these rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

from mao_shared.models import Announcement, Attestation, Dataset, Round, VoteDefinition, round_id
from mao_shared.models.round import majority_count
from mao_shared.store import Entry, Records, Stored
from mao_shared.store.unreadable import Misplaced

from .view import RoundView

MAX_CLOCK_SKEW = timedelta(minutes=5)  # between the clocks of two nodes
PROPAGATION_TIME = timedelta(seconds=5)  # until all nodes know a new round, plus a tenth of its period
PEER_RECORDS_KEPT = timedelta(days=1)  # after a round's end, so that late attestations are still compared
Series = tuple[str, str]  # pipeline and step
AttestationsOf = Callable[[Round], Mapping[str, Attestation]]


class RoundRecords(Records[Round]):
    """Records of rounds. One whose key does not match its id, or its id its tick, is unreadable."""

    def check(self, entry: Entry, record: Round) -> None:
        """Raise Misplaced if the round's key or id does not match."""
        name = f"{record.dataset}/{record.id}"
        if entry.key.removeprefix(self.prefix) != name or not has_matching_id(record):
            raise Misplaced("it is the round of another tick, or of another dataset")


def has_matching_id(round_: Round) -> bool:
    """True if a round's id matches its tick, pipeline and step."""
    return round_.id == round_id(round_.tick, round_.pipeline, round_.step)


def repaired(round_: Round, dataset: Dataset, now: datetime) -> Round | None:
    """Return the round reset to what its dataset requires; None if it is valid or has an agreed commit."""
    if round_.commit is not None or round_.phase not in ("open", "closed"):
        return None
    period = timedelta(seconds=_definition(dataset).deadline)
    if (
        sorted(round_.nodes) == sorted(set(dataset.nodes))
        and round_.definition == _definition(dataset)
        and max(round_.opened_at, round_.closed_at or now) <= now + MAX_CLOCK_SKEW
        and round_.deadline <= round_.opened_at + period
        and (round_.phase == "open" or pins_each_node_once(round_))
    ):
        return None
    return reset(round_, dataset, now)


def pins_each_node_once(round_: Round) -> bool:
    """True if a closed round has a commit or an abstention of each of its nodes, and of no other node."""
    return sorted([*round_.commits, *round_.abstained]) == sorted(round_.nodes)


def reset(round_: Round, dataset: Dataset, now: datetime) -> Round:
    """Return the round reopened as its dataset requires, with the full time to announce."""
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
    """Return how long a round waits for announcements."""
    return timedelta(seconds=round_.definition.deadline)


def closed_early(view: RoundView, stored: Stored[Round]) -> bool:
    """True if a silent node was excluded before its deadline, by this node's clock."""
    round_, announced = stored.record, view.announcements(stored.record)
    opened, closed = view.opened_at.get(round_.id), view.closed_at.get(round_.id)
    if opened is None or closed is None or round_.commit is not None:
        return False
    period = announcement_period(round_)
    excluded = (node for node in round_.nodes if node not in round_.commits)
    silent = any(node not in announced or announced[node].revision > stored.revision for node in excluded)
    return silent and closed < opened + period - min(PROPAGATION_TIME + period / 10, MAX_CLOCK_SKEW)


def is_attested(round_: Round, votes: Mapping[str, Attestation]) -> bool:
    """True if enough of the round's nodes attest its commit; one node is never enough."""
    supporters = {node for node, vote in votes.items() if vote.commit == round_.commit and round_.commit}
    return len(set(round_.nodes)) > 1 and len(supporters) >= round_.to_attest


def is_attested_by_voters(round_: Round, supporters: set[str], voters: set[str]) -> bool:
    """True if most voters attest the round's commit, whatever nodes the round names."""
    return len(voters) > 1 and len(supporters & voters) >= max(round_.to_attest, majority_count(len(voters)))


def series(of: Round | Announcement) -> Series:
    return of.pipeline, of.step


def is_tick_over(
    announcement: Announcement, done_at: datetime, rounds: Iterable[Round], attestations: AttestationsOf
) -> bool:
    """True if a tick that has no round will not get one any more.

    A missing round proves nothing, since rounds are removed sooner than runs; nor does age, since after an
    outage ticks of many days are new. The proof is a later round of the same pipeline and step that is
    decided, that most of its nodes attest, and that was computed long after this node's step was done
    (`done_at`). Steps are announced in the order of their ticks, so a voter in the later round had announced
    to the earlier one before; if enough nodes submitted a snapshot, it was opened then and closed first. So
    it was decided and removed, or it had no quorum. This does not apply to a later backfill or retry.

    `rounds`: those of the dataset, preferably the newest first.
    """
    return any(
        is_decided_and_attested(other, attestations)
        and min(vote.attested_at for vote in attestations(other).values() if vote.commit == other.commit)
        > done_at + PEER_RECORDS_KEPT  # a false time can only move the earliest one back
        for other in rounds
        if other.tick > announcement.tick
        and series(other) == series(announcement)
        and other.dataset == announcement.dataset
    )


def latest_decided(rounds: Iterable[Round], attestations: AttestationsOf) -> dict[Series, Round]:
    """Return the latest decided and attested round of each pipeline and step of one dataset."""
    found: dict[Series, Round] = {}
    for other in sorted(rounds, key=lambda other: (other.tick, other.id), reverse=True):
        if series(other) not in found and is_decided_and_attested(other, attestations):
            found[series(other)] = other
    return found


def is_decided_and_attested(round_: Round, attestations: AttestationsOf) -> bool:
    return round_.phase == "decided" and has_matching_id(round_) and is_attested(round_, attestations(round_))
