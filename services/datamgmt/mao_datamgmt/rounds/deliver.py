"""Ground truth moved to what a round has decided, at the remote and here: forwards only. Blocking."""

from __future__ import annotations

import time
from enum import StrEnum

from mao_datamgmt import repository
from mao_datamgmt.clones import bring
from mao_datamgmt.context import Context
from mao_datamgmt.repository import Clone, RemoteMoved
from mao_shared.errors import RemoteUnavailable
from mao_shared.models import GROUND_TRUTH, Dataset

ATTEMPTS = 3
PAUSE = 0.05  # seconds


class Delivered(StrEnum):
    """`ELSEWHERE`: ground truth was moved to what this commit is not built upon: it can never get there."""

    THERE = "there"
    ELSEWHERE = "elsewhere"
    NOT_MADE = "not-made"  # the commit is not in this clone


def deliver(context: Context, dataset: Dataset, commit: str, base: str | None) -> Delivered:
    """Pushes a round's commit as ground truth if it is not there. Raises MaoError with the remote away."""
    for attempt in range(ATTEMPTS):
        brought = bring(context, dataset.name, dataset.master)
        if brought.stale is not None:
            raise brought.stale
        clone = brought.clone
        tip = repository.find_branch(clone, GROUND_TRUTH, remote=True)
        if (
            tip is not None
            and repository.has_commit(clone, commit)
            and repository.contains(clone, tip, commit)
        ):
            _take_over(clone, tip)
            return Delivered.THERE
        if tip != base:
            return Delivered.ELSEWHERE
        if not repository.has_commit(clone, commit):
            return Delivered.NOT_MADE
        if _push(context, clone, commit):
            return Delivered.THERE
        time.sleep(PAUSE * 2**attempt)
    raise RemoteUnavailable(
        f"Others keep moving {GROUND_TRUTH} at {dataset.master}.", next="It is tried again."
    )


def _push(context: Context, clone: Clone, commit: str) -> bool:
    """False when the remote has moved meanwhile. Whatever happens, our branch says what the remote has."""
    ours = repository.find_branch(clone, GROUND_TRUTH)
    if ours != commit and not repository.move_branch(clone, GROUND_TRUTH, commit, ours):
        return False
    try:
        repository.push(clone, {GROUND_TRUTH: commit}, context.access)
    except RemoteMoved:
        return False
    finally:
        repository.take_over_remote(clone, GROUND_TRUTH)
    return True


def _take_over(clone: Clone, tip: str) -> None:
    if repository.find_branch(clone, GROUND_TRUTH) != tip:
        repository.take_over_remote(clone, GROUND_TRUTH)
