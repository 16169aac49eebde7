"""Runs: executions of a pipeline on one node, each a document that all services reconcile."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mao_shared.states import STEP_ENDED, RunPhase, StepPhase, check_run, check_step

from .check import CheckResult, Quarantine
from .common import Name, NodeName, Record, Timestamp, format_time
from .enrolment import ResolvedStep
from .pipeline import Fault, NameOrTitle, Overlap

RunId = Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A run id. It names folders and containers, so a record with an invalid one is unreadable."""
TOOL_HOME = "/tmp"  # noqa: S108 (the container's own; any uid can write there)
_ID_TIME = "%Y%m%dT%H%M%SZ"
Trigger = Literal["schedule", "manual", "dataset", "retry", "reproduce"]
MissedWhy = Literal["late", "coalesced", "overlap", "paused", "not-enrolled"]
TRUTH_WAITS = "ground-truth is not pushed yet"  # `waiting` of a step whose own commit alone is at the remote


class Failure(Record):
    """Why a step or run did not succeed. `code`: stable; `next`: the next command or step.

    `fault`: the cause: the tool, the engine or the infrastructure (git, disk, store).
    """

    code: str
    detail: str
    next: str | None = None
    fault: Fault


class Exit(Record):
    """The exit status of a container."""

    code: int
    oom: bool = False  # killed for exceeding its memory limit
    timed_out: bool = False


class CancelRequest(Record):
    """A request to cancel a run, carried out by the owner of the current phase."""

    requested_at: Timestamp
    reason: str = Field(default="", max_length=1000)


class CoveredTicks(Record):
    """Earlier missed ticks covered by one record, so that a long pause takes little space."""

    since: Timestamp  # the first of them
    until: Timestamp  # the last of them, the `scheduled_for` of the record
    count: int = Field(ge=1)


class OutputFile(Record):
    """A file written by a step, with its size in bytes and SHA-256."""

    size: int
    sha256: str


class Reproduced(Record):
    """Comparison of a reproduction with its original, by path."""

    identical: int = 0
    different: list[str] = Field(default_factory=list)
    missing: list[str] = Field(default_factory=list)  # in the original only
    extra: list[str] = Field(default_factory=list)  # in the reproduction only
    unlisted: int = 0  # number of paths omitted from the three lists

    @property
    def same(self) -> bool:
        return not (self.different or self.missing or self.extra or self.unlisted)


class Original(Record):
    """The original of a run with trigger `reproduce`, whose one step is compared and not published."""

    run: str
    step: Name
    snapshot: str
    attempt: int = 1  # of the original step, as its tool saw it


class PastAttempt(Record):
    """A failed attempt of a step that was retried. `times`: when it first entered each phase."""

    attempt: int = Field(ge=1)
    times: dict[StepPhase, Timestamp] = Field(default_factory=dict)
    exit: Exit | None = None
    log_bytes: int | None = None
    error: Failure | None = None


class StepRun(Record):
    """State of one step. `times`: when this attempt first entered each phase; `earlier`: failed attempts."""

    spec: ResolvedStep
    phase: StepPhase = StepPhase.PENDING
    attempt: int = Field(default=1, ge=1)
    times: dict[StepPhase, Timestamp] = Field(default_factory=dict)
    not_before: Timestamp | None = None  # back-off of a retry
    waiting: str | None = None  # reason why it does not advance, for people
    container_id: str | None = None
    exit: Exit | None = None
    log_bytes: int | None = None
    log_sha256: str | None = None  # of the stored log
    user: str | None = None  # uid:gid that the container ran as
    engine: str | None = None  # name and version of the engine, as "docker 20.10.24"
    base_commit: str | None = None  # commit that the workspace was checked out from
    input_commit: str | None = None
    snapshot: str | None = None
    ground_truth: str | None = None
    pushed: bool = False
    metrics: dict[str, float] = Field(default_factory=dict)  # control metrics of the snapshot
    checks: list[CheckResult] = Field(default_factory=list, exclude_if=lambda checks: not checks)
    quarantine: Quarantine | None = None  # its output is there and not on the node's branch, unless accepted
    reproduced: Reproduced | None = None
    error: Failure | None = None
    earlier: list[PastAttempt] = Field(default_factory=list)

    @property
    def quarantined(self) -> bool:
        """True if the step's output was quarantined and has not been accepted."""
        return self.quarantine is not None and self.quarantine.state != "accepted"

    @property
    def late(self) -> bool:
        """True if the step's commit or the resulting ground truth was not pushed when it ended."""
        has_commit = self.phase is StepPhase.SUCCEEDED and self.snapshot is not None
        return has_commit and (not self.pushed or self.truth_late)

    @property
    def truth_late(self) -> bool:
        """True if the step's commit is pushed but the resulting ground truth is not."""
        return self.pushed and (self.waiting or "").startswith(TRUTH_WAITS)

    def move(self, phase: StepPhase, now: datetime, **changes: Any) -> StepRun:
        """Return a copy in the new phase; raises ValueError for a move the diagram does not have."""
        check_step(self.phase, phase)
        times = {**self.times, phase: now}
        return self.model_copy(update={"phase": phase, "times": times, "waiting": None, **changes})


