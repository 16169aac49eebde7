"""Votes and values in a repository of this machine, without a node; the only module that imports mao_vote.

It is imported by the commands that need it, since mao_vote loads libgit2 and the table library.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mao_shared.models.common import STORED

from .exits import CommandError, ExitCode
from .output import Document, to_document

if TYPE_CHECKING:
    from mao_git import Clone
    from mao_shared.models import Record, VoteDefinition, evidence
    from mao_shared.models.dataset import ValueVersion
    from mao_shared.models.schema import Schema

    M = TypeVar("M", bound=Record)

try:
    from mao_vote import (
        HistoryQuery,
        audit_ground_truth,
        branch_commits,
        describe_schema,
        explain_ground_truth,
        find_round,
        find_unattested,
        find_unmatched,
        ground_truth_tip,
        list_record_files,
        list_rounds,
        open_history,
        open_local,
        page_of_cells,
        rank_nodes,
        repository_errors,
        vote_locally,
    )
    from mao_vote import LocalVote as LocalVote
except ModuleNotFoundError as error:
    raise CommandError(
        ExitCode.FAILED,
        f"Voting without a node needs the package mao-vote and its dependencies; {error.name} is missing.",
        "Install it with: pip install mao-vote. Or use a node: maoctl vote show DATASET.",
    ) from error


@dataclass(frozen=True)
class LocalRounds:
    """The queries of `MaoClient.rounds`, answered from the branch `truth` of a repository."""

    path: Path
    truth: str

    def decided(self, _dataset: str, limit: int) -> list[evidence.RoundSummary]:
        with self._opened() as (clone, tip):
            return [_through_json(summary) for summary in list_rounds(clone, tip, limit).items]

    def unattested(self, _dataset: str) -> evidence.UnattestedCommits | None:
        with self._opened() as (clone, tip):
            found = find_unattested(clone, tip)
            return None if found is None else _through_json(found)

    def get(self, _dataset: str, round_id: str | None) -> evidence.DecidedRound:
        with self._opened() as (clone, tip):
            return _through_json(find_round(clone, tip, round_id))

    def cells(
        self, _dataset: str, round_id: str | None, file: str | None, limit: int, *, contested: bool = False
    ) -> list[evidence.ContestedCell]:
        with self._opened() as (clone, tip):
            found = find_round(clone, tip, round_id)
            page = page_of_cells(clone, found, file, limit, None, contested=contested)
            return page.items

    def cell(
        self, _dataset: str, round_id: str | None, file: str, key: str, field: str
    ) -> evidence.Explanation:
        with self._opened() as (clone, tip):
            found = find_round(clone, tip, round_id)
            return _through_json(explain_ground_truth(clone, tip, found, file, key, field))

    def audit(self, _dataset: str, round_id: str | None) -> evidence.Audit:
        with self._opened() as (clone, tip):
            return _through_json(audit_ground_truth(clone, tip, find_round(clone, tip, round_id)))

    def ranking(self, _dataset: str, rounds: int) -> evidence.Ranking:
        with self._opened() as (clone, tip):
            return _through_json(rank_nodes(clone, tip, rounds))

    def schema(self, _dataset: str, round_id: str | None, files: Sequence[str]) -> Schema:
        with self._opened() as (clone, tip):
            found = find_round(clone, tip, round_id)
            commits, definition = found.evidence.commits, found.evidence.definition
            paths = files or list_record_files(clone, [found.commit], definition)
            return _through_json(describe_schema(clone, commits, definition, paths, found.evidence.base))

    @contextmanager
    def _opened(self) -> Iterator[tuple[Clone, str]]:
        """Open the repository and yield it with the tip of the branch."""
        with repository_errors(self.path):
            clone = open_local(self.path)
            yield clone, ground_truth_tip(clone, self.truth)


@dataclass(frozen=True)
class LocalOutcome:
    """The result of a vote. `moved`: the branch was moved; `known`: the same round was decided before.

    `unmatched`: paths in the definition that apply to no file.
    """

    decided: evidence.DecidedRound
    moved: bool
    known: bool
    unmatched: Sequence[str] = ()

    def document(self) -> Document:
        return {**to_document(self.decided), "moved": self.moved, "known": self.known}


def run_vote(path: Path, vote: LocalVote) -> LocalOutcome:
    """Vote, and move the branch to write if there is one."""
    with repository_errors(path):
        clone = open_local(path)
        outcome = vote_locally(clone, vote)
        commits = outcome.decided.evidence.commits.values()
        unmatched = find_unmatched(clone, commits, vote.definition)
    return LocalOutcome(_through_json(outcome.decided), outcome.moved, outcome.known, unmatched)


def describe_branches(
    path: Path, branches: Sequence[str], definition: VoteDefinition, files: Sequence[str]
) -> Schema:
    """Describe files (none: all record files) of some branches of a repository."""
    with repository_errors(path):
        clone = open_local(path)
        commits = branch_commits(clone, branches)
        paths = files or list_record_files(clone, commits.values(), definition)
        return _through_json(describe_schema(clone, commits, definition, paths))


def value_history(path: Path, branch: str, **asked: Any) -> Iterator[ValueVersion]:
    """Yield what a value was in the commits of a branch, tag or commit. `asked`: fields of a HistoryQuery."""
    with repository_errors(path):
        clone = open_local(path)
        for batch in open_history(clone, clone.rev_parse(branch), HistoryQuery(**asked)):
            yield from map(_through_json, batch)


def _through_json(found: M) -> M:
    """Return the record as parsed from a node's response, where all fields are set."""
    return type(found).model_validate(found.model_dump(mode="json"), context=STORED)
