"""Sets broken clones aside and rebuilds them from their remotes, with commits that only they had. Blocking.

    clone ─► record of the fault ─► clone moved beside it ─► new clone, with the outbox ─► record finished

`aside/<dataset>-<time>/` holds the broken clone as it was, the dataset's worktree, and the record
`clone.json`. The record is written before anything is moved, so that after a kill the next start knows what
is left to do; each step may be repeated. The record and the condition remain until a person acknowledges it.
Nothing is ever deleted.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from pydantic import ValidationError

import mao_git
from mao_datamgmt import provenance
from mao_datamgmt.context import Context
from mao_git import Clone, RepositoryError
from mao_shared.commit_messages import read_step_record
from mao_shared.errors import Conflict, MaoError, NotFound, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models.check import quarantine_branch
from mao_shared.models.common import STORED
from mao_shared.models.dataset import BrokenClone

log = get_logger(__name__)

RECORD, ACKNOWLEDGED = "clone.json", "clone-acknowledged.json"
MIN_REBUILD_INTERVAL = timedelta(minutes=10)
"""Between two rebuilds of a dataset's clone: a clone that breaks again sooner is on a failing disk."""
_DISK_ERRNOS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
    }
)


def broken_clones(context: Context, dataset: str | None = None) -> list[BrokenClone]:
    """Return the clones that were set aside and not acknowledged, of one dataset or of all, oldest first."""
    found = [record for _, record in _records(context)]
    wanted = [record for record in found if dataset in (None, record.dataset)]
    return sorted(wanted, key=lambda record: record.at)


def _records(context: Context) -> list[tuple[Path, BrokenClone]]:
    folder = context.data.aside("x", context.clock.now()).parent
    found = []
    for path in sorted(folder.glob(f"*/{RECORD}")):
        try:
            found.append((path, BrokenClone.model_validate_json(path.read_bytes(), context=STORED)))
        except (OSError, ValidationError) as error:
            log.error("clone.record_unreadable", path=str(path), error=str(error))
    return found


def awaiting_rebuild(context: Context, dataset: str) -> list[tuple[Path, BrokenClone]]:
    """Return the records of clones that are not yet rebuilt with their commits."""
    return [
        (p, record)
        for p, record in _records(context)
        if record.dataset == dataset and record.state == "waiting"
    ]


def _write(path: Path, record: BrokenClone) -> None:
    temporary = path.with_suffix(".new")
    with temporary.open("w") as file:
        file.write(record.model_dump_json(indent=1))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    for folder in (path.parent, path.parent.parent):
        _sync(folder)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# setting aside


def may_be_broken(error: BaseException) -> bool:
    """True if an error may come from a broken clone rather than from a full or read-only disk."""
    if isinstance(error, MaoError):
        return isinstance(error, mao_git.CloneBroken) or error.code == "dataset-not-here"
    return (
        isinstance(error, (RepositoryError, OSError)) and mao_git.errors.find_errno(error) not in _DISK_ERRNOS
    )


def set_broken_aside(context: Context, dataset: str) -> BrokenClone | None:
    """Set the clone aside if it is broken; return None if it is intact or absent.

    Raises Unavailable (`clone-broken`) if another was set aside recently: the disk is then the likely cause.
    """
    path = context.data.clone(dataset)
    if not os.path.lexists(path):
        return None
    fault = mao_git.fsck(path, context.node)
    if fault is None:
        return None
    now = context.clock.now()
    if any(now - record.at < MIN_REBUILD_INTERVAL for record in broken_clones(context, dataset)):
        raise Unavailable(
            f"The clone of dataset {dataset} is broken again ({fault}), soon after it was rebuilt.",
            code="clone-broken",
            next="Check the disk of the data directory (dmesg, smartctl). The clone is left as it is "
            f"for {MIN_REBUILD_INTERVAL.seconds // 60} minutes.",
        )
    folder = context.data.aside(dataset, now)
    folder.mkdir(parents=True, mode=0o700)
    record = BrokenClone(
        dataset=dataset, path=str(folder / path.name), fault=fault, at=now, url=_origin_url(path)
    )
    _write(folder / RECORD, record)
    move_aside(context, record)
    log.error("clone.set_aside", dataset=dataset, path=record.path, fault=fault)
    return record


def move_aside(context: Context, record: BrokenClone) -> None:
    """Move the worktree, then the clone, to the path in `record`.

    The clone is moved last, so a record without a clone means an unfinished move.
    """
    path, target = context.data.clone(record.dataset), Path(record.path)
    worktree = context.data.worktree(record.dataset)
    if worktree.exists():
        worktree.rename(target.parent / "worktree")
    if os.path.lexists(path):
        path.rename(target)
    _sync(target.parent)
    if path.parent.is_dir():
        _sync(path.parent)


