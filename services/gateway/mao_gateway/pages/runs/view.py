"""What is said of a run: why it waits or failed, what can be done with it, how it came about. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import get_args

from mao_gateway.pages.checks import decision_words, outcome_words
from mao_gateway.pages.formats import Clock, number, plural, span
from mao_shared.models import Run, StepRun, Trigger
from mao_shared.models.check import failed_checks_text, strongest_reaction
from mao_shared.states import RUN_ENDED, RunPhase, StepPhase

DONE = (StepPhase.SUCCEEDED, StepPhase.SKIPPED)
TRIGGERS: tuple[str, ...] = get_args(Trigger)
MAX_LINES = 10  # of a tool's output in a note
CHECK_FAILED = "check-failed"  # code of the error
MIN_DURATIONS = 3  # from which a usual duration is told
_VOTED = re.compile(r"ground-truth is for (\d+) nodes to agree on, it is not moved by one")
_HEX = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Note:
    """What a person should know first. `tone`: a colour of style.css; `code`: of an error, with its cause.

    `link`: words that lead to the run's checks.
    """

    tone: str
    icon: str
    title: str
    text: str = ""
    next: str = ""
    code: str = ""
    link: str = ""

    @property
    def lines(self) -> list[str]:
        """The text by lines: the first one, and the last ones of what a tool has written."""
        first, *rest = self.text.splitlines() or [""]
        return [line for line in (first, *rest[-MAX_LINES:]) if line.strip()]


@dataclass(frozen=True, slots=True)
class Action:
    """Something to do with a run; `why_not`: why not now, otherwise empty."""

    name: str
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run in a list. `tick`: None for a run without one; `why`: in a line why it is in its state."""

    run: Run
    steps: str
    took: str
    why: str


def reword_vote(reason: str) -> str:
    """Reword that ground truth is decided by a vote, which is no fault of a run."""
    return _VOTED.sub(r"for \1 nodes to vote", reason)


def make_row(run: Run, now: datetime) -> RunRow:
    """Return a run as a row of a list."""
    done = sum(step.phase in DONE for step in run.steps)
    error = run.error or next((step.error for step in run.steps if step.error), None)
    waiting = next((step.waiting for step in run.steps if step.waiting), None)
    why = (error.detail if error else None) or run.reason or waiting or ""
    if run.covers is not None:
        why = f"{plural(run.covers.count, 'tick')}: {why}" if why else plural(run.covers.count, "tick")
    return RunRow(
        run, f"{done} of {len(run.steps)}", took(run, now), reword_vote(why) if why else unpushed(run)
    )


def unpushed(run: Run) -> str:
    """Return that output of an ended run is not pushed yet; empty if it is, or if there is none."""
    late = run.phase is RunPhase.SUCCEEDED and any(step.snapshot and not step.pushed for step in run.steps)
    return "not pushed yet" if late else ""


def took(run: Run, now: datetime) -> str:
    """Return how long a run took, or has taken so far; empty if it has not started."""
    if run.started_at is None:
        return ""
    if run.finished_at is None:
        return f"{span(max(0.0, (now - run.started_at).total_seconds()))} so far"
    return span((run.finished_at - run.started_at).total_seconds())


def usual_seconds(runs: Sequence[Run]) -> float | None:
    """Return the median duration of runs, None for fewer than `MIN_DURATIONS`; reproductions do not count."""
    found = [
        (run.finished_at - run.started_at).total_seconds()
        for run in runs
        if run.started_at and run.finished_at and run.reproduces is None
    ]
    return median(found) if len(found) >= MIN_DURATIONS else None


def short_name(run_id: str) -> str:
    """Return the end of a run's id, by which maoctl finds it as well; another id as it is."""
    end = run_id.rpartition("-")[2]
    return end if _HEX.fullmatch(end) else run_id


def run_notes(run: Run, clock: Clock) -> list[Note]:
    """Return what has to be known first: the error, why it waits, that it is being cancelled."""
    notes: list[Note] = []
    if run.error is not None:
        of = next((step.spec.name for step in run.steps if step.error), None)
        title = f"Step {of} failed" if of else "The run failed"
        link = ""
        if run.error.code == CHECK_FAILED:
            title, link = f"{title} a data check", "See what was checked"
        code = f"{run.error.code}, caused by the {run.error.fault}"
        notes.append(Note("bad", "failed", title, run.error.detail, run.error.next or "", code, link))
    elif run.phase in (RunPhase.FAILED, RunPhase.LOST):
        notes.append(Note("bad", "failed", f"The run {run.phase}", run.reason or "Its record has no error."))
    if run.cancel is not None and run.phase not in RUN_ENDED:
        why = run.cancel.reason or "No reason was given."
        notes.append(Note("run", "info", "It is being cancelled", why))
    elif run.cancel is not None and run.phase is RunPhase.CANCELLED:
        notes.append(
            Note("off", "cancelled", "It was cancelled", run.cancel.reason or "No reason was given.")
        )
    elif run.phase is RunPhase.MISSED:
        notes.append(_missed(run, clock))
    elif run.phase is RunPhase.QUEUED:
        notes.append(Note("off", "waiting", "It waits", run.reason or "It begins as soon as it can."))
    elif run.error is None and run.reason:
        notes.append(Note("off", "info", "Note", reword_vote(run.reason)))
    if run.phase not in RUN_ENDED:
        notes += [note for step in run.steps if (note := _waits(step, clock))]
    return notes + [note for step in run.steps if (note := _check_note(step, clock))]


