"""What of a round's record is to be believed: pure.

Any member of the federation can write any round. So a round that goes on has the nodes and the definition
that its dataset has, whatever its record says, and times that can be true; one that differs is put right by
whoever sees it. What a round has come to rests on what nodes say under their own names.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from mao_shared.models import Attestation, Dataset, Round, VoteDefinition, round_id

CLOCKS = timedelta(minutes=5)  # by which the clocks of two nodes may differ


def mended(round_: Round, dataset: Dataset, now: datetime) -> Round | None:
    """A round that nothing is agreed on yet, begun again as it has to be; None where it is in order."""
    if round_.commit is not None or round_.phase not in ("open", "closed"):
        return None
    nodes, definition = list(dict.fromkeys(dataset.nodes)), dataset.vote or VoteDefinition()
    latest, span = now + CLOCKS, timedelta(seconds=definition.deadline)
    right = set(round_.nodes) == set(nodes) and round_.definition == definition
    if (
        right
        and round_.deadline <= round_.opened_at + span
        and max(round_.opened_at, round_.closed_at or now) <= latest
    ):
        return None
    return round_.changed(
        phase="open",
        attempt=round_.attempt + 1,
        nodes=nodes,
        definition=definition,
        opened_at=now,  # that all have the time to announce, whatever was said of it before
        deadline=now + span,
        closed_by=None,
        closed_at=None,
        base=None,
        commits={},
        abstained={},
    )


def names_itself(round_: Round) -> bool:
    """Whether the round lies where one for its tick, pipeline and step belongs."""
    return round_.id == round_id(round_.tick, round_.pipeline, round_.step)


def is_upheld(round_: Round, votes: Mapping[str, Attestation]) -> bool:
    """Whether so many nodes attest what the round says is agreed as that takes; one alone never does."""
    those = [node for node, vote in votes.items() if vote.commit == round_.commit and round_.commit]
    return len(round_.nodes) > 1 and len(those) >= round_.to_attest
