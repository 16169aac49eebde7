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
    """The arguments of a local vote. `branches`: revisions to vote on; `base`: the previous ground truth.

    `tick`: None takes the time of the newest commit, so that a repeated vote gives the same result. `write`:
    a branch to move to the result; without it only objects are written.
    """

    branches: Sequence[str]
    definition: VoteDefinition
    base: str | None = None
    tick: datetime | None = None
    round_id: str | None = None
    write: str | None = None


@dataclass(frozen=True, slots=True)
class LocalResult:
    """The decided round. `moved`: the branch was moved. `known`: the branch already had the same round."""

    decided: DecidedRound
    moved: bool
    known: bool


def open_local(path: Path) -> Clone:
    """Open the repository to vote on. Raises NotFound if there is none."""
    return Clone.discover(path)


def vote_locally(clone: Clone, asked: LocalVote) -> LocalResult:
    """Vote, and move the branch `write` if it is given. Raises MaoError.

    If no base is given, the branch `write` is also the base, if it exists.
    """
    if asked.write in [re.sub("^(refs/)?heads/", "", each) for each in asked.branches]:
        raise InvalidInput(
            f"The branch {asked.write} is one of those voted on; writing the result there would change what "
            "its node observed.",
            code="branches-invalid",
            next=f"Write another one: --write {GROUND_TRUTH}",
        )
    commits = _commits(clone, asked.branches)
    old = None
    if asked.write is not None:
        mao_git.check_branch_name(asked.write)
        old = clone.tip(asked.write)
        if old is not None and clone.is_checked_out(asked.write):
            raise Conflict(
                f"The branch {asked.write} is checked out, and moving it would leave its files behind.",
                code="branch-checked-out",
                next=f"Write another one: --write {GROUND_TRUTH}, or check another one out: git switch -",
            )
    base = old if asked.base is None else clone.rev_parse(asked.base)
    if base is not None and (known := _same(clone, base, commits, asked)):
        return LocalResult(known, moved=False, known=True)
    tick = asked.tick or max(clone.commit_time(each) for each in commits.values())
    voted = vote_round(
        clone,
        round_id=asked.round_id or _unused_id(clone, base, tick),
        tick=tick,
        nodes=list(commits),
        commits=commits,
        abstained={},
        base=base,
        definition=asked.definition,
    )
    if asked.write is not None and not clone.move_branch(asked.write, voted.commit, old):
        raise Conflict(
            f"The branch {asked.write} was moved by another process during the vote.",
            code="branch-busy",
            next="Run the command again.",
        )
    return LocalResult(
        DecidedRound(commit=voted.commit, evidence=voted.evidence), asked.write is not None, known=False
    )


def _commits(clone: Clone, branches: Sequence[str]) -> dict[str, str]:
    doubled = sorted({each for each in branches if branches.count(each) > 1})
    if doubled or not branches:
        raise InvalidInput(
            f"A branch is named twice: {doubled[0]}." if doubled else "No branch is named.",
            code="branches-invalid",
            next="Name each node's branch once: --branches a,b,c",
        )
    return {each: clone.rev_parse(each) for each in branches}


def _same(clone: Clone, base: str, commits: Mapping[str, str], asked: LocalVote) -> DecidedRound | None:
    """Return the newest round of the base if it had the same input."""
    newest = next(walk_rounds(clone, base), None)
    if newest is None or newest[1] != base or asked.round_id not in (None, newest[0]):
        return None
    found = find_round(clone, base, newest[0])
    evidence = found.evidence
    same = (evidence.commits, evidence.definition) == (commits, asked.definition)
    return found if same and asked.tick in (None, evidence.tick) else None


def _unused_id(clone: Clone, base: str | None, tick: datetime) -> str:
    """Return an id that begins with the tick, numbered if another vote on that tick was decided before."""
    taken = set() if base is None else {round_id for round_id, _ in walk_rounds(clone, base)}
    plain = f"{tick:%Y%m%dT%H%M%SZ}-by-hand"
    names = (plain if number == 1 else f"{plain}-{number}" for number in count(1))
    return next(name for name in names if name not in taken)


def ground_truth_tip(clone: Clone, branch: str) -> str:
    """Return the tip of the branch that contains the rounds; in a clone, also of the remote's branch."""
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
