"""Ends the unfinished runs of a backup, and reconstructs later runs from the datasets' history. Mostly pure.

It is unknown how a run in progress continued: its tool may have ended after the backup was taken, and
the commit may be on the remote or lost with the machine. So no tool is started again for it, and no step is
retried. Output that a tool had already written is published.

Every commit of a step carries its record (`provenance`). A step whose commit is found has succeeded; the
outcome of the other steps is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice, takewhile
from typing import Any

from pydantic import ValidationError

from mao_datamgmt import provenance
from mao_datamgmt.context import Context
from mao_git import Clone, LogEntry
from mao_shared.commit_messages import read_step_record, recorded_env
from mao_shared.models import GROUND_TRUTH, Enrolment, Failure, ResolvedStep, Run, StepRun
from mao_shared.models.check import quarantine_branch, results_from_record
from mao_shared.models.node import RESTORED, Restored, unknown_since
from mao_shared.states import RUN_ENDED, RunPhase, StepPhase

MAX_COMMITS = 100_000  # read of one dataset
_ENDED = (StepPhase.SUCCEEDED, StepPhase.SKIPPED, StepPhase.FAILED, StepPhase.CANCELLED, StepPhase.LOST)
_TO_PUBLISH = (StepPhase.EXITED, StepPhase.PUBLISHING)
_PASSED = (StepPhase.SUCCEEDED, StepPhase.SKIPPED)
_PASSED_BY = "The datasets' history has nothing of it, and the steps behind it went well."
_RUN_FACTS = ("pipeline", "node", "trigger", "retry_of", "schedule", "scheduled_for", "created_at")
_STEP_FACTS = ("tool", "image", "command", "limits", "network", "privileges", "secrets")


Commits = dict[tuple[str, str], tuple[LogEntry, dict[str, Any]]]
"""Run and step → the commit and its record."""


# runs in the backup


def restored_failure(backup_at: datetime) -> Failure:
    return Failure(
        code=RESTORED,
        detail=f"{unknown_since(backup_at)}; it is not run again by itself.",
        next="See what the dataset has from it (maoctl dataset log NAME); run it again if needed.",
        fault="infrastructure",
    )


def after_restore(run: Run, backup_at: datetime, restored_at: datetime) -> Run:
    """Return a run as the restored store records it: no tool is run for it again."""
    failure = restored_failure(backup_at)
    if run.phase in RUN_ENDED:
        return run
    if run.phase is RunPhase.QUEUED and run.trigger == "schedule":
        reason = f"{unknown_since(backup_at)}."
        changes = {"phase": RunPhase.MISSED, "finished_at": restored_at, "missed": "late", "reason": reason}
        return run.model_copy(update={**changes, "steps": []})
    if run.phase is RunPhase.QUEUED:
        steps = [_with_phase(step, StepPhase.SKIPPED, restored_at) for step in run.steps]
        changes = {"phase": RunPhase.CANCELLED, "finished_at": restored_at, "reason": failure.detail}
        return run.model_copy(update={**changes, "error": failure, "steps": steps})
    steps = []
    for step in run.steps:
        retry = step.spec.retry.model_copy(update={"attempts": min(step.attempt, step.spec.retry.attempts)})
        restored = step.model_copy(update={"spec": step.spec.model_copy(update={"retry": retry})})
        if step.phase not in (*_ENDED, *_TO_PUBLISH):
            restored = _with_phase(restored, StepPhase.LOST, restored_at)
            restored = restored.model_copy(update={"error": failure})
        steps.append(restored)
    changed = run.model_copy(update={"steps": steps})
    index = changed.current()
    if index is None or steps[index].phase in (*_TO_PUBLISH, StepPhase.CANCELLED):
        return changed  # continues to its end without running a tool
    ended = RunPhase.LOST if steps[index].phase is StepPhase.LOST else RunPhase.FAILED
    error = steps[index].error or failure
    return changed.model_copy(update={"phase": ended, "finished_at": restored_at, "error": error})


def _with_phase(step: StepRun, phase: StepPhase, now: datetime) -> StepRun:
    """Set a phase without checking the transition: it is the first one in the restored store."""
    times = {**step.times, phase: now}
    return step.model_copy(update={"phase": phase, "times": times, "waiting": None, "not_before": None})


# runs in the datasets' history


@dataclass(frozen=True, slots=True)
class StepCommit:
    """A step's commit. `record`: the step's record; `master`: the URL of the dataset's remote."""

    run: str
    step: str
    dataset: str
    master: str
    commit: str
    at: datetime
    pushed: bool
    is_truth: bool  # the commit is a first-parent ancestor of ground truth
    record: Mapping[str, Any]
    is_quarantined: bool = False


def commits_since(
    context: Context, dataset: str, tip: str | None, since: datetime | None = None
) -> list[StepCommit]:
    """Return this node's steps after `tip`, from its local branch and the remote one as last fetched.

    With `since`, also those quarantined after that time. Oldest first. Blocking. Raises NotFound,
    CloneBroken.
    """
    clone = Clone.open(context.data.clone(dataset))
    local_tip = clone.tip(context.node)
    remote_tip = clone.tip(context.node, remote=True)
    pushed = {} if remote_tip is None else _steps(clone, remote_tip, tip)
    local = {} if local_tip is None else _steps(clone, local_tip, tip)
    truth_tip = clone.latest_tip(GROUND_TRUTH)
    truth_line = iter(()) if truth_tip is None else islice(clone.first_parents(truth_tip), MAX_COMMITS)
    truth = {entry.commit for entry in takewhile(lambda entry: entry.commit != tip, truth_line)}
    found = []
    for key, (entry, record) in {**local, **pushed}.items():  # the remote commit if both have one
        commit = StepCommit(
            *key, dataset, clone.url, entry.commit, entry.time, key in pushed, entry.commit in truth, record
        )
        if record.get("node") == context.node:
            found.append(commit)
    known = local | pushed
    held = [] if since is None else _quarantined_since(context, clone, dataset, since)
    found += [commit for commit in held if (commit.run, commit.step) not in known]
    return sorted(found, key=lambda commit: commit.at)


