"""Ticks of a whole lab, written to the store of a node: many pipelines on several nodes.

No tool runs: runs, their index and what other nodes publish are based on one real enrolment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from mao_shared import keys
from mao_shared.models import Member, Pipeline, RunBrief, TickException, TickStrip
from mao_shared.models.enrolment import Enrolment
from mao_shared.models.run import PastRun, Run, StepRun, tick_run_id
from mao_shared.runs.records import pack_run
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store import Put, Records, load_etcd
from mao_shared.store.records import dump

from .node import NativeNode

PERIOD = timedelta(hours=1)
_BATCH = 60
_BAD_EVERY = 37  # a tick in so many failed


async def write_lab_ticks(
    node: NativeNode, pipeline: str, *, pipelines: int, nodes: Sequence[str], ticks: int
) -> list[str]:
    """Copy an enrolled pipeline, with `ticks` hourly runs each; return the copies' names.

    `nodes`: other nodes, which publish their own strips of the copies.
    """
    store = load_etcd()(node.etcd)
    try:
        enrolment = await Records(store, keys.enrolments_prefix(node.name), Enrolment).get(pipeline)
        registered = await Records(store, keys.registry_prefix("pipelines"), Pipeline).get(pipeline)
        assert enrolment is not None
        assert registered is not None
        names = [f"{pipeline}-{number:03}" for number in range(1, pipelines)]
        puts = list(_peers(names, nodes, ticks))
        for name in names:
            renamed = enrolment.record.model_copy(update={"pipeline": name})
            copied = registered.record.model_copy(update={"name": name})
            puts.append(Put(keys.enrolment(node.name, name), dump(renamed)))
            puts.append(Put(keys.registry("pipelines", name), dump(copied)))
            puts += _runs(node.name, renamed, name, ticks)
        for at in range(0, len(puts), _BATCH):
            await store.transact([], puts[at : at + _BATCH])
    finally:
        await store.close()
    return names


def _phase(place: int, number: int) -> RunPhase:
    return RunPhase.FAILED if (place * 7 + number) % _BAD_EVERY == 0 else RunPhase.SUCCEEDED


def _runs(node: str, enrolment: Enrolment, pipeline: str, ticks: int) -> Iterator[Put]:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    for number in range(1, ticks + 1):
        tick = hour - number * PERIOD
        run = Run(
            id=tick_run_id(pipeline, node, tick),
            pipeline=pipeline,
            node=node,
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
        yield Put(keys.past_run(node, run.id), pack_run(dump(run)))
        yield Put(keys.run_index(node, run.phase, pipeline, run.id), dump(indexed))


def _peers(pipelines: Sequence[str], nodes: Sequence[str], ticks: int) -> Iterator[Put]:
    now = datetime.now(UTC)
    hour = now.replace(minute=0, second=0, microsecond=0)
    for place, node in enumerate(nodes, 1):
        yield Put(keys.member(node), dump(Member(name=node, version="1", started_at=now)))
        for number, pipeline in enumerate(pipelines, 1):
            phases = [_phase(number + place, tick) for tick in range(ticks, 0, -1)]
            exceptions = [
                TickException(at=index, run=f"{pipeline}-{index}", tick=hour - (ticks - index) * PERIOD)
                for index, phase in enumerate(phases)
                if phase is RunPhase.FAILED
            ]
            strip = TickStrip(
                node=node,
                pipeline=pipeline,
                marks="".join("f" if phase is RunPhase.FAILED else "s" for phase in phases),
                first=hour - ticks * PERIOD,
                recent=min(24, ticks),
                exceptions=exceptions,
                last=RunBrief(id=f"{pipeline}-last", trigger="schedule", phase=phases[-1], finished_at=hour),
                next_tick=hour + PERIOD,
                schedules=["0 * * * * UTC"],
                updated_at=now,
            )
            yield Put(keys.peer_ticks(node, pipeline), dump(strip))
