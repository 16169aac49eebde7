"""What nodes let each other see: their runs of shared pipelines, and logs on request.

Nodes need not reach each other's gateways: they ask and answer through the federation's store, each under
its own prefix, on leases that end by themselves.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field

from mao_shared.states import RunPhase

from .common import Name, NodeName, Record, Timestamp
from .run import Run

KEPT_BRIEFS = 30
Commit = Annotated[str, Field(max_length=64)]
LONGEST_REASON = 500
MAX_LOG_ANSWER = 256 << 10  # bytes of a log that travel through the store


class RunBrief(Record):
    """A run in short. `snapshots`: dataset → commit."""

    id: str = Field(max_length=200)
    trigger: str = Field(max_length=40)
    phase: RunPhase
    scheduled_for: Timestamp | None = None
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    snapshots: dict[Name, Commit] = Field(default_factory=dict, max_length=100)
    reason: str | None = Field(default=None, max_length=LONGEST_REASON)

    @classmethod
    def of(cls, run: Run) -> Self:
        reason = run.error.detail if run.error else run.reason
        return cls(
            id=run.id,
            trigger=run.trigger,
            phase=run.phase,
            scheduled_for=run.scheduled_for,
            started_at=run.started_at,
            finished_at=run.finished_at,
            snapshots={step.spec.output.name: step.snapshot for step in run.steps if step.snapshot},
            reason=reason[:LONGEST_REASON] if reason else None,
        )


class PeerRuns(Record):
    """Stored under `keys.peer_runs(node, pipeline)`: its latest runs, the newest first.

    `next_tick`: when its schedule runs it next; None: no schedule, or paused.
    """

    node: NodeName
    pipeline: Name
    pipeline_revision: int = 0  # of the definition that the node runs
    runs: list[RunBrief] = Field(default_factory=list, max_length=KEPT_BRIEFS)
    next_tick: Timestamp | None = None
    updated_at: Timestamp


class PeerNode(Record):
    """Stored under `keys.peer_node(node)`: written every few minutes, so that it stays when the node goes."""

    version: str = Field(max_length=100)
    seen_at: Timestamp


class Endorsement(Record):
    """Stored under `keys.endorsement(node, kind, name)`: the node's operator wrote the record of this digest.

    Only the node itself can write there, so that nobody can pass a definition off as another's.
    """

    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    endorsed_at: Timestamp


class Part(Record):
    """Stored under `keys.part(node, dataset)`: the node writes to the dataset and has a say in its truth.

    Only the node itself can write there, so that nobody can take it off, or name nodes that there are not.
    """

    dataset: Name
    since: Timestamp  # when the enrolment was made by which it does


class LogAsk(Record):
    """Stored under `keys.ask(node, id)` on a lease: `node` wants the end of a log of `of`."""

    id: str = Field(max_length=64)
    node: NodeName
    of: NodeName
    run: str = Field(max_length=200)
    step: Name | None = None  # None: the latest that ran
    tail: int = Field(default=1000, ge=1, le=100_000)  # lines


class LogAnswer(Record):
    """Stored under `keys.answer(node, id)` on a lease. `cut`: the log is longer than what is here."""

    id: str = Field(max_length=64)
    status: Literal["ok", "refused", "not-found", "failed"]
    step: str = Field(default="", max_length=64)  # whose log it is
    text: str = ""
    cut: bool = False
    detail: str = Field(default="", max_length=2000)


class NodePart(Record):
    """A node of the federation as another one sees it, present or not.

    `last_seen` is minutes exact; None for a node of which nothing is known but that a dataset lists it.
    """

    name: NodeName
    present: bool
    version: str | None = None
    last_seen: Timestamp | None = None
    started_at: Timestamp | None = None
    slots: int | None = None
    cpus: int | None = None
    memory: int | None = None  # bytes
    labels: dict[str, str] = Field(default_factory=dict)
    logs_shared: bool = False
    trusted: bool = False  # by this node's operator
    datasets: list[Name] = Field(default_factory=list)  # in which it has a say


class NodeRuns(Record):
    """A node's runs of a pipeline as another one sees them; `late` says in words why it counts as late.

    `problem`: why nothing is known of its runs.
    """

    node: NodeName
    pipeline: Name
    present: bool
    version: str | None = None
    runs: list[RunBrief] = Field(default_factory=list)
    next_tick: Timestamp | None = None
    updated_at: Timestamp | None = None
    late: str | None = None
    problem: str | None = None
