"""The quarantine branch of a dataset: snapshots that failed a check, and what became of them. Blocking.

    quarantine/<node>   ── snapshot ── snapshot ── accepted ── snapshot ── discarded ──►

Each snapshot is a commit with the step's whole output and record, each decision a commit without changes
that names the snapshot. Commits are only added, so the branch is pushed like any other, and the state of all
snapshots is read from it alone. An accepted snapshot is committed again, with its changes, on top of the
node's branch; that commit is made first, so that a kill between the two loses nothing (see `settle`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import mao_git
from mao_datamgmt import provenance
from mao_datamgmt.context import Context
from mao_git import Clone, LogEntry, MergeConflict
from mao_shared.commit_messages import read_manifest
from mao_shared.errors import Conflict, InvalidInput, MaoError, NotFound
from mao_shared.logs import get_logger
from mao_shared.models import format_time
from mao_shared.models.check import (
    QuarantinedSnapshot,
    QuarantineState,
    quarantine_branch,
    results_from_record,
)
from mao_shared.models.common import is_name

log = get_logger(__name__)

MAX_ENTRIES = 10_000  # newest commits of the branch that are read
MAX_RECENT = 1000  # among which a step finds the snapshot that it has made itself
KIND = "quarantine"  # of a decision's record
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_waiting: dict[Path, tuple[str, int]] = {}  # clone → tip of its quarantine branch, and how many wait there


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided about a snapshot."""

    state: QuarantineState
    by: str = ""
    note: str = ""


# the branch


def append(context: Context, clone: Clone, tree: str, base: str, message: str) -> str:
    """Add a commit to this node's quarantine branch, which begins at `base`; return the commit."""
    branch = quarantine_branch(context.node)
    tip = follow_remote(context, clone)
    commit = clone.commit(tree, [base if tip is None else tip], message, context.author())
    if not clone.move_branch(branch, commit, tip):
        raise mao_git.errors.branch_busy(branch)
    return commit


def find_snapshot(context: Context, clone: Clone, run_id: str, step: str) -> LogEntry | None:
    """Return the quarantined snapshot of a step of a run that has just ended, or None."""
    tip = clone.latest_tip(quarantine_branch(context.node))
    matches = partial(provenance.is_snapshot_of, run_id=run_id, step=step)
    newest = () if tip is None else islice(clone.first_parents(tip), MAX_RECENT)
    return next((entry for entry in newest if matches(entry.message)), None)


def _entries(context: Context, clone: Clone) -> Iterator[LogEntry]:
    """Yield the commits of this node's quarantine branch, newest first."""
    tip = clone.latest_tip(quarantine_branch(context.node))
    if tip is not None:
        yield from clone.log_since(tip, clone.tip(context.node), MAX_ENTRIES)


def follow_remote(context: Context, clone: Clone) -> str | None:
    """Bring our quarantine branch on top of the remote's as last fetched; return its tip, or None.

    Both have commits that the other lacks only if this node was restored from a backup; they are merged.
    """
    branch = quarantine_branch(context.node)
    ours, theirs = clone.tip(branch), clone.tip(branch, remote=True)
    if theirs is None or ours == theirs:
        return ours
    if ours is None or clone.contains(theirs, ours):
        new = theirs
    elif clone.contains(ours, theirs):
        return ours
    else:
        new = clone.merge_keeping_ours(ours, theirs, context.author())
    if not clone.move_branch(branch, new, ours):
        raise mao_git.errors.branch_busy(branch)
    return new


def has_unpushed(context: Context, clone: Clone) -> bool:
    """True if the remote, as last fetched, lacks commits of our quarantine branch."""
    branch = quarantine_branch(context.node)
    return clone.tip(branch) != clone.tip(branch, remote=True) and clone.tip(branch) is not None


def count_unpushed(context: Context, clone: Clone) -> int:
    """Count the commits of our quarantine branch that the remote, as last fetched, lacks."""
    branch = quarantine_branch(context.node)
    tip, theirs = clone.tip(branch), clone.tip(branch, remote=True)
    if tip is None or tip == theirs:
        return 0
    return sum(1 for _ in clone.log_since(tip, theirs or clone.tip(context.node), MAX_ENTRIES))


# its snapshots


def count_waiting(context: Context, clone: Clone) -> int:
    """Count this node's snapshots that wait for a decision. A branch is read again only once it has moved."""
    tip = clone.latest_tip(quarantine_branch(context.node))
    if tip is None:
        return 0
    known = _waiting.get(clone.path)
    if known is None or known[0] != tip:
        found = list_snapshots(context, clone.path.stem)
        known = _waiting[clone.path] = tip, sum(snapshot.state == "waiting" for snapshot in found)
    return known[1]