def finish_moves(context: Context) -> None:
    """Finish moves that a kill interrupted. To be called only at startup, before any other call."""
    for path, record in _records(context):
        if record.state == "waiting" and not os.path.lexists(record.path):
            if os.path.lexists(context.data.clone(record.dataset)):
                move_aside(context, record)
            else:
                log.error("clone.gone", dataset=record.dataset, path=str(path))
                _write(path, record.model_copy(update={"state": "made-anew"}))


def _origin_url(path: Path) -> str | None:
    """Return the remote's URL from the clone's configuration, or None if it cannot be read."""
    try:
        lines = (path / "config").read_text(errors="replace").splitlines()
    except OSError:
        return None
    inside = False
    for line in lines:
        if line.strip().startswith("["):
            inside = line.strip().startswith('[remote "origin"')
        elif inside and line.strip().startswith("url ="):
            url = line.partition("=")[2].strip()
            return url if url.isprintable() else None
    return None


# rebuilding


def restore_commits(context: Context, dataset: str, clone: Clone) -> None:
    """Replay the commits that only broken clones had onto the new clone. May be repeated."""
    for path, record in awaiting_rebuild(context, dataset):
        salvaged = mao_git.salvage(
            Path(record.path),
            clone,
            context.node,
            observation_key(context.node),
            context.sign,
            beside=quarantine_branch(context.node),
        )
        log.warning("clone.put_back", dataset=dataset, commits=len(salvaged.kept), lost=salvaged.lost)
        path.with_suffix(".salvaged").write_text(
            json.dumps({"kept": len(salvaged.kept), "lost": salvaged.lost})
        )


def mark_rebuilt(context: Context, dataset: str) -> None:
    """Record that the new clone and the replayed commits are in place."""
    for path, record in awaiting_rebuild(context, dataset):
        changes: dict[str, object] = {"state": "made-anew"}
        try:
            changes |= json.loads(path.with_suffix(".salvaged").read_text())
        except (OSError, ValueError):
            log.warning("clone.salvage_unknown", dataset=dataset)
        _write(path, record.model_copy(update=changes))
        path.with_suffix(".salvaged").unlink(missing_ok=True)


def record_losses(context: Context, dataset: str, unpushed: dict[str, str]) -> bool:
    """Record which commits of `unpushed` (commit → its observation) the rebuilt clone lacks.

    Returns False while there is no rebuilt clone.
    """
    rebuilt = [
        (p, record)
        for p, record in _records(context)
        if record.dataset == dataset and record.state != "waiting"
    ]
    if not rebuilt or not unpushed:
        return bool(rebuilt)
    clone = Clone.open(context.data.clone(dataset))
    tip = clone.latest_tip(context.node)
    key = observation_key(context.node)
    present = set() if tip is None else {key(commit.message) for commit in clone.first_parents(tip)}
    path, record = rebuilt[-1]
    missing = {commit: observation for commit, observation in unpushed.items() if observation not in present}
    known = {
        c: record.lost.get(c, "nothing of it can be read").removesuffix(f" ({w})") for c, w in missing.items()
    }
    lost = record.lost | {commit: f"{why} ({missing[commit]})" for commit, why in known.items()}
    if lost != record.lost:
        _write(path, record.model_copy(update={"lost": lost}))
    return True


def observation_key(node: str) -> Callable[[str], str | None]:
    """Return a function that extracts this node's observation from a commit message, or None."""

    def key(message: str) -> str | None:
        record = read_step_record(message)
        if not isinstance(record, dict) or record.get("node") != node:
            return None
        if record.get("kind") == "external":
            return f"external values {record.get('first')} to {record.get('last')}"
        trailers = provenance.trailers(message)
        return f"run {trailers['MAO-Run']}, step {trailers['MAO-Step']}" if len(trailers) == 2 else None

    return key


def rebuild_waits(record: BrokenClone, error: MaoError) -> Unavailable:
    """Return the error to raise while the clone cannot be rebuilt yet."""
    return Unavailable(f"{record.detail} {error.detail}", code="clone-broken", next=error.next or record.next)


def acknowledge(context: Context, dataset: str) -> list[BrokenClone]:
    """Record that a person has seen the broken clone: the folder stays, the condition is cleared.

    Raises NotFound (`nothing-to-acknowledge`), and Conflict (`clone-waits`) until the clone is rebuilt.
    """
    found = [(path, record) for path, record in _records(context) if record.dataset == dataset]
    if not found:
        raise NotFound(
            f"No clone of dataset {dataset!r} was set aside as broken, or it was acknowledged.",
            code="nothing-to-acknowledge",
            next=f"See its state: maoctl dataset get {dataset}",
        )
    for _, record in found:
        if record.state == "waiting":
            raise Conflict(record.detail, code="clone-waits", next=record.next)
    for path, _ in found:
        path.rename(path.with_name(ACKNOWLEDGED))
    return [record for _, record in found]
