"""Supervises the processes of a node: a common log, restart with back-off, stop in order.

honcho, the usual library for this, ends all processes when one ends, and stops them in no particular order
(docs/decisions/0005-supervision.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from mao_shared.settings import WRONG_SETTINGS, LogFormat

from .fork_server import MAX_LINE, ForkedProcess, ForkServer, can_fork
from .processes import FEDERATION_ETCD, ProcessSpec, end_with_parent

MIN_PAUSE, MAX_PAUSE = 0.2, 10.0  # seconds before a process is restarted
HEALTHY_AFTER = 10.0  # seconds of uptime after which the pause is MIN_PAUSE again
NOT_STARTED = 255  # instead of an exit code if the process could not be started
STORES = ("etcd", FEDERATION_ETCD)
STOP_GRACE = 15.0  # seconds between SIGTERM and SIGKILL


_format: LogFormat = "text"


def use_log_format(chosen: LogFormat) -> None:
    """Set the form of the common log."""
    global _format
    _format = chosen


def log_line(name: str, line: str) -> None:
    """Print a line of the common log, in the form that `use_log_format` set."""
    if _format == "json":
        line = json_line(name, line, datetime.now(UTC))
    elif line[9 : 9 + len(name)] != name:  # services write their name after the time
        line = f"{name:<9} | {line}"
    print(line, flush=True)


def json_line(name: str, line: str, now: datetime) -> str:
    """Return a process's line as a JSON object that names it as `service`. Pure.

    Objects, such as the services' and etcd's own, keep their members; other text becomes an `event`.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        return line if "service" in found else json.dumps({"service": name, **found}, ensure_ascii=False)
    time = now.isoformat().replace("+00:00", "Z")
    plain = {"event": line, "service": name, "level": "info", "timestamp": time}
    return json.dumps(plain, ensure_ascii=False)


class SupervisedProcess:
    """A process that is restarted whenever it ends, until `stop` is called."""

    def __init__(self, spec: ProcessSpec, fork_server: ForkServer | None = None) -> None:
        self.spec = spec
        self._fork_server = fork_server
        self._process: asyncio.subprocess.Process | ForkedProcess | None = None
        self._stopping = asyncio.Event()
        self.refused = False

    async def run(self, stop: asyncio.Event) -> None:
        """Run until the process has ended after `stop()`; set `stop` if its settings are invalid."""
        pause, first = MIN_PAUSE, True
        while not self._stopping.is_set():
            started_at = asyncio.get_running_loop().time()
            code = await self._run_once()
            if self._stopping.is_set():
                return
            if code == WRONG_SETTINGS and first and self.spec.module is not None:
                log_line("node", f"{self.spec.name} cannot start with these settings: the node stops")
                self.refused = True
                stop.set()
                return
            if code == 0 and self.spec.config is not None:  # etcd does so when its member was removed
                log_line(
                    "node", f"{self.spec.name} has stopped permanently, unless its configuration changes"
                )
                return
            first = False
            uptime = asyncio.get_running_loop().time() - started_at
            pause = MIN_PAUSE if uptime > HEALTHY_AFTER else min(pause * 2, MAX_PAUSE)
            ending = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
            log_line("node", f"{self.spec.name} ended ({ending}), restarting it in {pause:.1f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _run_once(self) -> int:
        """Run the process once; return its exit code, or NOT_STARTED if it cannot be supervised."""
        self._process = None
        try:
            self._process = await self._start()
            if self._stopping.is_set():
                self._signal(signal.SIGTERM)
            await self._copy_output(self._process)
            return await self._process.wait()
        except Exception as error:  # noqa: BLE001 (for example out of memory)
            log_line("node", f"{self.spec.name} cannot be supervised: {type(error).__name__}: {error}")
            if self._process is not None and self._process.returncode is None:
                self._signal(signal.SIGKILL)
                return await self._process.wait()
            return NOT_STARTED

    async def _start(self) -> asyncio.subprocess.Process | ForkedProcess:
        for path in self.spec.sockets:  # etcd does not start if its socket exists
            path.unlink(missing_ok=True)
        if self._fork_server is not None and self.spec.module is not None:
            try:
                return await self._fork_server.fork(self.spec)
            except (OSError, TimeoutError) as error:
                log_line("node", f"{self.spec.name} is started without forking, which failed: {error}")
        return await asyncio.create_subprocess_exec(
            *end_with_parent(),
            *self.spec.argv,
            env=dict(self.spec.env),
            cwd=self.spec.cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C signals only this process, which stops the others in order
            limit=MAX_LINE,
        )

    async def _copy_output(self, process: asyncio.subprocess.Process | ForkedProcess) -> None:
        assert process.stdout is not None  # noqa: S101 (always a pipe here)
        while not process.stdout.at_eof():
            with contextlib.suppress(ValueError):  # longer than MAX_LINE: the rest follows as further lines
                if line := await process.stdout.readline():
                    log_line(self.spec.name, line.decode(errors="replace").rstrip())

    async def stop(self) -> None:
        """Send SIGTERM, then SIGKILL after STOP_GRACE."""
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_GRACE)
        except TimeoutError:
            log_line("node", f"{self.spec.name} did not stop within {STOP_GRACE:.0f} s and was killed")
            self._signal(signal.SIGKILL)
            await process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