def list_snapshots(context: Context, dataset: str, limit: int = MAX_ENTRIES) -> list[QuarantinedSnapshot]:
    """Return this node's quarantined snapshots of a dataset, newest first. Raises NotFound."""
    clone = Clone.open(context.data.clone(dataset))
    branch = quarantine_branch(context.node)
    pushed_tip = clone.tip(branch, remote=True)
    decided: dict[str, tuple[str, dict[str, Any]]] = {}
    found: list[QuarantinedSnapshot] = []
    for entry in _entries(context, clone):
        record = provenance.read_step_record(entry.message) or {}
        if record.get("kind") == KIND:
            decided.setdefault(str(record.get("snapshot")), (entry.commit, record))  # the newest one counts
        elif len(marks := provenance.trailers(entry.message)) == 2:
            last, decision = decided.get(entry.commit, (entry.commit, {}))
            pushed = pushed_tip is not None and clone.contains(pushed_tip, last)
            found.append(_snapshot(dataset, branch, entry, record, marks, decision, pushed=pushed))
        if len(found) == limit:
            break
    return found


def _snapshot(
    dataset: str,
    branch: str,
    entry: LogEntry,
    record: dict[str, Any],
    marks: dict[str, str],
    decision: dict[str, Any],
    *,
    pushed: bool,
) -> QuarantinedSnapshot:
    pipeline, output = record.get("pipeline"), record.get("output")
    files, size = read_manifest(record) or (None, None)
    return QuarantinedSnapshot.model_validate(
        {
            "dataset": dataset,
            "node": branch.rpartition("/")[2],
            "commit": entry.commit,
            "branch": branch,
            "run": marks["MAO-Run"],
            "step": marks["MAO-Step"],
            "pipeline": pipeline if isinstance(pipeline, str) and is_name(pipeline) else "",
            "scheduled_for": record.get("scheduled_for"),
            "quarantined_at": entry.time,
            "base": output.get("base") if isinstance(output, dict) else None,
            "files": files,
            "bytes": size,
            "checks": results_from_record(record),
            "state": decision.get("state", "waiting"),
            "decided_at": decision.get("at"),
            "by": decision.get("by", ""),
            "note": decision.get("note", ""),
            "accepted_as": decision.get("accepted_as"),
            "pushed": pushed,
        }
    )


def get_snapshot(context: Context, dataset: str, name: str) -> QuarantinedSnapshot:
    """Return a quarantined snapshot by its commit (7 digits or more) or run.

    Raises NotFound, and InvalidInput if several snapshots have that name.
    """
    found = [
        snapshot
        for snapshot in list_snapshots(context, dataset)
        if snapshot.run == name or (_COMMIT.fullmatch(name) and snapshot.commit.startswith(name))
    ]
    if not found:
        raise NotFound(
            f"Dataset {dataset!r} has no quarantined snapshot {name!r} of this node.",
            code="quarantine-not-found",
            next=f"List them: maoctl dataset quarantine list {dataset}",
        )
    if len(found) > 1:
        raise InvalidInput(
            f"{name!r} stands for {len(found)} quarantined snapshots: "
            f"{', '.join(snapshot.commit[:10] for snapshot in found[:5])}.",
            code="quarantine-ambiguous",
            next="Give more digits of the commit.",
        )
    return found[0]


# decisions


def accept(context: Context, dataset: str, name: str, decision: Decision) -> QuarantinedSnapshot:
    """Commit a snapshot on top of the node's branch, and record that it was accepted. May be repeated.

    Raises NotFound, Conflict: `quarantine-decided` if it was discarded, `quarantine-conflict` if the branch
    has changed in the same files since.
    """
    snapshot = get_snapshot(context, dataset, name)
    if snapshot.state == "accepted":
        return snapshot
    _check_waiting(snapshot)
    clone = Clone.open(context.data.clone(dataset))
    commit = _accepted_commit(context, clone, snapshot) or _commit_accepted(
        context, clone, snapshot, decision
    )
    _record(context, clone, snapshot, decision, commit)
    return get_snapshot(context, dataset, snapshot.commit)


def discard(context: Context, dataset: str, name: str, decision: Decision) -> QuarantinedSnapshot:
    """Record that a snapshot was discarded; it stays in the branch. May be repeated.

    Raises NotFound, and Conflict (`quarantine-decided`) if it was accepted.
    """
    snapshot = get_snapshot(context, dataset, name)
    if snapshot.state == "discarded":
        return snapshot
    clone = Clone.open(context.data.clone(dataset))
    if (commit := _accepted_commit(context, clone, snapshot)) is not None:
        _record(context, clone, snapshot, Decision("accepted"), commit)
        snapshot = get_snapshot(context, dataset, snapshot.commit)
    _check_waiting(snapshot)
    _record(context, clone, snapshot, decision, None)
    return get_snapshot(context, dataset, snapshot.commit)


