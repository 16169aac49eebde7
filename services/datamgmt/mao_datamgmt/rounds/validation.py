"""What of a round's record is to be believed: pure.

Any member of the federation can write any round. So a record that lies where no round of its tick belongs is
none, a round that goes on has the nodes and the definition that its dataset has and times that can be true,
and none has ended but as nodes say under their own names. One that differs is put right by whoever sees it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from mao_shared.models import Attestation, Dataset, Round, VoteDefinition, round_id
from mao_shared.models.models_round import most_of
from mao_shared.store import Entry, Records, Stored
from mao_shared.store.unreadable import Misplaced

from .seen import Seen

CLOCKS = timedelta(minutes=5)  # by which the clocks of two nodes may differ
HEARD_WITHIN = timedelta(seconds=5)  # of a round's beginning, and a tenth of its time, it is heard of


class RoundRecords(Records[Round]):
    """Rounds; what lies under another name than its own, or than its tick gives it, counts as unreadable."""

    def check(self, entry: Entry, record: Round) -> None:
        """Raises Misplaced."""
        own = f"{record.dataset}/{record.id}"
        if entry.key.removeprefix(self.prefix) != own or not names_itself(record):
            raise Misplaced("it is the round of another tick, or of another dataset")


def names_itself(round_: Round) -> bool:
    """Whether its id is that of the round for its tick, pipeline and step."""
    return round_.id == round_id(round_.tick, round_.pipeline, round_.step)


def mended(round_: Round, dataset: Dataset, now: datetime) -> Round | None:
    """A round that nothing is agreed on yet, begun again as it has to be; None where it is in order."""
    if round_.commit is not None or round_.phase not in ("open", "closed"):
        return None
    span = timedelta(seconds=_definition(dataset).deadline)
    if (
        sorted(round_.nodes) == sorted(set(dataset.nodes))
        and round_.definition == _definition(dataset)
        and max(round_.opened_at, round_.closed_at or now) <= now + CLOCKS
        and round_.deadline <= round_.opened_at + span
        and (round_.phase == "open" or pins_each_once(round_))
    ):
        return None
    return begun_again(round_, dataset, now)


def pins_each_once(round_: Round) -> bool:
    """Whether a closed round says of each of its nodes either what it brings or why it brings nothing, and
    speaks of no others: each that it pins would have a vote.
    """
    return sorted([*round_.commits, *round_.abstained]) == sorted(round_.nodes)


def begun_again(round_: Round, dataset: Dataset, now: datetime) -> Round:
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


def span(round_: Round) -> timedelta:
    """For how long the round waits for snapshots."""
    return timedelta(seconds=round_.definition.deadline)


def closed_early(seen: Seen, stored: Stored[Round]) -> bool:
    """Whether a node is left out before its time was up, by this node's own clock, and had not spoken."""
    round_, said = stored.record, seen.said(stored.record)
    begun, closed = seen.since.get(round_.id), seen.closed.get(round_.id)
    if begun is None or closed is None or round_.commit is not None:
        return False
    out = (node for node in round_.nodes if node not in round_.commits)
    silent = any(node not in said or said[node].revision > stored.revision for node in out)
    return silent and closed < begun + span(round_) - min(HEARD_WITHIN + span(round_) / 10, CLOCKS)


def is_upheld(round_: Round, votes: Mapping[str, Attestation]) -> bool:
    """Whether so many nodes attest what the round says is agreed as that takes; one alone never does."""
    those = {node for node, vote in votes.items() if vote.commit == round_.commit and round_.commit}
    return len(set(round_.nodes)) > 1 and len(those) >= round_.to_attest


def is_agreed(round_: Round, supporters: set[str], voters: set[str]) -> bool:
    """Whether most of those who have a say attest what the round says is agreed, whatever nodes it names."""
    return len(voters) > 1 and len(supporters & voters) >= max(round_.to_attest, most_of(len(voters)))
