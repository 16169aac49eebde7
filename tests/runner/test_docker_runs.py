"""Steps on a real engine: exit codes, limits, cancellation, adoption, logs, hardening, leftovers."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mao_runner.containers.data_dir import assign_owner
from mao_runner.containers.spec import step_container
from mao_runner.drivers.docker import DockerDriver
from mao_runner.labels import installation_id
from mao_shared.models import DatasetRef, Limits, Privileges, ResolvedImage, Run, StepRun
from mao_shared.states import RunPhase, StepPhase
from tests.support.docker import Engine
from tests.support.waiting import eventually

from .harness import Bench, ready_run, step_spec

pytestmark = pytest.mark.docker


@pytest.fixture
async def bench(tmp_path: Path, engine: Engine) -> AsyncIterator[Bench]:
    driver = DockerDriver()
    bench = Bench(tmp_path, driver)
    yield bench
    installation = (tmp_path / "installation").read_text().strip()
    await driver.close()
    await asyncio.to_thread(engine.remove, mao_installation=installation)


@pytest.fixture
def image(tool_image: str) -> ResolvedImage:
    return ResolvedImage(name=tool_image, pinned=tool_image, platform="linux/amd64")


def shell(image: ResolvedImage, script: str, **changes: Any) -> Run:
    """Return a ready run of a shell script, under a unique id."""
    run_id = f"run-{uuid.uuid4().hex[:12]}"
    return ready_run(run_id, image=image, command=["sh", "-c", script], **changes)


async def outcome(bench: Bench, run: Run) -> StepRun:
    await bench.submit(run)
    async with bench.runner():
        return await bench.left(run.id)


async def test_docker_tool_ends_as_exited(bench: Bench, image: ResolvedImage, engine: Engine) -> None:
    run = shell(image, "echo out; echo err >&2; echo 42 > /usr/src/app/data/value")
    await bench.submit(run)
    async with bench.runner():
        step = await bench.left(run.id)
        assert step.phase is StepPhase.EXITED
        assert step.exit is not None
        assert step.exit.code == 0
        assert step.container_id
        assert (bench.data.workspace(run.id, 0, 1).data / "value").read_text() == "42\n"
        assert sorted(bench.log(run.id).split()) == ["err", "out"]
        assert step.log_bytes == 8
        await eventually(lambda: not engine.containers(mao_run=run.id))


@pytest.mark.parametrize(
    ("script", "code", "exit_code"),
    [
        ("echo broken pipe >&2; exit 3", "tool-failed", 3),
        ("no-such-command", "tool-cannot-start", 127),
        ("dd if=/dev/zero of=/dev/null bs=200M count=1", "tool-out-of-memory", 137),
    ],
)
async def test_docker_failed_tool_has_reason(
    bench: Bench, image: ResolvedImage, script: str, code: str, exit_code: int
) -> None:
    step = await outcome(bench, shell(image, script))
    assert step.phase is StepPhase.FAILED
    assert step.error is not None
    assert step.exit is not None
    assert (step.error.code, step.error.fault, step.exit.code) == (code, "tool", exit_code)
    assert step.error.next
    assert ("broken pipe" in step.error.detail) == (exit_code == 3)


async def test_docker_command_not_found(bench: Bench, image: ResolvedImage) -> None:
    run = ready_run(f"run-{uuid.uuid4().hex[:12]}", image=image, command=["/nope"])
    step = await outcome(bench, run)
    assert step.error is not None
    assert step.error.code == "tool-cannot-start"


async def test_docker_removed_image_blames_infrastructure(bench: Bench) -> None:
    gone = ResolvedImage(name="gone:1", pinned="sha256:" + "1" * 64, platform="linux/amd64")
    step = await outcome(bench, shell(gone, "true"))
    assert step.phase is StepPhase.FAILED
    assert step.error is not None
    assert (step.error.code, step.error.fault) == ("image-not-found", "infrastructure")


async def test_docker_missing_workspace_is_an_error(bench: Bench, image: ResolvedImage) -> None:
    run = shell(image, "true")
    bench.agree(run)
    assert await bench.runs.create(run.id, run)
    async with bench.runner():
        step = await bench.left(run.id)
    assert step.error is not None
    assert (step.error.code, step.error.fault) == ("workspace-missing", "infrastructure")
    assert not bench.data.run_workspaces(run.id).exists()


async def test_docker_hanging_tool_is_stopped_at_time_limit(bench: Bench, image: ResolvedImage) -> None:
    limits = Limits(memory=64 * 1024**2, time=0.5, grace=0.5)
    step = await outcome(bench, shell(image, "trap '' TERM; while true; do sleep 1; done", limits=limits))
    assert step.phase is StepPhase.FAILED
    assert step.error is not None
    assert step.exit is not None
    assert (step.error.code, step.exit.timed_out) == ("tool-timed-out", True)


async def test_docker_cancel_stops_container_gracefully(
    bench: Bench, image: ResolvedImage, engine: Engine
) -> None:
    run = shell(image, "trap 'echo bye; exit 0' TERM; echo up; while true; do sleep 0.1; done")
    await bench.submit(run)
    async with bench.runner():
        await bench.phase(run.id, StepPhase.RUNNING)
        await eventually(lambda: "up" in bench.log(run.id))
        await bench.cancel(run.id)
        step = await bench.left(run.id)
        assert step.phase is StepPhase.CANCELLED
        assert "bye" in bench.log(run.id)
        await eventually(lambda: not engine.containers(mao_run=run.id))


async def test_docker_running_container_is_adopted(
    bench: Bench, image: ResolvedImage, engine: Engine
) -> None:
    run = shell(image, "echo one; until [ -e /usr/src/app/data/gate ]; do sleep 0.05; done; echo two")
    await bench.submit(run)
    async with bench.runner():
        await bench.phase(run.id, StepPhase.RUNNING)
        await eventually(lambda: bench.log(run.id) == "one\n")
    before = [container.id for container in engine.containers(mao_run=run.id)]
    async with bench.runner() as runner:
        await eventually(lambda: runner.containers.synced.is_set())
        (bench.data.workspace(run.id, 0, 1).data / "gate").touch()
        step = await bench.left(run.id)
        assert step.phase is StepPhase.EXITED
        assert [step.container_id] == before
        assert bench.log(run.id) == "one\ntwo\n"
        await eventually(lambda: not engine.containers(mao_run=run.id))


async def test_docker_container_that_ended_meanwhile_is_recorded(
    bench: Bench, image: ResolvedImage, engine: Engine
) -> None:
    run = shell(image, "until [ -e /usr/src/app/data/gate ]; do sleep 0.05; done; echo done; exit 4")
    await bench.submit(run)
    async with bench.runner():
        await bench.phase(run.id, StepPhase.RUNNING)
    (container,) = engine.containers(mao_run=run.id)
    (bench.data.workspace(run.id, 0, 1).data / "gate").touch()
    await asyncio.to_thread(container.wait)
    async with bench.runner():
        step = await bench.left(run.id)
    assert step.error is not None
    assert step.exit is not None
    assert (step.error.code, step.exit.code) == ("tool-failed", 4)
    assert bench.log(run.id) == "done\n"


@pytest.mark.parametrize("started", [False, True])
async def test_docker_runner_killed_while_starting_creates_one_container(
    bench: Bench, image: ResolvedImage, started: bool
) -> None:
    run = shell(image, "echo ran >> /usr/src/app/data/count")
    step = run.steps[0]
    await bench.submit(run.with_step(0, step.move(StepPhase.STARTING, step.times[StepPhase.READY])))
    data = bench.data.workspace(run.id, 0, 1).data
    made = await bench.driver.create(
        step_container(
            run,
            bench.key(run.id),
            installation=installation_id(bench.root),
            data=str(data),
            input_dir=None,
            user=assign_owner(data, 10001),
            log_max=1000,
            network="none",
        )
    )
    if started:
        await bench.driver.start(made.id)
    async with bench.runner():
        step = await bench.left(run.id)
        assert step.container_id == made.id
        assert (data / "count").read_text() == "ran\n"


async def test_docker_vanished_container_is_lost(bench: Bench, image: ResolvedImage, engine: Engine) -> None:
    run = shell(image, "sleep 60")
    await bench.submit(run)
    async with bench.runner():
        await bench.phase(run.id, StepPhase.RUNNING)
        await asyncio.to_thread(engine.remove, mao_run=run.id)
        step = await bench.left(run.id)
    assert step.phase is StepPhase.LOST
    assert step.error is not None
    assert step.error.fault == "engine"


async def test_docker_tool_has_minimal_rights(bench: Bench, image: ResolvedImage) -> None:
    looks = "id -u; grep -E 'CapEff|NoNewPrivs' /proc/self/status; touch /usr/src/app/input/x; true"
    run = shell(image, looks, input=DatasetRef(name="i", master="/i", branch="ground-truth"))
    step = await outcome(bench, run)
    assert step.phase is StepPhase.EXITED
    log = bench.log(run.id)
    uid = bench.data.workspace(run.id, 0, 1).data.stat().st_uid
    assert uid != 0
    assert f"{uid}\n" in log
    assert "CapEff:\t0000000000000000" in log
    assert "NoNewPrivs:\t1" in log
    assert "Read-only file system" in log


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can lay a workspace that root owns")
async def test_docker_root_only_where_agreed(bench: Bench, image: ResolvedImage) -> None:
    run = shell(image, "id -u; echo x > /usr/src/app/data/x", privileges=Privileges(user="root"))
    step = await outcome(bench, run)
    assert step.phase is StepPhase.EXITED, step.error
    assert bench.log(run.id) == "0\n"


async def test_docker_log_is_cut_at_limit(bench: Bench, image: ResolvedImage) -> None:
    bench.settings.log_max = 1000
    run = shell(image, "i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done; exit 1")
    step = await outcome(bench, run)
    assert step.phase is StepPhase.FAILED
    log = bench.log(run.id)
    assert len(log) < 1200
    assert log.endswith("(MAO_LOG_MAX)\n")


async def test_docker_cleanup_removes_containers_of_ended_runs(
    bench: Bench, image: ResolvedImage, engine: Engine
) -> None:
    run = shell(image, "sleep 60")
    await bench.submit(run)
    async with bench.runner():
        await bench.phase(run.id, StepPhase.RUNNING)
    stored = await bench.runs.get(run.id)
    assert stored is not None
    step = stored.record.steps[0].model_copy(update={"phase": StepPhase.LOST})
    over = stored.record.with_step(0, step).model_copy(update={"phase": RunPhase.LOST})
    assert await bench.runs.replace(run.id, over, stored.revision)
    others = engine.client.containers.run(
        image.name, ["sleep", "60"], detach=True, labels={"mao.run": run.id, "mao.installation": "another"}
    )
    try:
        async with bench.runner():
            await eventually(lambda: [c.id for c in engine.containers(mao_run=run.id)] == [others.id])
    finally:
        others.remove(force=True)


@pytest.mark.parametrize("value", [b"{", b"", b'{"id": "of a newer version", "format": 2}', None])
async def test_docker_cleanup_keeps_tool_of_unreadable_run(
    bench: Bench, image: ResolvedImage, engine: Engine, value: bytes | None
) -> None:
    kept, over = shell(image, "sleep 60"), shell(image, "sleep 60", name="over")
    for run in (kept, over):
        await bench.submit(run)
    async with bench.runner():
        for run in (kept, over):
            await bench.phase(run.id, StepPhase.RUNNING)
    (there,) = engine.containers(mao_run=kept.id)
    for run, content in ((kept, value), (over, b"over")):
        stored = await bench.runs.get(run.id)
        assert stored is not None
        if content == b"over":
            step = run.steps[0].model_copy(update={"phase": StepPhase.LOST})
            ended = run.with_step(0, step).model_copy(update={"phase": RunPhase.LOST})
            await bench.runs.replace(run.id, ended, stored.revision)
        elif content is None:
            await bench.runs.delete(run.id)
        else:
            await bench.store.replace(bench.runs.prefix + run.id, content, stored.revision)
    async with bench.runner() as runner:
        await eventually(lambda: not engine.containers(mao_run=over.id))
        await eventually(
            lambda: any(condition.subject.startswith("orphans/") for condition in runner.conditions.current())
        )
    there.reload()
    assert there.status == "running"


async def test_docker_slots_limit_concurrency(bench: Bench, image: ResolvedImage) -> None:
    bench.settings.slots = 2
    runs = [shell(image, "sleep 0.2", name=f"t{i}") for i in range(5)]
    for run in runs:
        await bench.submit(run)
    async with bench.runner() as runner:
        steps = [await bench.left(run.id) for run in runs]
        assert runner.running == 0
    spans = [(step.times[StepPhase.STARTING], step.times[StepPhase.EXITED]) for step in steps]
    for begin, _ in spans:
        assert sum(start <= begin < end for start, end in spans) <= 2


def test_harness_step_is_small() -> None:
    assert step_spec().limits.memory == 64 * 1024**2
