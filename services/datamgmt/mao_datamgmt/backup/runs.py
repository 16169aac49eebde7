"""What becomes of a backup's unfinished runs, and what the datasets' history says of them. Mostly pure.

Nobody knows how runs that were under way went on: their tool may have ended after the backup was taken, and
its commit may be at the remote, or be lost with the machine. So no tool is started for them again, and no
step is tried again. What a tool had already left is published.

Every commit of a step carries its record (`provenance`). So a run whose commits are there has succeeded, as
far as they go; of its other steps nobody knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice, takewhile
from typing import Any

from pydantic import ValidationError

from mao_datamgmt import provenance
from mao_datamgmt.context import Context
from mao_git import Clone, LogEntry
from mao_shared.models import GROUND_TRUTH, Enrolment, Failure, ResolvedStep, Run, StepRun
from mao_shared.models.node import RESTORED, Restored, unknown_since
from mao_shared.states import RUN_ENDED, RunPhase, StepPhase

MAX_COMMITS = 100_000  # of one dataset that are read
_ENDED = (StepPhase.SUCCEEDED, StepPhase.SKIPPED, StepPhase.FAILED, StepPhase.CANCELLED, StepPhase.LOST)
_TO_PUBLISH = (StepPhase.EXITED, StepPhase.PUBLISHING)
_PASSED = (StepPhase.SUCCEEDED, StepPhase.SKIPPED)
_PASSED_BY = "The datasets' history has nothing of it, and the steps behind it went well."
_RUN_FACTS = ("pipeline", "node", "trigger", "retry_of", "schedule", "scheduled_for", "created_at")
_STEP_FACTS = ("tool", "image", "command", "env", "limits", "network", "privileges")


Commits = dict[tuple[str, str], tuple[LogEntry, dict[str, Any]]]
"""Run and step → the commit, and what is under `mao` in its message."""


# runs of the backup


def restored_failure(backup_at: datetime) -> Failure:
    return Failure(
        code=RESTORED,
        detail=f"{unknown_since(backup_at)}; it is not run again by itself.",
        next="See what the dataset has from it (maoctl dataset log); run it again if needed.",
        fault="infrastructure",
    )


def after_restore(run: Run, backup_at: datetime, restored_at: datetime) -> Run:
    """The run as it goes into the restored store."""
    if run.phase in RUN_ENDED:
        return run
    if run.phase is RunPhase.QUEUED:
        return _unstarted_run(run, backup_at, restored_at)
    steps = [_restored_step(step, backup_at, restored_at) for step in run.steps]
    changed = run.model_copy(update={"steps": steps})
    index = changed.current()
    if index is None or steps[index].phase in (*_TO_PUBLISH, StepPhase.CANCELLED):
        return changed  # continues to its end without running a tool
    why = steps[index].error or restored_failure(backup_at)
    ended = RunPhase.LOST if steps[index].phase is StepPhase.LOST else RunPhase.FAILED
    return changed.model_copy(update={"phase": ended, "finished_at": restored_at, "error": why})


def _unstarted_run(run: Run, backup_at: datetime, restored_at: datetime) -> Run:
    if run.trigger == "schedule":
        missed = run.model_copy(update={"phase": RunPhase.MISSED, "finished_at": restored_at})
        return missed.model_copy(
            update={"missed": "late", "reason": f"{unknown_since(backup_at)}.", "steps": []}
        )
    why = restored_failure(backup_at)
    steps = [_with_phase(step, StepPhase.SKIPPED, restored_at) for step in run.steps]
    ended = run.model_copy(update={"phase": RunPhase.CANCELLED, "finished_at": restored_at})
    return ended.model_copy(update={"error": why, "reason": why.detail, "steps": steps})


def _restored_step(step: StepRun, backup_at: datetime, restored_at: datetime) -> StepRun:
    retry = step.spec.retry.model_copy(update={"attempts": min(step.attempt, step.spec.retry.attempts)})
    kept = step.model_copy(update={"spec": step.spec.model_copy(update={"retry": retry})})  # no further try
    if step.phase in (*_ENDED, *_TO_PUBLISH):
        return kept
    return _with_phase(kept, StepPhase.LOST, restored_at).model_copy(
        update={"error": restored_failure(backup_at)}
    )


def _with_phase(step: StepRun, phase: StepPhase, now: datetime) -> StepRun:
    """The step in a phase that the state table may not allow: the store begins with it."""
    times = {**step.times, phase: now}
    return step.model_copy(update={"phase": phase, "times": times, "waiting": None, "not_before": None})


# what the history says


@dataclass(frozen=True, slots=True)
class StepCommit:
    """A step's commit. `record`: what is under `mao`; `master`: the URL of the dataset's remote."""

    run: str
    step: str
    dataset: str
    master: str
    commit: str
    at: datetime
    pushed: bool
    is_truth: bool  # its commit is one of ground truth's own
    record: Mapping[str, Any]


def commits_since(context: Context, dataset: str, tip: str | None) -> list[StepCommit]:
    """This node's steps in the dataset, here or at its remote as last seen, that came after `tip`.

    Blocking; raises NotFound, CloneBroken.
    """
    clone = Clone.open(context.data.clone(dataset))
    ours = clone.tip(context.node)
    theirs = clone.tip(context.node, remote=True)
    pushed = {} if theirs is None else _steps(clone, theirs, tip)
    here = {} if ours is None else _steps(clone, ours, tip)
    truth = _truth_commits(clone, tip)
    found = []
    for key, (entry, record) in {**here, **pushed}.items():  # the remote's where both have it
        commit = StepCommit(
            *key, dataset, clone.url, entry.commit, entry.time, key in pushed, entry.commit in truth, record
        )
        if record.get("node") == context.node:
            found.append(commit)
    return sorted(found, key=lambda commit: commit.at)


def _steps(clone: Clone, start: str, known: str | None) -> Commits:
    found: Commits = {}
    for entry in clone.log_since(start, known, MAX_COMMITS):
        names = provenance.trailers(entry.message)
        record = provenance.read_step_record(entry.message)
        if len(names) == 2 and record is not None:
            found.setdefault((names["MAO-Run"], names["MAO-Step"]), (entry, record))
    return found


def _truth_commits(clone: Clone, known: str | None) -> set[str]:
    """Ground truth's own commits since `known`."""
    tip = clone.latest_tip(GROUND_TRUTH)
    line = iter(()) if tip is None else islice(clone.first_parents(tip), MAX_COMMITS)
    return {entry.commit for entry in takewhile(lambda entry: entry.commit != known, line)}