def _quarantined_since(context: Context, clone: Clone, dataset: str, since: datetime) -> list[StepCommit]:
    tip = clone.latest_tip(quarantine_branch(context.node))
    if tip is None:
        return []
    return [
        StepCommit(
            *key, dataset, clone.url, entry.commit, entry.time, False, False, record, is_quarantined=True
        )
        for key, (entry, record) in _steps(clone, tip, clone.latest_tip(context.node)).items()
        if record.get("node") == context.node and entry.time > since - timedelta(seconds=1)
    ]


def _steps(clone: Clone, start: str, known: str | None) -> Commits:
    found: Commits = {}
    for entry in clone.log_since(start, known, MAX_COMMITS):
        names = provenance.trailers(entry.message)
        record = read_step_record(entry.message)
        if len(names) == 2 and record is not None:
            found.setdefault((names["MAO-Run"], names["MAO-Step"]), (entry, record))
    return found


def reconstruct_run(
    found: Sequence[StepCommit], known: Run | None, enrolment: Enrolment | None, restored: Restored
) -> Run | None:
    """Return the run as its commits describe it; None if nothing changes or no commit is usable. Pure.

    `known` is the run in the store. One that ended before the backup or started after the restore is kept.
    """
    if known is not None and not _is_uncertain(known, restored):
        return None
    steps_found = (_reconstruct_step(commit, known, enrolment) for commit in found)
    succeeded = [step for step in steps_found if step is not None]
    run = known
    if run is None:
        record = found[0].record
        facts = {name: record[name] for name in _RUN_FACTS if record.get(name) is not None}
        try:
            run = Run.model_validate({"id": found[0].run, "phase": RunPhase.RUNNING, **facts})
        except ValidationError:  # the record is not ours
            return None
    if not succeeded:
        return None
    backup_at = restored.backup_at
    steps = _complete_steps(run.steps, succeeded, enrolment, backup_at)
    ended_at = max(step.times[StepPhase.SUCCEEDED] for step in succeeded)
    is_complete = all(step.phase in _PASSED for step in steps)
    error = None if is_complete else restored_failure(backup_at)
    changed = run.model_copy(
        update={
            "phase": RunPhase.SUCCEEDED if is_complete else RunPhase.LOST,
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
    """True if the run's outcome is unknown: it was in progress in the backup, or recorded as missed."""
    if run.phase in RUN_ENDED:
        reconstructed = any(step.waiting == _PASSED_BY for step in run.steps)
        ended_by_restore = run.error is not None and run.error.code == RESTORED
        return run.phase is RunPhase.MISSED or reconstructed or ended_by_restore
    return run.created_at <= restored.restored_at


def _complete_steps(
    known: list[StepRun], succeeded: list[StepRun], enrolment: Enrolment | None, backup_at: datetime
) -> list[StepRun]:
    """Return all steps of the run: those before a found step have passed, those after the last are lost."""
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
            failure = restored_failure(backup_at)
            steps.append(step.model_copy(update={"phase": StepPhase.LOST, "error": failure, "waiting": None}))
    return steps


def _reconstruct_step(found: StepCommit, known: Run | None, enrolment: Enrolment | None) -> StepRun | None:
    """Return the step as its commit's record describes it; None if the record cannot be read."""
    record = found.record
    log, output, source = record.get("log") or {}, record.get("output") or {}, record.get("input")
    planned = [step.spec for step in known.steps] if known is not None else []
    planned += enrolment.steps if enrolment is not None else []
    try:
        pinned = record["image"]["pinned"]
        spec = next((s for s in planned if s.name == found.step and s.image.pinned == pinned), None)
        if spec is None:  # built from the record, which hardly has values of variables
            facts = {name: record[name] for name in _STEP_FACTS if record.get(name) is not None}
            facts["env"] = recorded_env(record)
            facts["output"] = {"name": found.dataset, "master": found.master, "branch": output["branch"]}
            if source is not None:
                facts["input"] = {"name": source["dataset"], "master": "", "branch": source["branch"]}
            spec = ResolvedStep.model_validate({"name": found.step, **facts})
        times = {**record.get("times", {}), StepPhase.SUCCEEDED: found.at}
        return StepRun.model_validate(
            {
                "spec": spec,
                "phase": StepPhase.SUCCEEDED,
                "attempt": record.get("attempt", 1),
                "times": times,
                "exit": record.get("exit"),
                "log_bytes": log.get("bytes"),
                "log_sha256": log.get("sha256"),
                "user": record.get("user"),
                "engine": (record.get("versions") or {}).get("engine"),
                "base_commit": output.get("base"),
                "input_commit": (source or {}).get("commit"),
                "snapshot": None if found.is_quarantined else found.commit,
                "checks": results_from_record(record),
                "quarantine": {"commit": found.commit, "branch": quarantine_branch(str(record["node"]))}
                if found.is_quarantined
                else None,
                "ground_truth": found.commit if found.is_truth else None,
                "pushed": found.pushed,
            }
        )
    except (ValidationError, AttributeError, KeyError, TypeError):
        return None


def _time(record: Mapping[str, Any], name: str) -> datetime | None:
    text = record.get(name)
    return datetime.fromisoformat(text) if isinstance(text, str) else None