def _check_note(step: StepRun, clock: Clock) -> Note | None:
    """Return that checks of a step failed, unless its error says so."""
    reaction = strongest_reaction(step.checks)
    if reaction is None or step.error is not None:
        return None
    count = sum(not result.passed for result in step.checks)
    failed = f"{plural(count, 'data check')} of step {step.spec.name} failed"
    found = f"{failed_checks_text(step.checks)}."
    said = outcome_words(step, reaction)
    if step.quarantine is None:
        return Note("warn", "attention", failed, f"{said} {found}", link="See what was checked")
    decision = decision_words(step.quarantine, clock)
    if decision:
        title = f"The quarantined output of step {step.spec.name} was {step.quarantine.state}"
        return Note("off", "info", title, f"{failed}: {found}", decision, link="See what was checked")
    title = f"The output of step {step.spec.name} is in quarantine"
    return Note("warn", "quarantined", title, f"{failed}: {found}", said, link="Decide about it")


def _missed(run: Run, clock: Clock) -> Note:
    title, why = "The tick was missed", run.reason or "It is not known why."
    if run.covers is not None:
        title = f"{plural(run.covers.count, 'tick')} were missed"
        why += f" From {clock.full(run.covers.since)} to {clock.full(run.covers.until)}."
    return Note(
        "warn", "missed", title, why, f"Run it with a backfill: maoctl job backfill {run.schedule or 'JOB'}"
    )


def _waits(step: StepRun, clock: Clock) -> Note | None:
    """Return why a step does not advance."""
    if step.phase is StepPhase.PENDING and step.not_before and step.not_before > clock.now:
        left = span((step.not_before - clock.now).total_seconds())
        attempt = f"attempt {step.attempt} of {step.spec.retry.attempts}"
        title = f"Step {step.spec.name} is tried again in {left}: {attempt}"
        return Note("warn", "late", title, step.waiting or "")
    if step.waiting and step.phase not in (StepPhase.SUCCEEDED, StepPhase.SKIPPED):
        return Note("off", "waiting", f"Step {step.spec.name} waits: it is {step.phase}", step.waiting)
    return None


def run_actions(run: Run) -> dict[str, Action]:
    """Return what can be done with a run: cancel, retry, reproduce, verify, export."""
    ended = run.phase in RUN_ENDED
    begun = any(step.times and step.phase is not StepPhase.SKIPPED for step in run.steps)
    not_ended = "" if ended else "when the run has ended"
    no_evidence = not_ended or ("" if begun else "no step was started")
    cancel = "the run has ended" if ended else "it is being cancelled" if run.cancel else ""
    retry = not_ended or ("a reproduction is not repeated; reproduce the original" if run.reproduces else "")
    reproduce = "" if reproducible(run) else "when a step has published a snapshot"
    if run.reproduces:
        reproduce = "this is a reproduction; reproduce the original"
    return {
        "cancel": Action("Cancel", cancel),
        "retry": Action("Run again", retry),
        "reproduce": Action("Reproduce", reproduce),
        "verify": Action("Verify", no_evidence),
        "export": Action("Export crate", no_evidence),
    }


def reproducible(run: Run) -> list[str]:
    """Return the names of the steps that can be reproduced."""
    return [
        step.spec.name
        for step in run.steps
        if step.phase is StepPhase.SUCCEEDED and step.snapshot and step.base_commit
    ]


def cancel_consequence(run: Run) -> str:
    """Return what cancelling does, given where the run is."""
    index = run.active_step() if run.phase is RunPhase.RUNNING else None
    kept = [step.spec.name for step in run.steps if step.snapshot]
    stays = f" What {' and '.join(kept)} published stays." if kept else ""
    if index is None:
        return f"It ends before its next step.{stays}"
    step = run.steps[index]
    if step.phase in (StepPhase.EXITED, StepPhase.PUBLISHING):
        return f"Step {step.spec.name} is publishing, which is not interrupted. No step follows.{stays}"
    if step.phase in (StepPhase.STARTING, StepPhase.RUNNING):
        grace = number(step.spec.limits.grace)
        return f"Step {step.spec.name} is stopped with SIGTERM, after {grace} s with SIGKILL.{stays}"
    return f"Step {step.spec.name} does not start.{stays}"


def progress(run: Run) -> str:
    """Return which step a run is at: `step 2 of 2`."""
    if not run.steps:
        return ""
    index = run.current()
    if run.phase in RUN_ENDED or index is None:
        return plural(len(run.steps), "step")
    return f"step {index + 1} of {len(run.steps)}"
