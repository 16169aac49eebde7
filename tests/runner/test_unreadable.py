"""A tool whose run's record is unreadable or missing is left running; ended ones are removed."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mao_runner.containers import cleanup
from mao_runner.containers.cleanup import is_over
from mao_runner.drivers.fake import FakeDriver
from mao_runner.drivers.protocol import Container
from mao_runner.labels import StepAttempt
from mao_runner.runner import Runner
from mao_shared.models import Run
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store import dump
from mao_shared.store.memory import MemoryStore
from tests.support.unreadable import KINDS, corrupt
from tests.support.waiting import eventually

from .doubles import PromptDriver
from .harness import Bench, ready_run


def name(run: str) -> str:
    return f"mao-node-1-{run}-0-1"


def subjects(runner: Runner, condition: str) -> list[str]:
    return [found.subject for found in runner.conditions.current() if found.name == condition]


async def running(bench: Bench, driver: FakeDriver, *runs: str) -> None:
    """Start the runs' tools, and leave them running when the runner ends."""
    for run in runs:
        await bench.submit(ready_run(run))
    async with bench.runner():
        for run in runs:
            await bench.phase(run, StepPhase.RUNNING)


async def swept(driver: FakeDriver) -> None:
    """Wait until the removable container is removed, so that a sweep has seen all of them."""
    await eventually(lambda: name("over") not in {container.name for container in driver.containers.values()})


async def end(bench: Bench, run_id: str) -> None:
    def over(run: Run) -> Run:
        step = run.steps[0].model_copy(update={"phase": StepPhase.LOST})
        return run.with_step(0, step).model_copy(update={"phase": RunPhase.LOST})

    await bench.change(run_id, over)


async def spoil(bench: Bench, run_id: str, kind: str | None) -> None:
    """Replace the run's record; None deletes it."""
    entry = await bench.store.get(bench.runs.prefix + run_id)
    assert entry is not None
    if kind is None:
        await bench.store.delete(entry.key)
    else:
        value = corrupt(entry.value, kind, key_field="id", enum_field="phase")
        await bench.store.replace(entry.key, value, entry.revision)


@pytest.mark.parametrize("kind", [*KINDS, None])
async def test_cleanup_keeps_running_tool_of_unreadable_run(tmp_path: Path, kind: str | None) -> None:
    driver = FakeDriver()
    bench = Bench(tmp_path, driver)
    await running(bench, driver, "bad", "over")
    await spoil(bench, "bad", kind)
    await end(bench, "over")
    calls = len(driver.calls)
    for _ in range(2):  # restarts
        async with bench.runner() as runner:
            await swept(driver)
            await eventually(lambda: f"orphans/{name('bad')}" in subjects(runner, "item-failing"))
            expected = [] if kind is None else [bench.runs.prefix + "bad"]
            assert subjects(runner, "record-unreadable") == expected
            await bench.submit(ready_run(f"next-{calls}-{_}"))
            await bench.phase(f"next-{calls}-{_}", StepPhase.RUNNING)  # others go on
    assert driver.containers[f"id-{name('bad')}"].state == "running"
    assert not [call for call in driver.calls[calls:] if call.endswith(name("bad"))]


@pytest.mark.parametrize("kind", KINDS)
async def test_runner_tool_survives_unreadable_record(tmp_path: Path, kind: str) -> None:
    driver = FakeDriver()
    bench = Bench(tmp_path, driver)
    await bench.submit(ready_run("bad"))
    async with bench.runner() as runner:
        await bench.phase("bad", StepPhase.RUNNING)
        good = await bench.store.get(bench.runs.prefix + "bad")
        assert good is not None
        await spoil(bench, "bad", kind)
        await eventually(lambda: runner.mirror.is_set_aside("bad"))
        entry = await bench.store.get(bench.runs.prefix + "bad")
        await bench.submit(ready_run("next"))
        await bench.phase("next", StepPhase.RUNNING)
        driver.output[f"id-{name('bad')}"].write(b"said\n")
        driver.exit(f"id-{name('bad')}", 0)
        driver.exit(f"id-{name('next')}", 0)
        await bench.left("next")
        assert await bench.store.get(bench.runs.prefix + "bad") == entry  # nobody has written over it
        assert f"id-{name('bad')}" in driver.containers
        assert entry is not None
        await bench.store.replace(good.key, good.value, entry.revision)
        step = await bench.left("bad")
        assert (step.phase, step.exit and step.exit.code) == (StepPhase.EXITED, 0)
        assert bench.log("bad") == "said\n"
        assert subjects(runner, "record-unreadable") == []


async def test_cleanup_empty_store_kills_nothing(tmp_path: Path) -> None:
    driver = FakeDriver()
    bench = Bench(tmp_path, driver)
    await running(bench, driver, "a", "b", "c")
    driver.exit(f"id-{name('c')}", 0)
    lost = Bench(tmp_path, driver, MemoryStore())
    async with lost.runner() as runner:
        await eventually(lambda: len(subjects(runner, "item-failing")) == 2)
    assert {container.name for container in driver.containers.values()} == {name(run) for run in "abc"}
    assert driver.containers[f"id-{name('a')}"].state == "running"


async def test_cleanup_removes_ended_orphan_and_keeps_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = FakeDriver()
    bench = Bench(tmp_path, driver)
    await running(bench, driver, "gone")
    driver.output[f"id-{name('gone')}"].write(b"its last words\n")
    driver.exit(f"id-{name('gone')}", 0)
    await spoil(bench, "gone", None)
    monkeypatch.setattr(cleanup, "ORPHAN_GRACE", timedelta(seconds=0.3))
    async with bench.runner():
        await eventually(lambda: not driver.containers)
    assert bench.log("gone") == "its last words\n"


