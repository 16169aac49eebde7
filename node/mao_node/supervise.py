"""Keeps processes running: one log with their names, restart with back-off, ordered clean stop.

honcho, the usual library for this, ends all processes when one ends and stops them in no order
(docs/decisions/0005-supervision.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from mao_shared.settings import WRONG_SETTINGS

from .forks import LONGEST_LINE, Forked, Template, can_fork
from .processes import FEDERATION_ETCD, ProcessSpec, dies_with_us

FIRST_PAUSE, LAST_PAUSE = 0.2, 10.0  # seconds before a process that ended is started again
HEALTHY_AFTER = 10.0  # seconds of life after which the pause is the first one again
NOT_STARTED = 255  # stands for the exit code of a process that could not even be started
STORES = ("etcd", FEDERATION_ETCD)
STOP_GRACE = 15.0  # seconds between SIGTERM and SIGKILL


def say(name: str, line: str) -> None:
    """One line of the common log; our services' own lines name them already, after the time."""
    named = line[9 : 9 + len(name)] == name
    print(line if named else f"{name:<9} | {line}", flush=True)


class Supervised:
    """One process that is started again whenever it ends, until `stop`."""

    def __init__(self, spec: ProcessSpec, template: Template | None = None) -> None:
        self.spec = spec
        self._template = template
        self._process: asyncio.subprocess.Process | Forked | None = None
        self._stopping = asyncio.Event()
        self.refused = False

    async def run(self, stop: asyncio.Event) -> None:
        """Returns when the process has ended after `stop()`, or sets `stop` when starting again is no use."""
        pause, first = FIRST_PAUSE, True
        while not self._stopping.is_set():
            began = asyncio.get_running_loop().time()
            code = await self._run_safely()
            if self._stopping.is_set():
                return
            if code == WRONG_SETTINGS and first and self.spec.module is not None:
                say("node", f"{self.spec.name} cannot start as it is set: the node stops")
                self.refused = True
                stop.set()
                return
            if code == 0 and self.spec.config is not None:  # etcd says so that it has been taken off
                say("node", f"{self.spec.name} has ended for good, unless its configuration changes")
                return
            first = False
            lived = asyncio.get_running_loop().time() - began
            pause = FIRST_PAUSE if lived > HEALTHY_AFTER else min(pause * 2, LAST_PAUSE)
            say("node", f"{self.spec.name} ended ({_ending(code)}), starting it again in {pause:.1f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _run_safely(self) -> int:
        """What one process does to its supervision must not stop the node: it counts as one that failed."""
        try:
            return await self._run_once()
        except Exception as error:  # noqa: BLE001 (say that there is no room for another process)
            say("node", f"{self.spec.name} cannot be supervised: {type(error).__name__}: {error}")
            if self._process is not None and self._process.returncode is None:
                self._signal(signal.SIGKILL)
                return await self._process.wait()
            return NOT_STARTED

    async def _run_once(self) -> int:
        self._process = None
        self._process = await self._start()
        if self._stopping.is_set():
            self._signal(signal.SIGTERM)
        await self._pump(self._process)
        return await self._process.wait()

    async def _start(self) -> asyncio.subprocess.Process | Forked:
        for path in self.spec.sockets:  # etcd does not start where a killed one left its socket
            path.unlink(missing_ok=True)
        if self._template is not None and self.spec.module is not None:
            try:
                return await self._template.fork(self.spec)
            except (OSError, TimeoutError) as error:
                say("node", f"{self.spec.name} is started by itself, since forking it failed: {error}")
        return await asyncio.create_subprocess_exec(
            *dies_with_us(),
            *self.spec.argv,
            env=dict(self.spec.env),
            cwd=self.spec.cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches us alone; we stop the others in order
            limit=LONGEST_LINE,
        )

    async def _pump(self, process: asyncio.subprocess.Process | Forked) -> None:
        assert process.stdout is not None  # noqa: S101 (asked for above)
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # longer than LONGEST_LINE: the rest comes as further lines
                continue
            if not line:
                return
            say(self.spec.name, line.decode(errors="replace").rstrip())

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after the grace."""
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_GRACE)
        except TimeoutError:
            say("node", f"{self.spec.name} did not stop in {STOP_GRACE:.0f} s: killed")
            self._signal(signal.SIGKILL)
            await process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


async def supervise(
    specs: Sequence[ProcessSpec], stop: asyncio.Event, told: asyncio.Event | None = None
) -> int:
    """Runs all processes until `stop` is set, then stops them in reverse order; the node's exit code.

    `told`: set when configuration files may have changed.
    """
    template = Template(os.environ) if can_fork() and any(spec.module for spec in specs) else None
    told = told or asyncio.Event()
    processes = [
        Supervised(spec, template) if spec.config is None else Optional(spec, spec.config, told)
        for spec in specs
    ]
    async with asyncio.TaskGroup() as group:
        for process in processes:
            group.create_task(process.run(stop))
        await stop.wait()
        # The gateway first, so that nothing new arrives; then the services together; the store last.
        gateway, stores = processes[-1:], [p for p in processes if p.spec.name in STORES]
        services = [p for p in processes if p not in gateway and p not in stores]
        for rank in (gateway, services, stores):
            await asyncio.gather(*(process.stop() for process in rank))
    if template is not None:
        await template.close()
    return WRONG_SETTINGS if any(process.refused for process in processes) else 0


class Optional:
    """A process that runs only while its configuration file exists, and anew when that has changed.

    `told` is set by a signal: the file is looked at then, and at the start.
    """

    refused = False

    def __init__(self, spec: ProcessSpec, config: Path, told: asyncio.Event) -> None:
        self.spec = spec
        self._config = config
        self._told = told
        self._stopping = False
        self._process: Supervised | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """As `Supervised.run`."""
        while not self._stopping:
            if (text := self._read()) is None:
                await self._wait()
            else:
                await self._run_with(text, stop)

    async def _run_with(self, text: str, stop: asyncio.Event) -> None:
        self._process = Supervised(self.spec)
        running = asyncio.create_task(self._process.run(stop))
        say("node", f"{self.spec.name} starts")
        while not self._stopping and self._read() == text:
            await self._wait()
        if not self._stopping:
            say("node", f"{self.spec.name} stops: its configuration has changed")
            await self._process.stop()
        await running

    def _read(self) -> str | None:
        try:
            return self._config.read_text()
        except OSError:
            return None

    async def _wait(self) -> None:
        await self._told.wait()
        self._told.clear()

    async def stop(self) -> None:
        self._stopping = True
        self._told.set()
        if self._process is not None:
            await self._process.stop()


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
