"""The supervisor restarts its processes and stops them cleanly."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mao_node import supervise as supervision
from mao_node.processes import ProcessSpec
from mao_node.supervise import supervise
from mao_shared.settings import WRONG_SETTINGS

STOPS = ("node", "federation-etcd stops: its configuration has changed")
TELLS_AND_WAITS = "import os, signal, sys; print('pid', os.getpid(), flush=True); signal.pause()"


def python(name: str, code: str) -> ProcessSpec:
    return ProcessSpec(name, [sys.executable, "-c", code], [], dict(os.environ))


class Lines:
    """The common log, whose lines tests can wait for."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self._new = asyncio.Event()

    def __call__(self, name: str, line: str) -> None:
        self.seen.append((name, line))
        self._new.set()

    async def until(self, wanted: Callable[[list[tuple[str, str]]], bool]) -> None:
        async with asyncio.timeout(60):
            while not wanted(self.seen):
                self._new.clear()
                await self._new.wait()

    def pids(self, name: str) -> list[int]:
        return [int(line.split()[1]) for who, line in self.seen if who == name and line.startswith("pid ")]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    log = Lines()
    monkeypatch.setattr(supervision, "log_line", log)
    return log


NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"event": "x", "service": "runner"}', {"event": "x", "service": "runner"}),
        ('{"level": "error", "msg": "é"}', {"service": "etcd", "level": "error", "msg": "é"}),
        ("plain é", {"event": "plain é", "service": "etcd"}),
        ("", {"event": "", "service": "etcd"}),
        ("12", {"event": "12", "service": "etcd"}),
        ('["x"]', {"event": '["x"]', "service": "etcd"}),
        ("{", {"event": "{", "service": "etcd"}),
        ("[" * 60_000, {"event": "[" * 60_000, "service": "etcd"}),
    ],
)
def test_supervise_json_line_is_an_object_with_its_process(line: str, expected: dict[str, str]) -> None:
    made = supervision.json_line("etcd", line, NOW)
    assert "\n" not in made
    found = json.loads(made)
    assert expected.items() <= found.items()
    assert set(found) - set(expected) <= {"level", "timestamp"}