class Run(Record):
    """A run, stored under `keys.run(node, id)`."""

    key_field = "id"
    id: RunId
    pipeline: Name
    node: NodeName
    trigger: Trigger
    phase: RunPhase = RunPhase.QUEUED
    scheduled_for: Timestamp | None = None
    schedule: str | None = None  # id of the schedule whose tick this is
    retry_of: str | None = None
    created_at: Timestamp
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    overlap: Overlap = "skip"
    steps: list[StepRun] = Field(default_factory=list)
    reason: str | None = None  # why it waits, was missed or was skipped, for people
    missed: MissedWhy | None = None  # the same for programs, when the phase is missed
    covers: CoveredTicks | None = None
    error: Failure | None = None
    cancel: CancelRequest | None = None
    request_id: str | None = None
    traceparent: str | None = Field(
        default=None,
        description="W3C trace context of the request that asked for it; of itself for a tick",
        examples=["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
    )
    reproduces: Original | None = None

    def current(self) -> int | None:
        """Return the index of the first step that has not succeeded or been skipped, or None."""
        passed = (StepPhase.SUCCEEDED, StepPhase.SKIPPED)
        return next((i for i, step in enumerate(self.steps) if step.phase not in passed), None)

    def active_step(self) -> int | None:
        """Return the index of the step that is or will be worked on, or None."""
        index = self.current()
        return None if index is None or self.steps[index].phase in STEP_ENDED else index

    def with_step(self, index: int, step: StepRun) -> Run:
        """Return a copy with one step replaced."""
        steps = [*self.steps[:index], step, *self.steps[index + 1 :]]
        return self.model_copy(update={"steps": steps})

    def move(self, phase: RunPhase, **changes: Any) -> Run:
        """Return a copy in the new phase; raises ValueError for a move the diagram does not have."""
        check_run(self.phase, phase)
        return self.model_copy(update={"phase": phase, **changes})


class PastRun(Record):
    """Index entry of a run in the history, for lists and retention; stored under `keys.run_index(…)`.

    The key has the run's id, pipeline and phase.
    """

    trigger: Trigger
    schedule: str | None = None
    scheduled_for: Timestamp | None = None
    started_at: Timestamp | None = None  # not in entries that older versions wrote
    finished_at: Timestamp
    covers: CoveredTicks | None = None


class Turn(Record):
    """The last started run of a pipeline, stored under `keys.turn(node, pipeline)`.

    Written in one transaction with the run's start, so that two schedulers cannot start two runs at once.
    """

    run: str


def has_cron(body: dict[str, Any]) -> bool:
    """Return True if a body of `POST /pipeline/run` has a non-empty cron string."""
    cron = body.get("cron")
    return not (cron is None or cron is False or (isinstance(cron, str) and not cron.strip()))


class RunRequest(Record):
    """Body of `POST /pipeline/run` without a cron string, or with one that is empty, null or false."""

    name: NameOrTitle
    scheduled_for: Timestamp | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_cron(cls, value: Any) -> Any:
        if isinstance(value, dict) and not has_cron(value):
            return {key: field for key, field in value.items() if key != "cron"}
        return value


class CancelBody(Record):
    """Body of `POST /runs/{id}/cancel`."""

    reason: str = Field(default="", max_length=1000, examples=["started by mistake"])


class ReproduceBody(Record):
    """Body of `POST /runs/{id}/reproduce`; optional for a run with one step."""

    step: Name | None = Field(default=None, examples=["system-performance"])


class Mismatch(Record):
    """A deviation from what was recorded. `what`: output, snapshot, log or record; `path`: of a file."""

    step: str
    what: str = Field(examples=["output"])
    path: str | None = Field(default=None, examples=["results.csv"])
    detail: str


class Verification(Record):
    """Result of verifying a run. `files`, `bytes`: read; `faults`: up to 100; `unchecked`: no longer kept."""

    run: str
    ok: bool
    files: int
    bytes: int
    faults: list[Mismatch]
    unchecked: list[str]


def tick_run_id(pipeline: str, node: str, tick: datetime) -> str:
    """Return the id of the run for a tick: the same tick always gives the same id.

    The id begins with the tick in UTC, so that key order is time order.
    """
    digest = hashlib.sha256(f"{pipeline}\n{node}\n{tick.timestamp():.0f}".encode()).hexdigest()
    return f"{tick:{_ID_TIME}}-{pipeline}-{digest[:8]}"


def manual_run_id(pipeline: str, now: datetime, token: str | None = None) -> str:
    """Return the id of a run without a tick; random unless `token` (8 hexadecimal digits) is given."""
    return f"{now:{_ID_TIME}}-{pipeline}-{token or secrets.token_hex(4)}"


def time_in_id(run_id: str) -> datetime | None:
    """Return the tick or the time of the request in a run id; None for other ids."""
    try:
        return datetime.strptime(run_id.partition("-")[0], _ID_TIME).replace(tzinfo=UTC)
    except ValueError:
        return None


def tool_env(run: Run, step: StepRun) -> dict[str, str]:
    """Return the environment variables of the step's container, without those of its image."""
    return {"HOME": TOOL_HOME, **step.spec.env, **run_env(run, step)}


def run_env(run: Run, step: StepRun) -> dict[str, str]:
    """Return the variables that describe the run to its tool; a reproduction gets those of the original.

    MAO_SCHEDULED_FOR is the tick, or the time of the request for a run without a tick.
    """
    original = run.reproduces
    env = {
        "MAO_RUN_ID": run.id if original is None else original.run,
        "MAO_NODE": run.node,
        "MAO_PIPELINE": run.pipeline,
        "MAO_STEP": step.spec.name,
        "MAO_ATTEMPT": str(step.attempt if original is None else original.attempt),
    }
    requested_at = time_in_id(env["MAO_RUN_ID"]) or run.created_at.replace(microsecond=0)
    return {**env, "MAO_SCHEDULED_FOR": format_time(run.scheduled_for or requested_at)}
