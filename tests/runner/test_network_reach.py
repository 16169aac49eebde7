"""What a tool reaches from its network on a real engine: the world, and nothing on or beside this host.

The same probes from the engine's default network show that what is shut is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from mao_runner.containers import network
from mao_runner.containers.data_dir import assign_owner
from mao_runner.containers.spec import step_container
from mao_runner.drivers import docker_network
from mao_runner.drivers.docker import DockerDriver
from mao_runner.drivers.protocol import EngineRefused, HostCommand
from mao_runner.labels import installation_id
from mao_shared.models import ResolvedImage
from mao_shared.models.tool import CheckRequest
from mao_shared.states import StepPhase
from tests.support.docker import Engine
from tests.support.ports import claim, free_port
from tests.support.sites import NEEDED, Site, can_make_sites, make_sites
from tests.support.waiting import eventually

from .harness import Bench, ready_run

pytestmark = [pytest.mark.docker, pytest.mark.skipif(not can_make_sites(), reason=NEEDED)]
ANSWER = "192.0.2.77"
DNS_SERVER = """
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 53))
print("bound", flush=True)
while True:
    data, peer = server.recvfrom(512)
    question = data[12:data.index(0, 12) + 5]
    answer = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4" + socket.inet_aton(sys.argv[2])
    found = question[-3] == 1
    counts = b"\\0\\1\\0" + bytes([found]) + b"\\0\\0\\0\\0"
    server.sendto(data[:2] + b"\\x81\\x80" + counts + question + answer * found, peer)
