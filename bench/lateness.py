"""Lateness of the stored record of a due run, with many schedules.

Lateness is the time at which a watch on etcd reports the run's document, minus the run's tick.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.node import PORTS_OF_A_NODE
from tests.support.ports import free_ports

from mao_node.preflight import make_socket_dir, socket_dir
from mao_node.processes import ProcessSpec, node_processes
from mao_node.settings import NodeSettings
from mao_shared import keys
from mao_shared.models.common import Record
from mao_shared.models.enrolment import DatasetRef, Enrolment, ResolvedImage, ResolvedStep
from mao_shared.models.schedule import Schedule, ScheduleSpec, schedule_id
from mao_shared.store import Put, Store, open_store
from mao_shared.store.records import dump

from . import peers
from .node import NAME
from .processes import running, wait_for_answer
from .report import Measure

GOAL, LIMIT = 100.0, 250.0  # ms
SCHEDULES, DUE, ROUNDS = 10_000, 1000, 5
BETWEEN_ROUNDS = 10  # seconds
BEFORE_FIRST = 40  # seconds to write all schedules and start the scheduler
LONGEST_ROUND = 60.0  # seconds
_BATCH = 64


def measure(folder: Path, *, quick: bool = False) -> list[Measure]:
    """Compare the p99 over all rounds with APScheduler's for two of its stores."""
    rounds = 2 if quick else ROUNDS
    ours = asyncio.run(_scheduler_lateness(folder, rounds))
    measures = []
    for store in ("sqlite", "memory"):
        theirs = peers.apscheduler_lateness(store, folder, jobs=SCHEDULES, due=DUE, rounds=rounds)
        measures.append(_judge(store, ours, theirs))
    return measures


def _judge(store: str, ours: list[list[float]], theirs: list[list[float]]) -> Measure:
    return Measure(
        name=f"lateness p99 ({store})",
        ours=_percentile(_pooled(ours), 99),
        unit="ms",
        than=f"APScheduler, {store} store",
        theirs=_percentile(_pooled(theirs), 99),
        judged="ours",
        goal=GOAL,
        limit=LIMIT,
        rounds=tuple(round(_percentile(values, 99) * 1000, 1) for values in ours),
        note=f"{SCHEDULES} schedules, {DUE} due in one second, {len(ours)} rounds. p50/p99/max in ms: "
        f"MAO {_summary(ours)}; APScheduler {_summary(theirs)}"
        + (" (without a record)" if store == "memory" else ""),
    )


def _pooled(rounds: list[list[float]]) -> list[float]:
    return [late * 1000 for values in rounds for late in values]


def _percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def _summary(rounds: list[list[float]]) -> str:
    values = _pooled(rounds)
    return f"{statistics.median(values):.0f}/{_percentile(values, 99):.0f}/{max(values):.0f}"


async def _scheduler_lateness(folder: Path, rounds: int) -> list[list[float]]:
    """Return the lateness in seconds, a list per round, of a scheduler process with etcd on this disk."""
    etcd, scheduler = _processes(folder)
    with running(etcd.argv, folder / "etcd.log", etcd.env, etcd.cwd) as etcd_process:
        await asyncio.to_thread(wait_for_answer, "http://localhost/health", etcd_process, etcd.sockets[0])
        store = open_store(f"unix://{etcd.sockets[0]}")
        first = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=BEFORE_FIRST)
        ticks = [first + timedelta(seconds=BETWEEN_ROUNDS * i) for i in range(rounds)]
        await _write_all(store, _schedules(ticks))
        with running(scheduler.argv, folder / "scheduler.log", scheduler.env) as process:
            await asyncio.to_thread(wait_for_answer, "http://localhost/readyz", process, scheduler.sockets[0])
            if datetime.now(UTC) > first - timedelta(seconds=5):
                raise RuntimeError(f"writing and loading the schedules took more than {BEFORE_FIRST - 5} s")
            seen_at = await _watch_runs(store, expected=DUE * rounds, until=ticks[-1])
        await store.close()
    return [_late(seen_at, tick) for tick in ticks]


def _processes(folder: Path) -> tuple[ProcessSpec, ProcessSpec]:
    settings = NodeSettings(node=NAME, data_dir=folder / "node", gateway_port=free_ports(PORTS_OF_A_NODE))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAO_")}
    make_socket_dir(socket_dir(settings.data_dir))
    specs = {spec.name: spec for spec in node_processes(settings, environ | {"MAO_LOG_LEVEL": "warning"})}
    return specs["etcd"], specs["scheduler"]


def _schedules(ticks: Sequence[datetime]) -> Iterable[tuple[str, str]]:
    """Yield (pipeline, cron string): DUE schedules per tick, and others that are due hours later."""
    due = [tick for tick in ticks for _ in range(DUE)]
    resting = ticks[0] + timedelta(hours=2)
    rest = [resting + timedelta(seconds=i) for i in range(SCHEDULES - len(due))]
    for number, moment in enumerate([*due, *rest]):
        yield f"pipeline-{number}", f"{moment.second} {moment.minute} {moment.hour} * * *"


async def _write_all(store: Store, schedules: Iterable[tuple[str, str]]) -> None:
    puts: list[Put] = []
    now = datetime.now(UTC)
    for pipeline, cron in schedules:
        spec = ScheduleSpec(cron=cron, seconds=True)
        name = schedule_id(pipeline, spec)
        schedule = Schedule(id=name, pipeline=pipeline, created_at=now, **spec.model_dump())
        puts += [_put(keys.schedule(NAME, name), schedule)]
        puts += [_put(keys.enrolment(NAME, pipeline), _enrolment(pipeline, now))]
    for at in range(0, len(puts), _BATCH):
        await store.transact([], puts[at : at + _BATCH])


def _put(key: str, record: Record) -> Put:
    return Put(key, dump(record))


def _enrolment(pipeline: str, now: datetime) -> Enrolment:
    image = ResolvedImage(name="busybox", pinned="sha256:" + "0" * 64, platform="linux/amd64")
    output = DatasetRef(name=pipeline, master=f"/srv/{pipeline}.git", branch=NAME)
    step = ResolvedStep(name=pipeline, tool=pipeline, image=image, output=output)
    return Enrolment(pipeline=pipeline, node=NAME, steps=[step], pipeline_revision=1, enrolled_at=now)


async def _watch_runs(store: Store, *, expected: int, until: datetime) -> dict[str, float]:
    """Return the time when each run's document was first seen, in seconds since the epoch."""
    prefix = keys.runs_prefix(NAME)
    seen: dict[str, float] = {}
    page = await store.list(prefix)
    if page.entries:
        raise RuntimeError(f"{len(page.entries)} runs exist before the first tick")
    limit = until.timestamp() - time.time() + LONGEST_ROUND
    try:
        async with asyncio.timeout(limit):
            async for batch in store.watch(prefix, after=page.revision):
                now = time.time()
                for event in batch:
                    seen.setdefault(event.key, now)
                if len(seen) >= expected:
                    return seen
    except TimeoutError:
        print(f"only {len(seen)} of {expected} runs were recorded", file=sys.stderr)
        raise
    raise AssertionError("a watch does not end")


def _late(seen: dict[str, float], tick: datetime) -> list[float]:
    """Return the lateness of the runs whose id starts with this tick."""
    stamp = f"{tick:%Y%m%dT%H%M%SZ}-"
    late = [at - tick.timestamp() for key, at in seen.items() if keys.last_part(key).startswith(stamp)]
    if len(late) != DUE:
        raise RuntimeError(f"{len(late)} of {DUE} runs were recorded for the tick {tick}")
    return late
