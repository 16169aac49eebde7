"""Data checks in words: what a step declares, what came of it, and what its output is like since. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mao_gateway.pages.formats import Clock, number, plural
from mao_shared.models import Run, StepRun
from mao_shared.models.check import Check, CheckResult, Quarantine, strongest_reaction
from mao_shared.states import STEP_ENDED, StepPhase

REACTIONS = {
    "warn": "publish all the same",
    "quarantine": "hold it until a person decides",
    "block": "publish nothing, the run fails",
}
"""What a check that fails leads to → the same in words; what only a newer version knows is like `block`."""
FAILED = {"warn": ("attention", "warn"), "quarantine": ("quarantined", "warn")}
"""Reaction → icon and colour of a check that failed; all others look like `_BLOCKED`."""
_BLOCKED = ("failed", "bad")
_ORDER = {"block": 0, "quarantine": 1, "warn": 2}
_KINDS = {
    "present": "the file is there",
    "columns": "columns and their types",
    "rows": "number of rows",
    "rows-change": "change of the number of rows",
    "metric": "control metric",
    "schema": "JSON Schema",
}
MAX_COLUMNS = 20  # named in a description


@dataclass(frozen=True, slots=True)
class CheckRow:
    """A check of a step. `what` and `on`: the condition and the files it is about; `found`: in its result."""

    name: str
    what: str
    on: str
    reaction: str
    outcome: str
    icon: str
    colour: str
    found: str = ""

    @property
    def effect(self) -> str:
        return REACTIONS.get(self.reaction, REACTIONS["block"])

    @property
    def failed(self) -> bool:
        return self.outcome == "failed"


@dataclass(frozen=True, slots=True)
class StepChecks:
    """The checks of a step, the failed ones first. `why`: what the results led to, or why there are none."""

    step: StepRun
    rows: Sequence[CheckRow]
    icon: str
    colour: str
    summary: str
    why: str

    @property
    def waiting(self) -> Quarantine | None:
        """The quarantined snapshot that waits for a decision, or None."""
        found = self.step.quarantine
        return found if found is not None and found.state == "waiting" else None


def describe_check(check: Check) -> str:
    """Return the condition of a check."""
    if check.unknown_part is not None:
        return f"of a newer version: {check.unknown_part}"
    if check.columns is not None:
        filled = set(check.not_empty)
        words = [
            f"{name} ({kind}{', never empty' if name in filled else ''})"
            for name, kind in list(check.columns.items())[:MAX_COLUMNS]
        ]
        more = len(check.columns) - MAX_COLUMNS
        return "has the columns " + ", ".join(words) + (f" and {more} more" if more > 0 else "")
    if check.kind == "rows":
        return _rows_words(check.at_least, check.at_most)
    if check.kind == "rows-change":
        limits = [(check.max_decrease, "fewer"), (check.max_increase, "more")]
        words = [f"{_amount(limit)} {word}" for limit, word in limits if limit is not None]
        return f"at most {' and '.join(words)} than in the last snapshot"
    if check.metric is not None:
        return f"the control metric {check.metric} is inside its band"
    if check.json_schema is not None:
        return "is valid against its JSON Schema"
    return "is there"


def _rows_words(least: int | None, most: int | None) -> str:
    if least is None:
        return f"at most {plural(most or 0, 'row')}"
    if most is None:
        return f"at least {plural(least, 'row')}"
    return plural(least, "row") if least == most else f"{number(least)} to {plural(most, 'row')}"


def _amount(limit: str) -> str:
    return limit.replace("%", "\u202f%") if limit.endswith("%") else plural(int(limit), "row")


def check_files(check: Check) -> str:
    """Return what a check looks at: a file or pattern, all tables, or the metric's source."""
    if check.file is not None:
        return check.file
    return "" if check.metric is not None else "all tables"


def declared_rows(checks: Sequence[Check]) -> list[CheckRow]:
    """Return the checks that a step declares, in its order."""
    return [_row(check, None) for check in checks]


