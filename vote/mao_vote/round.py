"""One round: from the nodes' commits to a ground-truth commit with its evidence, the same on every node."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from mao_git import Author, Clone, Content, PathVersions
from mao_shared.errors import Conflict, InvalidInput
from mao_shared.models.evidence import Evidence, LedgerChange
from mao_shared.models.round import Abstention, VoteDefinition

from .evidence import (
    ROUNDS_FOLDER,
    TRAILER,
    cells_path,
    dump_evidence,
    evidence_path,
    printable_path,
    round_of_file,
    total_votes,
)
from .ledger import LEDGER_PATH, Ledger, read_ledger, updated_ledger
from .settled import rules_digest, settle
from .tree_vote import OWN_FOLDER, RULES, Election, decide_all

NAME, EMAIL = "MAO federation", "mao@federation"
MAX_ROUNDS_IN_TREE = 1000  # whose evidence stays in the tree; that of older ones is in the history
MAX_NOTED_LINKS = 100  # omitted links that the evidence names
_ROUND_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class NoQuorum(Conflict):
    """Fewer nodes vote than the definition requires."""

    default_code = "vote-no-quorum"


@dataclass(frozen=True, slots=True)
class Voted:
    """The ground-truth commit that a round made, its tree and evidence. No branch contains it yet."""

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
    rules: int = RULES,
) -> Voted:
    """Decide a round; the same arguments give the same commit id on every node.

    Writes objects to the clone and moves no branch.

    Args:
        nodes: the nodes that may vote.
        commits: node → its snapshot.
        abstained: node → why it has no snapshot.
        base: the ground-truth commit to build on; None for the first round.
        rules: version of the voting rules, one of KNOWN_RULES; another than the newest only for an audit.

    Raises:
        NoQuorum: too few nodes vote.
        InvalidInput: the round id is malformed, or a voter is not among the nodes.
        RepositoryError: objects are missing or broken in the clone.
    """
    _check_arguments(round_id, commits, nodes)
    compared = clone.compare_commits(base, commits)
    refused = {node: Abstention(reason="unreadable", detail=why) for node, why in compared.refused.items()}
    silent = {**abstained, **refused}
    voters = sorted(node for node in commits if node not in silent)
    if len(voters) < (needed := definition.needed(len(nodes))):
        raise NoQuorum(
            f"Only {len(voters)} of {len(nodes)} nodes have a voice, and the vote needs {needed}.",
            next="Wait for the other nodes, or give the vote's definition another quorum.",
        )
    ledger_before = read_ledger(clone, base, rules)
    election = Election(
        clone,
        voters,
        definition,
        lambda path: ledger_before.ledger.node_weights(path, voters, definition),
        lambda path: ledger_before.ledger.standings(path, voters),
        (lambda path: ledger_before.ledger.memory(path)) if definition.memory else (lambda _: {}),
        base is not None,
        rules,
    )
    kept, open_paths = _split_settled(compared.paths, ledger_before.ledger, election)
    totals = total_votes(decide_all(election, open_paths), voters)
    settled = {path: ledger_before.ledger.settled[printable_path(path)] for path in kept}
    if keeps_decisions(definition, rules):
        settled |= settle(round_id, open_paths, totals.changes, voters)
    tree, escaping = clone.without_escaping_links(clone.place_entries(base, totals.changes))
    tree = clone.settle_lfs(tree, [commits[voter] for voter in voters])
    ledger = updated_ledger(ledger_before, definition, totals, tick, rules, settled)
    notes = [] if ledger_before.fault is None else [ledger_before.fault]
    if rules > 3:
        named = {node for group in definition.groups for node in group} | definition.weights.keys()
        unknown = sorted(named - set(nodes))
        notes += [f"the definition names {node}, which is no node here" for node in unknown]
    if kept:
        files = "1 disputed file is" if len(kept) == 1 else f"{len(kept)} disputed files are"
        notes.append(f"unchanged: {files} as decided before, since no node has changed them")
    notes += [f"left out: {path} {why}" for path, why in list(escaping.items())[:MAX_NOTED_LINKS]]
    if len(escaping) > MAX_NOTED_LINKS:
        notes.append(f"left out: {len(escaping) - MAX_NOTED_LINKS} more links that lead out")
    evidence = Evidence(
        rules=rules,
        round=round_id,
        tick=tick,
        nodes=sorted(nodes),
        commits=dict(sorted(commits.items())),
        abstained=dict(sorted(silent.items())),
        base=base,
        definition=definition,
        tree=clone.place_entries(tree, {OWN_FOLDER: None}),
        ledger=LedgerChange(
            before=ledger_before.id, after=ledger_before.id if ledger is None else clone.write_blob(ledger)
        ),
        notes=notes,
        decided=dict(sorted(totals.decided.items())),
        conflicts=totals.conflicts,
        cells=totals.cells,
        contested=totals.contested,
        cells_listed=totals.listed,
        votes=totals.votes,
        files=totals.files,
    )
    full_tree = _with_evidence(clone, tree, evidence, bytes(totals.lines), ledger)
    parents = [] if base is None else [base]
    commit = clone.commit(full_tree, parents, round_message(evidence), Author(NAME, EMAIL, evidence.tick))
    return Voted(full_tree, commit, evidence)


def keeps_decisions(definition: VoteDefinition, rules: int) -> bool:
    """True if a vote on the same contents could differ because of earlier rounds, and so is not repeated.

    VDX's history rules count each round, whether contents have changed or not.
    """
    return rules > 3 and definition.memory and definition.history == "NONE"


def _split_settled(
    paths: Sequence[PathVersions], ledger: Ledger, election: Election
) -> tuple[list[str], list[PathVersions]]:
    """Return the paths whose decision still holds, and those to vote on."""
    definition, rules = election.definition, election.rules
    if not keeps_decisions(definition, rules) or ledger.settled_by != rules_digest(definition, rules):
        return [], list(paths)
    kept, others = [], []
    for ballot in paths:
        decision = ledger.settled.get(printable_path(ballot.path))
        if decision is not None and decision.holds(ballot, election.voters):
            kept.append(ballot.path)
        else:
            others.append(ballot)
    return kept, others


def _check_arguments(round_id: str, commits: Mapping[str, str], nodes: Sequence[str]) -> None:
    if not _ROUND_ID.fullmatch(round_id) or ".." in round_id:
        raise InvalidInput(
            f"{round_id!r} is not a valid round id.",
            code="round-id-invalid",
            next="Use up to 200 letters, digits, '.', '_' and '-', beginning with a letter or digit.",
        )
    if unknown_nodes := set(commits) - set(nodes):
        raise InvalidInput(f"{', '.join(sorted(unknown_nodes))} may not vote in round {round_id}.")


def _with_evidence(clone: Clone, tree: str, evidence: Evidence, lines: bytes, ledger: bytes | None) -> str:
    """Return the tree with the round's files in `.mao`, and without those of outdated rounds."""
    files = {
        evidence_path(evidence.round): dump_evidence(evidence),
        cells_path(evidence.round): lines,
        LEDGER_PATH: ledger,
    }
    changes: dict[str, Content | None] = {path: Content.of(data) for path, data in files.items() if data}
    for name in outdated_files(clone.names_in(tree, ROUNDS_FOLDER), evidence.round):
        changes[f"{ROUNDS_FOLDER}/{name}"] = None
    return clone.write_tree(tree, changes)


def outdated_files(names: Sequence[str], round_id: str) -> list[str]:
    """Return the files of all but the newest MAX_ROUNDS_IN_TREE rounds; ids begin with the tick. Pure."""
    ids = sorted({round_of_file(name) for name in names} | {round_id})
    old = set(ids[:-MAX_ROUNDS_IN_TREE])
    return [name for name in names if round_of_file(name) in old]


def round_message(evidence: Evidence) -> str:
    """Return the commit message: a summary line, and trailers by which the round is found."""
    files = sum(evidence.decided.values())
    return (
        f"Ground truth of {len(evidence.votes)} of {len(evidence.nodes)} nodes: {files} files changed, "
        f"{evidence.cells} cells differ, {evidence.conflicts} undecided\n\n"
        f"{TRAILER}: {evidence.round}\n"
        f"MAO-Tick: {evidence.tick:%Y-%m-%dT%H:%M:%SZ}\n"
        f"MAO-Voters: {' '.join(sorted(evidence.votes))}\n"
    )
