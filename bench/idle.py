"""Memory and CPU of an idle node, without etcd."""

from __future__ import annotations

import time
from pathlib import Path

from . import peers
from .node import append_command, bench_node, call, enrol, run_once
from .processes import Idle, observe, tree
from .report import Measure

GOAL_MEMORY, LIMIT_MEMORY = 200.0, 350.0  # MB of PSS
GOAL_CPU = 1.0  # % of one core; no limit yet
SETTLE, WATCH = 20.0, 30.0  # seconds
_PIPELINES = ("idle-one", "idle-two")


def measure(folder: Path, *, quick: bool = False) -> list[Measure]:
    """Compare memory and CPU with an idle Prefect server with one worker."""
    settle = 5.0 if quick else SETTLE
    ours, etcd = _node_idle(folder, settle)
    theirs = peers.prefect_idle(folder, settle=settle, seconds=WATCH)
    than = "Prefect, server and a worker"
    parts = ", ".join(f"{_short(name)} {size:.0f}" for name, size in ours.parts.items())
    return [
        Measure(
            "idle memory",
            ours.memory,
            "MB",
            than,
            theirs.memory,
            "ours",
            GOAL_MEMORY,
            LIMIT_MEMORY,
            note=f"PSS of the services, their fork server and supervisor ({parts}) "
            f"after two runs; its etcd takes {etcd.memory:.0f} MB; Prefect's is with its own SQLite database",
        ),
        Measure(
            "idle CPU, % of a core",
            ours.cpu,
            "%",
            than,
            theirs.cpu,
            "ours",
            GOAL_CPU,
            note=f"over {WATCH:.0f} s, with two enrolled pipelines and an hourly schedule; "
            f"etcd takes {etcd.cpu:.1f} %",
        ),
    ]


def _node_idle(folder: Path, settle: float) -> tuple[Idle, Idle]:
    """Return the usage of the node's processes, and that of its etcd."""
    with bench_node(folder) as node:
        for name in _PIPELINES:
            enrol(node, name, append_command())
            run_once(node, name)
        call(node, "/pipeline/run", {"name": _PIPELINES[0], "cron": "@hourly"})
        time.sleep(settle)
        etcd = node.pid_of("etcd")
        pids = [pid for pid in tree(node.pid) if pid != etcd]
        return observe(pids, WATCH), observe([etcd], WATCH)


def _short(part: str) -> str:
    """Return `registry` for `1234 python -m mao_registry`, `fork_server` for `… mao_node.fork_server 12`."""
    module = next(word for word in part.split() if word.startswith("mao_"))
    return module.removeprefix("mao_").removeprefix("node.")
