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
from mao_shared.store import Put, Records, Store, load_etcd
from mao_shared.store.records import dump

from .node import NativeNode

PERIOD = timedelta(hours=1)
TOOK = timedelta(seconds=70)
_BATCH = 60
_MARKS = {RunPhase.SUCCEEDED: "s", RunPhase.FAILED: "f", RunPhase.MISSED: "m"}
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
            phases = [_phase(int(name[-3:]), number) for number in range(ticks, 0, -1)]
            puts += own_ticks(renamed, phases, _newest())
        await write_all(store, puts)
    finally:
        await store.close()
    return names


async def write_all(store: Store, puts: Sequence[Put]) -> None:
    for at in range(0, len(puts), _BATCH):
        await store.transact([], puts[at : at + _BATCH])


def _newest() -> datetime:
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - PERIOD


def _phase(place: int, number: int) -> RunPhase:
    return RunPhase.FAILED if (place * 7 + number) % _BAD_EVERY == 0 else RunPhase.SUCCEEDED


def own_ticks(
    enrolment: Enrolment, phases: Sequence[RunPhase], newest: datetime, period: timedelta = PERIOD
) -> Iterator[Put]:
    """Yield the records of ended runs of an enrolment, a period apart; `newest`: tick of the last phase."""
    node, pipeline = enrolment.node, enrolment.pipeline
    for number, phase in enumerate(reversed(phases)):
        tick = newest - number * period
        run = Run(
            id=tick_run_id(pipeline, node, tick),
            pipeline=pipeline,
            node=node,
            trigger="schedule",
            phase=phase,
            scheduled_for=tick,
            created_at=tick,
            started_at=tick,
            finished_at=tick + TOOK,
            steps=[StepRun(spec=spec, phase=StepPhase.SUCCEEDED) for spec in enrolment.steps],
        )
        indexed = PastRun(
            trigger="schedule", scheduled_for=tick, started_at=tick, finished_at=run.finished_at or tick
        )
        yield Put(keys.past_run(node, run.id), pack_run(dump(run)))
        yield Put(keys.run_index(node, run.phase, pipeline, run.id), dump(indexed))


def peer_ticks(
    node: str,
    pipeline: str,
    phases: Sequence[RunPhase],
    newest: datetime,
    period: timedelta = PERIOD,
    schedule: str = "0 * * * * UTC",
) -> Put:
    """Return the strip that another node publishes, a period between ticks; `newest`: of the last phase."""
    now = datetime.now(UTC)
    ticks = len(phases)
    first = newest - (ticks - 1) * period
    exceptions = [
        TickException(at=index, run=f"{pipeline}-{index}", tick=first + index * period)
        for index, phase in enumerate(phases)
        if phase is not RunPhase.SUCCEEDED
    ]
    strip = TickStrip(
        node=node,
        pipeline=pipeline,
        marks="".join(_MARKS[phase] for phase in phases),
        first=first,
        recent=min(int(timedelta(days=1) / period), ticks),
        exceptions=exceptions,
        last=RunBrief(id=f"{pipeline}-last", trigger="schedule", phase=phases[-1], finished_at=newest + TOOK),
        next_tick=newest + period * ((now - newest) // period + 1),
        schedules=[schedule],
        updated_at=now,
    )
    return Put(keys.peer_ticks(node, pipeline), dump(strip))


def _peers(pipelines: Sequence[str], nodes: Sequence[str], ticks: int) -> Iterator[Put]:
    for place, node in enumerate(nodes, 1):
        yield Put(keys.member(node), dump(Member(name=node, version="1", started_at=datetime.now(UTC))))
        for number, pipeline in enumerate(pipelines, 1):
            phases = [_phase(number + place, tick) for tick in range(ticks, 0, -1)]
            yield peer_ticks(node, pipeline, phases, _newest())
