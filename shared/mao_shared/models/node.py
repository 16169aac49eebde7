"""A node: its membership, signing key, conditions, and whether its store was restored from a backup."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field, SerializeAsAny

from .common import NodeName, Record, Timestamp


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

    `degraded`: a person should look, the service goes on with everything else. `failed`: the service cannot
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

    services: list[str] = Field(default_factory=list)


class ConditionList(Record):
    """What `GET /conditions` answers: a service its own, the gateway those of all."""

    items: list[SerializeAsAny[Condition]]


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
    """Why something is not run automatically after a restore."""
    return (
        f"The node was restored from the backup of {backup_at:%Y-%m-%dT%H:%M:%SZ}, so it is unknown whether "
        "this was run after that"
    )