def check_rows(checks: Sequence[Check], results: Sequence[CheckResult]) -> list[CheckRow]:
    """Return checks with their results: the failed ones first, the strongest reaction at the top.

    A result without a declaration, as in the record of a commit of another node, tells only its kind.
    """
    by_name = {result.name: result for result in results}
    declared = {check.name for check in checks}
    rows = [_row(check, by_name.get(check.name)) for check in checks]
    rows += [_row(None, result) for result in results if result.name not in declared]
    return sorted(rows, key=lambda row: _ORDER.get(row.reaction, 0) if row.failed else len(_ORDER))


def _row(check: Check | None, result: CheckResult | None) -> CheckRow:
    reaction = result.on_failure if result is not None else check.on_failure if check is not None else ""
    outcome, icon, colour = "not checked", "waiting", "off"
    if result is not None and result.passed:
        outcome, icon, colour = "passed", "ok", "ok"
    elif result is not None:
        outcome, (icon, colour) = "failed", FAILED.get(reaction, _BLOCKED)
    name = result.name if result is not None else check.name if check is not None else ""
    kind = result.kind if result is not None else ""
    return CheckRow(
        name=name,
        what=describe_check(check) if check is not None else _KINDS.get(kind, kind),
        on=check_files(check) if check is not None else "",
        reaction=str(reaction),
        outcome=outcome,
        icon=icon,
        colour=colour,
        found=result.detail if result is not None else "",
    )


def run_checks(run: Run) -> list[StepChecks]:
    """Return the checks of each step that has some, in the order of the steps."""
    return [step_checks(run, step) for step in run.steps if step.spec.checks or step.checks]


def step_checks(run: Run, step: StepRun) -> StepChecks:
    """Return the checks of a step with what they led to."""
    rows = check_rows(step.spec.checks, step.checks)
    failed = sum(row.failed for row in rows)
    if not step.checks:
        return StepChecks(step, rows, "waiting", "off", "not checked", _why_unchecked(run, step))
    reaction = strongest_reaction(step.checks)
    if reaction is None:
        return StepChecks(step, rows, "ok", "ok", f"all {len(step.checks)} passed", "")
    icon, colour = FAILED.get(reaction, _BLOCKED)
    return StepChecks(
        step, rows, icon, colour, f"{failed} of {len(step.checks)} failed", outcome_words(step, reaction)
    )


def _why_unchecked(run: Run, step: StepRun) -> str:
    """Return why a step has no results."""
    if run.reproduces is not None:
        return "A reproduction publishes nothing, so nothing is checked."
    if step.phase not in STEP_ENDED:
        return "The output is checked after the tool has exited with 0, before it is published."
    if step.phase is StepPhase.SUCCEEDED:
        return "There was nothing new to publish, so nothing was checked."
    if step.phase is StepPhase.FAILED:
        return "The step failed before its output was checked."
    return f"The step was {step.phase} before its output was checked."


def outcome_words(step: StepRun, reaction: str) -> str:
    """Return what failed checks led to: where the output is, and what is to be done about it."""
    if reaction == "warn":
        return "The output was published all the same."
    if step.quarantine is not None:
        words = {
            "accepted": "The output was quarantined, then accepted and published.",
            "discarded": "The output was quarantined, then discarded: nothing was published.",
        }
        held = "The output is in quarantine: nothing was published. Accept it or discard it."
        return words.get(step.quarantine.state, held)
    return (
        "Nothing was published. The output is kept in the workspace of the run, like that of any failed step."
    )


def decision_words(found: Quarantine, clock: Clock) -> str:
    """Return who decided about a quarantined snapshot, when, and why; empty while it waits."""
    if found.state == "waiting":
        return ""
    by = f" by {found.by}" if found.by else ""
    when = f", {clock.full(found.decided_at)}" if found.decided_at else ""
    return f"{found.state}{by}{when}" + (f": {found.note}" if found.note else "")
