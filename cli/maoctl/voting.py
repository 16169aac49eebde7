"""Votes on a repository of this machine, without a node. The only module of the client that knows the voter.

It is loaded with the first such command, since it needs git and tables, which nothing else here needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .exits import CommandError, ExitCode

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mao_git import Clone
    from mao_shared.models.evidence import DecidedRound

try:
    from mao_shared.models.round import VoteDefinition
    from mao_vote import local
    from mao_vote.audit import audit_ground_truth, find_unattested
    from mao_vote.explain import explain_ground_truth, page_of_cells
    from mao_vote.local import LocalVote
    from mao_vote.outliers import rank_nodes
    from mao_vote.round_history import find_round, list_rounds
except ModuleNotFoundError as error:
    raise CommandError(
        ExitCode.FAILED,
        f"Voting without a node needs the package mao-datamgmt and what it uses: there is no {error.name}.",
        "Install it beside maoctl: pip install mao-datamgmt. Or ask a node: maoctl vote show DATASET.",
    ) from error


@dataclass(frozen=True)
class LocalRounds:
    """The same questions as `clients.rounds` answers of a node, about the branch `truth` of a repository."""

    path: Path
    truth: str

    def rounds(self, _dataset: str, limit: int) -> list[dict[str, Any]]:
        with local.repository_errors(self.path):
            clone = local.open_local(self.path)
            page = list_rounds(clone, local.ground_truth_tip(clone, self.truth), limit)
        return [_plain(each) for each in page.items]

    def strays(self, _dataset: str) -> dict[str, Any] | None:
        with local.repository_errors(self.path):
            clone = local.open_local(self.path)
            found = find_unattested(clone, local.ground_truth_tip(clone, self.truth))
        return None if found is None else _plain(found)

    def round(self, _dataset: str, round_id: str | None) -> dict[str, Any]:
        with local.repository_errors(self.path):
            return _plain(self._find(round_id)[2])

    def cells(
        self, _dataset: str, round_id: str | None, file: str | None, limit: int
    ) -> list[dict[str, Any]]:
        with local.repository_errors(self.path):
            clone, _, decided = self._find(round_id)
            page = page_of_cells(clone, decided, file, limit, None)
        return [_plain(each) for each in page.items]

    def cell(self, _dataset: str, round_id: str | None, file: str, key: str, field: str) -> dict[str, Any]:
        with local.repository_errors(self.path):
            return _plain(explain_ground_truth(*self._find(round_id), file, key, field))

    def audit(self, _dataset: str, round_id: str | None) -> dict[str, Any]:
        with local.repository_errors(self.path):
            return _plain(audit_ground_truth(*self._find(round_id)))

    def ranking(self, _dataset: str, rounds: int) -> dict[str, Any]:
        with local.repository_errors(self.path):
            clone = local.open_local(self.path)
            return _plain(rank_nodes(clone, local.ground_truth_tip(clone, self.truth), rounds))

    def _find(self, round_id: str | None) -> tuple[Clone, str, DecidedRound]:
        clone = local.open_local(self.path)
        tip = local.ground_truth_tip(clone, self.truth)
        return clone, tip, find_round(clone, tip, round_id)


def run_vote(path: Path, definition: dict[str, Any], **asked: Any) -> dict[str, Any]:
    """Votes; `commit`, `evidence`, `moved` and `known` of the outcome. `asked`: fields of ByHand."""
    wanted = LocalVote(definition=_definition(definition), **asked)
    with local.repository_errors(path):
        outcome = local.vote_locally(local.open_local(path), wanted)
    return {**_plain(outcome.decided), "moved": outcome.moved, "known": outcome.known}


def _definition(data: dict[str, Any]) -> VoteDefinition:
    from pydantic import ValidationError

    try:
        return VoteDefinition.model_validate(data)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, each['loc'])) or 'the whole'}: {each['msg']}"
            for each in error.errors(include_url=False, include_input=False)
        ]
        raise CommandError(
            ExitCode.USAGE,
            "The vote's definition cannot be used: " + "; ".join(faults) + ".",
            "Correct the file; docs/ground-truth.md lists the words and what they mean.",
        ) from None


def _plain(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json")
