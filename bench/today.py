"""The page *Today* with 200 pipelines on five nodes, 300 ticks each: server time, size, the gateway's memory.

No tool runs: what the pages show is written to the store (tests/support/lab_ticks.py).
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

from tests.support.lab_ticks import write_lab_ticks
from tests.support.node import NativeNode

from .node import append_command, bench_node, enrol
from .processes import pss_megabytes
from .report import Measure

PIPELINES, QUICK_PIPELINES = 200, 20
NODES = ("node-b", "node-c", "node-d", "node-e")
TICKS = 300
TIMES = 40


def measure(folder: Path, *, quick: bool = False) -> list[Measure]:
    """Measure the page on a node that has nothing else to do."""
    pipelines = QUICK_PIPELINES if quick else PIPELINES
    with bench_node(folder) as node:
        enrol(node, "survey", append_command())
        asyncio.run(write_lab_ticks(node, "survey", pipelines=pipelines, nodes=NODES, ticks=TICKS))
        idle = pss_megabytes(node.pid_of("gateway"))
        first, _ = _load(node)
        times, sizes = zip(*(_load(node) for _ in range(TIMES)), strict=True)
        after = pss_megabytes(node.pid_of("gateway"))
        unwell, unwell_size = zip(
            *(_load(node, "/?ticks=300&only=unwell") for _ in range(TIMES)), strict=True
        )
    what = f"{pipelines} pipelines x {len(NODES) + 1} nodes x {TICKS} ticks"
    return [
        Measure(
            "today, server time",
            1000 * statistics.median(times),
            "ms",
            judged="ours",
            goal=100,
            note=f"{what}; slowest of {TIMES}: {1000 * max(times):.0f}, the very first: {1000 * first:.0f}",
        ),
        Measure("today, size", max(sizes) / 1000, "kB", judged="ours", goal=300, note=what),
        Measure("today, 300 ticks", 1000 * statistics.median(unwell), "ms", judged="ours", goal=100),
        Measure("today, 300 ticks, size", max(unwell_size) / 1000, "kB", judged="ours", goal=300),
        Measure("gateway, idle", idle, "MB", note="PSS before the first page"),
        Measure("gateway, after pages", after, "MB", note="PSS"),
    ]


def _load(node: NativeNode, path: str = "/") -> tuple[float, int]:
    began = time.perf_counter()
    answer = node.http.get(path, headers={"Accept-Encoding": "identity"})
    took = time.perf_counter() - began
    answer.raise_for_status()
    if "survey" not in answer.text:
        raise RuntimeError("the page does not show the pipelines")
    return took, len(answer.content)