def settle(context: Context, dataset: str, limit: int) -> list[QuarantinedSnapshot]:
    """Finish acceptances that a kill interrupted; return the newest `limit` snapshots, newest first."""
    clone = Clone.open(context.data.clone(dataset))
    found = list_snapshots(context, dataset, limit)
    changed = False
    for snapshot in found:
        if snapshot.state == "waiting" and (commit := _accepted_commit(context, clone, snapshot)):
            _record(context, clone, snapshot, Decision("accepted"), commit)
            changed = True
    return list_snapshots(context, dataset, limit) if changed else found


def _check_waiting(snapshot: QuarantinedSnapshot) -> None:
    if snapshot.state == "waiting":
        return
    when = "" if snapshot.decided_at is None else f" at {format_time(snapshot.decided_at)}"
    raise Conflict(
        f"The snapshot {snapshot.commit[:10]} of run {snapshot.run} was {snapshot.state}{when}.",
        code="quarantine-decided",
        next=f"To publish what was discarded, run the pipeline again, or take the files from the commit: "
        f"maoctl dataset download {snapshot.dataset} --ref {snapshot.commit[:10]}",
    )


def _accepted_commit(context: Context, clone: Clone, snapshot: QuarantinedSnapshot) -> str | None:
    """Return the commit on the node's branch that holds a snapshot, or None."""
    tip = clone.tip(context.node)
    if tip is None:
        return None
    matches = partial(provenance.is_snapshot_of, run_id=snapshot.run, step=snapshot.step)
    return clone.find_commit(tip, snapshot.base, matches, MAX_ENTRIES)


def _commit_accepted(
    context: Context, clone: Clone, snapshot: QuarantinedSnapshot, decision: Decision
) -> str:
    tip = clone.tip(context.node)
    if tip is None or snapshot.base is None or not clone.has_commit(snapshot.base):
        raise _conflict(snapshot, "the commit that it builds on is not on this node any more")
    try:
        tree = clone.merge_trees(snapshot.base, tip, snapshot.commit)
    except MergeConflict as conflict:
        paths = ", ".join(conflict.paths[:5]) or "its history"
        raise _conflict(snapshot, f"both changed {paths}") from conflict
    note = {
        "commit": snapshot.commit,
        "accepted_at": format_time(context.clock.now()),
        "by": decision.by or None,
        "note": decision.note or None,
    }
    original = clone.log(snapshot.commit, 1)[0][0].message
    known = {key: value for key, value in note.items() if value is not None}
    message = provenance.with_fact(original, "quarantine", known)
    commit = clone.commit(tree, [tip], message, context.author())
    if not clone.move_branch(context.node, commit, tip):
        raise mao_git.errors.branch_busy(context.node)
    log.info("quarantine.accepted", dataset=snapshot.dataset, run=snapshot.run, commit=commit)
    return commit


def _conflict(snapshot: QuarantinedSnapshot, why: str) -> MaoError:
    return Conflict(
        f"The snapshot {snapshot.commit[:10]} cannot be put on top of the branch of {snapshot.node}: {why}.",
        code="quarantine-conflict",
        next="What was published since takes precedence. Discard it: "
        f"maoctl dataset quarantine discard {snapshot.dataset} {snapshot.commit[:10]}",
    )


def _record(
    context: Context, clone: Clone, snapshot: QuarantinedSnapshot, decision: Decision, commit: str | None
) -> None:
    """Add the commit that records a decision."""
    facts = {
        "schema": provenance.SCHEMA,
        "kind": KIND,
        "node": context.node,
        "snapshot": snapshot.commit,
        "run": snapshot.run,
        "step": snapshot.step,
        "state": decision.state,
        "at": format_time(context.clock.now()),
        "by": decision.by or None,
        "note": decision.note or None,
        "accepted_as": commit,
    }
    verb = "Accept" if decision.state == "accepted" else "Discard"
    subject = f"{verb} the snapshot {snapshot.commit[:10]} of run {snapshot.run}"
    known = {key: value for key, value in facts.items() if value is not None}
    message = provenance.embed_record(subject, {"mao": known})
    tree = clone.tree(follow_remote(context, clone))
    append(context, clone, tree, snapshot.commit, message)
