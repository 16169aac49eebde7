"""The condition `engine`: no answer, no data directory, no container started; and recovery."""

from __future__ import annotations

import pytest

from mao_runner.containers.engine import MAX_REFUSALS, EngineMonitor
from mao_runner.drivers.protocol import EngineRefused
from mao_shared.conditions import Conditions
from mao_shared.errors import EngineUnavailable, MaoError


class Engine:
    """An engine that answers unless a problem is set."""

    def __init__(self) -> None:
        self.fault: MaoError | None = None
        self.data_fault: MaoError | None = None
        self.conditions = Conditions()
        self.watch = EngineMonitor(self.conditions, self.ping, self.check_data)

    async def ping(self) -> None:
        if self.fault is not None:
            raise self.fault

    async def check_data(self) -> None:
        if self.data_fault is not None:
            raise self.data_fault

    @property
    def told(self) -> list[tuple[str, str]]:
        assert all(condition.name == "engine" for condition in self.conditions.current())
        return [(condition.subject, condition.state) for condition in self.conditions.current()]


async def test_monitor_unavailable_engine_is_failed() -> None:
    engine = Engine()
    assert await engine.watch.check() is None
    engine.fault = EngineUnavailable("Docker does not answer.")
    assert await engine.watch.check() is not None
    assert engine.told == [("", "failed")]
    assert "engine is running" in engine.conditions.current()[0].next
    engine.fault = None
    assert await engine.watch.check() is None
    assert engine.told == []


async def test_monitor_engine_without_data_directory_is_failed() -> None:
    engine = Engine()
    engine.data_fault = MaoError("The engine does not see it.", next="Set MAO_HOSTDIR.")
    assert await engine.watch.check() is not None
    assert engine.told == [("data directory", "failed")]
    engine.fault = EngineUnavailable("Docker does not answer.")
    assert await engine.watch.check() is not None
    assert engine.told == [("", "failed")]


@pytest.mark.parametrize(
    "words", ["OCI runtime create failed: no such file", "no space left on device", "cgroups: cannot enter"]
)
async def test_monitor_repeated_refusals_are_failed(words: str) -> None:
    engine = Engine()
    engine.watch.refused(EngineRefused(words, code="engine-refused"))
    assert engine.told == [("start", "degraded")]
    assert words in engine.conditions.current()[0].detail
    for _ in range(MAX_REFUSALS - 1):
        engine.watch.refused(EngineRefused(words, code="engine-refused"))
    assert engine.told == [("start", "failed")]
    engine.watch.started()
    assert engine.told == []
    engine.watch.refused(EngineRefused(words, code="engine-refused"))
    assert engine.told == [("start", "degraded")]


@pytest.mark.parametrize("code", ["tool-cannot-start", "image-not-found", "workspace-missing"])
async def test_monitor_ignores_faults_of_tool_and_image(code: str) -> None:
    engine = Engine()
    for _ in range(MAX_REFUSALS):
        engine.watch.refused(EngineRefused("no", code=code))
    assert engine.told == []
