"""Containers on a real engine have only default privileges, or those that were agreed to."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mao_runner.containers.data_dir import find_engine_socket
from mao_runner.drivers.docker import DockerDriver
from mao_runner.drivers.fake import FakeDriver
from mao_runner.drivers.protocol import EngineRefused
from mao_shared.models import DatasetRef, Limits, Privileges, ResolvedImage, Run
from mao_shared.states import StepPhase
from tests.support.docker import Engine
from tests.support.waiting import eventually

from .harness import Bench, ready_run

pytestmark = pytest.mark.docker
MEMORY = 64 * 1024**2
GATE = "until [ -e /usr/src/app/data/gate ]; do sleep 0.05; done"


@pytest.fixture
async def bench(tmp_path: Path, engine: Engine) -> AsyncIterator[Bench]:
    driver = DockerDriver()
    yield Bench(tmp_path, driver)
    await driver.close()
    installation = (tmp_path / "installation").read_text().strip()
    await asyncio.to_thread(engine.remove, mao_installation=installation)


def fresh_run(**spec: Any) -> Run:
    return ready_run(f"run-{uuid.uuid4().hex[:12]}", **spec)


def shell(image: str, script: str, **spec: Any) -> Run:
    pinned = ResolvedImage(name=image, pinned=image, platform="linux/amd64")
    return fresh_run(image=pinned, command=["sh", "-c", script], **spec)


async def inspected(bench: Bench, engine: Engine, run: Run) -> dict[str, Any]:
    """Return the engine's document of the run's running container, then let the run end."""
    await bench.submit(run)
    async with bench.runner():
        step = await bench.phase(run.id, StepPhase.RUNNING)
        assert step.container_id is not None
        found: dict[str, Any] = await asyncio.to_thread(
            engine.client.api.inspect_container, step.container_id
        )
        (bench.data.workspace(run.id, 0, 1).data / "gate").touch()
        assert (await bench.left(run.id)).phase is StepPhase.EXITED
    return found


async def test_hardening_default(bench: Bench, engine: Engine, tool_image: str) -> None:
    run = shell(tool_image, GATE, input=DatasetRef(name="i", master="/i", branch="ground-truth"))
    found = await inspected(bench, engine, run)
    host, workspace = found["HostConfig"], bench.data.workspace(run.id, 0, 1)
    owner = workspace.data.stat()
    assert found["Config"]["User"] == f"{owner.st_uid}:{owner.st_gid}"
    assert owner.st_uid != 0
    assert owner.st_gid != 0
    assert (host["CapDrop"], host["CapAdd"] or []) == (["ALL"], [])
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["PidsLimit"] == 64
    assert (host["Memory"], host["MemorySwap"]) == (MEMORY, MEMORY)
    assert host["NetworkMode"] == "none"
    assert host["RestartPolicy"]["Name"] in ("", "no")
    assert not host["Privileged"]
    assert not host["Devices"]
    assert (host["PidMode"], host["UTSMode"], host["IpcMode"]) == ("", "", "private")
    assert "/proc/sysrq-trigger" in host["ReadonlyPaths"]
    assert host["LogConfig"]["Config"]["max-size"]
    mounts = {m["Destination"]: (m["Source"], m["RW"], m["Propagation"]) for m in found["Mounts"]}
    assert mounts == {
        "/usr/src/app/data": (str(workspace.data), True, "rprivate"),
        "/usr/src/app/input": (str(workspace.input), False, "rprivate"),
    }


async def test_hardening_grants_agreed_privileges_only(bench: Bench, engine: Engine, tool_image: str) -> None:
    agreed = Privileges(user="1234", capabilities=["NET_RAW"], new_privileges=True)
    run = shell(tool_image, GATE, privileges=agreed, network="bridge", limits=Limits(cpu=0.5))
    found = await inspected(bench, engine, run)
    host = found["HostConfig"]
    assert found["Config"]["User"] == "1234:1234"
    assert host["CapDrop"] == ["ALL"]
    assert [name.removeprefix("CAP_") for name in host["CapAdd"]] == ["NET_RAW"]
    assert not host["SecurityOpt"]
    assert host["NetworkMode"] == bench.settings.tool_network_name
    assert (host["CpuQuota"], host["CpuPeriod"]) == (50_000, 100_000)


async def test_hardening_pinned_image_runs_after_tag_moved(bench: Bench, engine: Engine) -> None:
    old = engine.build("echo old; echo x > /usr/src/app/data/x")
    new = engine.build("echo new; echo x > /usr/src/app/data/x")
    pinned = await bench.driver.resolve(old)
    await asyncio.to_thread(lambda: engine.client.images.get(new).tag(old))
    assert (await bench.driver.resolve(old)).pinned != pinned.pinned
    run = fresh_run(image=pinned)
    await bench.submit(run)
    async with bench.runner():
        assert (await bench.left(run.id)).phase is StepPhase.EXITED
        await eventually(lambda: not engine.containers(mao_run=run.id))
    await asyncio.to_thread(engine.client.images.remove, pinned.pinned, force=True)
    assert bench.log(run.id) == "old\n"


async def test_hardening_other_runs_are_not_visible(bench: Bench, tool_image: str) -> None:
    other = bench.data.workspace("other", 0, 1).data
    other.mkdir(parents=True)
    (other / "secret").touch()
    run = shell(tool_image, "find / -name proc -prune -o -name sys -prune -o -print")
    await bench.submit(run)
    async with bench.runner():
        assert (await bench.left(run.id)).phase is StepPhase.EXITED
    seen = bench.log(run.id).splitlines()
    assert "/usr/src/app/data" in seen
    assert not [path for path in seen if path.endswith(("secret", ".git", "docker.sock"))]


HOSTILE = {
    "fork bomb": "f() { f | f & }; f; f; sleep 30",
    "memory": "x=$(yes | head -c 500000000); echo $x",
    "endless log": "yes 'all work and no play'",
    "deaf to SIGTERM": "trap '' TERM; sleep 30 & wait; sleep 30",
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_hardening_hostile_tool_is_contained(
    bench: Bench, engine: Engine, tool_image: str, what: str
) -> None:
    bench.settings.log_max = 100_000
    limits = Limits(memory=MEMORY, pids=32, time=1.5, grace=0.2)
    run = shell(tool_image, HOSTILE[what], limits=limits)
    await bench.submit(run)
    async with bench.runner():
        step = await bench.left(run.id)
        await eventually(lambda: not engine.containers(mao_run=run.id))
    assert step.phase is StepPhase.FAILED
    assert step.error is not None
    assert step.error.fault == "tool"
    assert bench.data.log(run.id, 0, 1).stat().st_size < 101_000


WITH_SOCKET = (
    "test -S /var/run/docker.sock && test -w /var/run/docker.sock && "
    "echo yes > /usr/src/app/data/socket || echo no > /usr/src/app/data/socket; " + GATE
)


@pytest.mark.parametrize("privileges", [{}, {"user": "1234"}, {"user": "root"}])
@pytest.mark.parametrize("granted", [True, False])
async def test_engine_socket_only_where_granted(
    bench: Bench, engine: Engine, tool_image: str, granted: bool, privileges: dict[str, str]
) -> None:
    run = shell(tool_image, WITH_SOCKET, privileges=Privileges(docker_socket=granted, **privileges))
    found = await inspected(bench, engine, run)
    written = bench.data.workspace(run.id, 0, 1).data / "socket"
    assert written.read_text() == ("yes\n" if granted else "no\n")
    mounted = {mount["Destination"] for mount in found["Mounts"]}
    assert ("/var/run/docker.sock" in mounted) is granted
    gid = str(Path("/var/run/docker.sock").stat().st_gid)
    assert (found["HostConfig"]["GroupAdd"] or []) == ([gid] if granted else [])


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:2375", "unix:///nowhere/docker.sock"])
async def test_engine_socket_missing(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    driver = FakeDriver()
    driver.address = DockerDriver().address
    assert await find_engine_socket(driver, Privileges()) is None
    with pytest.raises(EngineRefused, match=re.escape(address.removeprefix("unix://"))) as caught:
        await find_engine_socket(driver, Privileges(docker_socket=True))
    assert caught.value.code == "docker-socket-missing"