async def test_supervise_unstartable_process_stops_no_other(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the start raises, it is retried, and the others are not affected."""
    plain = supervision.SupervisedProcess._start
    tries = 0

    async def stumbles(self: supervision.SupervisedProcess) -> object:
        nonlocal tries
        if self.spec.name == "bad":
            tries += 1
            if tries < 3:
                raise OSError(11, "no more processes") if tries == 1 else MemoryError
        return await plain(self)

    monkeypatch.setattr(supervision.SupervisedProcess, "_start", stumbles)
    monkeypatch.setattr(supervision, "MIN_PAUSE", 0.05)
    stop = asyncio.Event()
    specs = [
        python("bad", TELLS_AND_WAITS),
        python("good", TELLS_AND_WAITS),
        python("gateway", TELLS_AND_WAITS),
    ]
    node = asyncio.create_task(supervise(specs, stop))
    await lines.until(lambda _: all(map(lines.pids, ("bad", "good", "gateway"))))
    assert [len(lines.pids(service)) for service in ("bad", "good", "gateway")] == [1, 1, 1]
    stop.set()
    assert await node == 0


async def test_supervise_wrong_settings_stop_the_node(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "can_fork", lambda: False)
    refuses = ProcessSpec("runner", [sys.executable, "-c", "exit(2)"], [], dict(os.environ), module="x")
    specs = [python("etcd", TELLS_AND_WAITS), refuses]
    async with asyncio.timeout(30):
        code = await supervise(specs, asyncio.Event())
    assert code == WRONG_SETTINGS
    assert ("node", "runner cannot start with these settings: the node stops") in lines.seen


async def test_supervise_restarts_a_killed_process_alone(lines: Lines) -> None:
    stop = asyncio.Event()
    specs = [python("etcd", TELLS_AND_WAITS), python("gateway", TELLS_AND_WAITS)]
    running = asyncio.create_task(supervise(specs, stop))
    await lines.until(lambda _: bool(lines.pids("etcd") and lines.pids("gateway")))

    os.kill(lines.pids("etcd")[0], 9)
    await lines.until(lambda _: len(lines.pids("etcd")) == 2)

    assert len(lines.pids("gateway")) == 1
    assert any("etcd ended (SIGKILL)" in line for _, line in lines.seen)
    stop.set()
    await asyncio.wait_for(running, 60)
    for pid in lines.pids("etcd") + lines.pids("gateway"):
        assert not Path(f"/proc/{pid}").exists()


async def test_supervise_stops_gateway_first_and_store_last(lines: Lines) -> None:
    says_bye = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), sys.exit(0)))\n"
        "print('up', flush=True)\nwhile True: signal.pause()"
    )
    names = ["etcd", "registry", "runner", "gateway"]
    stop = asyncio.Event()
    running = asyncio.create_task(supervise([python(name, says_bye) for name in names], stop))
    await lines.until(lambda seen: {who for who, line in seen if line == "up"} == set(names))

    stop.set()
    await asyncio.wait_for(running, 60)

    byes = [who for who, line in lines.seen if line == "bye"]
    assert byes[0] == "gateway"
    assert byes[-1] == "etcd"
    assert sorted(byes) == sorted(names)


async def test_supervise_kills_what_ignores_sigterm(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "STOP_GRACE", 0.2)
    stubborn = (
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('up', flush=True)\nwhile True: signal.pause()"
    )
    stop = asyncio.Event()
    running = asyncio.create_task(supervise([python("gateway", stubborn)], stop))
    await lines.until(lambda seen: ("gateway", "up") in seen)

    stop.set()
    await asyncio.wait_for(running, 60)

    assert any("killed" in line for _, line in lines.seen)


async def test_configured_process_follows_its_file(lines: Lines, tmp_path: Path) -> None:
    config = tmp_path / "etcd.yaml"
    stop, reload = asyncio.Event(), asyncio.Event()
    optional = replace(python("federation-etcd", TELLS_AND_WAITS), config=config)
    running = asyncio.create_task(supervise([optional, python("gateway", TELLS_AND_WAITS)], stop, reload))
    await lines.until(lambda _: bool(lines.pids("gateway")))
    assert not lines.pids("federation-etcd")

    config.write_text("one")
    reload.set()
    await lines.until(lambda _: len(lines.pids("federation-etcd")) == 1)
    reload.set()  # nothing has changed
    config.write_text("two")
    reload.set()
    await lines.until(lambda _: len(lines.pids("federation-etcd")) == 2)
    assert not Path(f"/proc/{lines.pids('federation-etcd')[0]}").exists()
    config.unlink()
    reload.set()
    await lines.until(lambda seen: seen.count(STOPS) == 2)
    assert len(lines.pids("gateway")) == 1

    config.write_text("three")
    reload.set()
    await lines.until(lambda _: len(lines.pids("federation-etcd")) == 3)
    stop.set()
    await asyncio.wait_for(running, 60)
    assert not Path(f"/proc/{lines.pids('federation-etcd')[2]}").exists()


async def test_configured_process_that_exits_0_stays_ended(lines: Lines, tmp_path: Path) -> None:
    config = tmp_path / "etcd.yaml"
    config.write_text("one")
    stop, reload = asyncio.Event(), asyncio.Event()
    optional = replace(python("federation-etcd", "print('once', flush=True)"), config=config)
    running = asyncio.create_task(supervise([optional, python("gateway", TELLS_AND_WAITS)], stop, reload))
    await lines.until(lambda seen: any("stopped permanently" in line for _, line in seen))
    config.write_text("two")
    reload.set()
    await lines.until(lambda seen: seen.count(("federation-etcd", "once")) == 2)
    stop.set()
    await asyncio.wait_for(running, 60)
