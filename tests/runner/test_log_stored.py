"""A step ends with its complete log on the disk, or waits with a reason: never with a wrong digest."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.types import LogConfig

from mao_runner.containers import controller
from mao_runner.containers.spec import step_container
from mao_runner.drivers.docker import DockerDriver
from mao_runner.labels import container_name, installation_id
from mao_runner.logs import writer
from mao_shared.conditions import Conditions
from mao_shared.errors import EngineUnavailable
from mao_shared.models import ResolvedImage, Run, StepRun
from mao_shared.states import StepPhase
from mao_shared.store.memory import MemoryStore
from tests.support.cuttable_socket import CuttableSocket
from tests.support.disk import fill, set_read_only, small_disk
from tests.support.docker import Engine
from tests.support.waiting import eventually

from .doubles import BadLogDriver, Death, MortalStore, PromptDriver
from .harness import NODE, Bench, ready_run

SIZE = 8 * 1024**2
SAID = b"".join(BadLogDriver.LINES)
GATE = "until [ -e /usr/src/app/data/gate ]; do sleep 0.05; done"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "LOG_RETRY", 0.05)
    monkeypatch.setattr(controller, "MAX_LOG_RETRY", 0.1)


def is_whole(bench: Bench, step: StepRun, said: bytes) -> None:
    assert step.phase is StepPhase.EXITED, step.error
    stored = bench.data.log(step_run_id(bench), 0, 1).read_bytes()
    assert stored == said
    assert (step.log_bytes, step.log_sha256) == (len(said), hashlib.sha256(said).hexdigest())


def step_run_id(bench: Bench) -> str:
    (run,) = {path.name for path in (bench.root / "workspaces").iterdir()}
    return run


async def waits(bench: Bench, run_id: str) -> StepRun:
    """Wait until the step reports that it waits for its log; it has no size or digest then."""
    step = await bench.until(run_id, lambda step: "log is stored" in (step.waiting or ""))
    assert step.phase in (StepPhase.STARTING, StepPhase.RUNNING)
    assert (step.log_bytes, step.log_sha256) == (None, None)
    await eventually(lambda: bench.condition("log") is not None)
    condition = bench.condition("log")
    assert condition is not None
    assert condition.subject == f"{run_id}/t"  # by the step's name, as all that is told of a step
    assert condition.next
    return step


@pytest.mark.parametrize("bad", ["broken", "refused", "silent"])
async def test_stored_log_engine_returns_no_log(
    tmp_path: Path, bad: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "DRAIN_TIMEOUT", 0.05)
    driver = BadLogDriver(bad)
    bench = Bench(tmp_path, driver)
    await bench.submit(ready_run("r"))
    async with bench.runner():
        await waits(bench, "r")
        assert driver.containers, "the container has the log still"
        driver.bad = ""
        is_whole(bench, await bench.left("r"), SAID)
        await eventually(lambda: not driver.containers)
        assert bench.condition("log") is None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("at", ["open", "write", "sync", "read"])
async def test_stored_log_unwritable_disk(
    tmp_path: Path, code: int, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = True

    def refusing(call: Callable[..., Any]) -> Callable[..., Any]:
        def refused(*args: Any, **more: Any) -> Any:
            if broken:
                raise OSError(code, os.strerror(code))
            return call(*args, **more)

        return refused

    match at:
        case "open":
            real = Path.open
            monkeypatch.setattr(
                Path,
                "open",
                lambda path, *a, **k: (refusing(real) if path.suffix == ".log" else real)(path, *a, **k),
            )
        case "write":
            monkeypatch.setattr(writer, "_write_all", refusing(writer._write_all))
        case "sync":
            monkeypatch.setattr(os, "fdatasync", refusing(os.fdatasync))
        case _:
            monkeypatch.setattr(writer, "read_stored_log", refusing(writer.read_stored_log))
    bench = Bench(tmp_path, BadLogDriver(""))
    await bench.submit(ready_run("r"))
    async with bench.runner():
        assert os.strerror(code) in str((await waits(bench, "r")).waiting)
        broken = False
        is_whole(bench, await bench.left("r"), SAID)


async def test_stored_log_waiting_step_frees_its_slot(tmp_path: Path) -> None:
    bench = Bench(tmp_path, PromptDriver(), slots=1)
    bench.data.run_logs("a").parent.mkdir(parents=True)
    bench.data.run_logs("a").write_text("not a folder")
    await bench.submit(ready_run("a"))
    async with bench.runner():
        await waits(bench, "a")
        await bench.submit(ready_run("b"))
        assert (await bench.left("b")).phase is StepPhase.EXITED
        bench.data.run_logs("a").unlink()
        assert (await bench.left("a")).log_bytes == 5


@pytest.mark.parametrize("cancelled", [False, True])
async def test_stored_log_waiting_step_continues_after_restart(tmp_path: Path, cancelled: bool) -> None:
    driver = BadLogDriver("refused")
    bench = Bench(tmp_path, driver)
    await bench.submit(ready_run("r"))
    async with bench.runner():
        await waits(bench, "r")
        if cancelled:
            await bench.cancel("r")
    bench.conditions = Conditions()
    async with bench.runner():
        await waits(bench, "r")
        driver.bad = ""
        step = await bench.left("r")
    assert step.phase is (StepPhase.CANCELLED if cancelled else StepPhase.EXITED)
    assert (step.log_bytes, step.log_sha256) == (len(SAID), hashlib.sha256(SAID).hexdigest())


async def test_stored_log_step_is_given_up_by_removing_container(tmp_path: Path) -> None:
    driver = BadLogDriver("refused")
    bench = Bench(tmp_path, driver)
    await bench.submit(ready_run("r"))
    async with bench.runner() as runner:
        await waits(bench, "r")
        driver.vanish(f"id-{container_name(NODE, bench.key('r'))}")
        step = await bench.left("r")
        assert (step.phase, step.log_bytes) == (StepPhase.LOST, None)
        assert runner.logs._copiers == {}
        assert bench.condition("log") is None


@pytest.mark.parametrize("after", [False, True])
async def test_stored_log_runner_killed_before_document(tmp_path: Path, after: bool) -> None:
    driver, inner = BadLogDriver(""), MemoryStore()
    death = Death(3, after=after)  # starting, running, exited
    bench = Bench(tmp_path, driver, MortalStore(inner, death))
    await Bench(tmp_path, driver, inner).submit(ready_run("r"))
    async with bench.runner():
        await asyncio.wait_for(death.happened.wait(), 30)
    again = Bench(tmp_path, driver, inner)
    async with again.runner():
        is_whole(again, await again.left("r"), SAID)
        await eventually(lambda: not driver.containers)


# with a real engine


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", SIZE) as folder:
        yield folder


@pytest.fixture
async def bench(disk: Path, engine: Engine) -> AsyncIterator[Bench]:
    driver = DockerDriver()
    bench = Bench(disk, driver)
    yield bench
    await driver.close()
    installation = (disk / "installation").read_text().strip()
    await asyncio.to_thread(engine.remove, mao_installation=installation)


@pytest.fixture
def image(tool_image: str) -> ResolvedImage:
    return ResolvedImage(name=tool_image, pinned=tool_image, platform="linux/amd64")


def shell(image: ResolvedImage, script: str) -> Run:
    return ready_run(f"run-{uuid.uuid4().hex[:12]}", image=image, command=["sh", "-c", script])


def open_gate(bench: Bench, run: Run) -> None:
    (bench.data.workspace(run.id, 0, 1).data / "gate").touch()


@pytest.mark.docker
@pytest.mark.parametrize("leave", [0, 4096, 8192])
@pytest.mark.parametrize("exit_code", [0, 3])
async def test_stored_log_disk_full_at_end(
    bench: Bench, disk: Path, image: ResolvedImage, engine: Engine, leave: int, exit_code: int
) -> None:
    lines = 3000
    run = shell(image, f"{GATE}; seq {lines}; exit {exit_code}")
    await bench.submit(run)
    async with bench.runner():
        await bench.phase(run.id, StepPhase.RUNNING)
        open_gate(bench, run)
        filler = fill(disk, leave=leave)
        await waits(bench, run.id)
        assert len(await asyncio.to_thread(engine.containers, mao_run=run.id)) == 1
        filler.unlink()
        step = await bench.left(run.id)
        said = "".join(f"{number}\n" for number in range(1, lines + 1)).encode()
        assert step.phase is (StepPhase.EXITED if exit_code == 0 else StepPhase.FAILED)
        assert bench.data.log(run.id, 0, 1).read_bytes() == said
        assert (step.log_bytes, step.log_sha256) == (len(said), hashlib.sha256(said).hexdigest())
        if step.error is not None:
            assert f"{lines}" in step.error.detail
        await eventually(lambda: not engine.containers(mao_run=run.id))


@pytest.mark.docker
async def test_stored_log_disk_full_during_run(bench: Bench, disk: Path, image: ResolvedImage) -> None:
    run = shell(image, f"echo first; {GATE}; rm /usr/src/app/data/gate; seq 2000; {GATE}; echo last")
    await bench.submit(run)
    async with bench.runner() as runner:
        await bench.phase(run.id, StepPhase.RUNNING)
        await eventually(lambda: bench.log(run.id) == "first\n")
        open_gate(bench, run)
        filler = fill(disk, leave=0)
        following = runner.logs._copiers[bench.key(run.id)]
        await eventually(lambda: following.ended.is_set())
        filler.unlink()
        open_gate(bench, run)
        said = "first\n" + "".join(f"{number}\n" for number in range(1, 2001)) + "last\n"
        is_whole(bench, await bench.left(run.id), said.encode())


@pytest.mark.docker
async def test_stored_log_disk_full_then_read_only(bench: Bench, disk: Path, image: ResolvedImage) -> None:
    run = shell(image, f"{GATE}; echo said")
    await bench.submit(run)
    async with bench.runner():
        await bench.phase(run.id, StepPhase.RUNNING)
        open_gate(bench, run)
        filler = fill(disk, leave=0)
        await waits(bench, run.id)
        filler.unlink()
        await eventually(lambda: remounted(disk))
        await eventually(lambda: "Read-only" in getattr(bench.condition("log"), "detail", ""))
        set_read_only(disk, False)
        is_whole(bench, await bench.left(run.id), b"said\n")


def remounted(disk: Path) -> bool:
    """Remount read-only, which fails while somebody writes."""
    try:
        set_read_only(disk, True)
    except subprocess.CalledProcessError:
        return False
    return True


def truncate(path: Path) -> None:
    os.truncate(path, 0)


def cut_short(path: Path) -> None:
    os.truncate(path, 3)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"somebody else's\n")


def replace(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"fir")


def remove_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"FIRST")


@pytest.mark.docker
@pytest.mark.parametrize("harm", [truncate, cut_short, append, replace, remove_folder, overwrite])
async def test_stored_log_changed_by_others(
    bench: Bench, image: ResolvedImage, harm: Callable[[Path], None]
) -> None:
    run = shell(image, f"echo first; {GATE}; echo last")
    await bench.submit(run)
    async with bench.runner():
        await bench.phase(run.id, StepPhase.RUNNING)
        await eventually(lambda: bench.log(run.id) == "first\n")
        harm(bench.data.log(run.id, 0, 1))
        open_gate(bench, run)
        is_whole(bench, await bench.left(run.id), b"first\nlast\n")


@pytest.mark.docker
async def test_stored_log_folder_replaced_by_file(bench: Bench, image: ResolvedImage) -> None:
    run = shell(image, f"echo first; {GATE}; echo last")
    await bench.submit(run)
    folder = bench.data.run_logs(run.id)
    async with bench.runner():
        await bench.phase(run.id, StepPhase.RUNNING)
        await eventually(lambda: bench.log(run.id) == "first\n")
        shutil.rmtree(folder)
        folder.write_text("in the way")
        open_gate(bench, run)
        assert "cannot be written" in str((await waits(bench, run.id)).waiting)
        folder.unlink()
        is_whole(bench, await bench.left(run.id), b"first\nlast\n")


@pytest.mark.docker
async def test_stored_log_engine_drops_output(bench: Bench, image: ResolvedImage, engine: Engine) -> None:
    """With the log driver `none`, the output is lost and nothing is reported of it."""
    run = shell(image, "echo said")
    await bench.submit(run)
    data = bench.data.workspace(run.id, 0, 1).data
    spec = step_container(
        run,
        bench.key(run.id),
        installation=installation_id(bench.root),
        data=str(data),
        input_dir=None,
        user="10001:10001",
        log_max=1000,
        network="none",
    )
    client = engine.client.api
    host_config = client.create_host_config(log_config=LogConfig(type="none"), network_mode="none")
    client.create_container(
        spec.image,
        list(spec.command or []),
        name=spec.name,
        labels=dict(spec.labels),
        host_config=host_config,
    )
    async with bench.runner():
        assert "does not support reading" in str((await waits(bench, run.id)).waiting)
        await asyncio.to_thread(engine.remove, mao_run=run.id)
        step = await bench.left(run.id)
        assert (step.phase, step.log_bytes, step.log_sha256) == (StepPhase.LOST, None, None)


@pytest.mark.docker
async def test_stored_log_beyond_limit(bench: Bench, image: ResolvedImage) -> None:
    bench.settings.log_max = 1000
    run = shell(image, "seq 100000")
    await bench.submit(run)
    async with bench.runner():
        step = await bench.left(run.id)
        stored = bench.data.log(run.id, 0, 1).read_bytes()
        assert stored.startswith(b"1\n2\n3\n")
        assert stored.endswith(b"(MAO_LOG_MAX)\n")
        assert (step.log_bytes, step.log_sha256) == (len(stored), hashlib.sha256(stored).hexdigest())


@pytest.mark.docker
async def test_stored_log_broken_stream_is_no_end(
    tmp_path: Path, engine: Engine, tool_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = CuttableSocket(tmp_path / "engine.sock", Path("/var/run/docker.sock")).join()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket.path}")
    driver = DockerDriver()
    container = engine.client.containers.run(
        tool_image, ["sh", "-c", "echo said; sleep 600"], detach=True, labels={"mao.test": engine.session}
    )
    try:
        pieces: list[bytes] = []

        def read() -> None:
            for piece in driver.logs(str(container.id)):
                pieces.append(piece)

        reading = asyncio.create_task(asyncio.to_thread(read))
        await eventually(lambda: pieces == [b"said\n"])
        socket.cut()
        with pytest.raises(EngineUnavailable, match="closed the output stream early"):
            await asyncio.wait_for(reading, 30)
    finally:
        await driver.close()
        await asyncio.to_thread(container.remove, force=True)
