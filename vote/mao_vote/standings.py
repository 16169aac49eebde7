"""The ledger of a dataset in the hands of a round: read from the base, used as weights, written on.

It is kept as long as the vote's definition asks for history, and carried on untouched otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import mao_git
from mao_git import Clone
from mao_shared.models.round import VoteDefinition

from .count import Count
from .ledger import LEDGER_PATH, BrokenLedger, Ledger, dump, load


@dataclass(frozen=True, slots=True)
class Kept:
    """The ledger before a round, git's id of it, and what was wrong with it, if anything."""

    ledger: Ledger
    id: str | None = None
    fault: str | None = None


def read_kept(clone: Clone, base: str | None) -> Kept:
    """What the base has; a ledger that cannot be read is begun anew, the same on every node."""
    entry = None if base is None else mao_git.entry_at(clone, base, LEDGER_PATH)
    if entry is None or not entry.is_file:
        return Kept(Ledger())
    try:
        return Kept(load(mao_git.content_of(clone, entry.id)), entry.id)
    except BrokenLedger as error:
        return Kept(Ledger(), entry.id, f"history begins anew: {error}")


def written_on(kept: Kept, definition: VoteDefinition, count: Count) -> bytes | None:
    """With this round's record files that are new or changed; None where no history is kept.

    What ground truth does not have any more is dropped, but what is merely undecided stays.
    """
    if definition.history == "NONE":
        return None
    updated = kept.ledger.updated_all(count.tallies)
    return dump(updated.only(updated.files.keys() - count.gone))
