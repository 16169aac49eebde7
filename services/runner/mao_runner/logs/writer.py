"""Copies the output of containers into log files, and verifies each file once its container ended.

The engine keeps a container's output from its beginning in a fixed order. A copier that continues a file
skips as many bytes as the file has, so no line is doubled or lost.

When a container has ended, its output is read from the engine once more, from beginning to end, and the
file on the disk has to be identical, up to the size limit. Size and digest are evidence, so they are
reported only then. Any other outcome (the disk, the folder, a file changed by others, the engine) raises
`LogUnavailable`, and the container stays, since it still has the output.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mao_runner.drivers.protocol import Driver, LogStream
from mao_runner.labels import StepAttempt
from mao_shared.errors import MaoError, Unavailable
from mao_shared.host.data_dir import DataDir
from mao_shared.logs import get_logger

log = get_logger(__name__)

DRAIN_TIMEOUT = 30.0  # seconds in which the engine gives nothing more of an ended container's output
STOP_TIMEOUT = 2.0  # seconds that a pump may take to end when the service stops
TAIL_BYTES = 8192
_CUT = b"\n[mao] the log is cut here: it has reached the limit of %d bytes (MAO_LOG_MAX)\n"


class LogUnavailable(Unavailable):
    """The whole output of a container is not on the disk, or cannot be told to be."""

    default_code = "log-not-stored"


class LogDiffers(LogUnavailable):
    """The file is not what the engine has: somebody wrote into it, or cut or replaced it; or the engine has
    dropped the beginning of a long output."""


@dataclass(frozen=True, slots=True)
class StoredLog:
    """A whole log in short: its last bytes as text, its size in bytes, its SHA-256."""

    tail: str
    size: int
    sha256: str


class LogCopier(threading.Thread):
    """Writes one container's output to `path`, at most `cap` bytes of it and a line that says so.

    `ended` is set on the loop when nothing more will be written. From then on `error` says what went wrong,
    and `end` is there where the output's own end was reached and all of it was found to be on the disk.
    """

    def __init__(
        self, path: Path, open_stream: Callable[[], LogStream], cap: int, grew: Callable[[], None]
    ) -> None:
        super().__init__(name=f"log-{path.parent.name}", daemon=True)
        self.path = path
        self.ended = asyncio.Event()
        self.end: StoredLog | None = None
        self.sha256: str | None = None  # of the whole output, as this pump has seen it
        self.error: Exception | None = None
        self.passed = 0  # bytes of output
        self.cut = False
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
                self.sha256 = self._copy(file)
                self._sync(file)
            if self.sha256 is not None:
                self.end = self.look_again()
        except Exception as error:  # noqa: BLE001 (told to whoever waits for the end)
            self.error = error
            if not self._stopping:
                log.warning("log.broken", path=str(self.path), error=str(error))
        finally:
            self._on_loop(self.ended.set)

    def stop(self) -> None:
        """Ends the thread soon; the rest of the output is taken by the next pump of this container."""
        self._stopping = True
        if self._stream is not None:
            with contextlib.suppress(Exception):
                self._stream.close()

    def _copy(self, file: BinaryIO) -> str | None:
        """The digest of the whole output; None when this was stopped before its end."""
        skip = file.tell()
        digest = hashlib.sha256()
        self._stream = self._open_stream()
        if self._stopping:
            self._stream.close()
        for piece in self._capped(self._stream):
            if self._stopping:
                return None
            digest.update(piece)
            self.passed += len(piece)
            fresh, skip = piece[skip:], max(0, skip - len(piece))
            if fresh:
                _write_all(file, fresh)
                self._tell()
        return None if self._stopping else digest.hexdigest()

    def _sync(self, file: BinaryIO) -> None:
        """After a failure the kernel may call the same pages written: they are not, so the file goes."""
        try:
            os.fdatasync(file.fileno())
        except OSError:
            self.path.unlink(missing_ok=True)
            raise

    def _capped(self, stream: LogStream) -> Iterator[bytes]:
        left = self._cap
        for piece in stream:
            if len(piece) > left:
                self.cut = True
                yield piece[:left] + _CUT % self._cap
                stream.close()
                return
            left -= len(piece)
            yield piece

    def look_again(self) -> StoredLog:
        """What is under the log's name now, read once more. Blocks; raises LogDiffers or OSError."""
        end = read_stored_log(self.path)
        if (end.size, end.sha256) != (self.passed, self.sha256):
            raise LogDiffers(
                f"The log {self.path} has {end.size} bytes, not the {self.passed} that the engine has."
            )
        return end

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


