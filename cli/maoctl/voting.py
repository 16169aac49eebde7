"""Votes on a repository of this machine, without a node. The only module of the client that knows the voter.

It is loaded with the first such command, since it needs git and tables, which nothing else here needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mao_shared.models.common import STORED

from .exits import CommandError, ExitCode
from .output import Document, document_of

if TYPE_CHECKING:
    from mao_git import Clone
    from mao_shared.models import Record, evidence

    M = TypeVar("M", bound=Record)

try:
    from mao_vote import LocalVote as LocalVote
    from mao_vote import (
        audit_ground_truth,
        explain_ground_truth,
        find_round,
        find_unattested,
        ground_truth_tip,
        list_rounds,
        open_local,
        page_of_cells,
        rank_nodes,
        repository_errors,
        vote_locally,
    )
except ModuleNotFoundError as error:
    raise CommandError(
        ExitCode.FAILED,
        f"Voting without a node needs the package mao-vote and what it uses: there is no {error.name}.",
        "Install it beside maoctl: pip install mao-vote. Or ask a node: maoctl vote show DATASET.",
    ) from error


@dataclass(frozen=True)
class LocalRounds:
    """The same questions as `MaoClient.rounds` asks a node, about the branch `truth` of a repository."""

    path: Path
    truth: str

    def decided(self, _dataset: str, limit: int) -> list[evidence.RoundSummary]:
        with self._opened() as (clone, tip):
            return [_as_sent(each) for each in list_rounds(clone, tip, limit).items]

    def unattested(self, _dataset: str) -> evidence.UnattestedCommits | None:
        with self._opened() as (clone, tip):
            found = find_unattested(clone, tip)
            return None if found is None else _as_sent(found)

    def get(self, _dataset: str, round_id: str | None) -> evidence.DecidedRound:
        with self._opened() as (clone, tip):
            return _as_sent(find_round(clone, tip, round_id))

    def cells(
        self, _dataset: str, round_id: str | None, file: str | None, limit: int
    ) -> list[evidence.ContestedCell]:
        with self._opened() as (clone, tip):
            page = page_of_cells(clone, find_round(clone, tip, round_id), file, limit, None)
            return page.items

    def cell(
        self, _dataset: str, round_id: str | None, file: str, key: str, field: str
    ) -> evidence.Explanation:
        with self._opened() as (clone, tip):
            found = find_round(clone, tip, round_id)
            return _as_sent(explain_ground_truth(clone, tip, found, file, key, field))

    def audit(self, _dataset: str, round_id: str | None) -> evidence.Audit:
        with self._opened() as (clone, tip):
            return _as_sent(audit_ground_truth(clone, tip, find_round(clone, tip, round_id)))

    def ranking(self, _dataset: str, rounds: int) -> evidence.Ranking:
        with self._opened() as (clone, tip):
            return _as_sent(rank_nodes(clone, tip, rounds))

    @contextmanager
    def _opened(self) -> Iterator[tuple[Clone, str]]:
        """The repository and the tip of the branch."""
        with repository_errors(self.path):
            clone = open_local(self.path)
            yield clone, ground_truth_tip(clone, self.truth)


@dataclass(frozen=True)
class LocalOutcome:
    """`moved`: whether the branch to write was; `known`: the same round had been decided there before."""

    decided: evidence.DecidedRound
    moved: bool
    known: bool

    def document(self) -> Document:
        return {**document_of(self.decided), "moved": self.moved, "known": self.known}


def run_vote(path: Path, vote: LocalVote) -> LocalOutcome:
    """Votes, and moves the branch to write if one is named."""
    with repository_errors(path):
        outcome = vote_locally(open_local(path), vote)
    return LocalOutcome(_as_sent(outcome.decided), outcome.moved, outcome.known)


def _as_sent(found: M) -> M:
    """As if it had been read from a node's answer, which has all fields."""
    return type(found).model_validate(found.model_dump(mode="json"), context=STORED)
