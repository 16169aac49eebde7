"""Pumps: what a container writes goes to its log file while it runs, by a thread a container.

The engine keeps a container's output from its beginning on in a fixed order. A pump that continues a
file therefore passes over as many bytes as the file has, and no line is doubled or lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mao_shared.logs import get_logger
from mao_shared.workspace import DataDir

from .drivers import Driver, LogStream
from .labels import Attempt

log = get_logger(__name__)

DRAIN_LIMIT = 30.0  # seconds that the engine may take to give the rest of an ended container's output
STOP_LIMIT = 2.0  # seconds that a pump may take to end when the service stops
TAIL_BYTES = 8192
_CUT = b"\n[mao] the log is cut here: it has reached the limit of %d bytes (MAO_LOG_MAX)\n"


class Pump(threading.Thread):
    """Writes one container's output to `path`, at most `cap` bytes of it.

    `ended` is set on the loop when nothing more will be written, `stored` when that is on the disk.
    """

    def __init__(
        self, path: Path, open_stream: Callable[[], LogStream], cap: int, grew: Callable[[], None]
    ) -> None:
        super().__init__(name=f"log-{path.parent.name}", daemon=True)
        self.path = path
        self.ended = asyncio.Event()
        self.stored = asyncio.Event()
        self._open_stream = open_stream
        self._cap = cap
        self._grew = grew
        self._loop = asyncio.get_running_loop()
        self._stream: LogStream | None = None
        self._told = threading.Event()
        self._stopping = False

    def run(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                self._copy(file)
                self._on_loop(self.ended.set)
                os.fdatasync(file.fileno())
        except Exception as error:  # noqa: BLE001 (a log that cannot be kept must not stop the run)
            log.error("log.broken", path=str(self.path), error=str(error))
        finally:
            self._on_loop(self.ended.set)
            self._on_loop(self.stored.set)

    def stop(self) -> None:
        """Ends the thread soon; the rest of the output is taken by the next pump of this container."""
        self._stopping = True
        if self._stream is not None:
            with contextlib.suppress(Exception):
                self._stream.close()

    def _copy(self, file: BinaryIO) -> None:
        written = file.tell()
        if written > self._cap:
            return  # cut already
        skip = written
        self._stream = self._open_stream()
        if self._stopping:
            self._stream.close()
        for piece in self._stream:
            if self._stopping:
                return
            fresh, skip = piece[skip:], max(0, skip - len(piece))
            if written + len(fresh) > self._cap:
                file.write(fresh[: self._cap - written] + _CUT % self._cap)
                self._tell()
                self.stop()
                return
            if fresh:
                file.write(fresh)
                written += len(fresh)
                self._tell()

    def _tell(self) -> None:
        """At most one call is on its way to the loop, however fast the tool writes."""
        if not self._told.is_set():
            self._told.set()
            self._on_loop(self._tell_on_loop)

    def _tell_on_loop(self) -> None:
        self._told.clear()
        self._grew()

    def _on_loop(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call)


class Logs:
    """The pumps of all containers that run, and the files they write.

    Args:
        cap: bytes that one log may have.
        grew: called on the loop with the run whose log grew.
    """

    def __init__(self, driver: Driver, data_dir: DataDir, cap: int, grew: Callable[[str], None]) -> None:
        self._driver = driver
        self._data_dir = data_dir
        self._cap = cap
        self._grew = grew
        self._pumps: dict[Attempt, Pump] = {}

    def path(self, key: Attempt) -> Path:
        return self._data_dir.log(key.run, key.step, key.attempt)

    def ensure(self, key: Attempt, container_id: str) -> Pump:
        """The container's pump, started if there is none that still works."""
        pump = self._pumps.get(key)
        if pump is None or pump.ended.is_set():
            pump = self._pumps[key] = self._pump(self.path(key), container_id, lambda: self._grew(key.run))
        return pump

    async def finish(self, key: Attempt, container_id: str) -> Pump:
        """Returns when all output of an ended container is in its file.

        A pump that ended before the container did may have lost its connection: another one goes over it.
        """
        pump = self.ensure(key, container_id)
        try:
            async with asyncio.timeout(DRAIN_LIMIT):
                await pump.ended.wait()
        except TimeoutError:
            log.error("log.drain_timed_out", run=key.run, step=key.step, seconds=DRAIN_LIMIT)
            pump.stop()
        return pump

    async def copy_once(self, container_id: str, path: Path) -> None:
        """The whole output of an ended container into a file that is no step's log."""
        pump = self._pump(path, container_id, lambda: None)
        try:
            async with asyncio.timeout(DRAIN_LIMIT):
                await pump.ended.wait()
        except TimeoutError:
            pump.stop()

    async def stored(self, key: Attempt) -> None:
        """Returns when what was written of this container is on the disk, and gives its pump up."""
        pump = self._pumps.get(key)
        if pump is not None:
            pump.stop()
            await pump.stored.wait()
            self._pumps.pop(key, None)

    async def close(self) -> None:
        """Stops all pumps; the containers go on, and their output is kept by the engine."""
        pumps = list(self._pumps.values())
        self._pumps.clear()
        for pump in pumps:
            pump.stop()
        for pump in pumps:
            await asyncio.to_thread(pump.join, STOP_LIMIT)

    def _pump(self, path: Path, container_id: str, grew: Callable[[], None]) -> Pump:
        def open_stream() -> LogStream:
            return self._driver.logs(container_id)

        pump = Pump(path, open_stream, self._cap, grew)
        pump.start()
        return pump


@dataclass(frozen=True, slots=True)
class LogEnd:
    """A whole log in short: its last bytes as text, its size in bytes, its SHA-256."""

    tail: str = ""
    size: int = 0
    sha256: str | None = None


def read_end(path: Path, most: int = TAIL_BYTES) -> LogEnd:
    """Reads a log that is complete; an empty answer when it cannot be read."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            file.seek(max(0, size - most))
            return LogEnd(file.read().decode(errors="replace"), size, digest)
    except OSError:
        return LogEnd()
