"""Compliance checks of images: the findings, and trials on a real engine."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mao_runner.compliance.report import stray_paths, tried_paths
from mao_runner.drivers.docker import DockerDriver
from mao_runner.drivers.protocol import Container
from mao_runner.runner import Runner
from mao_shared import keys
from mao_shared.models import Enrolment, ResolvedImage
from mao_shared.models.tool import CheckReport, CheckRequest
from mao_shared.store import dump
from tests.support.docker import Engine
from tests.support.waiting import eventually

from .harness import Bench, step_spec

NO_SUCCESS = ("unattended", "exit-code")


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


def test_tried_paths_exclude_first_trial() -> None:
    changed = ["/opt", "/opt/cache", "/opt/cache/x", "/opt/m.pyc", "/opt/__pycache__", "/srv", "/tmp/y"]
    assert tried_paths(changed, ["/srv"]) == ["/opt/cache/x"]


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
async def test_check_compliant_tool(runner: Runner, tool_image: str, engine: Engine) -> None:
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
        ("echo x > /usr/src/app/data/x; mkdir -p /tmp/a; echo > /x", [*NO_SUCCESS, "tried-elsewhere"]),
        ("read x; exit $?", ["unattended", "exit-code", "writes-data"]),
    ],
)
async def test_check_tools_that_do_not_comply(
    runner: Runner, tool_image: str, script: str, wrong: list[str]
) -> None:
    report = await check(runner, tool_image, script)
    assert failed(report) == wrong
    assert report.compliant == (not wrong)


@pytest.mark.docker
async def test_check_tool_that_does_not_end(runner: Runner, tool_image: str) -> None:
    report = await check(runner, tool_image, "echo up; sleep 600", timeout=0.5)
    assert failed(report) == ["ends", "unattended", "writes-data"]
    assert report.exit_code is None


@pytest.mark.docker
async def test_check_image_that_writes_elsewhere(runner: Runner, engine: Engine) -> None:
    image = engine.build(
        "echo x > /srv/out; echo x > /usr/src/app/data/x", before='RUN ["sh", "-c", "mkdir -m 777 /srv"]'
    )
    report = await runner.checker.check(CheckRequest(image=image))
    assert failed(report) == ["writes-only-data"]
    assert "/srv/out" in report.findings[-1].detail


@pytest.mark.docker
async def test_check_image_not_found(runner: Runner) -> None:
    report = await check(runner, "mao-test/no-such-image:1", "true")
    assert failed(report) == ["image"]
    assert not report.compliant


OK = "echo x > /usr/src/app/data/x; "


@pytest.mark.docker
@pytest.mark.parametrize(
    ("script", "tried"),
    [
        (OK + "(mkdir .cache && echo > .cache/a) 2>/dev/null; exit 0", "/usr/src/app/.cache/a"),
        (OK + "cd /opt; (echo > /opt/lock) 2>/dev/null; exit 0", "/opt/lock"),
        (OK + "(echo >> /tool.sh) 2>/dev/null; exit 0", "/tool.sh"),
        (OK + "(rm /tool.sh) 2>/dev/null; exit 0", "/tool.sh"),
        (OK + "echo > /usr/src/app/data/y; echo > /tmp/z", None),
    ],
)
async def test_check_reports_attempted_writes_elsewhere(
    runner: Runner, engine: Engine, script: str, tried: str | None
) -> None:
    image = engine.build("true", before="WORKDIR /opt\nWORKDIR /usr/src/app")
    report = await check(runner, image, script)
    assert report.compliant, report
    assert report.tried == ([tried] if tried else [])
    found = [finding for finding in report.findings if finding.name == "tried-elsewhere"]
    assert [tried in finding.detail and bool(finding.advice) for finding in found if tried] == [True] * len(
        found
    )
    assert len(found) == len(report.tried)


@pytest.mark.docker
async def test_check_names_path_that_made_tool_fail(runner: Runner, engine: Engine) -> None:
    image = engine.build("true", before="WORKDIR /usr/src/app")
    report = await check(runner, image, "set -e; mkdir results; echo > results/out.csv")
    assert failed(report) == ["unattended", "exit-code", "writes-data", "tried-elsewhere"]
    assert report.tried == ["/usr/src/app/results/out.csv"]
    again = await runner.checker.check(
        CheckRequest(image=image, command=["sh", "-c", "mkdir results || true"], once=True)
    )
    assert again.tried == []


@pytest.mark.docker
@pytest.mark.parametrize(
    ("as_root", "told"),
    [("exit 3", "as root, exited with 3"), ("sleep 600", "as root, had to be stopped"), ("exit 0", None)],
)
async def test_check_reports_inconclusive_second_trial(
    runner: Runner, tool_image: str, as_root: str, told: str | None
) -> None:
    """As with programs that refuse to run as root."""
    script = f'[ "$(id -u)" != 0 ] || {as_root}; ' + OK + "(echo > /lock) 2>/dev/null; exit 0"
    report = await check(runner, tool_image, script, timeout=4)
    assert report.compliant, report
    found = [finding.detail for finding in report.findings if finding.name == "tried-elsewhere"]
    assert [detail.partition("trial, ")[2] for detail in found] == ([told] if told else [])


@pytest.mark.docker
async def test_check_two_trials_share_one_timeout(
    runner: Runner, tool_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second trial has the time that the first has left, and shows what it can within it."""
    given: list[float] = []
    wait = runner.checker._wait

    async def waits(made: Container, seconds: float) -> Container:
        given.append(seconds)
        return await wait(made, seconds if len(given) == 1 else 1.0)

    monkeypatch.setattr(runner.checker, "_wait", waits)
    script = OK + '(echo > /lock) 2>/dev/null; [ "$(id -u)" != 0 ] || sleep 600'
    report = await check(runner, tool_image, script, timeout=30)
    assert report.compliant, report
    assert given[0] == 30
    assert 1 <= given[1] < 30
    assert report.tried == ["/lock"]


