"""The page *Today* with 200 pipelines on five nodes, 300 ticks each: server time, size, the gateway's memory.

No tool runs: runs, their index and what other nodes publish are written to the store, based on the node's
enrolment.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.node import NativeNode

from mao_shared import keys
from mao_shared.models import Member, Pipeline, RunBrief, TickException, TickStrip
from mao_shared.models.enrolment import Enrolment
from mao_shared.models.run import PastRun, Run, StepRun, tick_run_id
from mao_shared.runs.records import pack_run
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store import Put, Records, load_etcd
from mao_shared.store.records import dump

from .node import NAME, append_command, bench_node, enrol
from .processes import pss_megabytes
from .report import Measure

PIPELINES, QUICK_PIPELINES = 200, 20
NODES = ("node-b", "node-c", "node-d", "node-e")
TICKS = 300
TIMES = 40
PERIOD = timedelta(hours=1)
_BATCH = 60
_BAD_EVERY = 37  # a tick in so many failed


def measure(folder: Path, *, quick: bool = False) -> list[Measure]:
    """Measure the page on a node that has nothing else to do."""
    pipelines = QUICK_PIPELINES if quick else PIPELINES
    with bench_node(folder) as node:
        enrol(node, "survey", append_command())
        asyncio.run(_fill(node, pipelines))
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
    Path("/tmp/P/today.html").write_text(answer.text)
    if "survey" not in answer.text:
        raise RuntimeError("the page does not show the pipelines")
    return took, len(answer.content)


async def _fill(node: NativeNode, pipelines: int) -> None:
    store = load_etcd()(node.etcd)
    try:
        enrolment = await Records(store, keys.enrolments_prefix(NAME), Enrolment).get("survey")
        pipeline = await Records(store, keys.registry_prefix("pipelines"), Pipeline).get("survey")
        assert enrolment is not None
        assert pipeline is not None
        puts = list(_peers(pipelines))
        for number in range(1, pipelines):
            name = f"survey-{number:03}"
            renamed = enrolment.record.model_copy(update={"pipeline": name})
            puts.append(Put(keys.enrolment(NAME, name), dump(renamed)))
            puts.append(
                Put(keys.registry("pipelines", name), dump(pipeline.record.model_copy(update={"name": name})))
            )
            puts += _runs(renamed, name)
        for at in range(0, len(puts), _BATCH):
            await store.transact([], puts[at : at + _BATCH])
    finally:
        await store.close()


def _phase(pipeline: int, number: int) -> RunPhase:
    return RunPhase.FAILED if (pipeline * 7 + number) % _BAD_EVERY == 0 else RunPhase.SUCCEEDED


def _runs(enrolment: Enrolment, pipeline: str) -> Iterator[Put]:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    for number in range(1, TICKS + 1):
        tick = hour - number * PERIOD
        run = Run(
            id=tick_run_id(pipeline, NAME, tick),
            pipeline=pipeline,
            node=NAME,
            trigger="schedule",
            phase=_phase(int(pipeline[-3:]), number),
            scheduled_for=tick,
            created_at=tick,
            started_at=tick,
            finished_at=tick + timedelta(seconds=70),
            steps=[StepRun(spec=spec, phase=StepPhase.SUCCEEDED) for spec in enrolment.steps],
        )
        indexed = PastRun(
            trigger="schedule", scheduled_for=tick, started_at=tick, finished_at=run.finished_at or tick
        )
        yield Put(keys.past_run(NAME, run.id), pack_run(dump(run)))
        yield Put(keys.run_index(NAME, run.phase, pipeline, run.id), dump(indexed))


def _peers(pipelines: int) -> Iterator[Put]:
    now = datetime.now(UTC)
    hour = now.replace(minute=0, second=0, microsecond=0)
    for place, node in enumerate(NODES):
        yield Put(keys.member(node), dump(Member(name=node, version="1", started_at=now)))
        for number in range(1, pipelines):
            pipeline = f"survey-{number:03}"
            phases = [_phase(number + place, tick) for tick in range(TICKS, 0, -1)]
            bad = [index for index, phase in enumerate(phases) if phase is RunPhase.FAILED]
            exceptions = [
                TickException(at=index, run=f"{pipeline}-{index}", tick=hour - (TICKS - index) * PERIOD)
                for index in bad
            ]
            strip = TickStrip(
                node=node,
                pipeline=pipeline,
                marks="".join("f" if phase is RunPhase.FAILED else "s" for phase in phases),
                first=hour - TICKS * PERIOD,
                recent=24,
                exceptions=exceptions,
                last=RunBrief(id=f"{pipeline}-last", trigger="schedule", phase=phases[-1], finished_at=hour),
                next_tick=hour + PERIOD,
                schedules=["0 * * * * UTC"],
                updated_at=now,
            )
            yield Put(keys.peer_ticks(node, pipeline), dump(strip))