"""
LISTENER = """
import socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])), family=socket.AF_INET)
print("bound", flush=True)
while True:
    peer, _ = server.accept()
    peer.close()
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def serving(*command: str) -> Iterator[None]:
    """Run a program during the block, which starts once the program reports that it is bound."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"bound\n"
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def host_listener(family: socket.AddressFamily = socket.AF_INET) -> Iterator[int]:
    """Listen on a port on all addresses of this host."""
    address = "0.0.0.0" if family is socket.AF_INET else "::"
    server = socket.create_server((address, 0), family=family, backlog=64)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                server.accept()[0].close()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()


def probe(targets: dict[str, str]) -> str:
    """Return a shell script that prints for each `address port` whether it answers."""
    tries = [
        f"(nc -w 3 {target} </dev/null >/dev/null 2>&1 && echo {name} open || echo {name} shut) &"
        for name, target in targets.items()
    ]
    return "\n".join([*tries, "wait"])


def opened(said: str) -> dict[str, bool]:
    return {name: state == "open" for name, state in (line.split() for line in said.splitlines())}


@dataclass
class Ground:
    """The targets; `site` is a host outside, with the link-local address `metadata`."""

    site: Site
    metadata: str
    here: str


@pytest.fixture
def ground() -> Iterator[Ground]:
    while not claim(metadata := f"169.254.{1 + secrets.randbelow(254)}.{1 + secrets.randbelow(254)}"):
        pass
    with make_sites(1) as sites:
        (site,) = sites.sites
        ip("-n", site.namespace, "address", "add", f"{metadata}/32", "dev", "lo")
        ip("-n", site.namespace, "route", "add", "default", "via", sites.here)
        ip("route", "add", f"{metadata}/32", "via", site.address)  # goes with the link
        yield Ground(site, metadata, sites.here)


@pytest.fixture
async def bench(tmp_path: Path, engine: Engine) -> AsyncIterator[Bench]:
    name = f"mao-t{uuid.uuid4().hex[:7]}"
    bench = Bench(tmp_path, DockerDriver(), tool_network_name=name)
    yield bench
    installation = (tmp_path / "installation").read_text().strip()
    await bench.driver.close()
    await asyncio.to_thread(engine.remove, mao_installation=installation)
    await asyncio.to_thread(engine.remove, mao_test_network=name)
    await asyncio.to_thread(engine.remove_tool_network, name)
    assert name not in rules()


def rules() -> str:
    """Return the rules of this host, by whichever iptables it has."""
    listed = [
        subprocess.run([program, "-t", "raw", "-S"], capture_output=True, text=True, check=False).stdout
        for program in ("iptables", "ip6tables")
    ]
    return "\n".join(listed)


def flush(bench: Bench) -> None:
    """Remove the rules of the network, as a reset of the firewall does."""
    bridge = f"{bench.settings.tool_network_name}0"
    subprocess.run(
        ["iptables", "-w", "-t", "raw", "-D", "PREROUTING", "-i", bridge, "-j", f"MAO-{bridge}"], check=True
    )
    subprocess.run(["iptables", "-w", "-t", "raw", "-F", f"MAO-{bridge}"], check=True)
    subprocess.run(
        ["ip6tables", "-w", "-t", "raw", "-D", "PREROUTING", "-i", bridge, "-j", "DROP"], check=True
    )


async def said_by_tool(bench: Bench, image: str, script: str) -> str:
    pinned = ResolvedImage(name=image, pinned=image, platform="linux/amd64")
    command = ["sh", "-c", script]
    run = ready_run(f"run-{uuid.uuid4().hex[:12]}", image=pinned, command=command, network="bridge")
    await bench.submit(run)
    async with bench.runner():
        step = await bench.left(run.id)
    assert step.phase is StepPhase.EXITED, step.error
    return bench.log(run.id)


def started(engine: Engine, bench: Bench, image: str, network_name: str, script: str, **more: Any) -> Any:
    """Start a container on a network; it is removed with the bench."""
    labels = {"mao.test.network": bench.settings.tool_network_name}
    made = engine.client.containers.run(
        image, ["sh", "-c", script], detach=True, network=network_name, labels=labels, **more
    )
    made.reload()
    return made


def address(container: Any, network_name: str) -> str:
    return str(container.attrs["NetworkSettings"]["Networks"][network_name]["IPAddress"])


def gateway(container: Any, network_name: str) -> str:
    return str(container.attrs["NetworkSettings"]["Networks"][network_name]["Gateway"])


LISTENS = "exec nc -ll -p 7000 -e true"


async def made_network(bench: Bench) -> None:
    async with bench.runner() as runner:
        await runner.network.wait_usable(30)


async def test_reach_internet_but_not_host(
    bench: Bench, engine: Engine, tool_image: str, ground: Ground
) -> None:
    await made_network(bench)
    ours, port = bench.settings.tool_network_name, free_port()
    apart = f"{ours}-o"
    other_net = engine.client.networks.create(apart, driver="bridge", labels={"mao.test": engine.session})
    try:
        tool = started(engine, bench, tool_image, ours, LISTENS)
        beside = started(engine, bench, tool_image, "bridge", LISTENS)
        elsewhere = started(engine, bench, tool_image, apart, LISTENS)
        started(engine, bench, tool_image, "bridge", LISTENS, ports={"7000/tcp": ("0.0.0.0", port)})
        enter = ground.site.enter
        with host_listener() as host, contextlib.ExitStack() as stack:
            for where in (ground.site.address, ground.metadata):
                stack.enter_context(serving(*enter, sys.executable, "-c", LISTENER, where, "8000"))
            targets = {
                "outside": f"{ground.site.address} 8000",
                "link-local": f"{ground.metadata} 8000",
                "tool": f"{address(tool, ours)} 7000",
                "container": f"{address(beside, 'bridge')} 7000",
                "other-bridge": f"{address(elsewhere, apart)} 7000",
                "own-gateway": f"{gateway(tool, ours)} {host}",
                "docker-gateway": f"{gateway(beside, 'bridge')} {host}",
                "other-gateway": f"{gateway(elsewhere, apart)} {host}",
                "host": f"{ground.here} {host}",
                "published": f"{ground.here} {port}",
                "published-at-gateway": f"{gateway(tool, ours)} {port}",
            }
            said = opened(await said_by_tool(bench, tool_image, probe(targets)))
            control = started(engine, bench, tool_image, "bridge", probe(targets))
            await asyncio.to_thread(control.wait)
            open_there = opened(control.logs().decode())
        assert said == {name: name == "outside" for name in targets}
        shut_there = {name for name, is_open in open_there.items() if not is_open}
        assert shut_there == {"tool", "other-bridge"}, "what the engine itself keeps apart"
    finally:
        await asyncio.to_thread(engine.remove, mao_test_network=ours)
        other_net.remove()


async def test_reach_of_check(bench: Bench, engine: Engine, tool_image: str, ground: Ground) -> None:
    with (
        host_listener() as host,
        serving(*ground.site.enter, sys.executable, "-c", LISTENER, ground.site.address, "8000"),
    ):
        targets = {"outside": f"{ground.site.address} 8000", "host": f"{ground.here} {host}"}
        async with bench.runner() as runner:
            await eventually(lambda: runner.steps is not None)
            request = CheckRequest(image=tool_image, command=["sh", "-c", probe(targets)])
            report = await runner.checker.check(request)
    assert opened(report.log) == {"outside": True, "host": False}


async def test_reach_no_ipv6(bench: Bench, engine: Engine, tool_image: str) -> None:
    """This also holds for a container that enables IPv6 inside."""
    await made_network(bench)
    ours = bench.settings.tool_network_name
    with host_listener(socket.AF_INET6) as host:
        started(engine, bench, tool_image, ours, "sleep 600")  # a bridge with nobody on it has no address
        await eventually(lambda: link_local(f"{ours}0"))
        bridge_address = link_local(f"{ours}0")
        ready = "until ip -6 address show dev eth0 | grep fe80 | grep -qv tentative; do sleep 0.1; done"
        script = f"{ready}; {probe({'host': f'{bridge_address}%eth0 {host}'})}"
        switched_on = {"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.disable_ipv6": "0"}
        shut = started(engine, bench, tool_image, ours, script, sysctls=switched_on)
        await asyncio.to_thread(shut.wait)
        assert opened(shut.logs().decode()) == {"host": False}
        flush(bench)
        control = started(engine, bench, tool_image, ours, script, sysctls=switched_on)
        await asyncio.to_thread(control.wait)
        assert opened(control.logs().decode()) == {"host": True}


def link_local(interface: str) -> str | None:
    shown = subprocess.run(
        ["ip", "-6", "-o", "address", "show", "dev", interface, "scope", "link"],
        capture_output=True,
        text=True,
        check=True,
    )
    _, found, rest = shown.stdout.partition("inet6 ")
    return rest.split("/")[0] if found and "tentative" not in rest else None


async def test_reach_dns(bench: Bench, engine: Engine, tool_image: str, ground: Ground) -> None:
    """The engine's resolver queries a name server outside."""
    await made_network(bench)
    ours = bench.settings.tool_network_name
    with serving(*ground.site.enter, sys.executable, "-c", DNS_SERVER, ground.site.address, ANSWER):
        asks = started(
            engine,
            bench,
            tool_image,
            ours,
            "cat /etc/resolv.conf; nslookup x.example.test",
            dns=[ground.site.address],
        )
        await asyncio.to_thread(asks.wait)
    said = asks.logs().decode()
    assert "nameserver 127.0.0.11" in said
    assert ANSWER in said


