"""Recomputes a round from its pinned commits, and finds ground-truth commits that no round made."""

from __future__ import annotations

from mao_git import Clone
from mao_shared.errors import NotFound
from mao_shared.models.evidence import Audit, DecidedRound, Evidence, UnattestedCommits

from .evidence import RULES
from .round import vote_round
from .round_history import made_by
from .tree_vote import OWN_FOLDER

_COMMITS_SHOWN = 100
_PATHS_SHOWN = 100


def find_unattested(clone: Clone, tip: str) -> UnattestedCommits | None:
    """Find commits that no round made in the history of `tip`; None if no round is decided yet."""
    newest: str | None = None
    since: list[str] = []  # commits that no round made, since the last round that was passed
    after, between, faulty = 0, 0, list[str]()
    for entry in clone.first_parents(tip):
        found = made_by(clone, entry)
        if found is None:
            since.append(entry.commit)
            continue
        if newest is None:
            newest, after = found, len(since)
        else:
            between += len(since)
        faulty += since[: max(0, _COMMITS_SHOWN - len(faulty))]
        since = []
    if newest is None:
        return None
    return UnattestedCommits(
        tip=tip, newest_round=newest, after=after, between=between, before=len(since), commits=faulty
    )


def audit_ground_truth(clone: Clone, tip: str, decided: DecidedRound) -> Audit:
    """Audit a round and the history of `tip`. Raises NotFound as `audit_round` does."""
    found = audit_round(clone, decided)
    found.strays = find_unattested(clone, tip)
    if found.strays is not None and (fault := found.strays.fault):
        found.ok = False
        found.faults.append(fault)
    if found.strays is not None and found.strays.before:
        found.notes.append(f"{found.strays.before} commits before the first round were made by a node alone")
    return found


def audit_round(clone: Clone, decided: DecidedRound) -> Audit:
    """Recompute a round and compare the commits. Raises NotFound if a commit that it needs is missing."""
    evidence = decided.evidence
    _require(clone, evidence)
    again = vote_round(
        clone,
        round_id=evidence.round,
        tick=evidence.tick,
        nodes=evidence.nodes,
        commits=evidence.commits,
        abstained=evidence.abstained,
        base=evidence.base,
        definition=evidence.definition,
    )
    tree = clone.tree(decided.commit)
    deltas = [] if again.tree == tree else clone.file_changes(tree, again.tree)
    differing = [each.path for each in deltas]
    data = [path for path in differing if path.partition("/")[0] != OWN_FOLDER]
    found = Audit(
        round=evidence.round,
        ok=again.commit == decided.commit,
        commit=decided.commit,
        tree=tree,
        recomputed_commit=again.commit,
        recomputed_tree=again.tree,
        data_is_same=not data,
        commits=evidence.commits,
        differing=differing[:_PATHS_SHOWN],
    )
    found.faults = _faults(clone, decided, found, data)
    found.notes = _notes(clone, evidence)
    return found


def _require(clone: Clone, evidence: Evidence) -> None:
    pinned = {**evidence.commits, **({"ground-truth": evidence.base} if evidence.base else {})}
    missing = {node: each for node, each in pinned.items() if not clone.has_commit(each)}
    if missing:
        listed = ", ".join(f"{each[:10]} of {node}" for node, each in sorted(missing.items())[:10])
        raise NotFound(
            f"Round {evidence.round} cannot be recomputed: commits are missing here: {listed}.",
            code="commits-missing",
            next="Fetch the branches of these nodes (git fetch --unshallow if the clone is shallow). "
            "If a node has rewritten its branch, get the commit from its operator or from another clone.",
        )


def _faults(clone: Clone, decided: DecidedRound, found: Audit, data: list[str]) -> list[str]:
    faults = []
    if clone.parent(decided.commit) != decided.evidence.base:
        faults.append("the commit's parent is not the ground truth that its evidence names")
    if decided.evidence.rules != RULES:
        faults.append(
            f"it was decided by version {decided.evidence.rules} of the rules, and this program has {RULES}"
        )
    if data:
        faults.append(f"the data differ in {len(data)} files, first {data[0]}")
    elif found.differing:
        faults.append(f"the data are the same, the evidence differs: {', '.join(found.differing[:3])}")
    elif not found.ok:
        faults.append("the tree is the same, but the recomputed commit differs")
    return faults


def _notes(clone: Clone, evidence: Evidence) -> list[str]:
    """Return a note for each node whose branch no longer contains the commit, as far as this clone knows."""
    notes = []
    for node, commit in evidence.commits.items():
        tip = clone.tip(node, remote=True) or clone.tip(node)
        if tip is not None and not clone.contains(tip, commit):
            notes.append(f"the branch of {node} no longer contains {commit[:10]}")
    return notes