async def test_cleanup_failed_removal_does_not_stop_others(tmp_path: Path) -> None:
    class Sticky(FakeDriver):
        async def remove(self, container_id: str) -> None:
            if container_id == f"id-{name('sticky')}":
                raise KeyError("of the engine")
            await super().remove(container_id)

    driver = Sticky()
    bench = Bench(tmp_path, driver)
    await running(bench, driver, "sticky", "over")
    for run in ("sticky", "over"):
        await end(bench, run)
    async with bench.runner() as runner:
        await swept(driver)
        await eventually(lambda: subjects(runner, "item-failing") == [f"leftovers/{name('sticky')}"])


async def test_cleanup_undecidable_container_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, looks = FakeDriver(), 0
    plain = cleanup.unclaimed

    def stumbles(container: Container, *others: Any) -> bool:
        nonlocal looks
        if container.name == name("odd"):
            looks += 1
            raise KeyError(container.name)
        return plain(container, *others)

    monkeypatch.setattr(cleanup, "unclaimed", stumbles)
    monkeypatch.setattr(cleanup, "SWEEP_PERIOD", 0.02)
    bench = Bench(tmp_path, driver)
    await running(bench, driver, "odd")
    states: list[str] = []
    async with bench.runner() as runner:
        runner.conditions.subscribe(
            lambda condition: states.append(condition.state) if condition.name == "item-failing" else None
        )
        begin = looks
        await eventually(lambda: looks > begin + 3)
        assert subjects(runner, "item-failing") == [f"leftovers/{name('odd')}"]
        assert "ok" not in states  # it does not flicker: what does not last is no alarm
        await driver.remove(f"id-{name('odd')}")
        await eventually(lambda: subjects(runner, "item-failing") == [])


@pytest.mark.parametrize("where", ["event", "list"])
async def test_mirror_failing_container_does_not_stop_others(tmp_path: Path, where: str) -> None:
    class Odd(PromptDriver):
        lists = 0

        async def recover(self, labels):  # type: ignore[no-untyped-def]
            self.lists += 1
            if where == "list" and self.lists == 1:
                raise KeyError("State")
            return await super().recover(labels)

    driver = Odd()
    bench = Bench(tmp_path, driver)
    await bench.submit(ready_run("good"))
    async with bench.runner() as runner:
        if where == "event":

            def stumbles(container: object) -> None:
                raise ValueError(container)

            runner.containers._subscribers.insert(0, stumbles)
        step = await bench.left("good")
        assert step.phase is StepPhase.EXITED
        if where == "event":
            assert [
                subject
                for subject in subjects(runner, "item-failing")
                if subject.startswith("container-news/")
            ]


async def test_controller_failing_step_does_not_stop_others(tmp_path: Path) -> None:
    class Stumbling(PromptDriver):
        async def create(self, spec):  # type: ignore[no-untyped-def]
            if "-bad-" in spec.name:
                raise TypeError("a bug")
            return await super().create(spec)

    bench = Bench(tmp_path, Stumbling())
    for run in ("bad", "good"):
        await bench.submit(ready_run(run))
    async with bench.runner() as runner:
        assert (await bench.left("good")).phase is StepPhase.EXITED
        await eventually(lambda: "steps/bad" in subjects(runner, "item-failing"))


@pytest.mark.parametrize(
    ("phase", "attempt", "step", "over"),
    [
        (StepPhase.RUNNING, 1, 0, False),
        (StepPhase.PREPARING, 1, 0, False),
        (StepPhase.PENDING, 1, 0, False),
        (StepPhase.EXITED, 1, 0, True),
        (StepPhase.LOST, 1, 0, True),
        (StepPhase.RUNNING, 0, 0, True),
        (StepPhase.RUNNING, 2, 0, False),  # the record is behind: a store that was restored
        (StepPhase.RUNNING, 1, 7, False),
    ],
)
def test_is_over(phase: StepPhase, attempt: int, step: int, over: bool) -> None:
    run = ready_run("r")
    run = run.with_step(0, run.steps[0].model_copy(update={"phase": phase}))
    assert is_over(run, StepAttempt("r", step, attempt)) is over
    assert is_over(run.model_copy(update={"phase": RunPhase.FAILED}), StepAttempt("r", step, attempt))


async def test_runner_keeps_unknown_fields_in_all_writes(tmp_path: Path) -> None:
    bench = Bench(tmp_path, PromptDriver())
    run = await bench.submit(ready_run("r"))
    document = json.loads(dump(run))
    parts = [
        document,
        document["steps"][0],
        document["steps"][0]["spec"],
        document["steps"][0]["spec"]["limits"],
    ]
    for part in parts:
        part["of_a_newer_version"] = {"a": [None, 1]}
    entry = await bench.store.get(bench.runs.prefix + "r")
    assert entry is not None
    await bench.store.replace(entry.key, json.dumps(document).encode(), entry.revision)
    stored = await bench.runs.get("r")
    assert stored is not None
    bench.agree(stored.record)  # what is agreed to is the step with all its fields
    async with bench.runner():
        assert (await bench.left("r")).phase is StepPhase.EXITED
    entry = await bench.store.get(bench.runs.prefix + "r")
    assert entry is not None
    assert entry.value.count(b'"of_a_newer_version":{"a":[null,1]}') == len(parts)
