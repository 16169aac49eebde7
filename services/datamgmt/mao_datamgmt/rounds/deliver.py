"""Ground truth moved to what a round has decided, at the remote and here: forwards only. Blocking."""

from __future__ import annotations

import time
from enum import StrEnum

import mao_git
from mao_datamgmt.context import Context
from mao_datamgmt.datasets.clones import bring
from mao_datamgmt.datasets.delivery import keeps_moving
from mao_git import Clone, RemoteMoved
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
    lost = None
    for attempt in range(ATTEMPTS):
        brought = bring(context, dataset.name, dataset.master)
        if brought.stale is not None:
            raise brought.stale
        clone = brought.clone
        tip = mao_git.find_branch(clone, GROUND_TRUTH, remote=True)
        if tip is not None and mao_git.has_commit(clone, commit) and mao_git.contains(clone, tip, commit):
            _take_over(clone, tip)
            return Delivered.THERE
        if tip != base:
            return Delivered.ELSEWHERE
        if not mao_git.has_commit(clone, commit):
            return Delivered.NOT_MADE
        lost = _push(context, clone, commit)
        if lost is None:
            return Delivered.THERE
        time.sleep(PAUSE * 2**attempt)
    raise keeps_moving(clone, [GROUND_TRUTH], lost or RemoteMoved("it was moved"), was_moved=False)


def _push(context: Context, clone: Clone, commit: str) -> RemoteMoved | None:
    """Why it was not moved. Whatever happens, our branch says what the remote has."""
    ours = mao_git.find_branch(clone, GROUND_TRUTH)
    if ours != commit and not mao_git.move_branch(clone, GROUND_TRUTH, commit, ours):
        return RemoteMoved("the branch here was moved by another process")
    try:
        mao_git.push(clone, {GROUND_TRUTH: commit}, context.access)
    except RemoteMoved as moved:
        return moved
    finally:
        mao_git.take_over_remote(clone, GROUND_TRUTH)
    return None


def _take_over(clone: Clone, tip: str) -> None:
    if mao_git.find_branch(clone, GROUND_TRUTH) != tip:
        mao_git.take_over_remote(clone, GROUND_TRUTH)