def reconstruct_run(
    found: Sequence[StepCommit], known: Run | None, enrolment: Enrolment | None, restored: Restored
) -> Run | None:
    """The run as its commits have it; None when that changes nothing, or none of them can be used: pure.

    `known`: as the store has it. What ended before the backup, and what started here since, is left alone.
    """
    if known is not None and not _is_uncertain(known, restored):
        return None
    succeeded = [step for commit in found if (step := _found_step(commit, known, enrolment)) is not None]
    run = known if known is not None else _new_run(found[0])
    if run is None or not succeeded:
        return None
    backup_at = restored.backup_at
    steps = _ordered_steps(run.steps, succeeded, enrolment, backup_at)
    ended_at = max(step.times[StepPhase.SUCCEEDED] for step in succeeded)
    whole = all(step.phase in _PASSED for step in steps)
    error = None if whole else restored_failure(backup_at)
    changed = run.model_copy(
        update={
            "phase": RunPhase.SUCCEEDED if whole else RunPhase.LOST,
            "steps": steps,
            "finished_at": ended_at,
            "started_at": run.started_at or _time(found[0].record, "started_at"),
            "missed": None,
            "reason": None,
            "error": error,
        }
    )
    return None if changed == known else changed


def _is_uncertain(run: Run, restored: Restored) -> bool:
    """Whether nobody here knows how the run ended: it was under way in the backup, or missed."""
    if run.phase in RUN_ENDED:
        reconstructed = any(step.waiting == _PASSED_BY for step in run.steps)
        ended_by_restore = run.error is not None and run.error.code == RESTORED
        return run.phase is RunPhase.MISSED or reconstructed or ended_by_restore
    return run.created_at <= restored.restored_at


