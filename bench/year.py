"""A year of an hourly pipeline with two steps: size of etcd, cost of a start, and time of listings.

Measured twice with the same 8760 runs: all of them live, as in versions without a history, and in the history
with its index. No tool runs: the documents are written to the store, based on the node's enrolment.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.node import NativeNode

from mao_shared import keys
from mao_shared.models.enrolment import Enrolment, ResolvedStep
from mao_shared.models.run import Exit, Run, StepRun, tick_run_id
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store import Put, Records, load_etcd
from mao_shared.store.etcd import EtcdStore
from mao_shared.store.records import dump

from .node import NAME, append_command, call, enrol
from .processes import cpu_seconds, tree
from .report import Measure

RUNS, QUICK_RUNS = 8760, 1000
PIPELINE = "year"
AFTER = 15.0  # seconds after "ready" until a start's work is done
LONGEST_MOVE = 300.0  # seconds
TIMES = 7  # repetitions of each listing, for the median
_BATCH = 64
_MB = 1e6
_LISTS = {
    "list of the newest 50": "/runs?limit=50",
    "filter, 50 match": f"/runs?limit=50&pipeline={PIPELINE}&phase=succeeded",
    "filter, none matches": "/runs?limit=50&phase=lost",
    "filter by job, none matches": "/runs?limit=50&schedule=none-abc123",
}
"""Paths of the measured listings, by name; the client follows cursors until a page is full, or the end."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of a node. `size`, `in_use`: bytes of etcd's file; `cpu`, `lists`: seconds."""

    size: int
    in_use: int
    ready: float
    cpu: float
    lists: Mapping[str, float]


def measure(folder: Path, *, quick: bool = False) -> list[Measure]:
    """Compare each figure with and without the history."""
    runs = QUICK_RUNS if quick else RUNS
    node = NativeNode(folder, name=NAME, env={"MAO_LOG_LEVEL": "warning", "MAO_RETENTION_INTERVAL": "1e7"})
    node.start()
    try:
        _enrol(node)
        empty = _restarted(node)
        asyncio.run(_fill(node, runs))
        before = _restarted(node)
        node.env["MAO_RETENTION_INTERVAL"] = "2"
        began = time.monotonic()
        _restart(node)
        asyncio.run(_until_moved(node, began + LONGEST_MOVE))
        moved = time.monotonic() - began
        del node.env["MAO_RETENTION_INTERVAL"]
        after = _restarted(node)
    finally:
        node.stop()
    return _measures(runs, empty, before, after, moved)


def _measures(runs: int, empty: Figures, before: Figures, after: Figures, moved: float) -> list[Measure]:
    than = f"{runs} runs without a history"

    def row(
        name: str, ours: float, theirs: float, unit: str, note: str = "", goal: float | None = 1
    ) -> Measure:
        return Measure(f"year, {name}", ours, unit, than, theirs, "ratio" if goal else None, goal, None, note)

    etcd = f"{runs} runs, moved within {moved:.0f} s of a start; etcd compacted and defragmented"
    return [
        row("etcd, in use", after.in_use / _MB, before.in_use / _MB, "MB", etcd),
        row("etcd, file", after.size / _MB, before.size / _MB, "MB"),
        row(
            "start, CPU of all services",
            after.cpu,
            before.cpu,
            "s",
            f"from the start to {AFTER:.0f} s after ready, etcd apart; with no run at all {empty.cpu:.1f} s",
        ),
        row(
            "start, until ready",
            after.ready,
            before.ready,
            "s",
            f"with no run at all {empty.ready:.1f} s",
            None,
        ),
        *(row(name, 1000 * after.lists[name], 1000 * before.lists[name], "ms") for name in _LISTS),
    ]


def _enrol(node: NativeNode) -> None:
    for name in ("year-one", "year-two"):
        enrol(node, name, append_command())
    steps = [
        {"name": "collect", "tool": "year-one", "dataset": "year-one"},
        {"name": "refine", "tool": "year-two", "dataset": "year-two", "input_dataset": "year-one"},
    ]
    call(node, "/pipeline/init", {"name": PIPELINE, "steps": steps})
    call(node, "/pipeline/run", {"name": PIPELINE, "cron": "@hourly"})


def _restart(node: NativeNode) -> float:
    node.stop()
    began = time.monotonic()
    node.restart()
    return time.monotonic() - began