@pytest.mark.parametrize("asked", [{"docker_socket": True}, {"user": "root", "docker_socket": True}])
def test_check_refuses_docker_socket(asked: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="engine's socket"):
        CheckRequest.model_validate({"image": "x:1", "privileges": asked})


@pytest.mark.docker
async def test_check_uses_user_network_and_environment(runner: Runner, tool_image: str) -> None:
    script = "cd /usr/src/app/data; id -u > user; ls /sys/class/net > net; "
    script += 'echo "$WORD $MAO_SCHEDULED_FOR" > said; cat *'
    request = CheckRequest.model_validate(
        {
            "image": tool_image,
            "command": ["sh", "-c", script],
            "env": {"WORD": "hello"},
            "network": "none",
            "privileges": {"user": "12345"},
        }
    )
    report = await runner.checker.check(request)
    assert report.compliant, report
    assert report.log.splitlines()[0] == "lo"
    assert re.fullmatch(r"hello 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", report.log.splitlines()[1])
    assert report.log.splitlines()[2] == "12345"


@pytest.mark.docker
@pytest.mark.parametrize(
    ("before", "hint"),
    [
        ("WORKDIR /usr/src/app/data/work", "WORKDIR is /usr/src/app/data/work"),
        ("WORKDIR /usr/src/app/data", "WORKDIR is /usr/src/app/data"),
        ("WORKDIR /usr/src/app/input", "WORKDIR is /usr/src/app/input"),
        ("VOLUME /var/cache/tool", "VOLUME /var/cache/tool"),
        ('ENTRYPOINT ["sh", "/usr/src/app/data/main.sh"]', "command is /usr/src/app/data/main.sh"),
        ("WORKDIR /usr/src/app/database", None),
    ],
)
async def test_check_reports_paths_hidden_by_mounts(
    runner: Runner, engine: Engine, before: str, hint: str | None
) -> None:
    report = await runner.checker.check(CheckRequest(image=engine.build(OK, before=before)))
    found = [finding for finding in report.findings if finding.name == "image-layout"]
    assert [hint in finding.detail and finding.ok for finding in found if hint] == ([True] if hint else [])
    assert len(found) == (1 if hint else 0)


@pytest.mark.docker
async def test_check_names_pipelines_with_other_pinned_image(runner: Runner, engine: Engine) -> None:
    image = engine.build(OK)
    older = ResolvedImage(name=image, pinned=f"sha256:{'1' * 64}", platform="linux/amd64")
    enrolment = Enrolment(
        pipeline="daily",
        node=runner.settings.node,
        steps=[step_spec(image=older)],
        pipeline_revision=1,
        enrolled_at=datetime.now(UTC),
    )
    await runner.mirror.records.store.create(keys.enrolment(runner.settings.node, "daily"), dump(enrolment))
    report = await runner.checker.check(CheckRequest(image=image, once=True))
    assert report.compliant
    found = next(finding for finding in report.findings if finding.name == "same-image")
    assert "daily" in found.detail
    assert found.advice is not None
    assert "maoctl pipeline enrol daily" in found.advice