async def test_reach_dns_server_on_host_only(
    bench: Bench, engine: Engine, tool_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made_network(bench)
    ours = bench.settings.tool_network_name
    there = started(engine, bench, tool_image, ours, "sleep 600")
    server, real = gateway(there, ours), APIClient.create_host_config

    def named(self: APIClient, *given: Any, **more: Any) -> Any:
        """Run the script as if the host's resolv.conf named the server."""
        return real(
            self, *given, **(more | {"dns": [server]} if more.get("network_mode") == "host" else more)
        )

    script = f"nslookup x.example.test; {probe({'tcp': f'{server} PORT'})}"
    with serving(sys.executable, "-c", DNS_SERVER, server, ANSWER), host_listener() as port:
        script = script.replace("PORT", str(port))
        before = started(engine, bench, tool_image, ours, script, dns=[server])
        await asyncio.to_thread(before.wait)
        assert ANSWER not in before.logs().decode()
        monkeypatch.setattr(APIClient, "create_host_config", named)
        await made_network(bench)
        after = started(engine, bench, tool_image, ours, script, dns=[server])
        await asyncio.to_thread(after.wait)
    said = after.logs().decode()
    assert ANSWER in said
    assert "tcp shut" in said


async def test_rules_flushed_are_restored(
    bench: Bench, engine: Engine, tool_image: str, ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    with host_listener() as host:
        targets = {"host": f"{ground.here} {host}"}
        monkeypatch.setattr(network, "CHECK_PERIOD", 0.2)
        async with bench.runner() as runner:
            await runner.network.wait_usable(30)
            before = rules()
            flush(bench)
            await eventually(lambda: rules() == before, 30)
        assert opened(await said_by_tool(bench, tool_image, probe(targets))) == {"host": False}


async def test_network_removed_is_recreated(bench: Bench, engine: Engine, tool_image: str) -> None:
    pinned = ResolvedImage(name=tool_image, pinned=tool_image, platform="linux/amd64")
    run = ready_run(f"run-{uuid.uuid4().hex[:12]}", image=pinned, command=["true"], network="bridge")
    async with bench.runner() as runner:
        await runner.network.wait_usable(30)
        engine.client.api.remove_network(bench.settings.tool_network_name)
        await bench.submit(run)
        step = await bench.left(run.id)
    assert (step.phase, step.error) == (StepPhase.EXITED, None)


async def test_network_with_other_options_is_not_used(bench: Bench, engine: Engine, tool_image: str) -> None:
    name = bench.settings.tool_network_name
    theirs = engine.client.networks.create(name, driver="bridge", labels={"mao.test": engine.session})
    pinned = ResolvedImage(name=tool_image, pinned=tool_image, platform="linux/amd64")
    run = ready_run(f"run-{uuid.uuid4().hex[:12]}", image=pinned, command=["true"], network="bridge")
    await bench.submit(run)
    async with bench.runner():
        step = await bench.until(run.id, lambda step: step.waiting is not None)
        assert step.phase is StepPhase.READY
        condition = bench.condition("tool-network")
        assert condition is not None
        assert f"docker network rm {name}" in condition.next
        theirs.remove()
        assert (await bench.left(run.id)).phase is StepPhase.EXITED


async def test_helper_has_minimal_rights(bench: Bench, engine: Engine) -> None:
    await made_network(bench)
    script = "grep CapEff /proc/self/status; touch /usr/mao-test /mao-test; ls /; ls /root /var /home; true"
    command = HostCommand(f"mao-network-{engine.session}", script, [], {"mao.test": engine.session})
    code, said = await bench.driver.run_on_host(command)
    assert code == 0
    assert "CapEff:\t0000000000003000" in said  # NET_ADMIN, NET_RAW
    assert said.count("Read-only file system") == 2
    assert said.count("No such file or directory") >= 3
    assert not engine.containers(mao_test=engine.session)


async def test_helper_on_host_with_other_layout(
    bench: Bench, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The helper container of a runner that was killed during a check is in the way."""
    monkeypatch.setattr(docker_network, "PROGRAMS", ("/no-such/lib", *docker_network.PROGRAMS, "/nowhere"))
    async with bench.runner() as runner:
        await runner.network.wait_usable(30)
        name = f"mao-network-{installation_id(bench.root)}"
        engine.client.api.create_container("mao/empty:1", ["true"], name=name)
        await runner.network.establish()
        assert not engine.client.containers.list(all=True, filters={"name": name})


async def test_host_without_iptables_blocks_isolated_steps_only(
    bench: Bench, tool_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "MAX_RETRY_DELAY", 0.5)
    programs = docker_network.PROGRAMS
    monkeypatch.setattr(docker_network, "PROGRAMS", ("/etc/alternatives",))
    pinned = ResolvedImage(name=tool_image, pinned=tool_image, platform="linux/amd64")
    runs = {
        wanted: ready_run(f"run-{uuid.uuid4().hex[:12]}", image=pinned, command=["true"], network=wanted)
        for wanted in ("bridge", "none", "host")
    }
    for run in runs.values():
        await bench.submit(run)
    async with bench.runner():
        for wanted in ("none", "host"):
            assert (await bench.left(runs[wanted].id)).phase is StepPhase.EXITED
        held = await bench.until(runs["bridge"].id, lambda step: step.waiting is not None)
        assert held.phase is StepPhase.READY
        await eventually(lambda: bench.condition("tool-network") is not None)
        monkeypatch.setattr(docker_network, "PROGRAMS", programs)
        assert (await bench.left(runs["bridge"].id)).phase is StepPhase.EXITED
        assert bench.condition("tool-network") is None


async def test_two_runners_share_a_network(tmp_path: Path, bench: Bench) -> None:
    (tmp_path / "second").mkdir()
    name = bench.settings.tool_network_name
    second = Bench(tmp_path / "second", bench.driver, tool_network_name=name)
    async with bench.runner() as one, second.runner() as other:
        await asyncio.gather(one.network.wait_usable(30), other.network.wait_usable(30))


async def test_container_created_for_old_network_is_recreated(
    bench: Bench, engine: Engine, tool_image: str
) -> None:
    """A runner of the previous version was killed between creating and starting the container."""
    pinned = ResolvedImage(name=tool_image, pinned=tool_image, platform="linux/amd64")
    run = ready_run(f"run-{uuid.uuid4().hex[:12]}", image=pinned, command=["sleep", "600"], network="bridge")
    step = run.steps[0].move(StepPhase.STARTING, run.created_at)
    await bench.submit(run.with_step(0, step))
    await bench.driver.create(spec_of(bench, run, "bridge"))
    async with bench.runner():
        running = await bench.phase(run.id, StepPhase.RUNNING)
        found = engine.client.api.inspect_container(str(running.container_id))
    assert list(found["NetworkSettings"]["Networks"]) == [bench.settings.tool_network_name]


async def test_container_running_on_old_network_is_adopted(
    bench: Bench, engine: Engine, tool_image: str
) -> None:
    pinned = ResolvedImage(name=tool_image, pinned=tool_image, platform="linux/amd64")
    script = "until [ -e /usr/src/app/data/gate ]; do sleep 0.05; done"
    run = ready_run(
        f"run-{uuid.uuid4().hex[:12]}", image=pinned, command=["sh", "-c", script], network="bridge"
    )
    step = run.steps[0].move(StepPhase.STARTING, run.created_at)
    await bench.submit(run.with_step(0, step))
    made = await bench.driver.create(spec_of(bench, run, "bridge"))
    await bench.driver.start(made.id)
    async with bench.runner():
        running = await bench.phase(run.id, StepPhase.RUNNING)
        assert running.container_id == made.id
        (bench.data.workspace(run.id, 0, 1).data / "gate").touch()
        assert (await bench.left(run.id)).phase is StepPhase.EXITED


def spec_of(bench: Bench, run: Any, network_name: str) -> Any:
    data = bench.data.workspace(run.id, 0, 1).data
    return step_container(
        run,
        bench.key(run.id),
        installation=installation_id(bench.root),
        data=str(data),
        input_dir=None,
        user=assign_owner(data, 10001),
        log_max=1000,
        network=network_name,
    )


async def test_removal_waits_for_tools(bench: Bench, engine: Engine, tool_image: str) -> None:
    async with bench.runner() as runner:
        await runner.network.wait_usable(30)
        ours = bench.settings.tool_network_name
        started(engine, bench, tool_image, ours, "sleep 600")
        with pytest.raises(EngineRefused, match="cannot be removed"):
            await runner.network.remove()
        assert f"MAO-{ours}0" in rules()
        await asyncio.to_thread(engine.remove, mao_test_network=ours)
        await runner.network.remove()
        assert ours not in rules()
