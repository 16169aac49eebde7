"""Tables of nodes, their load and their federation."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from maoctl.output import Column, Document, TableView
from maoctl.text import one_line, relative, size

if TYPE_CHECKING:
    from mao_shared import models

LATE_AFTER = timedelta(minutes=2)  # the grace period of the registry


def _presence(node: models.NodePart, now: datetime) -> str:
    if node.present:
        return "present"
    return f"absent, last seen {relative(node.last_seen, now)} ago" if node.last_seen else "absent"


def _next(node: models.NodeRuns, now: datetime) -> str:
    """Return when the next tick is; for one that has passed, whether its run is due or late."""
    at = node.next_tick
    if at is None or (since := now - at) < timedelta(seconds=1):
        return relative(at, now)
    return "late" if node.late or since > LATE_AFTER else "due"


NODE: TableView[models.NodePart] = TableView(
    "node",
    [
        Column("NAME", lambda node, _: node.name, keep_whole=True),
        Column("STATUS", _presence, keep_whole=True),
        Column("VERSION", lambda node, _: node.version),
        Column("SLOTS", lambda node, _: node.slots),
        Column("CPUS", lambda node, _: node.cpus, spare=2),
        Column("MEMORY", lambda node, _: size(node.memory), sort=lambda node: node.memory, spare=3),
        Column(
            "UPTIME",
            lambda node, now: relative(node.started_at, now),
            sort=lambda node: node.started_at,
            spare=1,
        ),
        Column("TRUSTED", lambda node, _: node.trusted, wide=True),
        Column("SHARES LOGS", lambda node, _: node.logs_shared, wide=True),
        Column("DATASETS", lambda node, _: node.datasets, wide=True),
        Column("LABELS", lambda node, _: node.labels, wide=True),
    ],
    lambda node: node.name,
)
FEDERATION: TableView[models.FederationState] = TableView(
    "federation",
    [
        Column("NAME", lambda federation, _: federation.name, keep_whole=True),
        Column("NODE", lambda federation, _: federation.node),
        Column("ROLE", lambda federation, _: federation.role),
        Column("CORES", lambda federation, _: federation.cores),
        Column(
            "JOINED",
            lambda federation, now: relative(federation.joined_at, now),
            sort=lambda federation: federation.joined_at,
        ),
        Column("REACHABLE", lambda federation, _: federation.reachable),
    ],
    lambda federation: federation.name,
)
MEMBER: TableView[models.NodeState] = TableView(
    "node",
    [
        Column("NODE", lambda node, _: node.node, keep_whole=True),
        Column("STATE", lambda node, _: node.state),
        Column("PRESENT", lambda node, _: node.present),
        Column("VERSION", lambda node, _: node.version, spare=2),
        Column("ETCD ROLE", lambda node, _: node.seat),
        # A member that answers but is not healthy runs without enough of the others.
        Column(
            "HEALTHY",
            lambda node, _: "no majority" if node.answers and not node.healthy else node.healthy,
            keep_whole=True,
        ),
        Column("ETCD ADDRESS", lambda node, _: node.etcd, spare=1),
        Column(
            "JOINED",
            lambda node, now: relative(node.joined_at, now),
            sort=lambda node: node.joined_at,
            spare=3,
        ),
        Column("CERTIFICATE EXPIRES", lambda node, _: node.expires_at, wide=True),
        Column("CORE ADDRESS", lambda node, _: node.core_address, wide=True),
    ],
    lambda node: node.node,
)


NODE_RUNS: TableView[models.NodeRuns] = TableView(
    "node",
    [
        Column("NODE", lambda node, _: node.node, keep_whole=True),
        Column("STATUS", lambda node, _: "present" if node.present else "absent", keep_whole=True),
        Column("VERSION", lambda node, _: node.version, spare=2),
        Column("LAST RUN", lambda node, _: node.runs and node.runs[0].id, keep_whole=True),
        Column(
            "TICK",
            lambda node, _: node.runs and (node.runs[0].scheduled_for or node.runs[0].started_at),
            keep_whole=True,
            wide=True,
        ),
        Column("PHASE", lambda node, _: node.runs and node.runs[0].phase, keep_whole=True),
        Column("NEXT", _next, keep_whole=True),
        Column(
            "UPDATED",
            lambda node, now: relative(node.updated_at, now),
            wide=True,
            sort=lambda node: node.updated_at,
        ),
        Column("LATE", lambda node, _: one_line(node.late or node.problem or "")),
    ],
    lambda node: node.node,
)
TRUST: TableView[models.Trust] = TableView(
    "node",
    [
        Column("NODE", lambda trust, _: trust.node, keep_whole=True),
        Column("SINCE", lambda trust, now: relative(trust.since, now), sort=lambda trust: trust.since),
    ],
    lambda trust: trust.node,
)


@dataclass(frozen=True)
class Load:
    """A node's load. Sizes in bytes; None where the node does not tell."""

    node: str
    slots: int | None
    slots_used: int | None
    cpus: int | None
    memory: int | None
    disk_free: int | None
    disk_total: int | None
    running: int
    queued: int
    problems: int
    runs: list[str] = field(default_factory=list)  # ids of those that have not ended, the newest first

    def document(self) -> Document:
        return asdict(self)


def _share(used: int | None, total: int | None) -> str:
    return "" if total is None else f"{'?' if used is None else used}/{total}"


def _disk(load: Load, _now: datetime) -> str:
    if load.disk_free is None or not load.disk_total:
        return ""
    return f"{size(load.disk_free)} free ({100 * load.disk_free // load.disk_total} %)"


LOAD: TableView[Load] = TableView(
    "load",
    [
        Column("NODE", lambda load, _: load.node, keep_whole=True),
        Column("SLOTS", lambda load, _: _share(load.slots_used, load.slots)),
        Column("RUNNING", lambda load, _: load.running),
        Column("QUEUED", lambda load, _: load.queued),
        Column("CPUS", lambda load, _: load.cpus, spare=2),
        Column("MEMORY", lambda load, _: size(load.memory), sort=lambda load: load.memory, spare=1),
        Column("DISK", _disk, sort=lambda load: load.disk_free),
        Column("PROBLEMS", lambda load, _: load.problems),
    ],
    lambda load: load.node,
)
