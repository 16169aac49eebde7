"""Runs are analysed once each despite kills and failures, and publishing never waits for the analysis."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mao_datamgmt.context import Context
from mao_datamgmt.monitoring import series
from mao_datamgmt.monitoring.extract import read_metrics
from mao_datamgmt.rounds.input_gate import InputGate
from mao_datamgmt.rounds.participation import DatasetSharing
from mao_shared import keys
from mao_shared.models import ControlMetric, Run
from mao_shared.reconcile import background
from mao_shared.runs.records import RunRecords
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store import Batch, Check, Delete, Write
from mao_shared.store.memory import MemoryStore
from tests.support.waiting import eventually, eventually_answers

from .world import NODE, PATIENCE, World, run_of, runs_on, step, working, writes

pytestmark = pytest.mark.virtual_time

METRICS = [
    ControlMetric(name="files", measure="files"),
    ControlMetric(name="missing", file="missing.json", pointer="/total"),
]


def measured(world: World, number: int) -> Run:
    one = step("collect", "data", world.master)
    spec = one.spec.model_copy(update={"metrics": METRICS})
    return run_of(f"run-{number}", one.model_copy(update={"spec": spec}), after=number)


async def requests_of(world: World) -> list[str]:
    prefix = keys.analyses_prefix(NODE)
    return [entry.key.removeprefix(prefix) for entry in (await world.store.list(prefix)).entries]


async def points_of(world: World) -> list[tuple[str, float]]:
    stored = await world.manager.series.get("pipeline/collect/files")
    return [] if stored is None else [(point.run, point.value) for point in stored.record.points]


async def alarms_of(world: World) -> list[str | None]:
    return [alarm.metric for alarm in (await world.manager.alarms.list_(False, 100, None)).items]


class Gate:
    """Replace the reading of metrics: wait while closed, raise `error` if it is set."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.error: Exception | None = None
        self.calls = 0

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        if self.error is not None:
            raise self.error
        assert self.opened.wait(PATIENCE)
        return read_metrics(*args)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    made = Gate()
    monkeypatch.setattr(series, "read_metrics", made)
    return made


async def test_analysis_runs_end_while_an_analysis_hangs(tmp_path: Path, gate: Gate) -> None:
    async with working(tmp_path) as world:
        for number in range(3):
            done = await world.whole(measured(world, number), writes(a=str(number)))
            run = await world.finish(f"run-{number}")
            assert (done.phase, run.phase) == (StepPhase.SUCCEEDED, RunPhase.SUCCEEDED)
            assert done.metrics == {}
        await eventually(lambda: gate.calls == 1)
        assert runs_on(world.master) == ["run-2", "run-1", "run-0"]
        assert await requests_of(world) == [f"run-{number}~collect" for number in range(3)]
        gate.opened.set()
        await world.until_analysed()
        assert await points_of(world) == [("run-0", 1.0), ("run-1", 1.0), ("run-2", 1.0)]
        assert (await world.get("run-1")).record.steps[0].metrics == {"files": 1.0}


@pytest.mark.parametrize("error", [RuntimeError("broken"), OSError("disk"), ValueError("odd")])
async def test_analysis_fault_of_the_analysis_is_shown_and_over_by_itself(
    tmp_path: Path, gate: Gate, error: Exception
) -> None:
    gate.error = error
    async with working(tmp_path) as world:
        for number in range(2):
            done = await world.whole(measured(world, number), writes(a=str(number)))
            assert (done.phase, done.error, done.waiting) == (StepPhase.SUCCEEDED, None, None)
            await world.finish(f"run-{number}")
        current = world.manager.conditions.current
        subject = "analysis/run-1~collect"
        await eventually(
            lambda: subject in [condition.subject for condition in current() if condition.state != "ok"]
        )
        gate.error = None
        gate.opened.set()
        await world.until_analysed()
        assert sorted(await points_of(world)) == [("run-0", 1.0), ("run-1", 1.0)]
        await eventually(
            lambda: not [condition for condition in current() if condition.subject.startswith("analysis/")]
        )


async def test_analysis_step_is_analysed_when_its_run_has_ended(tmp_path: Path, gate: Gate) -> None:
    gate.opened.set()
    async with working(tmp_path) as world:
        await world.whole(measured(world, 0), writes(a="1"))
        await world.whole(measured(world, 1), writes(a="2"))
        await world.analysed("run-1")
        assert await points_of(world) == [("run-1", 1.0)]
        assert await requests_of(world) == ["run-0~collect"]
        await world.finish("run-0", RunPhase.FAILED)
        await world.until_analysed()
        assert await points_of(world) == [("run-1", 1.0), ("run-0", 1.0)]


async def test_analysis_archived_run_gets_values(tmp_path: Path, gate: Gate) -> None:
    async with working(tmp_path) as world:
        await world.whole(measured(world, 0), writes(a="1"))
        await world.finish("run-0")
        runs = RunRecords(world.store, NODE)
        await runs.move((await runs.live_page(10, None))[0])
        gate.opened.set()
        await world.until_analysed()
        stored = await runs.get("run-0")
        assert stored is not None
        assert stored.record.steps[0].metrics == {"files": 1.0}


async def test_analysis_request_goes_with_its_run(tmp_path: Path, gate: Gate) -> None:
    async with working(tmp_path) as world:
        await world.whole(measured(world, 0), writes(a="1"))
        await world.store.delete(keys.run(NODE, "run-0"))
        await world.until_analysed()
        assert gate.calls == 0


