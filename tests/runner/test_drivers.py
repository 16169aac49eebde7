"""Drivers are found by the engine's name."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mao_runner.drivers import ENGINES, open_driver
from mao_runner.drivers.docker import DockerDriver
from mao_runner.settings import RunnerSettings


async def test_open_driver_by_name() -> None:
    driver = open_driver(RunnerSettings().engine, timeout=5)
    assert isinstance(driver, DockerDriver)
    await driver.close()


def test_settings_unknown_engine_names_the_known_ones() -> None:
    with pytest.raises(ValidationError, match=f"unknown engine 'lxc'; known: {', '.join(ENGINES)}"):
        RunnerSettings(engine="lxc")