def _restarted(node: NativeNode) -> Figures:
    """Measure after a restart, with a compacted and defragmented etcd."""
    _tidy(node)
    ready = _restart(node)
    time.sleep(AFTER)
    etcd = node.pid_of("etcd")
    cpu = sum(cpu_seconds(pid) for pid in tree(node.pid) if pid != etcd)
    size, in_use = asyncio.run(_size(node))
    return Figures(size, in_use, ready, cpu, {name: _list(node, path) for name, path in _LISTS.items()})


def _list(node: NativeNode, path: str) -> float:
    """Return the seconds of a listing until a page is full or all items were read."""
    took = []
    for _ in range(TIMES):
        began = time.perf_counter()
        found, cursor = 0, ""
        while True:
            answer = node.http.get(path + (f"&cursor={cursor}" if cursor else ""))
            answer.raise_for_status()
            page = answer.json()
            found, cursor = found + len(page["items"]), page["cursor"]
            if not cursor or found >= 50:
                break
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def _tidy(node: NativeNode) -> None:
    """Compact etcd, as it does hourly, and defragment its file."""
    etcdctl = ["etcdctl", f"--endpoints={node.etcd}", "--command-timeout=60s"]
    status = subprocess.run([*etcdctl, "endpoint", "status", "-w", "json"], capture_output=True, check=True)
    revision = json.loads(status.stdout)[0]["Status"]["header"]["revision"]
    subprocess.run([*etcdctl, "compaction", "--physical", str(revision)], capture_output=True, check=True)
    subprocess.run([*etcdctl, "defrag"], capture_output=True, check=True)


async def _size(node: NativeNode) -> tuple[int, int]:
    async with _store(node) as store:
        health = await store.examine()
        return health.size, health.in_use


async def _until_moved(node: NativeNode, limit: float) -> None:
    async with _store(node) as store:
        while (await store.list(keys.runs_prefix(NAME), limit=1)).entries:
            if time.monotonic() > limit:
                raise TimeoutError("the runs were not moved")
            await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def _store(node: NativeNode) -> AsyncIterator[EtcdStore]:
    store = load_etcd()(node.etcd)
    try:
        yield store
    finally:
        await store.close()


async def _fill(node: NativeNode, runs: int) -> None:
    """Write runs of the past hours, as a node would have."""
    async with _store(node) as store:
        stored = await Records(store, keys.enrolments_prefix(NAME), Enrolment).get(PIPELINE)
        assert stored is not None
        puts = [Put(keys.run(NAME, run.id), dump(run)) for run in _runs(stored.record, runs)]
        for at in range(0, len(puts), _BATCH):
            await store.transact([], puts[at : at + _BATCH])


def _runs(enrolment: Enrolment, runs: int) -> Iterator[Run]:
    this_hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    for number in range(1, runs + 1):
        tick = this_hour - timedelta(hours=number)
        yield Run(
            id=tick_run_id(PIPELINE, NAME, tick),
            pipeline=PIPELINE,
            node=NAME,
            trigger="schedule",
            phase=RunPhase.SUCCEEDED,
            scheduled_for=tick,
            schedule=f"{PIPELINE}-0a1b2c",
            created_at=tick,
            started_at=tick + timedelta(milliseconds=40 + number % 60),
            finished_at=tick + timedelta(seconds=70, microseconds=number),
            steps=[_step(spec, f"{number} {spec.name}", tick) for spec in enrolment.steps],
        )


def _step(spec: ResolvedStep, seed: str, tick: datetime) -> StepRun:
    """Return a step with distinct digests and times, so that the document has a realistic size."""

    def digest(of: str, length: int) -> str:
        return hashlib.sha256(f"{seed} {of}".encode()).hexdigest()[:length]

    phases = [*StepPhase][1:8]  # from preparing to succeeded
    jitter = int(digest("time", 6), 16)
    times = {
        phase: tick + timedelta(seconds=place, microseconds=jitter % 997_001)
        for place, phase in enumerate(phases)
    }
    return StepRun(
        spec=spec,
        phase=StepPhase.SUCCEEDED,
        times=times,
        container_id=digest("container", 64),
        exit=Exit(code=0),
        log_bytes=jitter % 9000,
        log_sha256=digest("log", 64),
        user="1000:1000",
        engine="docker 28.0.1",
        base_commit=digest("base", 40),
        input_commit=digest("input", 40) if spec.input else None,
        snapshot=digest("snapshot", 40),
        ground_truth=digest("truth", 40),
        pushed=True,
        metrics={"rows": float(jitter % 5000)},
    )
