"""A node: membership, signing key, conditions, status, and whether its store was restored from a backup."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny
from pydantic.json_schema import SkipJsonSchema

from .common import NodeName, OrNewer, Record, Timestamp


class Member(Record):
    """Present as long as the node's registry holds its lease."""

    name: NodeName
    version: str
    slots: int = Field(default=0, ge=0)  # steps that may run at the same time; 0: not known yet
    cpus: int = Field(default=0, ge=0)
    memory: int = Field(default=0, ge=0)  # bytes
    labels: dict[str, str] = Field(default_factory=dict)
    logs_shared: bool = False  # whether other nodes may read its runs' logs
    core_address: str | None = None  # host:port where it would run a member of the federation's etcd
    started_at: Timestamp


class Signer(Record):
    """Stored under `keys.signer(node)`; `lines` of an allowed-signers file, the newest key last."""

    node: NodeName
    lines: list[str] = Field(default_factory=list)


ConditionState = Literal["ok", "degraded", "failed"]


class Condition(Record):
    """One thing that has to hold, or what it is about when it does not.

    `degraded`: a person should look, everything else continues. `failed`: the service cannot
    do its work, so it is not ready. `next` is the command or step that fixes it.
    """

    name: str = Field(max_length=63, examples=["disk", "record-unreadable"])
    subject: str = Field(default="", max_length=500, description="Dataset, run or key; empty: the node")
    state: ConditionState
    detail: str = ""
    next: str = ""
    since: Timestamp


class NodeCondition(Condition):
    """A condition of the whole node: `services` are those that report it."""

    state: Annotated[ConditionState, OrNewer]
    services: list[str] = Field(default_factory=list)


class ConditionList(Record):
    """Answer of `GET /conditions`: a service's own, or at the gateway those of all services."""

    items: list[SerializeAsAny[Condition]]


class EngineInfo(Record):
    """The container engine and its resources. `memory` in bytes; `running`: steps that hold a slot."""

    version: str
    slots: int
    cpus: int
    memory: int
    running: int


class Disk(Record):
    """The file system of the data directory, in bytes.

    `reserve`: what has to stay free (MAO_MIN_FREE); `shortage`: why runs wait for space, if they do.
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
    """The disk that the node writes to, and the author of its commits."""

    disk: Disk
    git: CommitIdentity


class ServiceHealth(Record):
    """Answer of `/livez`, and of `/readyz` when ready; only the latter has `checks` and `conditions`.

    `checks`: what the service needs → `ok` or, in words, why not.
    """

    status: str = "ok"
    version: str
    checks: dict[str, str] | None = Field(default=None, exclude_if=lambda checks: checks is None)
    conditions: list[SerializeAsAny[Condition]] | None = Field(
        default=None, exclude_if=lambda conditions: conditions is None
    )


class ServiceStatus(Record):
    """`checks`: what the service needs, or a condition that failed → `ok`, or why not."""

    ready: bool
    version: str | None = None
    checks: dict[str, str] = Field(default_factory=dict)
    reason: str | None = None
    conditions: list[Condition] = Field(default_factory=list, exclude=True)


class FederationStatus(Record):
    """`reachable` is None until the registry has tried. The node is ready without its federation."""

    name: str
    reachable: bool | None = None
    removed: bool = Field(default=False, description="It has removed this node permanently")
    since: Timestamp | None = Field(default=None, description="When it last answered, if it does not now")
    reason: str = Field(default="", description="Why it does not answer")
    next: str = Field(default="", description="What to do about that")
    as_of: Timestamp | None = Field(default=None, description="Time of the newest information about it")


class NodeStatus(Record):
    """The node at a glance. Fields with a default are not sent by every version."""

    node: str
    version: str
    ready: bool
    store: str = Field(description="`ok`, or why the node store does not answer")
    services: dict[str, ServiceStatus]
    conditions: list[NodeCondition] = Field(
        description="What does not hold on any service, the failed first: empty when all is well"
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
        default_factory=list, description="What to do, most pressing first; empty when all is well"
    )


class OpenCondition(Record):
    """Stored under `keys.open_condition(node, …)` while an alarm's condition holds: who reports it still."""

    alarm: str
    name: str
    subject: str = ""
    state: ConditionState = "degraded"
    services: list[str] = Field(default_factory=list)


RESTORED = "restored"
"""Code of the failure of a run that was under way in the backup: how it went on is unknown."""


class Restored(Record):
    """Stored under `keys.restored(node)`, with the store's other records.

    `tips`: dataset → the tip of the node's branch when the backup was started, None where there was none:
    later commits are looked for. `open`: the datasets for which that is still to be done.
    """

    backup_at: Timestamp
    restored_at: Timestamp
    tips: dict[str, str | None] = Field(default_factory=dict)
    open: list[str] = Field(default_factory=list)


def unknown_since(backup_at: datetime) -> str:
    """Return why something is not run automatically after a restore."""
    return (
        f"The node was restored from the backup of {backup_at:%Y-%m-%dT%H:%M:%SZ}, so it is unknown whether "
        "this was run after that"
    )
