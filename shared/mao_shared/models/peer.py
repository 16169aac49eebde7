"""What nodes let each other see: their runs of shared pipelines, and logs on request.

Nodes need not reach each other's gateways: they ask and answer through the federation's store, each under
its own prefix, on leases that end by themselves.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mao_shared.states import RunPhase

from .common import Name, NodeName, Record, Timestamp

KEPT_BRIEFS = 30
MAX_LOG_ANSWER = 256 << 10  # bytes of a log that travel through the store


class RunBrief(Record):
    """A run in short. `snapshots`: dataset → commit."""

    id: str = Field(max_length=200)
    trigger: str
    phase: RunPhase
    scheduled_for: Timestamp | None = None
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    snapshots: dict[str, str] = Field(default_factory=dict)
    reason: str | None = Field(default=None, max_length=500)


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


class Endorsement(Record):
    """Stored under `keys.endorsement(node, kind, name)`: the node's operator wrote the record of this digest.

    Only the node itself can write there, so that nobody can pass a definition off as another's.
    """

    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    endorsed_at: Timestamp


class LogAsk(Record):
    """Stored under `keys.ask(node, id)` on a lease: `node` wants the end of a log of `of`."""

    id: str = Field(max_length=64)
    node: NodeName
    of: NodeName
    run: str = Field(max_length=200)
    step: Name
    tail: int = Field(default=1000, ge=1, le=100_000)  # lines


class LogAnswer(Record):
    """Stored under `keys.answer(node, id)` on a lease. `cut`: the log is longer than what is here."""

    id: str = Field(max_length=64)
    status: Literal["ok", "refused", "not-found", "failed"]
    text: str = ""
    cut: bool = False
    detail: str = Field(default="", max_length=2000)