def _ordered_steps(
    known: list[StepRun], succeeded: list[StepRun], enrolment: Enrolment | None, backup_at: datetime
) -> list[StepRun]:
    """All steps of the run: found ones as found; one before them has passed, one after them is unknown."""
    by_name = {step.spec.name: step for step in succeeded}
    planned = known or ([StepRun(spec=spec) for spec in enrolment.steps] if enrolment is not None else [])
    if not by_name.keys() <= {step.spec.name for step in planned}:
        planned = succeeded  # the pipeline has changed since
    last = max(index for index, step in enumerate(planned) if step.spec.name in by_name)
    steps = []
    for index, step in enumerate(planned):
        if step.spec.name in by_name:
            steps.append(by_name[step.spec.name])
        elif step.phase in _PASSED:
            steps.append(step)
        elif index < last:
            changes = {"phase": StepPhase.SKIPPED, "waiting": _PASSED_BY, "error": None}
            steps.append(step.model_copy(update=changes))
        else:
            why = restored_failure(backup_at)
            steps.append(step.model_copy(update={"phase": StepPhase.LOST, "error": why, "waiting": None}))
    return steps


def _new_run(found: StepCommit) -> Run | None:
    """A run that the store does not know; None for a record that is not ours."""
    facts = {name: found.record[name] for name in _RUN_FACTS if found.record.get(name) is not None}
    try:
        return Run.model_validate({"id": found.run, "phase": RunPhase.RUNNING, **facts})
    except ValidationError:
        return None


def _found_step(found: StepCommit, known: Run | None, enrolment: Enrolment | None) -> StepRun | None:
    """The step as its commit's record has it; None for one that cannot be read."""
    record = found.record
    exit_, log, output = record.get("exit"), record.get("log") or {}, record.get("output") or {}
    try:
        spec = _step_spec(found, known, enrolment)
        times = {**record.get("times", {}), StepPhase.SUCCEEDED: found.at}
        return StepRun.model_validate(
            {
                "spec": spec,
                "phase": StepPhase.SUCCEEDED,
                "attempt": record.get("attempt", 1),
                "times": times,
                "exit": exit_,
                "log_bytes": log.get("bytes"),
                "log_sha256": log.get("sha256"),
                "user": record.get("user"),
                "engine": (record.get("versions") or {}).get("engine"),
                "base_commit": output.get("base"),
                "input_commit": (record.get("input") or {}).get("commit"),
                "snapshot": found.commit,
                "ground_truth": found.commit if found.is_truth else None,
                "pushed": found.pushed,
            }
        )
    except (ValidationError, AttributeError, KeyError, TypeError):
        return None


def _step_spec(found: StepCommit, known: Run | None, enrolment: Enrolment | None) -> ResolvedStep:
    """What was run: as the store has it if that is the same image, else as the record has it.

    In a record, values that look like secrets are masked.
    """
    record = found.record
    specs = [step.spec for step in known.steps] if known is not None else []
    specs += enrolment.steps if enrolment is not None else []
    for spec in specs:
        if spec.name == found.step and spec.image.pinned == record["image"]["pinned"]:
            return spec
    facts = {name: record[name] for name in _STEP_FACTS if record.get(name) is not None}
    output = {"name": found.dataset, "master": found.master, "branch": record["output"]["branch"]}
    source = record.get("input")
    if source is not None:
        facts["input"] = {"name": source["dataset"], "master": "", "branch": source["branch"]}
    return ResolvedStep.model_validate({"name": found.step, "output": output, **facts})


def _time(record: Mapping[str, Any], name: str) -> datetime | None:
    text = record.get(name)
    return datetime.fromisoformat(text) if isinstance(text, str) else None
