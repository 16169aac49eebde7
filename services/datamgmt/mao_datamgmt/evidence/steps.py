"""Finds the records, commits, files and logs of a run's steps. Blocking."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mao_datamgmt import provenance
from mao_datamgmt.context import Context
from mao_datamgmt.datasets import clones
from mao_datamgmt.datasets.clones import dataset_names
from mao_datamgmt.provenance import WrittenFiles
from mao_git import Clone, ContentStream, RepositoryError
from mao_shared.commit_messages import read_step_record, recorded_env
from mao_shared.errors import Conflict, MaoError, NotFound
from mao_shared.models import Run, StepRun, format_time, is_name
from mao_shared.states import RUN_ENDED, StepPhase

READ_SIZE = 1 << 20  # bytes
MAX_ATTEMPT = 999


@dataclass(frozen=True)
class StepEvidence:
    """One execution of a step.

    `record` is the one in the step's commit under `mao`; for a step without a commit, the one that it would
    contain. `commit` is the snapshot, None if nothing was published. `step` is None for a run that is no
    longer in the store.
    """

    index: int
    record: dict[str, Any]
    succeeded: bool
    ended_at: str
    error: str | None = None
    commit: str | None = None
    step: StepRun | None = None

    @property
    def name(self) -> str:
        return str(self.record["step"])

    @property
    def dataset(self) -> str:
        return str(self.record["output"]["dataset"])

    @property
    def input(self) -> tuple[str, str] | None:
        """The dataset and the commit that the step read; None for a step without an input."""
        found = self.record.get("input") or {}
        return (found["dataset"], found["commit"]) if found.get("commit") else None


def find_steps(context: Context, run_id: str, run: Run | None) -> list[StepEvidence]:
    """Return the steps of a run that were started.

    For a run that is no longer in the store, the published steps are found by their commits. Raises NotFound
    for an unknown run, Conflict while the run is in progress or if no step was started.
    """
    if run is None:
        published = _steps_of_commits(context, run_id)
        if not published:
            raise NotFound(
                f"There is no run {run_id!r} on this node, and no commit of it.",
                code="run-not-found",
                next="List the runs with 'maoctl run list', the commits with 'maoctl dataset log NAME'.",
            )
        return published
    if run.phase not in RUN_ENDED:
        raise Conflict(
            f"The run {run.id} has not ended: it is {run.phase}.",
            code="run-not-ended",
            next=f"Wait for it: maoctl run wait {run.id}",
        )
    found = []
    for index, step in enumerate(run.steps):
        if not step.times or step.phase is StepPhase.SKIPPED:
            continue
        record = None
        if step.snapshot is not None:
            clone = open_dataset(context, step.spec.output.name)
            record = read_step_record(read_message(clone, step.snapshot))
        reconstructed: dict[str, Any] = provenance.run_record(run, step, WrittenFiles(), {})["mao"]
        ended_at = max([*step.times.values(), *([run.finished_at] if run.finished_at else [])])
        evidence = StepEvidence(
            index=index,
            record=_current_form(record or {**reconstructed, "outputs": {}}),
            succeeded=step.phase is StepPhase.SUCCEEDED,
            ended_at=format_time(step.times.get(StepPhase.EXITED, ended_at)),
            error=None if step.error is None else f"{step.error.code}: {step.error.detail}",
            commit=step.snapshot,
            step=step,
        )
        found.append(evidence)
    if not found:
        raise Conflict(
            f"No step of the run {run_id} was started: it is {run.phase}.",
            code="run-without-steps",
            next=f"See why: maoctl run show {run_id}",
        )
    return found


def _steps_of_commits(context: Context, run_id: str) -> list[StepEvidence]:
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for name in dataset_names(context.data):
        clone = open_dataset(context, name)
        branches = {**clone.list_branches(remote=True), **clone.list_branches()}
        for tip in set(branches.values()):
            for commit in _find_commits(clone, tip, run_id):
                record = read_step_record(read_message(clone, commit))
                if record is not None and _is_valid(record, name):
                    found.setdefault(str(record["step"]), (commit, _current_form(record)))
    oldest_first = reversed(found.values())  # the order of steps with equal times
    ordered = sorted(oldest_first, key=lambda found: _exit_time(found[1]))
    return [
        StepEvidence(index, record, True, _exit_time(record), commit=commit)
        for index, (commit, record) in enumerate(ordered)
    ]


def _is_valid(record: dict[str, Any], dataset: str) -> bool:
    """True if the names in a record are valid. Anybody with push access may have written it."""
    found = record.get("input")
    names = [record.get("step"), dataset, *([found.get("dataset")] if isinstance(found, dict) else [])]
    output = record.get("output")
    is_same_dataset = isinstance(output, dict) and output.get("dataset") == dataset
    return is_same_dataset and all(isinstance(name, str) and is_name(name) for name in names)


def _exit_time(record: dict[str, Any]) -> str:
    times: dict[str, str] = record.get("times") or {}
    return times.get("exited") or max(times.values(), default="1970-01-01T00:00:00Z")


def _find_commits(clone: Clone, tip: str, run_id: str) -> Iterator[str]:
    start: str | None = tip
    while start is not None:
        found = clone.find_commit(
            start, None, lambda text: provenance.trailers(text).get("MAO-Run") == run_id, limit=sys.maxsize
        )
        if found is None:
            return
        yield found
        start = clone.parent(found)


def _current_form(record: dict[str, Any]) -> dict[str, Any]:
    """Give every variable of a record a value: most records contain only names."""
    return {**record, "env": recorded_env(record)}


def read_message(clone: Clone, commit: str) -> str:
    """Return a commit's message.

    Raises NotFound if the clone does not have the commit, MaoError (`commit-broken`) if it cannot be read.
    """
    try:
        clone.check_object(commit)
    except RepositoryError as error:
        raise MaoError(
            f"The commit {commit[:10]} cannot be read: {error}.",
            code="commit-broken",
            next=f"Back up the node, then check the clone for more damage: git -C {clone.path} fsck",
        ) from error
    entries, _ = clone.log(clone.resolve(commit), 1)
    return entries[0].message


def open_dataset(context: Context, name: str) -> Clone:
    """Open the clone of a dataset. Raises NotFound."""
    return Clone.open(context.data.clone(name))


def open_content(context: Context, clone: Clone, commit: str, path: str) -> ContentStream:
    """Open a file of a commit for reading in pieces, also one in Git LFS."""
    return clones.with_lfs_content(context, clone, commit, lambda: clone.open_file(commit, path))


def open_local_file(path: Path) -> ContentStream:
    """Open a local file for reading in pieces."""
    return ContentStream(path.stat().st_size, _pieces(path))


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(READ_SIZE):
            yield piece


def written_paths(clone: Clone, step: StepEvidence) -> list[str]:
    """Return the paths that a step wrote: those in its record, otherwise those that its commit changed."""
    if step.commit is None:
        return []
    if "outputs" in step.record:
        return sorted(step.record["outputs"])
    before = clone.parent(step.commit)
    if before is None:
        return sorted(clone.list_paths(step.commit))
    deltas = clone.file_changes(before, step.commit)
    return [delta.path for delta in deltas if delta.change != "removed"]


def log_path(context: Context, run_id: str, step: StepEvidence) -> Path | None:
    """Return the path of a step's log, or None if the log was removed."""
    attempt = step.record.get("attempt", 1)  # it may be forged
    if not isinstance(attempt, int) or not 0 < attempt <= MAX_ATTEMPT:
        return None
    path = context.data.log(run_id, step.index, attempt)
    return path if path.is_file() else None
