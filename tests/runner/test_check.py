"""Compliance of images: what is judged, and on a real engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mao_runner.check import CheckReport, CheckRequest, stray_paths
from mao_runner.drivers.docker import DockerDriver
from mao_runner.runner import Runner
from tests.runner.harness import Bench
from tests.support.docker import Engine
from tests.support.waiting import eventually


@pytest.mark.parametrize(
    ("changed", "stray"),
    [
        (["/usr", "/usr/src", "/usr/src/app", "/usr/src/app/data"], []),
        (["/tmp", "/tmp/x", "/run", "/run/lock"], []),
        (["/etc", "/etc/hosts"], []),
        (["/root", "/root/.cache", "/root/.cache/x"], ["/root/.cache/x"]),
        (["/usr", "/usr/src", "/usr/src/app", "/usr/src/app/out.csv"], ["/usr/src/app/out.csv"]),
        (["/data"], ["/data"]),
    ],
)
def test_stray_paths(changed: list[str], stray: list[str]) -> None:
    assert stray_paths(changed) == stray


@pytest.fixture
async def runner(tmp_path: Path, engine: Engine) -> AsyncIterator[Runner]:
    driver = DockerDriver()
    bench = Bench(tmp_path, driver)
    async with bench.runner() as runner:
        await eventually(lambda: runner.steps is not None)
        yield runner
    await driver.close()
    await asyncio.to_thread(engine.remove, mao_installation=(tmp_path / "installation").read_text().strip())


async def check(runner: Runner, image: str, script: str, timeout: float = 30) -> CheckReport:
    request = CheckRequest(image=image, command=["sh", "-c", script], timeout=timeout)
    report = await runner.checker.check(request)
    assert not runner.settings.data_dir.joinpath("workspaces").is_dir() or not list(
        runner.settings.data_dir.joinpath("workspaces").iterdir()
    )
    return report


def failed(report: CheckReport) -> list[str]:
    assert all(
        finding.advice for finding in report.findings if not finding.ok and finding.name != "unattended"
    )
    return [finding.name for finding in report.findings if not finding.ok]


@pytest.mark.docker
async def test_a_tool_that_complies(runner: Runner, tool_image: str, engine: Engine) -> None:
    report = await runner.checker.check(CheckRequest(image=tool_image))
    assert report.compliant, report
    assert report.written == ["runs.csv"]
    assert report.exit_code == 0
    assert report.log == "wrote a line\n"
    assert engine.containers(mao_installation=runner.containers.labels["mao.installation"]) == []


@pytest.mark.docker
@pytest.mark.parametrize(
    ("script", "wrong"),
    [
        ("exit 3", ["unattended", "exit-code", "writes-data"]),
        ("true", ["writes-data"]),
        ("cat; echo x > /usr/src/app/data/x; echo y > /tmp/y", []),
        ("echo x > /usr/src/app/data/x; mkdir -p /tmp/a; echo > /x", ["unattended", "exit-code"]),
        ("read x; exit $?", ["unattended", "exit-code", "writes-data"]),
    ],
)
async def test_tools_that_do_not(runner: Runner, tool_image: str, script: str, wrong: list[str]) -> None:
    report = await check(runner, tool_image, script)
    assert failed(report) == wrong
    assert report.compliant == (not wrong)


@pytest.mark.docker
async def test_a_tool_that_does_not_end(runner: Runner, tool_image: str) -> None:
    report = await check(runner, tool_image, "echo up; sleep 600", timeout=0.5)
    assert failed(report) == ["ends", "unattended", "writes-data"]
    assert report.exit_code is None


@pytest.mark.docker
async def test_an_image_that_writes_elsewhere(runner: Runner, engine: Engine) -> None:
    image = engine.build(
        "echo x > /srv/out; echo x > /usr/src/app/data/x", before='RUN ["sh", "-c", "mkdir -m 777 /srv"]'
    )
    report = await runner.checker.check(CheckRequest(image=image))
    assert failed(report) == ["writes-only-data"]
    assert "/srv/out" in report.findings[-1].detail


@pytest.mark.docker
async def test_an_image_that_is_not_there(runner: Runner) -> None:
    report = await check(runner, "mao-test/no-such-image:1", "true")
    assert failed(report) == ["image"]
    assert not report.compliant
