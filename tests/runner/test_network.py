"""The tools' network in the runner: which steps wait for it, and when it is checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mao_runner.containers import network
from mao_runner.containers.plan import AwaitNetwork, AwaitSlot, Cancel, Launch, StepObservation, decide
from mao_runner.drivers.docker_network import network_differences
from mao_runner.drivers.docker_responses import launch_error
from mao_runner.drivers.protocol import Container, EngineRefused
from mao_runner.settings import RunnerSettings
from mao_shared.errors import EngineUnavailable
from mao_shared.models import StepRun
from mao_shared.models.tool import network_words
from mao_shared.states import StepPhase
from tests.support.waiting import eventually

from .doubles import OpenHostDriver, PromptDriver
from .harness import Bench, ready_run, step_spec

SHUT = "waits until the tools' network is isolated"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "RETRY_DELAY", 0.05)
    monkeypatch.setattr(network, "MAX_RETRY_DELAY", 0.1)


def bench_of(root: Path, driver: PromptDriver, **settings: Any) -> Bench:
    return Bench(root, driver, **({"tool_network_name": "mao-tools"} | settings))


def network_of(driver: PromptDriver, run: str) -> str:
    (spec,) = [found for found in driver.specs.values() if found.name.endswith(f"-{run}-0-1")]
    return spec.network


@pytest.mark.parametrize(("asked", "given"), [("bridge", "mao-tools"), ("none", "none"), ("host", "host")])
async def test_network_of_container(tmp_path: Path, asked: str, given: str) -> None:
    driver = PromptDriver()
    bench = bench_of(tmp_path, driver)
    await bench.submit(ready_run("r", network=asked))
    async with bench.runner():
        assert (await bench.left("r")).phase is StepPhase.EXITED
    assert network_of(driver, "r") == given


class BrokenEngineDriver(OpenHostDriver):
    """The engine does not even create the network."""

    async def ensure_network(self, *given: Any) -> list[str]:
        if self.refusal:
            raise EngineUnavailable(self.refusal)
        return await super().ensure_network(*given)


class OtherNetworkDriver(OpenHostDriver):
    """There is a network of this name that is not isolated."""

    async def ensure_network(self, *given: Any) -> list[str]:
        if self.refusal:
            raise EngineRefused(self.refusal, code="tool-network-differs", next="docker network rm mao-tools")
        return await super().ensure_network(*given)


class RaisingDriver(OpenHostDriver):
    """The engine fails with an unexpected error."""

    async def ensure_network(self, *given: Any) -> list[str]:
        if self.refusal:
            raise KeyError(self.refusal)
        return await super().ensure_network(*given)


@pytest.mark.parametrize("kind", [OpenHostDriver, BrokenEngineDriver, OtherNetworkDriver, RaisingDriver])
async def test_network_not_isolated_is_waited_for(tmp_path: Path, kind: type[OpenHostDriver]) -> None:
    driver = kind("no iptables (here)")
    bench = bench_of(tmp_path, driver, slots=1)
    await bench.submit(ready_run("default", network="bridge"))
    async with bench.runner() as runner:
        step = await bench.until("default", lambda step: step.waiting is not None)
        assert step.phase is StepPhase.READY
        assert SHUT in str(step.waiting)
        await eventually(lambda: bench.condition("tool-network") is not None)
        condition = bench.condition("tool-network")
        assert condition is not None
        assert (condition.state, "no iptables" in condition.detail) == ("degraded", True)
        assert condition.next
        for other in ("none", "host"):
            await bench.submit(ready_run(other, network=other))
            assert (await bench.left(other)).phase is StepPhase.EXITED
        with pytest.raises(Exception, match="no iptables"):
            await runner.network.wait_usable(0)
        assert not [name for name in driver.calls if name.startswith("create mao-node-1-default")]
        driver.refusal = ""
        assert (await bench.left("default")).phase is StepPhase.EXITED
        assert bench.condition("tool-network") is None


async def test_network_bridge_setting_is_reported(tmp_path: Path) -> None:
    driver = OpenHostDriver()
    bench = bench_of(tmp_path, driver, tool_network="bridge")
    await bench.submit(ready_run("r", network="bridge"))
    async with bench.runner():
        assert (await bench.left("r")).phase is StepPhase.EXITED
        condition = bench.condition("tool-network")
    assert condition is not None
    assert "MAO_TOOL_NETWORK" in condition.detail
    assert (network_of(driver, "r"), driver.networks, driver.on_host) == ("bridge", {}, [])


async def test_network_is_checked_once_for_many_steps(tmp_path: Path) -> None:
    driver = PromptDriver()
    bench = bench_of(tmp_path, driver)
    async with bench.runner():
        for number in range(5):
            await bench.submit(ready_run(f"r{number}", network="bridge"))
        for number in range(5):
            await bench.left(f"r{number}")
    assert len(driver.on_host) == 1


async def test_network_is_checked_when_engine_is_back(tmp_path: Path) -> None:
    driver = OpenHostDriver("")
    bench = bench_of(tmp_path, driver)
    async with bench.runner() as runner:
        await runner.network.wait_usable(30)
        looked = len(driver.on_host)
        driver.refusal = "flushed"
        driver.break_events()
        await eventually(lambda: len(driver.on_host) > looked and not runner.network.is_usable("bridge"))
        await bench.submit(ready_run("r", network="bridge"))
        assert SHUT in str((await bench.until("r", lambda step: step.waiting is not None)).waiting)
        driver.refusal = ""
        assert (await bench.left("r")).phase is StepPhase.EXITED


async def test_network_is_checked_periodically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "CHECK_PERIOD", 0.02)
    driver = PromptDriver()
    async with bench_of(tmp_path, driver).runner():
        await eventually(lambda: len(driver.on_host) > 3)


class ForgetfulDriver(PromptDriver):
    """Somebody has removed the network since the last check."""

    gone = True

    async def start(self, container_id: str) -> None:
        if self.gone and self.specs[container_id].network == "mao-tools":
            self.gone = False
            raise launch_error("x", 404, "network mao-tools not found")
        await super().start(container_id)


async def test_network_removed_fails_no_step(tmp_path: Path) -> None:
    driver = ForgetfulDriver()
    bench = bench_of(tmp_path, driver)
    await bench.submit(ready_run("r", network="bridge"))
    async with bench.runner():
        step = await bench.left("r")
    assert (step.phase, step.error) == (StepPhase.EXITED, None)
    assert len(driver.on_host) == 2


class VanishingDriver(OpenHostDriver):
    """The network vanishes as the first containers start on it, and cannot be isolated again."""

    back = False

    async def start(self, container_id: str) -> None:
        if self.specs[container_id].network == "mao-tools" and not self.back:
            self.refusal = "no iptables any more"
            raise launch_error("x", 404, "network mao-tools not found")
        await super().start(container_id)


@pytest.mark.parametrize("slots", [1, 2])
async def test_network_lost_while_starting_frees_slot(tmp_path: Path, slots: int) -> None:
    driver = VanishingDriver("")
    bench = bench_of(tmp_path, driver, slots=slots)
    defaults = [f"default-{number}" for number in range(slots)]
    for run in defaults:
        await bench.submit(ready_run(run, network="bridge"))
    async with bench.runner() as runner:
        for run in defaults:
            step = await bench.until(run, lambda step: SHUT in str(step.waiting))
            assert step.phase in (StepPhase.STARTING, StepPhase.READY)
        for number, other in enumerate(("none", "host", "none")):
            await bench.submit(ready_run(f"other-{number}", network=other))
            assert (await bench.left(f"other-{number}")).phase is StepPhase.EXITED
        driver.back, driver.refusal = True, ""
        for run in defaults:
            assert (await bench.left(run)).phase is StepPhase.EXITED
        assert runner.running == 0


def starting(cancelled: bool, container: Container | None) -> StepObservation:
    step = StepRun(spec=step_spec(), phase=StepPhase.STARTING)
    now = ready_run("r").created_at
    return StepObservation(step, cancelled=cancelled, container=container, now=now, network=False)


def test_network_lost_while_starting_waits_or_is_cancelled() -> None:
    created = Container("c", "c", {}, "created")
    assert decide(starting(False, None)) == AwaitNetwork()
    assert decide(starting(False, created)) == AwaitNetwork()
    assert decide(starting(True, created)) == Cancel(created)


def test_network_parked_step_starts_with_next_slot() -> None:
    back = replace(starting(False, None), network=True, parked=True, ahead=2)
    assert decide(back) == AwaitSlot(2)
    assert decide(replace(back, granted=True)) == Launch()


RIGHT = {
    "Driver": "bridge",
    "EnableIPv6": False,
    "Internal": False,
    "Options": {
        "com.docker.network.bridge.name": "mao-tools0",
        "com.docker.network.bridge.enable_icc": "false",
    },
}


@pytest.mark.parametrize(
    "change",
    [
        {"Driver": "macvlan"},
        {"EnableIPv6": True},
        {"Internal": True},
        {"Options": {}},
        {"Options": None},
        {"Options": {**RIGHT["Options"], "com.docker.network.bridge.enable_icc": "true"}},  # type: ignore[dict-item]
        {"Options": {**RIGHT["Options"], "com.docker.network.bridge.name": "br-1"}},  # type: ignore[dict-item]
    ],
)
def test_network_differences_are_refused(change: dict[str, Any]) -> None:
    assert network_differences(RIGHT, "mao-tools0") == []
    assert network_differences(RIGHT | change, "mao-tools0")


@pytest.mark.parametrize("name", ["", "x", "Tools", "-tools", "tools-", "a" * 15, "a b", "a;b", "0tools"])
def test_network_invalid_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAO_TOOL_NETWORK_NAME")
    with pytest.raises(ValueError, match="tool_network_name"):
        RunnerSettings(tool_network_name=name)


def test_network_words_describe_reach() -> None:
    assert "not this host" in network_words("bridge")
    assert "MAO_TOOL_NETWORK=bridge" in network_words("bridge")
    assert network_words("host").startswith("host (")
    assert network_words("none").startswith("none (")