def _write_all(file: BinaryIO, data: bytes) -> None:
    """A disk that is nearly full takes a part of it first, and refuses at the next call."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def read_stored_log(path: Path, most: int = TAIL_BYTES) -> StoredLog:
    """Reads a log that is complete. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
        file.seek(max(0, size - most))
        return StoredLog(file.read().decode(errors="replace"), size, digest)


class LogWriter:
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
        self._pumps: dict[StepAttempt, LogCopier] = {}

    def path(self, key: StepAttempt) -> Path:
        return self._data_dir.log(key.run, key.step, key.attempt)

    def ensure(self, key: StepAttempt, container_id: str) -> None:
        """Lets a pump follow the container, started if there is none that still works."""
        pump = self._pumps.get(key)
        if pump is None or (pump.ended.is_set() and not pump.cut):
            self._pumps[key] = self._pump(self.path(key), container_id, lambda: self._grew(key.run))

    def forget(self, key: StepAttempt) -> None:
        """Gives up following a container that is no longer a step's."""
        pump = self._pumps.pop(key, None)
        if pump is not None:
            pump.stop()

    async def finish(self, key: StepAttempt, container_id: str) -> StoredLog:
        """The end of an ended container's log, once all of it is on the disk.

        Raises LogUnavailable when it is not; it may be tried again for as long as the container is there.
        """
        following = self._pumps.pop(key, None)
        if following is not None:
            await self._until_ended(following)
        return await self._store(self.path(key), container_id, lambda: self._grew(key.run), following)

    async def copy_once(self, container_id: str, path: Path) -> StoredLog:
        """The whole output of an ended container in a file that is no step's log. Raises LogUnavailable."""
        return await self._store(path, container_id, lambda: None, None)

    async def close(self) -> None:
        """Stops all pumps; the containers go on, and their output is kept by the engine."""
        pumps = list(self._pumps.values())
        self._pumps.clear()
        for pump in pumps:
            pump.stop()
        for pump in pumps:
            await asyncio.to_thread(pump.join, STOP_TIMEOUT)

    async def _store(
        self, path: Path, container_id: str, grew: Callable[[], None], following: LogCopier | None
    ) -> StoredLog:
        """`following`: the pump that has followed the container until it ended."""
        last = self._pump(path, container_id, grew)
        try:
            return await self._all_of(last)
        except LogDiffers as error:
            if following is not None and following.end is not None and following.passed >= last.passed:
                # It has seen more than the engine has still, or something else: the beginning was dropped.
                with contextlib.suppress(OSError, LogDiffers):
                    return await asyncio.to_thread(following.look_again)
            log.warning("log.written_anew", path=str(path), error=error.detail)
        with contextlib.suppress(OSError):  # what keeps it from being put aside is told by what follows
            await asyncio.to_thread(path.replace, path.with_suffix(".log.aside"))
        return await self._all_of(self._pump(path, container_id, grew))

    async def _all_of(self, pump: LogCopier) -> StoredLog:
        """The end of the log that a pump of an ended container has stored. Raises LogUnavailable."""
        try:
            in_time = await self._until_ended(pump)
        except asyncio.CancelledError:
            pump.stop()
            raise
        if pump.end is not None:
            return pump.end
        raise _log_unavailable(pump.path, pump.error if in_time else None)

    async def _until_ended(self, pump: LogCopier) -> bool:
        """Whether it ended by itself; it is stopped once nothing has come for DRAIN_LIMIT."""
        passed = -1
        while passed != pump.passed:
            passed = pump.passed
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_TIMEOUT):
                    await pump.ended.wait()
                return True
        pump.stop()
        return False

    def _pump(self, path: Path, container_id: str, grew: Callable[[], None]) -> LogCopier:
        def open_stream() -> LogStream:
            return self._driver.logs(container_id)

        pump = LogCopier(path, open_stream, self._cap, grew)
        pump.start()
        return pump


def _log_unavailable(path: Path, error: Exception | None) -> LogUnavailable:
    if isinstance(error, LogUnavailable):
        return error
    if isinstance(error, OSError):
        return LogUnavailable(f"The log {path} cannot be kept: {error.strerror or error}.")
    if error is None:
        return LogUnavailable(f"The engine has given nothing more of the output for {DRAIN_TIMEOUT:g} s.")
    words = error.detail if isinstance(error, MaoError) else f"{type(error).__name__}: {error}"
    return LogUnavailable(f"The output cannot be read: {words}")