class DyingStore(MemoryStore):
    """Never answer the first write for which `is_fatal` holds, as if the process was killed there."""

    def __init__(self, is_fatal: Callable[[Write], bool], *, applies: bool) -> None:
        super().__init__()
        self._is_fatal, self._applies = is_fatal, applies
        self.died = asyncio.Event()

    async def _perhaps_die(self, writes: Sequence[Write], apply: Callable[[], Any]) -> Any:
        if self.died.is_set() or not any(map(self._is_fatal, writes)):
            return await apply()
        if self._applies:
            await apply()
        self.died.set()
        return await asyncio.Event().wait()

    async def transact(self, checks: Sequence[Check], writes: Sequence[Write]) -> int | None:
        made = super().transact
        return await self._perhaps_die(writes, lambda: made(checks, writes))  # type: ignore[no-any-return]

    async def delete(self, key: str, revision: int | None = None) -> bool:
        made = super().delete
        return await self._perhaps_die([Delete(key)], lambda: made(key, revision))  # type: ignore[no-any-return]


def _writes_to(part: str, text: bytes = b"") -> Callable[[Write], bool]:
    return lambda write: part in write.key and (isinstance(write, Delete) or text in write.value)


DEATHS = {
    "end of the step": _writes_to("/analyses/"),
    "values": _writes_to("/runs/", b'"metrics":{"files"'),
    "series": _writes_to("/series/"),
    "alarm": _writes_to("/alarms/"),
    "request done": lambda write: "/analyses/" in write.key and isinstance(write, Delete),
}


@pytest.mark.parametrize("applies", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("moment", DEATHS)
async def test_analysis_killed_at_each_write_it_is_done_once(
    tmp_path: Path, moment: str, applies: bool
) -> None:
    store = DyingStore(DEATHS[moment], applies=applies)
    async with working(tmp_path, store) as world:
        await world.begin(measured(world, 0))
        await world.run_tool("run-0", writes(a="1"))
        if moment != "end of the step":
            await world.phase("run-0", StepPhase.SUCCEEDED)
            await world.finish("run-0")
        await asyncio.wait_for(store.died.wait(), PATIENCE)
    async with working(tmp_path, store) as world:
        await world.phase("run-0", StepPhase.SUCCEEDED)
        with suppress(ValueError):  # it has ended
            await world.finish("run-0")
        await world.until_analysed()
        assert await points_of(world) == [("run-0", 1.0)]
        assert await alarms_of(world) == ["missing"]
        assert (await world.get("run-0")).record.steps[0].metrics == {"files": 1.0}
        assert runs_on(world.master) == ["run-0"]


async def test_analysis_unshared_node_never_queries_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: Any, **__: Any) -> Any:
        raise AssertionError("the rounds were asked")

    async with working(tmp_path) as world:
        rounds = world.manager.rounds
        async with background(*rounds.loops(), on_failure=lambda: None):
            await eventually_answers(lambda: world.manager.sharing.is_solo("data"))
            for name in ("obstacle", "remark", "is_shared", "solo_refusal", "declared"):
                monkeypatch.setattr(DatasetSharing, name, asked)
            monkeypatch.setattr(InputGate, "check", asked)
            first = step("collect", "data", world.master)
            reads = step("sum", "data", world.master, ("data", str(world.master), "ground-truth"))
            for number, one in enumerate((first, reads)):
                run = run_of(f"run-{number}", one, after=number)
                ticked = run.model_copy(update={"scheduled_for": run.created_at})
                done = await world.whole(ticked, writes(a=str(number)))
                assert (done.phase, done.error) == (StepPhase.SUCCEEDED, None)
                assert done.ground_truth == done.snapshot


class SlowEchoStore(MemoryStore):
    """Deliver watch events one second late, like a distant or busy store."""

    async def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Batch, None]:
        async for batch in super().watch(prefix, after=after):
            if "/analyses/" in prefix:
                await asyncio.sleep(1.0)
            yield batch


async def test_analysis_is_done_once_though_it_writes_its_run(tmp_path: Path, gate: Gate) -> None:
    gate.opened.set()
    async with working(tmp_path, SlowEchoStore()) as world:
        for number in range(3):
            await world.whole(measured(world, number), writes(a=str(number)))
            await world.analysed(f"run-{number}")
        await asyncio.sleep(10.0)
        assert gate.calls == 3


async def test_analysis_series_that_cannot_be_written_costs_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests stay until the series is repaired, without repeated reads or writes meanwhile."""
    read: list[int] = []

    def counted(context: Context, dataset: str, commit: str, metrics: Sequence[ControlMetric]) -> Any:
        read.append(len(metrics))
        return read_metrics(context, dataset, commit, metrics)

    monkeypatch.setattr(series, "read_metrics", counted)
    store = MemoryStore()
    broken = keys.series(NODE, "pipeline", "collect", "files")
    await store.create(broken, b"broken")
    async with working(tmp_path, store, push_retry=5.0) as world:  # every 50 ms of an hour takes 10 s
        for number in range(3):
            await world.whole(measured(world, number), writes(a=str(number)))
            await world.finish(f"run-{number}")
        await eventually_answers(lambda: _all_have_values(world, 3))
        revision = store.revision
        await asyncio.sleep(3600.0)
        assert store.revision == revision
        assert [count for count in read if count == len(METRICS)] == [len(METRICS)] * 3
        assert len(read) < 3 * 40
        assert len(await requests_of(world)) == 3
        await store.delete(broken)
        await world.until_analysed()
        assert sorted(await points_of(world)) == [("run-0", 1.0), ("run-1", 1.0), ("run-2", 1.0)]


async def _all_have_values(world: World, count: int) -> bool:
    runs = [(await world.get(f"run-{number}")).record for number in range(count)]
    return all(run.steps[0].metrics == {"files": 1.0} for run in runs)
