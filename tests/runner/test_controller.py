"""The controller on engines in memory: phases, waiting, cancellation, restarts at every point."""

from __future__ import annotations

import asyncio
import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mao_runner import runner
from mao_runner.containers import controller
from mao_runner.drivers.fake import FakeDriver
from mao_runner.labels import StepAttempt
from mao_shared.models import Limits, Privileges, Run, StepRun
from mao_shared.states import StepPhase
from mao_shared.store.memory import MemoryStore
from tests.support.users import needs_root
from tests.support.waiting import eventually

from .doubles import (
    AbsentDriver,
    Death,
    LateDriver,
    MortalDriver,
    MortalStore,
    PromptDriver,
    RefusingDriver,
    SetClock,
    StubbornDriver,
)
from .harness import Bench, minutes_ago, ready_run

NAME = "mao-node-1-r-0-1"


async def left(bench: Bench) -> StepRun:
    await bench.submit(ready_run("r"))
    async with bench.runner():
        return await bench.left("r")


async def test_controller_run_goes_through_phases_and_leaves_no_container(tmp_path: Path) -> None:
    driver = PromptDriver()
    bench = Bench(tmp_path, driver)
    await bench.submit(ready_run("r"))
    async with bench.runner():
        step = await bench.left("r")
        await eventually(lambda: not driver.containers)
    assert step.phase is StepPhase.EXITED
    assert list(step.times) == [
        StepPhase.READY,
        StepPhase.STARTING,
        StepPhase.RUNNING,
        StepPhase.EXITED,
    ]
    assert bench.log("r") == "said\n"
    assert step.log_sha256 == hashlib.sha256(b"said\n").hexdigest()
    assert (step.user or "").count(":") == 1
    assert step.engine == "fake 1.0"
    assert driver.calls[1:] == [f"create {NAME}", f"start {NAME}", f"remove {NAME}"]


@pytest.mark.parametrize(
    ("driver", "phase", "code", "fault"),
    [
        (PromptDriver(2), StepPhase.FAILED, "tool-failed", "tool"),
        (PromptDriver(137), StepPhase.FAILED, "tool-failed", "tool"),
        (PromptDriver(137, oom=True), StepPhase.FAILED, "tool-out-of-memory", "tool"),
        (PromptDriver(1, oom=True), StepPhase.FAILED, "tool-out-of-memory", "tool"),
        (PromptDriver(126), StepPhase.FAILED, "tool-cannot-start", "tool"),
        (RefusingDriver(), StepPhase.FAILED, "tool-cannot-start", "tool"),
    ],
)
async def test_controller_distinguishes_failures(
    tmp_path: Path, driver: FakeDriver, phase: StepPhase, code: str, fault: str
) -> None:
    step = await left(Bench(tmp_path, driver))
    assert step.error is not None
    assert (step.phase, step.error.code, step.error.fault) == (phase, code, fault)
    assert step.error.next


async def test_controller_removes_container_that_cannot_start(tmp_path: Path) -> None:
    driver = RefusingDriver()
    bench = Bench(tmp_path, driver)
    await bench.submit(ready_run("r"))
    async with bench.runner():
        await bench.left("r")
        await eventually(lambda: not driver.containers)


async def test_controller_vanished_container_is_lost(tmp_path: Path) -> None:
    driver = FakeDriver()
    bench = Bench(tmp_path, driver)
    await bench.submit(ready_run("r"))
    async with bench.runner():
        await bench.phase("r", StepPhase.RUNNING)
        driver.vanish(f"id-{NAME}")
        step = await bench.left("r")
    assert step.phase is StepPhase.LOST


async def test_controller_container_killed_from_outside_blames_engine(tmp_path: Path) -> None:
    driver = FakeDriver()
    bench = Bench(tmp_path, driver)
    await bench.submit(ready_run("r"))
    async with bench.runner():
        await bench.phase("r", StepPhase.RUNNING)
        driver.tell("kill", f"id-{NAME}")
        driver.exit(f"id-{NAME}", 137)
        step = await bench.left("r")
    assert step.error is not None
    assert (step.phase, step.error.fault) == (StepPhase.LOST, "engine")


async def test_controller_time_limit_counts_across_restarts(tmp_path: Path) -> None:
    driver = StubbornDriver()
    bench = Bench(tmp_path, driver)
    await bench.submit(ready_run("r", limits=Limits(time=3600, grace=0)))
    async with bench.runner():
        step = await bench.phase("r", StepPhase.RUNNING)
    long_ago = {**step.times, StepPhase.RUNNING: minutes_ago(120)}
    await bench.change("r", lambda run: run.with_step(0, step.model_copy(update={"times": long_ago})))
    async with bench.runner():
        step = await bench.left("r")
    assert step.error is not None
    assert step.error.code == "tool-timed-out"
    assert driver.calls[-3:-1] == [f"TERM {NAME}", f"KILL {NAME}"] or driver.calls[-2:] == [
        f"TERM {NAME}",
        f"KILL {NAME}",
    ]


