"""Member: the leased presence of a node."""

from __future__ import annotations

from pydantic import Field

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
