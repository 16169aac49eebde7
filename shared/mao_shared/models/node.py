"""Nodes: membership, signing keys, conditions, status, and stores restored from a backup."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny
from pydantic.json_schema import SkipJsonSchema

from .common import NodeName, OrNewer, Record, Timestamp


class Member(Record):
    """A node that is present: the key exists as long as the node's registry renews its lease."""

    name: NodeName
    version: str
    slots: int = Field(default=0, ge=0)  # steps that may run at the same time; 0: unknown
    cpus: int = Field(default=0, ge=0)
    memory: int = Field(default=0, ge=0)  # bytes
    labels: dict[str, str] = Field(default_factory=dict)
    logs_shared: bool = False  # whether other nodes may read its runs' logs
    core_address: str | None = None  # host:port for a member of the federation's etcd
    started_at: Timestamp


class Signer(Record):
    """A node's signing keys, under `keys.signer(node)`; `lines` of an allowed-signers file, newest last."""

    node: NodeName
    lines: list[str] = Field(default_factory=list)


ConditionState = Literal["ok", "degraded", "failed"]


class Condition(Record):
    """A condition of a service, or of one subject (dataset, run, key).

    `degraded`: needs attention, everything else continues. `failed`: the service cannot work and is not
    ready. `next`: the command or step that fixes it.
    """

    name: str = Field(max_length=63, examples=["disk", "record-unreadable"])
    subject: str = Field(default="", max_length=500, description="Dataset, run or key; empty: the node")
    state: ConditionState
    detail: str = ""
    next: str = ""
    since: Timestamp


class NodeCondition(Condition):
    """A condition of the node and the services that report it."""

    state: Annotated[ConditionState, OrNewer]
    services: list[str] = Field(default_factory=list)


class ConditionList(Record):
    """Response of `GET /conditions`: the service's conditions, or at the gateway those of all services."""

    items: list[SerializeAsAny[Condition]]


class EngineInfo(Record):
    """The container engine and its resources. `memory`: in bytes; `running`: number of slots in use."""

    version: str
    slots: int
    cpus: int
    memory: int
    running: int


class Disk(Record):
    """The file system of the data directory, in bytes.

    `reserve`: bytes that must stay free (MAO_MIN_FREE); `shortage`: why runs wait for space, if they do.
    """

    free: int
    total: int
    writable: bool
    inodes: int | None = None
    reserve: int = 0
    shortage: str | None = None


class CommitIdentity(Record):
    """Author of the commits that this node makes."""

    name: str
    email: str


class Storage(Record):
    """The node's disk and the author of its commits."""

    disk: Disk
    git: CommitIdentity


class ServiceHealth(Record):
    """Response of `/livez`, and of `/readyz` when ready; only the latter has `checks` and `conditions`.

    `checks`: `ok` or the reason, by name of the dependency.
    """

    status: str = "ok"
    version: str
    checks: dict[str, str] | None = Field(default=None, exclude_if=lambda checks: checks is None)
    conditions: list[SerializeAsAny[Condition]] | None = Field(
        default=None, exclude_if=lambda conditions: conditions is None
    )


class ServiceStatus(Record):
    """Status of a service. `checks`: `ok` or the reason, by dependency or failed condition."""

    ready: bool
    version: str | None = None
    checks: dict[str, str] = Field(default_factory=dict)
    reason: str | None = None
    conditions: list[Condition] = Field(default_factory=list, exclude=True)


class FederationStatus(Record):
    """Status of the federation. `reachable`: None until the first attempt; not needed for readiness."""

    name: str
    reachable: bool | None = None
    removed: bool = Field(default=False, description="It has removed this node permanently")
    since: Timestamp | None = Field(default=None, description="When it last answered, if it does not now")
    reason: str = Field(default="", description="Why it does not answer")
    next: str = Field(default="", description="What to do about that")
    as_of: Timestamp | None = Field(default=None, description="Time of the newest information about it")


class NodeStatus(Record):
    """Overview of the node. Fields with a default are not sent by every version."""

    node: str
    version: str
    ready: bool
    store: str = Field(description="`ok`, or why the node store does not answer")
    services: dict[str, ServiceStatus]
    conditions: list[NodeCondition] = Field(
        description="Open conditions of all services, failed ones first; empty when all is well"
    )
    now: Timestamp | SkipJsonSchema[None] = Field(default=None, description="The node's clock")
    disk: Disk | None = Field(
        default=None,
        description="Bytes `free` and `total` under the data directory, whether it is `writable`, and the "
        "`shortage` in words that keeps steps waiting",
    )
    git: CommitIdentity | None = Field(
        default=None, description="`name` and `email` that sign this node's commits"
    )
    federation: FederationStatus | None = Field(default=None, description="None for a node in no federation")
    next: list[str] = Field(
        default_factory=list, description="Recommended steps, most urgent first; empty when all is well"
    )


class OpenCondition(Record):
    """Services that report an alarm's condition, under `keys.open_condition(node, …)` while it is open."""

    alarm: str
    name: str
    subject: str = ""
    state: ConditionState = "degraded"
    services: list[str] = Field(default_factory=list)


RESTORED = "restored"
"""Failure code of a run that was in progress when the backup was made: its outcome is unknown."""


class Restored(Record):
    """Marks a store as restored from a backup, stored under `keys.restored(node)`.

    `tips`: tip of the node's branch by dataset when the backup started (None: no branch), to find later
    commits. `open`: datasets not searched yet.
    """

    backup_at: Timestamp
    restored_at: Timestamp
    tips: dict[str, str | None] = Field(default_factory=dict)
    open: list[str] = Field(default_factory=list)


def unknown_since(backup_at: datetime) -> str:
    """Return the reason for not running a tick or step automatically after a restore."""
    return (
        f"The node was restored from the backup of {backup_at:%Y-%m-%dT%H:%M:%SZ}, so it is unknown whether "
        "this was run after that"
    )
