"""Whether a tick that has no round is over, or only had none yet: pure.

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

from mao_shared.models import Announcement, Attestation, Round

from .validation import is_upheld, names_itself

SAID_FOR = timedelta(days=1)  # after a round has ended; attestations that come late are still compared
Series = tuple[str, str]  # pipeline and step
Votes = Callable[[Round], Mapping[str, Attestation]]


def series(of: Round | Announcement) -> Series:
    return of.pipeline, of.step


def is_over(said: Announcement, done_at: datetime, rounds: Iterable[Round], votes: Votes) -> bool:
    """Of a tick without a round. `rounds`: those of the dataset, best the newest first."""
    return any(
        is_decided(each, votes) and _first_vote(each, votes) - done_at > SAID_FOR
        for each in rounds
        if each.tick > said.tick and series(each) == series(said) and each.dataset == said.dataset
    )


def _first_vote(round_: Round, votes: Votes) -> datetime:
    """When the first of those attested it that uphold it: by a false time one can but move it back."""
    return min(vote.attested_at for vote in votes(round_).values() if vote.commit == round_.commit)


def last_decided(rounds: Iterable[Round], votes: Votes) -> dict[Series, Round]:
    """Among the rounds of one dataset the newest of each pipeline and step that nodes uphold as decided."""
    found: dict[Series, Round] = {}
    for each in sorted(rounds, key=lambda each: (each.tick, each.id), reverse=True):
        if series(each) not in found and is_decided(each, votes):
            found[series(each)] = each
    return found


def is_decided(round_: Round, votes: Votes) -> bool:
    return round_.phase == "decided" and names_itself(round_) and is_upheld(round_, votes(round_))
