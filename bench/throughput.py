"""Many queued runs in four slots, compared with `xargs -P4` of the script."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
from tests.support.node import NativeNode

from .by_hand import make_clone, run_argv
from .node import append_command, bench_node, check_pushed, enrol, run_once
from .report import Measure

GOAL = 1.2
RUNS, SLOTS, PIPELINES = 50, 4, 8
LONGEST = 300.0  # seconds


def measure(folder: Path, *, quick: bool = False) -> list[Measure]:
    """Measure the seconds from the first request to the last pushed ground truth; twice each, alternating."""
    names = [f"queue-{i}" for i in range(PIPELINES)]
    with bench_node(folder, MAO_SLOTS=str(SLOTS)) as node:
        for name in names:
            enrol(node, name, append_command())
            run_once(node, name)
        clones = [make_clone(folder / f"{name}-by-hand") for name in names]
        pairs = [
            (asyncio.run(_node_seconds(node, names)), _by_hand_seconds(clones))
            for _ in range(1 if quick else 3)
        ]
    ours, theirs = sorted(pairs, key=lambda pair: pair[0] / pair[1])[len(pairs) // 2]
    return [
        Measure(
            f"throughput, {RUNS} runs in {SLOTS} slots",
            ours,
            "s",
            f"xargs -P{SLOTS} of the script",
            theirs,
            judged="ratio",
            goal=GOAL,
            note=f"the pair with the median ratio of {len(pairs)}; {PIPELINES} pipelines and datasets",
            rounds=tuple(round(a, 2) for a, _ in pairs),
        )
    ]


async def _node_seconds(node: NativeNode, names: list[str]) -> float:
    async with httpx.AsyncClient(base_url=node.url, timeout=LONGEST) as http:
        listening = asyncio.Event()
        async with asyncio.timeout(LONGEST), asyncio.TaskGroup() as group:
            ended = group.create_task(_ended_runs(http, RUNS, listening))
            await listening.wait()
            began = time.perf_counter()
            for i in range(RUNS):
                group.create_task(_request(http, names[i % len(names)]))
        return (ended.result() or time.perf_counter()) - began


async def _request(http: httpx.AsyncClient, name: str) -> None:
    answer = await http.post("/pipeline/run", json={"name": name})
    answer.raise_for_status()


async def _ended_runs(http: httpx.AsyncClient, count: int, listening: asyncio.Event) -> float:
    """Return when the last of `count` runs ended; raises RuntimeError for a run that is not pushed."""
    before = {run["id"] for run in (await http.get("/runs", params={"limit": 1000})).json()["items"]}
    ended: set[str] = set()
    async with http.stream("GET", "/events") as answer:
        answer.raise_for_status()
        listening.set()
        async for line in answer.aiter_lines():
            if line.startswith("data:"):
                _note(ended, json.loads(line[5:]), before)
            if len(ended) == count:
                break
    return time.perf_counter()


def _note(ended: set[str], run: dict[str, Any], before: set[str]) -> None:
    if run.get("phase") in (None, "queued", "running") or run["id"] in before:
        return
    check_pushed(run)
    ended.add(run["id"])


def _by_hand_seconds(clones: list[Path]) -> float:
    """Return the seconds of the same runs with the script; one at a time per dataset, as git requires."""
    lines = "\n".join(str(clones[i % len(clones)]) for i in range(RUNS))
    argv = run_argv(Path("{}"), append_command())
    began = time.perf_counter()
    subprocess.run(
        ["xargs", f"-P{SLOTS}", "-I{}", "flock", "{}.lock", *argv], input=lines, text=True, check=True
    )
    return time.perf_counter() - began
