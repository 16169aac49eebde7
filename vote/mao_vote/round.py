"""One round: from the nodes' commits to a ground-truth commit with its evidence, the same on every node."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from mao_git import Author, Clone, Content
from mao_shared.errors import Conflict, InvalidInput
from mao_shared.models.round import Abstention, VoteDefinition

from .evidence import (
    MARK,
    ROUNDS_FOLDER,
    Evidence,
    LedgerChange,
    cells_path,
    dump_evidence,
    evidence_path,
    round_of_file,
    total_votes,
)
from .ledger import LEDGER_PATH, LedgerState, read_ledger, updated_ledger
from .tree_vote import OWN_FOLDER, Election, StandingsOf, WeightsOf, decide_all

NAME, EMAIL = "MAO federation", "mao@federation"
KEPT_ROUNDS = 1000  # whose evidence stays in the tree; that of older ones is in the history
NOTED_LINKS = 100  # links left out that the evidence names
_ROUND_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class NoQuorum(Conflict):
    """Fewer nodes have a voice than the vote's definition asks for."""

    default_code = "vote-no-quorum"


@dataclass(frozen=True, slots=True)
class Voted:
    """Ids of the ground-truth commit that was made (no branch leads to it yet) and of its tree."""

    tree: str
    commit: str
    evidence: Evidence


def vote_round(
    clone: Clone,
    *,
    round_id: str,
    tick: datetime,
    nodes: Sequence[str],
    commits: Mapping[str, str],
    abstained: Mapping[str, Abstention],
    base: str | None,
    definition: VoteDefinition,
) -> Voted:
    """Decides a round; the same arguments give the same commit id on every node and at any time.

    Args:
        nodes: who has a say; `commits`: their snapshots; `abstained`: why those without one have none.
        base: the ground-truth commit to build upon (None: the first one).

    Writes objects to the clone and moves no branch. Raises NoQuorum, InvalidInput for a round's id that is no
    name, and what repository.TROUBLE lists when objects are missing or broken here.
    """
    _check_id(round_id)
    _check_voters(round_id, commits, nodes)
    ballots = clone.compare_commits(base, commits)
    silent = {**abstained, **{node: _unreadable(why) for node, why in ballots.refused.items()}}
    voters = sorted(node for node in commits if node not in silent)
    _check_quorum(definition, len(voters), nodes)
    kept = read_ledger(clone, base)
    weigh, known = _weigh(kept, voters, definition), _known(kept, voters)
    election = Election(clone, voters, definition, weigh, known, base is not None)
    count = total_votes(decide_all(election, ballots.paths), voters)
    placed = clone.place_entries(base, count.changes)
    full, outward = clone.without_escaping_links(placed)
    full = clone.settle_lfs(full, [commits[voter] for voter in voters])
    history = updated_ledger(kept, definition, count)
    evidence = Evidence(
        round=round_id,
        tick=tick,
        nodes=sorted(nodes),
        commits=dict(sorted(commits.items())),
        abstained=dict(sorted(silent.items())),
        base=base,
        definition=definition,
        tree=clone.place_entries(full, {OWN_FOLDER: None}),
        ledger=LedgerChange(before=kept.id, after=_id_of(clone, history, kept.id)),
        notes=[*([] if kept.fault is None else [kept.fault]), *_left_out(outward)],
        **count.as_fields(),
    )
    return _committed(clone, _with_evidence(clone, full, evidence, count.lines, history), evidence)


def _committed(clone: Clone, tree: str, evidence: Evidence) -> Voted:
    parents = [] if evidence.base is None else [evidence.base]
    author = Author(NAME, EMAIL, evidence.tick)
    return Voted(tree, clone.commit(tree, parents, message_of(evidence), author), evidence)


def _weigh(kept: LedgerState, voters: Sequence[str], definition: VoteDefinition) -> WeightsOf:
    return lambda path: kept.ledger.weights_of(path, voters, definition)


def _known(kept: LedgerState, voters: Sequence[str]) -> StandingsOf:
    return lambda path: kept.ledger.standings(path, voters)


def _left_out(outward: Mapping[str, str]) -> list[str]:
    shown = [f"left out: {path} {why}" for path, why in list(outward.items())[:NOTED_LINKS]]
    more = len(outward) - len(shown)
    return [*shown, f"left out: {more} more links that lead out"] if more > 0 else shown


def _id_of(clone: Clone, history: bytes | None, before: str | None) -> str | None:
    return before if history is None else clone.write_blob(history)


def _unreadable(why: str) -> Abstention:
    return Abstention(reason="unreadable", detail=why)


def _check_voters(round_id: str, commits: Iterable[str], nodes: Sequence[str]) -> None:
    if strangers := set(commits) - set(nodes):
        raise InvalidInput(f"{', '.join(sorted(strangers))} have no say in round {round_id}.")


def _check_id(round_id: str) -> None:
    if not _ROUND_ID.fullmatch(round_id) or ".." in round_id:
        raise InvalidInput(
            f"{round_id!r} cannot be the id of a round.",
            code="round-id-invalid",
            next="Use up to 200 letters, digits, '.', '_' and '-', beginning with a letter or digit.",
        )


def _check_quorum(definition: VoteDefinition, voters: int, nodes: Sequence[str]) -> None:
    needed = definition.needed(len(nodes))
    if voters < needed:
        raise NoQuorum(
            f"Only {voters} of {len(nodes)} nodes have a voice, and the vote needs {needed}.",
            next="Wait for the other nodes, or give the vote's definition another quorum.",
        )


def _with_evidence(clone: Clone, tree: str, evidence: Evidence, lines: bytes, history: bytes | None) -> str:
    """The tree with what this round leaves, and without the oldest rounds where there are too many."""
    files = {
        evidence_path(evidence.round): dump_evidence(evidence),
        cells_path(evidence.round): lines,
        LEDGER_PATH: history,
    }
    changes: dict[str, Content | None] = {path: _content(each) for path, each in files.items() if each}
    for name in _outdated(clone.names_in(tree, ROUNDS_FOLDER), evidence.round):
        changes[f"{ROUNDS_FOLDER}/{name}"] = None
    return clone.write_tree(tree, changes)


def _content(data: bytes) -> Content:
    return Content(lambda: io.BytesIO(data), len(data))


def _outdated(names: Sequence[str], round_id: str) -> list[str]:
    """Names of files of rounds beyond the newest KEPT_ROUNDS; their ids begin with the tick. Pure."""
    ids = sorted({round_of_file(name) for name in names} | {round_id})
    old = set(ids[:-KEPT_ROUNDS])
    return [name for name in names if round_of_file(name) in old]


def message_of(evidence: Evidence) -> str:
    """The commit's message: what was decided in a line, and marks to find it by."""
    files = sum(evidence.decided.values())
    return (
        f"Ground truth of {len(evidence.votes)} of {len(evidence.nodes)} nodes: {files} files changed, "
        f"{evidence.cells} cells differ, {evidence.conflicts} undecided\n\n"
        f"{MARK}: {evidence.round}\n"
        f"MAO-Tick: {evidence.tick:%Y-%m-%dT%H:%M:%SZ}\n"
        f"MAO-Voters: {' '.join(sorted(evidence.votes))}\n"
    )