async def test_controller_clock_jump_stops_no_tool(tmp_path: Path) -> None:
    """A clock that is set ahead by a day, or back, ends no tool."""
    driver, clock = FakeDriver(), SetClock()
    bench = Bench(tmp_path, driver)
    await bench.submit(ready_run("r", limits=Limits(time=3600)))
    async with bench.runner(clock) as runner:
        await bench.phase("r", StepPhase.RUNNING)
        for days in (1, -2):
            clock.ahead += timedelta(days=days)
            assert runner.steps is not None
            wait = await runner.steps.reconcile("r")
            assert wait is not None
            assert 3500 < wait <= 3600
        clock.ahead += timedelta(days=3)
        driver.exit(f"id-{NAME}", 0, at=clock.now())
        assert (await bench.left("r")).phase is StepPhase.EXITED


async def test_mirror_recovers_dropped_events(tmp_path: Path) -> None:
    driver = FakeDriver()
    bench = Bench(tmp_path, driver)
    await bench.submit(ready_run("r"))
    await bench.submit(ready_run("gone"))
    async with bench.runner() as runner:
        await bench.phase("r", StepPhase.RUNNING)
        await bench.phase("gone", StepPhase.RUNNING)
        with driver.dropping_events():
            driver.exit(f"id-{NAME}", 0)
            driver.vanish("id-mao-node-1-gone-0-1")
        await runner.containers.resync()
        assert (await bench.left("r")).phase is StepPhase.EXITED
        assert (await bench.left("gone")).phase is StepPhase.LOST


async def test_mirror_list_is_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "HOST_DIR_RETRY", 0.01)
    driver = LateDriver()
    bench = Bench(tmp_path, driver)
    await bench.submit(ready_run("r"))
    async with bench.runner():
        await bench.phase("r", StepPhase.RUNNING)
    assert driver.refusals == 0


@pytest.mark.parametrize("until", [StepPhase.READY, StepPhase.RUNNING])
async def test_controller_cancel(tmp_path: Path, until: StepPhase) -> None:
    driver = FakeDriver()
    bench = Bench(tmp_path, driver)
    await bench.submit(ready_run("r"))
    if until is StepPhase.READY:
        await bench.cancel("r")
    async with bench.runner():
        if until is StepPhase.RUNNING:
            await bench.phase("r", until)
            await bench.cancel("r")
        step = await bench.left("r")
        await eventually(lambda: not driver.containers)
    assert step.phase is StepPhase.CANCELLED


async def test_controller_waiting_for_slot_is_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "WAITING_SHOWN_AFTER", 0.05)
    driver = FakeDriver()
    bench = Bench(tmp_path, driver, slots=1)
    await bench.submit(ready_run("a"))
    async with bench.runner():
        await bench.phase("a", StepPhase.RUNNING)
        await bench.submit(ready_run("b"))
        await bench.submit(ready_run("c"))
        step = await bench.until("c", lambda step: step.waiting is not None)
        assert step.waiting == "waits for a free slot (1 ahead of it)"
        driver.exit("id-mao-node-1-a-0-1", 0)
        step = await bench.phase("b", StepPhase.RUNNING)
        assert step.waiting is None
        before = await bench.runs.get("c")
        driver.exit("id-mao-node-1-b-0-1", 0)
        step = await bench.phase("c", StepPhase.STARTING, StepPhase.RUNNING)
        assert before is not None
        assert before.record.steps[0].waiting == "waits for a free slot (1 ahead of it)"


async def test_controller_engine_that_comes_late_finds_runs(tmp_path: Path) -> None:
    driver = AbsentDriver()
    bench = Bench(tmp_path, driver)
    await bench.submit(ready_run("r"))
    async with bench.runner() as runner:
        with pytest.raises(Exception, match="not answer"):
            await runner.check_hostdir()
        driver.back()
        await bench.phase("r", StepPhase.RUNNING)


async def test_mirror_recovers_events_of_broken_stream(tmp_path: Path) -> None:
    driver = FakeDriver()
    bench = Bench(tmp_path, driver)
    await bench.submit(ready_run("r"))
    async with bench.runner() as runner:
        await bench.phase("r", StepPhase.RUNNING)
        driver.break_events(reconnect=False)
        await eventually(lambda: not runner.containers.synced.is_set())
        with driver.dropping_events():
            driver.exit(f"id-{NAME}", 0)
        driver.break_events()
        assert (await bench.left("r")).phase is StepPhase.EXITED


WRITES = [(n, after) for n in (1, 2) for after in (False, True)]
CALLS = [(n, after) for n in (1, 2, 3) for after in (False, True)]


@pytest.mark.parametrize(("at", "after"), WRITES)
async def test_controller_killed_at_any_write_ends_run_once(tmp_path: Path, at: int, after: bool) -> None:
    driver, store = PromptDriver(), MemoryStore()
    await Bench(tmp_path, driver, store).submit(ready_run("r"))
    death = Death(at, after=after)
    async with Bench(tmp_path, driver, MortalStore(store, death)).runner():
        await asyncio.wait_for(death.happened.wait(), 60)
    await _ends_once(tmp_path, driver, store)


