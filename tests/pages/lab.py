"""A lab's *Today* for the picture of the README: three pipelines on three nodes, with something to decide.

Enrolments, datasets and schedules are real; what ran before, and what the other two nodes say, is written.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mao_shared import keys
from mao_shared.models import Alarm, Member, Round, Series
from mao_shared.models.alarm import Point
from mao_shared.models.enrolment import Enrolment
from mao_shared.models.run import tick_run_id
from mao_shared.states import RunPhase
from mao_shared.store import Put, Records, load_etcd
from mao_shared.store.records import dump
from tests.support.git import bare_repository
from tests.support.lab_ticks import own_ticks, peer_ticks, write_all
from tests.support.node import NativeNode

TICKS = 40
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PEERS = ("basel", "geneva")
_PHASES = {".": RunPhase.SUCCEEDED, "f": RunPhase.FAILED, "m": RunPhase.MISSED}


@dataclass(frozen=True)
class _Pipeline:
    """`hour`: of a daily tick; None: hourly. `level`: of its metric. `bad`: ticks that did not succeed, by
    node and counted back from the newest.
    """

    name: str
    cron: str
    hour: int | None
    metric: str
    unit: str
    level: float
    spike: float | None = None
    bad: dict[str, dict[int, str]] = field(default_factory=dict)

    @property
    def period(self) -> timedelta:
        return HOUR if self.hour is None else DAY

    @property
    def newest(self) -> datetime:
        """The newest tick whose run has ended."""
        now = datetime.now(UTC) - timedelta(minutes=3)
        tick = now.replace(minute=0, second=0, microsecond=0)
        if self.hour is None:
            return tick
        tick = tick.replace(hour=self.hour)
        return tick if tick <= now else tick - DAY

    def phases(self, node: str) -> list[RunPhase]:
        marks = self.bad.get(node, {})
        return [_PHASES[marks.get(back, ".")] for back in range(TICKS, 0, -1)]

    def series(self) -> Series:
        values = [
            self.level * (1 + math.sin(number * 0.9) / 25 + math.sin(number * 2.3) / 40)
            for number in range(TICKS)
        ]
        points = [
            Point(
                run=f"{self.name}-{number}",
                time=self.newest - (TICKS - 1 - number) * self.period,
                value=round(value, 3),
                accepted=True,
                expected=self.level,
                band=self.level / 12,
            )
            for number, value in enumerate(values)
        ]
        if self.spike is not None:
            points[-1] = points[-1].model_copy(update={"value": self.spike, "accepted": False})
        return Series(pipeline=self.name, step="collect", metric=self.metric, unit=self.unit, points=points)


PIPELINES = (
    _Pipeline("air-quality", "0 * * * *", None, "pm25", "µg/m³", 11.2, bad={"geneva": {31: "m", 30: "m"}}),
    _Pipeline("river-levels", "0 * * * *", None, "level", "cm", 214, spike=371.0, bad={"zurich": {17: "f"}}),
    _Pipeline("web-archive", "0 2 * * *", 2, "pages", "", 1894, bad={"basel": {3: "f", 9: "m"}}),
)


async def write_lab(node: NativeNode, image: str, root: Path) -> None:
    """Register and schedule the pipelines, and write what has happened so far."""
    for each in PIPELINES:
        metrics = [{"name": each.metric, "measure": "rows", "unit": each.unit}]
        step = {"tool": each.name, "name": "collect", "dataset": each.name, "metrics": metrics}
        _post(node, "/registry/tools", {"name": each.name, "image": image})
        remote = bare_repository(root / f"{each.name}.git")
        _post(node, "/registry/datasets", {"name": each.name, "master": str(remote)})
        _post(node, "/pipeline/init", {"name": each.name, "steps": [step]})
        _post(node, "/pipeline/run", {"name": each.name, "cron": each.cron, "timezone": "UTC"})
    changed = {"name": "web-archive", "image": image, "env": {"DEPTH": "3"}, "limits": {"memory": "2g"}}
    node.http.put("/registry/tools/web-archive", json=changed).raise_for_status()
    store = load_etcd()(node.etcd)
    try:
        now = datetime.now(UTC)
        puts = [
            Put(keys.member(peer), dump(Member(name=peer, version="1", started_at=now))) for peer in PEERS
        ]
        enrolments = Records(store, keys.enrolments_prefix(node.name), Enrolment)
        for each in PIPELINES:
            enrolled = await enrolments.get(each.name)
            assert enrolled is not None
            puts += own_ticks(enrolled.record, each.phases(node.name), each.newest, each.period)
            puts += [
                peer_ticks(peer, each.name, each.phases(peer), each.newest, each.period, f"{each.cron} UTC")
                for peer in PEERS
            ]
            key = f"{keys.series_prefix(node.name)}{each.name}/collect/{each.metric}"
            puts.append(Put(key, dump(each.series())))
            puts += [
                Put(keys.round(each.name, each_round.id), dump(each_round))
                for each_round in _rounds(each, node.name)
            ]
        await write_all(store, puts)
        spike = _spike(node.name)
        await Records(store, keys.alarms_prefix(node.name), Alarm).create(spike.id, spike)
    finally:
        await store.close()


def _post(node: NativeNode, path: str, body: dict[str, Any]) -> None:
    node.http.post(path, json=body, timeout=60).raise_for_status()


def _rounds(pipeline: _Pipeline, own: str) -> list[Round]:
    ticks = [pipeline.newest - number * pipeline.period for number in range(24)]
    return [
        Round(
            dataset=pipeline.name,
            id=f"{tick:%Y%m%dT%H%M%SZ}-{pipeline.name}-collect",
            pipeline=pipeline.name,
            step="collect",
            tick=tick,
            nodes=sorted([own, *PEERS]),
            phase="decided",
            opened_by=own,
            opened_at=tick,
            deadline=tick + HOUR,
            ended_at=tick + timedelta(minutes=2),
            commit="c" * 40,
        )
        for tick in ticks
        if pipeline.newest - tick < DAY
    ]


def _spike(own: str) -> Alarm:
    rivers = next(each for each in PIPELINES if each.spike is not None)
    tick = rivers.newest
    run = tick_run_id(rivers.name, own, tick)
    return Alarm(
        id=f"{run}.collect.{rivers.metric}",
        kind="spike",
        node=own,
        raised_at=tick + timedelta(seconds=75),
        pipeline=rivers.name,
        step="collect",
        run=run,
        dataset=rivers.name,
        metric=rivers.metric,
        value=rivers.spike,
        expected=rivers.level,
        band=rivers.level / 12,
        detail=f"{rivers.metric} of step collect is {rivers.spike:g} {rivers.unit}, expected "
        f"{rivers.level:g} ± {rivers.level / 12:.3g}: as the last 30 accepted values.",
    )