async def supervise(
    specs: Sequence[ProcessSpec], stop: asyncio.Event, reload: asyncio.Event | None = None
) -> int:
    """Run all processes until `stop` is set, then stop them in order; return the node's exit code.

    `reload`: set when configuration files may have changed.
    """
    fork_server = ForkServer(os.environ) if can_fork() and any(spec.module for spec in specs) else None
    reload = reload or asyncio.Event()
    processes = [
        SupervisedProcess(spec, fork_server)
        if spec.config is None
        else ConfiguredProcess(spec, spec.config, reload)
        for spec in specs
    ]
    async with asyncio.TaskGroup() as group:
        for process in processes:
            group.create_task(process.run(stop))
        await stop.wait()
        # The gateway first, so that no requests arrive; then the services together; the stores last.
        gateway, stores = processes[-1:], [p for p in processes if p.spec.name in STORES]
        services = [p for p in processes if p not in gateway and p not in stores]
        for stage in (gateway, services, stores):
            await asyncio.gather(*(process.stop() for process in stage))
    if fork_server is not None:
        await fork_server.close()
    return WRONG_SETTINGS if any(process.refused for process in processes) else 0


class ConfiguredProcess:
    """A process that runs only while its configuration file exists, and is restarted when the file changes.

    The file is read at the start and whenever `reload` is set (by a signal).
    """

    refused = False

    def __init__(self, spec: ProcessSpec, config: Path, reload: asyncio.Event) -> None:
        self.spec = spec
        self._config = config
        self._reload = reload
        self._stopping = False
        self._process: SupervisedProcess | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Run until stopped, see `SupervisedProcess.run`."""
        while not self._stopping:
            if (text := self._read()) is None:
                await self._wait_for_reload()
                continue
            self._process = SupervisedProcess(self.spec)
            running = asyncio.create_task(self._process.run(stop))
            log_line("node", f"{self.spec.name} starts")
            while not self._stopping and self._read() == text:
                await self._wait_for_reload()
            if not self._stopping:
                log_line("node", f"{self.spec.name} stops: its configuration has changed")
                await self._process.stop()
            await running

    def _read(self) -> str | None:
        try:
            return self._config.read_text()
        except OSError:
            return None

    async def _wait_for_reload(self) -> None:
        await self._reload.wait()
        self._reload.clear()

    async def stop(self) -> None:
        self._stopping = True
        self._reload.set()
        if self._process is not None:
            await self._process.stop()