@pytest.mark.parametrize(("at", "after"), CALLS)
async def test_controller_killed_at_any_engine_call_ends_run_once(
    tmp_path: Path, at: int, after: bool
) -> None:
    driver, store = PromptDriver(), MemoryStore()
    await Bench(tmp_path, driver, store).submit(ready_run("r"))
    death = Death(at, after=after)
    mortal: Any = MortalDriver(driver, death)
    async with Bench(tmp_path, mortal, store).runner():
        await asyncio.wait_for(death.happened.wait(), 60)
    await _ends_once(tmp_path, driver, store)


async def _ends_once(root: Path, driver: PromptDriver, store: MemoryStore) -> None:
    bench = Bench(root, driver, store)
    async with bench.runner():
        step = await bench.left("r")
        await eventually(lambda: not driver.containers)
    assert step.phase is StepPhase.EXITED
    assert driver.runs == 1
    assert bench.log("r") == "said\n"


async def test_controller_two_runners_of_one_node_run_nothing_twice(tmp_path: Path) -> None:
    driver = PromptDriver()
    bench = Bench(tmp_path, driver)
    async with bench.runner(), bench.runner():
        for i in range(10):
            await bench.submit(ready_run(f"r{i}"))
        for i in range(10):
            assert (await bench.left(f"r{i}")).phase is StepPhase.EXITED
    assert driver.runs == 10


async def test_controller_ignores_step_of_another_service(tmp_path: Path) -> None:
    driver = PromptDriver()
    bench = Bench(tmp_path, driver)
    run = ready_run("r")
    preparing = StepRun(spec=run.steps[0].spec, phase=StepPhase.PREPARING)
    await bench.submit(run.with_step(0, preparing))
    await bench.submit(ready_run("other", since=datetime.now(UTC)))
    async with bench.runner():
        await bench.left("other")
    stored = await bench.runs.get("r")
    assert stored is not None
    assert stored.record.steps[0].phase is StepPhase.PREPARING


@pytest.mark.parametrize(
    ("user", "new_privileges", "settings", "code"),
    [
        ("root", False, {}, "host-network-uid"),
        ("0:1000", False, {}, "host-network-uid"),
        ("4321", False, {}, "host-network-uid"),  # whose compose.yaml it is
        ("4322:1", False, {}, "host-network-uid"),  # named in MAO_LOCAL_USERS
        ("10001", True, {}, "host-network-uid"),  # a program of the image may make it root
        ("10001", False, {}, None),
        ("root", False, {"tokens_file": "tokens"}, None),  # nobody is let in by the uid alone
        ("root", False, {"owner_of": None}, None),  # natively the gateway tells containers from others
    ],
)
@needs_root
async def test_controller_compose_refuses_host_network_as_operator(
    tmp_path: Path, user: str, new_privileges: bool, settings: dict[str, Any], code: str | None
) -> None:
    owned = tmp_path / "compose.yaml"
    owned.touch()
    os.chown(owned, 4321, 4321)
    policy = {"owner_of": owned, "local_users": "4322", **settings}
    bench = Bench(tmp_path / "data", PromptDriver(), **policy)
    asked = Privileges(user=user, new_privileges=new_privileges)
    await bench.submit(ready_run("r", network="host", privileges=asked))
    async with bench.runner():
        step = await bench.left("r")
    assert (step.error.code if step.error else None) == code
    assert step.phase is (StepPhase.FAILED if code else StepPhase.EXITED)
    if step.error:
        assert "MAO_TOKENS_FILE" in (step.error.next or "")


@pytest.mark.parametrize("network", ["none", "bridge"])
async def test_controller_compose_allows_root_on_isolated_network(tmp_path: Path, network: str) -> None:
    owned = tmp_path / "compose.yaml"
    owned.touch()
    bench = Bench(tmp_path / "data", PromptDriver(), owner_of=owned)
    await bench.submit(ready_run("r", network=network, privileges=Privileges(user="root")))
    async with bench.runner():
        assert (await bench.left("r")).phase is StepPhase.EXITED


async def test_controller_launches_nothing_for_a_step_that_moved_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another runner of the node finishes the step while this one checks whether it may start it."""
    driver = FakeDriver()
    bench = Bench(tmp_path, driver)
    moved = asyncio.Event()
    async with bench.runner() as made:

        async def moves_on(run: Run, key: StepAttempt) -> None:
            step = run.steps[0].move(StepPhase.CANCELLED, datetime.now(UTC))
            await bench.change(key.run, lambda run: run.with_step(0, step))
            await eventually(lambda: made.mirror.get(key.run) is None)
            moved.set()

        monkeypatch.setattr(made.admission, "check", moves_on)
        await bench.submit(ready_run("r"))
        await moved.wait()
        await asyncio.sleep(0.1)
    assert not [call for call in driver.calls if call.startswith("create")]
