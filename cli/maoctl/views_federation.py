"""What tables show of nodes and their federation."""

from __future__ import annotations

from datetime import datetime, timedelta

from .output import Cell, Column, Record, TableView, field
from .text import parse_time, relative, size
from .views import NAME, _age, _one_line

GRACE = timedelta(minutes=2)  # as the registry grants before it says why a node is late


def _presence(node: Record, now: datetime) -> str:
    if node.get("present"):
        return "present"
    seen = relative(node.get("last_seen"), now)
    return f"absent, seen {seen} ago" if seen else "absent"


def _newest(record: Record) -> Record:
    """The newest run of a node's; empty when there is none."""
    runs: list[Record] = record.get("runs") or [{}]
    return runs[0]


def _last(path: str) -> Cell:
    """A field of the newest run."""
    cell = field(path)
    return lambda record, now: cell(_newest(record), now)


def _last_tick(record: Record, _now: datetime) -> str:
    newest = _newest(record)
    return str(newest.get("scheduled_for") or newest.get("started_at") or "")


def _healthy(node: Record, now: datetime) -> str:
    """`answers` alone: it runs, and the others that it needs do not."""
    return "no majority" if node.get("answers") and not node.get("healthy") else field("healthy")(node, now)


def _next(record: Record, now: datetime) -> str:
    """When the next tick is; of one that lies behind us, whether its run is still to be expected."""
    at = record.get("next_tick")
    if not isinstance(at, str) or (since := now - parse_time(at)) < timedelta(seconds=1):
        return relative(at, now)
    return "late" if record.get("late") or since > GRACE else "due"


def _late(record: Record, _now: datetime) -> str:
    return _one_line(record.get("late") or record.get("problem") or "")


NODE = TableView(
    "node",
    [
        NAME,
        Column("PRESENCE", _presence, keep_whole=True),
        Column("VERSION", field("version")),
        Column("SLOTS", field("slots")),
        Column("CPUS", field("cpus")),
        Column("MEMORY", field("memory", size)),
        Column("UP", _age("started_at")),
        Column("TRUSTED", field("trusted"), wide=True),
        Column("LOGS", field("logs_shared"), wide=True),
        Column("DATASETS", field("datasets"), wide=True),
        Column("LABELS", field("labels"), wide=True),
    ],
)
FEDERATION = TableView(
    "federation",
    [
        NAME,
        Column("NODE", field("node")),
        Column("ROLE", field("role")),
        Column("CORES", field("cores")),
        Column("JOINED", _age("joined_at")),
        Column("REACHABLE", field("reachable")),
    ],
)
FEDERATION_NODE = TableView(
    "node",
    [
        Column("NODE", field("node"), keep_whole=True),
        Column("STATE", field("state")),
        Column("PRESENT", field("present")),
        Column("VERSION", field("version")),
        Column("SEAT", field("seat")),
        Column("HEALTHY", _healthy, keep_whole=True),
        Column("ETCD", field("etcd")),
        Column("JOINED", _age("joined_at")),
        Column("CERTIFICATE ENDS", field("expires_at"), wide=True),
        Column("COULD BE AT", field("core_address"), wide=True),
    ],
    key="node",
)
NODE_RUNS = TableView(
    "node",
    [
        Column("NODE", field("node"), keep_whole=True),
        Column("PRESENCE", _presence, keep_whole=True),
        Column("VERSION", field("version")),
        Column("LAST RUN", _last("id"), keep_whole=True),
        Column("TICK", _last_tick, keep_whole=True, wide=True),
        Column("PHASE", _last("phase"), keep_whole=True),
        Column("NEXT", _next, keep_whole=True),
        Column("TOLD", _age("updated_at"), wide=True),
        Column("LATE", _late),
    ],
    key="node",
)
TRUST = TableView(
    "node", [Column("NODE", field("node"), keep_whole=True), Column("SINCE", _age("since"))], key="node"
)
