"""Votes on any local repository without a node, for `maoctl vote run --repo`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path

import mao_git
from mao_git import Clone, RepositoryError
from mao_shared.errors import Conflict, InvalidInput, MaoError
from mao_shared.models import GROUND_TRUTH
from mao_shared.models.evidence import DecidedRound
from mao_shared.models.round import VoteDefinition

from .round import vote_round
from .round_history import find_round, walk_rounds


@dataclass(frozen=True, slots=True)
class LocalVote:
    """The arguments of a local vote. `branches` are the revisions to vote on.

    Without `tick`, the time of the newest commit is used, so that a repeated vote gives the same result.
    `write` is a branch to move to the result; without it, only objects are written.
    """

    branches: Sequence[str]
    definition: VoteDefinition
    base: str | None = None
    tick: datetime | None = None
    round_id: str | None = None
    write: str | None = None


@dataclass(frozen=True, slots=True)
class LocalResult:
    """The decided round. `moved`: the branch was moved; `known`: it already had the same round."""

    decided: DecidedRound
    moved: bool
    known: bool


def open_local(path: Path) -> Clone:
    """Open the repository to vote on. Raises NotFound if there is none."""
    return Clone.discover(path)


def vote_locally(clone: Clone, request: LocalVote) -> LocalResult:
    """Vote, and move the branch `write` if given. Raises MaoError.

    Without a base, the branch `write` is the base if it exists.
    """
    if request.write in [re.sub("^(refs/)?heads/", "", branch) for branch in request.branches]:
        raise InvalidInput(
            f"The branch {request.write} is one of those voted on; writing the result there would change "
            "what its node observed.",
            code="branches-invalid",
            next=f"Write another one: --write {GROUND_TRUTH}",
        )
    commits = branch_commits(clone, request.branches)
    old = None
    if request.write is not None:
        mao_git.check_branch_name(request.write)
        old = clone.tip(request.write)
        if old is not None and clone.is_checked_out(request.write):
            raise Conflict(
                f"The branch {request.write} is checked out, and moving it would leave its files behind.",
                code="branch-checked-out",
                next=f"Write another one: --write {GROUND_TRUTH}, or check another one out: git switch -",
            )
    base = old if request.base is None else clone.rev_parse(request.base)
    if base is not None and (known := _find_same_round(clone, base, commits, request)):
        return LocalResult(known, moved=False, known=True)
    tick = request.tick or max(clone.commit_time(commit) for commit in commits.values())
    round_id = request.round_id
    if not round_id:  # the tick, numbered if another vote on it was decided before
        taken = set() if base is None else {known_id for known_id, _ in walk_rounds(clone, base)}
        base_id = f"{tick:%Y%m%dT%H%M%SZ}-by-hand"
        names = (base_id if number == 1 else f"{base_id}-{number}" for number in count(1))
        round_id = next(name for name in names if name not in taken)
    vote = vote_round(
        clone,
        round_id=round_id,
        tick=tick,
        nodes=list(commits),
        commits=commits,
        abstained={},
        base=base,
        definition=request.definition,
    )
    if request.write is not None and not clone.move_branch(request.write, vote.commit, old):
        raise Conflict(
            f"The branch {request.write} was moved by another process during the vote.",
            code="branch-busy",
            next="Run the command again.",
        )
    return LocalResult(
        DecidedRound(commit=vote.commit, evidence=vote.evidence), request.write is not None, known=False
    )


def branch_commits(clone: Clone, branches: Sequence[str]) -> dict[str, str]:
    """Return the commits of branches (or tags, commits). Raises InvalidInput and NotFound."""
    duplicates = sorted({branch for branch in branches if branches.count(branch) > 1})
    if duplicates or not branches:
        raise InvalidInput(
            f"A branch is named twice: {duplicates[0]}." if duplicates else "No branch is named.",
            code="branches-invalid",
            next="Name each node's branch once: --branches a,b,c",
        )
    return {branch: clone.rev_parse(branch) for branch in branches}


def _find_same_round(
    clone: Clone, base: str, commits: Mapping[str, str], request: LocalVote
) -> DecidedRound | None:
    """Return the newest round of the base if it had the same input."""
    newest = next(walk_rounds(clone, base), None)
    if newest is None or newest[1] != base or request.round_id not in (None, newest[0]):
        return None
    found = find_round(clone, base, newest[0])
    evidence = found.evidence
    same = (evidence.commits, evidence.definition) == (commits, request.definition)
    return found if same and request.tick in (None, evidence.tick) else None


def ground_truth_tip(clone: Clone, branch: str) -> str:
    """Return the tip of the branch with the rounds, local or of the remote."""
    mao_git.check_branch_name(branch)
    return clone.tip(branch) or clone.tip(branch, remote=True) or clone.rev_parse(branch)


@contextmanager
def repository_errors(path: Path) -> Iterator[None]:
    """Convert errors of git and the file system into InvalidInput."""
    try:
        yield
    except MaoError:
        raise
    except (RepositoryError, OSError) as error:
        raise InvalidInput(
            f"The repository {path} cannot be used: {str(error) or type(error).__name__}.",
            code="repository-broken",
            next=f"Check it: git -C {path} fsck. Voting reads the branches named and writes objects there.",
        ) from error
