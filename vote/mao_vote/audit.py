"""Recomputes a round from its pinned commits, and finds ground-truth commits that no round made."""

from __future__ import annotations

from mao_git import Clone
from mao_shared.errors import NotFound
from mao_shared.models.evidence import Audit, DecidedRound, Evidence, UnattestedCommits

from .round import vote_round
from .round_history import made_by
from .tree_vote import KNOWN_RULES, OWN_FOLDER, RULES

MAX_LISTED_COMMITS = 100
MAX_LISTED_PATHS = 100


def find_unattested(clone: Clone, tip: str) -> UnattestedCommits | None:
    """Find the commits in the history of `tip` that no round made; None if no round is decided yet."""
    newest: str | None = None
    since: list[str] = []  # commits that no round made, after the last round seen
    after, between, unattested = 0, 0, list[str]()
    for entry in clone.first_parents(tip):
        round_id = made_by(clone, entry)
        if round_id is None:
            since.append(entry.commit)
            continue
        if newest is None:
            newest, after = round_id, len(since)
        else:
            between += len(since)
        unattested += since[: max(0, MAX_LISTED_COMMITS - len(unattested))]
        since = []
    if newest is None:
        return None
    return UnattestedCommits(
        tip=tip, newest_round=newest, after=after, between=between, before=len(since), commits=unattested
    )


def audit_ground_truth(clone: Clone, tip: str, decided: DecidedRound) -> Audit:
    """Audit a round and the history of `tip`. Raises NotFound like `audit_round`."""
    audit = audit_round(clone, decided)
    audit.strays = find_unattested(clone, tip)
    if audit.strays is not None and (fault := audit.strays.fault):
        audit.ok = False
        audit.faults.append(fault)
    if audit.strays is not None and audit.strays.before:
        audit.notes.append(f"{audit.strays.before} commits before the first round were made by a node alone")
    return audit


def audit_round(clone: Clone, decided: DecidedRound) -> Audit:
    """Recompute a round and compare the commits. Raises NotFound if a pinned commit is missing."""
    evidence = decided.evidence
    _require_commits(clone, evidence)
    recomputed = vote_round(
        clone,
        round_id=evidence.round,
        tick=evidence.tick,
        nodes=evidence.nodes,
        commits=evidence.commits,
        abstained=evidence.abstained,
        base=evidence.base,
        definition=evidence.definition,
        rules=evidence.rules if evidence.rules in KNOWN_RULES else RULES,
    )
    tree = clone.tree(decided.commit)
    deltas = [] if recomputed.tree == tree else clone.file_changes(tree, recomputed.tree)
    differing = [change.path for change in deltas]
    data = [path for path in differing if path.partition("/")[0] != OWN_FOLDER]
    audit = Audit(
        round=evidence.round,
        ok=recomputed.commit == decided.commit,
        commit=decided.commit,
        tree=tree,
        recomputed_commit=recomputed.commit,
        recomputed_tree=recomputed.tree,
        data_is_same=not data,
        commits=evidence.commits,
        differing=differing[:MAX_LISTED_PATHS],
    )
    audit.faults = _faults(clone, decided, audit, data)
    audit.notes = _notes(clone, evidence)
    return audit


def _require_commits(clone: Clone, evidence: Evidence) -> None:
    pinned = {**evidence.commits, **({"ground-truth": evidence.base} if evidence.base else {})}
    missing = {node: commit for node, commit in pinned.items() if not clone.has_commit(commit)}
    if missing:
        listed = ", ".join(f"{commit[:10]} of {node}" for node, commit in sorted(missing.items())[:10])
        raise NotFound(
            f"Round {evidence.round} cannot be recomputed: commits are missing here: {listed}.",
            code="commits-missing",
            next="Fetch the branches of these nodes (git fetch --unshallow if the clone is shallow). "
            "If a node has rewritten its branch, get the commit from its operator or from another clone.",
        )


def _faults(clone: Clone, decided: DecidedRound, audit: Audit, data: list[str]) -> list[str]:
    faults = []
    if clone.parent(decided.commit) != decided.evidence.base:
        faults.append("the commit's parent is not the ground truth that its evidence names")
    if decided.evidence.rules not in KNOWN_RULES:
        faults.append(
            f"it was decided by version {decided.evidence.rules} of the rules, and this program knows "
            f"{', '.join(map(str, KNOWN_RULES))}"
        )
    if data:
        faults.append(f"the data differ in {len(data)} files, first {data[0]}")
    elif audit.differing:
        faults.append(f"the data are the same, the evidence differs: {', '.join(audit.differing[:3])}")
    elif not audit.ok:
        faults.append("the tree is the same, but the recomputed commit differs")
    return faults


def _notes(clone: Clone, evidence: Evidence) -> list[str]:
    """Return a note for each node whose branch, as last fetched, no longer contains its commit."""
    notes = []
    for node, commit in evidence.commits.items():
        tip = clone.tip(node, remote=True) or clone.tip(node)
        if tip is not None and not clone.contains(tip, commit):
            notes.append(f"the branch of {node} no longer contains {commit[:10]}")
    return notes
