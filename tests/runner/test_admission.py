"""A step without an agreement gets no container, whatever its run's document says."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mao_runner.containers import admission
from mao_runner.containers.admission import Admission, StepNotAgreed, identity_mismatch
from mao_runner.drivers.docker import DockerDriver
from mao_runner.drivers.fake import FakeDriver
from mao_runner.labels import StepAttempt
from mao_shared.conditions import Conditions
from mao_shared.models import DatasetRef, Limits, Original, Privileges, ResolvedImage, Run
from mao_shared.states import StepPhase
from mao_shared.store import dump
from tests.support.docker import Engine
from tests.support.waiting import eventually

from .doubles import PromptDriver, SetClock
from .harness import NODE, Bench, ready_run

OTHER_IMAGE = ResolvedImage(name="other:1", pinned="other@sha256:" + "f" * 64, platform="linux/amd64")
FORGED: dict[str, Callable[[Run], Run]] = {}


def forged(change: Callable[[Run], Run]) -> Callable[[Run], Run]:
    FORGED[change.__name__] = change
    return change


def _spec(run: Run, **changes: Any) -> Run:
    step = run.steps[0]
    return run.with_step(0, step.model_copy(update={"spec": step.spec.model_copy(update=changes)}))


@forged
def root_user(run: Run) -> Run:
    return _spec(run, privileges=Privileges(user="root"))


@forged
def root_group_by_number(run: Run) -> Run:
    return _spec(run, privileges=Privileges(user="0:0"))


@forged
def all_capabilities(run: Run) -> Run:
    return _spec(run, privileges=Privileges(capabilities=["SYS_ADMIN", "DAC_OVERRIDE"]))


@forged
def new_privileges(run: Run) -> Run:
    return _spec(run, privileges=Privileges(new_privileges=True))


@forged
def the_engines_socket(run: Run) -> Run:
    return _spec(run, privileges=Privileges(docker_socket=True))


@forged
def host_network(run: Run) -> Run:
    return _spec(run, network="host")


@forged
def a_network(run: Run) -> Run:
    return _spec(run, network="bridge")


@forged
def another_image(run: Run) -> Run:
    return _spec(run, image=OTHER_IMAGE)


@forged
def another_command(run: Run) -> Run:
    return _spec(run, command=["sh", "-c", "id; cat /etc/passwd"])


@forged
def another_variable(run: Run) -> Run:
    return _spec(run, env={"LD_PRELOAD": "/usr/src/app/data/x.so"})


@forged
def more_time(run: Run) -> Run:
    return _spec(run, limits=Limits(memory=64 * 1024**2, pids=64, time=30 * 86400, grace=1))


@forged
def another_input(run: Run) -> Run:
    return _spec(run, input=DatasetRef(name="secret", master="/secret", branch="ground-truth"))


@forged
def a_reproduction_with_privileges(run: Run) -> Run:
    original = Original(run="r0", step="t", snapshot="0" * 40)
    return root_user(run).model_copy(update={"trigger": "reproduce", "reproduces": original})


@forged
def another_pipelines_name(run: Run) -> Run:
    return run.model_copy(update={"pipeline": "q"})


@forged
def another_nodes_name(run: Run) -> Run:
    return run.model_copy(update={"node": "node-2"})


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED)
@pytest.mark.parametrize("phase", [StepPhase.READY, StepPhase.STARTING])
async def test_admission_forged_step_gets_no_container_and_is_reported(
    tmp_path: Path, change: Callable[[Run], Run], phase: StepPhase
) -> None:
    driver = PromptDriver()
    bench = Bench(tmp_path, driver)
    await bench.submit(ready_run("agreed"))
    run = change(ready_run("forged"))
    if phase is StepPhase.STARTING:
        run = run.with_step(0, run.steps[0].move(phase, datetime.now(UTC)))
    bench.data.workspace("forged", 0, 1).data.mkdir(parents=True)
    assert await bench.runs.create("forged", run)
    async with bench.runner() as runner:
        step = await bench.left("forged")
        assert (await bench.left("agreed")).phase is StepPhase.EXITED
        [condition] = runner.conditions.current()
        await runner.admission.recheck()
        assert runner.conditions.current() == [condition], "an agreement to something else changes nothing"
    assert step.phase is StepPhase.FAILED
    assert step.error is not None
    assert (step.error.code, step.error.fault) == ("not-agreed", "infrastructure")
    assert f"maoctl pipeline approve {run.pipeline}" in (step.error.next or "")
    assert (condition.name, condition.subject) == ("not-agreed", "forged/t")
    assert all(word in condition.detail for word in run.steps[0].spec.asked())
    assert driver.runs == 1
    assert not any("forged" in call for call in driver.calls), driver.calls


async def test_admission_run_under_foreign_id_is_unreadable(tmp_path: Path) -> None:
    driver = PromptDriver()
    bench = Bench(tmp_path, driver)
    await bench.submit(ready_run("agreed"))
    await bench.store.create(bench.runs.prefix + "forged", dump(ready_run("agreed")))
    async with bench.runner() as runner:
        assert (await bench.left("agreed")).phase is StepPhase.EXITED
        [condition] = runner.conditions.current()
    assert (condition.name, condition.subject) == ("record-unreadable", bench.runs.prefix + "forged")
    assert driver.runs == 1


def test_identity_mismatch_of_id_and_node() -> None:
    name = "20260101T000000Z-a.pipeline_1-0123abcd"
    assert identity_mismatch(ready_run(name), StepAttempt(name, 0, 1), NODE) is None
    assert identity_mismatch(ready_run(name), StepAttempt("another", 0, 1), NODE)
    assert identity_mismatch(ready_run(name), StepAttempt(name, 0, 1), "another-node")


async def test_admission_step_waits_until_agreements_are_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mao_runner.containers.controller.WAITING_SHOWN_AFTER", 0.0)
    monkeypatch.setattr("mao_runner.containers.controller.CONFLICT_RETRY", 0.05)
    driver = PromptDriver()
    bench = Bench(tmp_path, driver)
    marker = bench.agreements.directory / ".taken-over"
    marker.unlink()
    await bench.submit(ready_run("r"))
    async with bench.runner() as runner:
        step = await bench.until("r", lambda step: "registry" in (step.waiting or ""))
        assert step.phase is StepPhase.STARTING
        assert driver.runs == 0
        assert runner.conditions.current() == []
        bench.agreements.take_over([], {}, [], datetime.now(UTC))
        assert (await bench.left("r")).phase is StepPhase.EXITED


async def test_admission_waiting_step_can_be_cancelled(tmp_path: Path) -> None:
    driver = PromptDriver()
    bench = Bench(tmp_path, driver)
    (bench.agreements.directory / ".taken-over").unlink()
    await bench.submit(ready_run("r"))
    async with bench.runner():
        await bench.phase("r", StepPhase.STARTING)
        await bench.cancel("r")
        assert (await bench.left("r")).phase is StepPhase.CANCELLED
    assert driver.runs == 0


def _damage(path: Path) -> None:
    path.write_text("{")


def _open_up(path: Path) -> None:
    path.chmod(0o666)


def _remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("spoil", [_damage, _open_up, _remove])
async def test_admission_unusable_file_stops_its_pipeline_only(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    driver = PromptDriver()
    bench = Bench(tmp_path, driver)
    first, other, again = ready_run("r1"), ready_run("r2", pipeline="q"), ready_run("r3")
    bench.agree(first)
    path = bench.agreements.path("p")
    good = path.read_bytes()
    spoil(path)
    async with bench.runner() as runner:
        await bench.forge(first)
        step = await bench.left("r1")
        assert step.error is not None
        assert step.error.code == "not-agreed"
        assert (await bench.submit(other), (await bench.left("r2")).phase)[1] is StepPhase.EXITED
        assert [condition.subject for condition in runner.conditions.current()] == ["r1/t"]
        path.write_bytes(good)
        path.chmod(0o600)
        await bench.forge(again)
        assert (await bench.left("r3")).phase is StepPhase.EXITED
        await runner.admission.recheck()
        assert runner.conditions.current() == [], "agreed to by now"


async def test_admission_started_step_is_adopted_after_withdrawal(tmp_path: Path) -> None:
    driver = FakeDriver()
    bench = Bench(tmp_path, driver)
    await bench.submit(ready_run("r"))
    async with bench.runner():
        step = await bench.phase("r", StepPhase.RUNNING)
    bench.agreements.withdraw("p")
    async with bench.runner() as runner:
        await eventually(runner.containers.synced.is_set)
        assert step.container_id is not None
        driver.exit(step.container_id, 0)
        assert (await bench.left("r")).phase is StepPhase.EXITED
    assert not [call for call in driver.calls if call.startswith(("TERM", "KILL"))]


async def test_controller_ignores_foreign_container_named_in_document(
    tmp_path: Path,
) -> None:
    driver = FakeDriver()
    bench = Bench(tmp_path, driver)
    await bench.submit(ready_run("mine"))
    async with bench.runner():
        victim = (await bench.phase("mine", StepPhase.RUNNING)).container_id
        now = datetime.now(UTC)
        step = ready_run("forged").steps[0].move(StepPhase.STARTING, now)
        step = step.move(StepPhase.RUNNING, now, container_id=victim)
        await bench.forge(ready_run("forged").with_step(0, step))
        assert (await bench.left("forged")).phase is StepPhase.LOST
        assert (await bench.phase("mine", StepPhase.RUNNING)).container_id == victim
        assert victim is not None
        assert await driver.inspect(victim) is not None
    assert not [call for call in driver.calls if call.startswith(("TERM", "KILL", "remove"))]


async def test_admission_refusals_are_bounded_in_time_and_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "MAX_REFUSALS_SHOWN", 3)
    clock, conditions = SetClock(), Conditions()
    bench = Bench(tmp_path, FakeDriver())
    checks = Admission(bench.agreements, NODE, conditions, clock)
    for number in range(5):
        with pytest.raises(StepNotAgreed):
            await checks.check(ready_run(f"r{number}"), StepAttempt(f"r{number}", 0, 1))
    assert sorted(condition.subject for condition in conditions.current()) == ["r2/t", "r3/t", "r4/t"]
    clock.ahead = timedelta(hours=23)
    await checks.recheck()
    assert len(conditions.current()) == 3
    clock.ahead = timedelta(hours=25)
    await checks.recheck()
    assert conditions.current() == []


# The same on a real engine.


@pytest.fixture
async def docked(tmp_path: Path, engine: Engine) -> AsyncIterator[Bench]:
    driver = DockerDriver()
    bench = Bench(tmp_path, driver)
    yield bench
    installation = (tmp_path / "installation").read_text().strip()
    await driver.close()
    await asyncio.to_thread(engine.remove, mao_installation=installation)


@pytest.mark.docker
async def test_admission_forged_step_is_not_started_by_docker(
    docked: Bench, tool_image: str, engine: Engine
) -> None:
    image = ResolvedImage(name=tool_image, pinned=tool_image, platform="linux/amd64")
    tag = uuid.uuid4().hex[:8]
    command = ["sh", "-c", "echo ran > /usr/src/app/data/ran"]
    good = ready_run(f"good-{tag}", image=image, command=command)
    runs = {}
    for name, change in FORGED.items():
        run_id = f"forged-{name.replace('_', '-')}-{tag}"
        runs[run_id] = change(ready_run(run_id, image=image, command=command))
        docked.data.workspace(run_id, 0, 1).data.mkdir(parents=True)
    docked.agree(good)
    started: list[str] = []
    driver = docked.driver
    start = driver.start

    async def noted(container_id: str) -> None:
        started.append(container_id)
        await start(container_id)

    driver.start = noted  # type: ignore[method-assign]
    async with docked.runner() as runner:
        for run_id, run in runs.items():
            assert await docked.runs.create(run_id, run)
        await docked.forge(good)
        for run_id in runs:
            step = await docked.left(run_id)
            assert step.error is not None, run_id
            assert (step.phase, step.error.code) == (StepPhase.FAILED, "not-agreed"), run_id
        done = await docked.left(good.id)
        assert {condition.subject for condition in runner.conditions.current()} == {f"{r}/t" for r in runs}
    assert done.phase is StepPhase.EXITED, done.error
    assert started == [done.container_id]
    assert (docked.data.workspace(good.id, 0, 1).data / "ran").read_text() == "ran\n"
    assert not [r for r in runs if engine.containers(mao_run=r)]
