"""Copies the output of containers into log files, and verifies each file once its container ended.

The engine keeps a container's output from its beginning in a fixed order. A copier that continues a file
skips as many bytes as the file has, so no line is doubled or lost.

When a container has ended, its output is read from the engine once more, from beginning to end, and the file
on the disk must be identical, up to the size limit. Size and digest are evidence, so they are reported only
then. Any failure (of the disk, the folder, the engine, or a file changed by others) raises `LogUnavailable`,
and the container is kept, since it still has the output.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mao_runner.drivers.protocol import Driver, LogStream
from mao_runner.labels import StepAttempt
from mao_runner.secrets.masking import StreamMask
from mao_shared.errors import MaoError, Unavailable
from mao_shared.host.data_dir import DataDir
from mao_shared.logs import get_logger

log = get_logger(__name__)

DRAIN_TIMEOUT = 30.0  # seconds without any output of an ended container
SECRETS_TIMEOUT = 30.0  # seconds that a copier waits for the values to mask
STOP_TIMEOUT = 2.0  # seconds that a copier may take to end when the service stops
TAIL_BYTES = 8192
_CUT = b"\n[mao] the log is cut here: it has reached the limit of %d bytes (MAO_LOG_MAX)\n"


class LogUnavailable(Unavailable):
    """The output of a container is not completely on the disk, or this cannot be verified."""

    default_code = "log-not-stored"


class LogDiffers(LogUnavailable):
    """The file differs from what the engine has: it was changed by others, or the engine dropped the
    beginning of a long output."""


@dataclass(frozen=True, slots=True)
class StoredLog:
    """A complete log: its last bytes as text, its size in bytes, its SHA-256."""

    tail: str
    size: int
    sha256: str


class LogCopier(threading.Thread):
    """Writes one container's output to `path`: at most `max_bytes` of it, then a line that says it is cut.

    `secret_values` is called in the thread: the values to mask in what is written, digested and verified.

    `ended` is set in the event loop once nothing more will be written. Then either `error` is set, or
    `stored`: the output ended, and all of it was verified to be on the disk.
    """

    def __init__(
        self,
        path: Path,
        open_stream: Callable[[], LogStream],
        secret_values: Callable[[], Iterable[str]],
        max_bytes: int,
        on_growth: Callable[[], None],
    ) -> None:
        super().__init__(name=f"log-{path.parent.name}", daemon=True)
        self.path = path
        self.ended = asyncio.Event()
        self.stored: StoredLog | None = None
        self.sha256: str | None = None  # of all output that this copier read
        self.error: Exception | None = None
        self.bytes_read = 0  # of output
        self.cut = False
        self._open_stream = open_stream
        self._secret_values = secret_values
        self._max_bytes = max_bytes
        self._on_growth = on_growth
        self._loop = asyncio.get_running_loop()
        self._stream: LogStream | None = None
        self._notified = threading.Event()
        self._stopping = False

    def run(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                self.sha256 = self._copy(file)
                self._sync(file)
            if self.sha256 is not None:
                self.stored = self.verify()
        except Exception as error:  # noqa: BLE001 (raised to those who wait for the end)
            self.error = error
            if not self._stopping:
                log.warning("log.broken", path=str(self.path), error=str(error))
        finally:
            self._on_loop(self.ended.set)

    def stop(self) -> None:
        """End the thread soon; the next copier of this container continues."""
        self._stopping = True
        if self._stream is not None:
            with contextlib.suppress(Exception):
                self._stream.close()

    def _copy(self, file: BinaryIO) -> str | None:
        """Copy the output; return the digest of all of it, None if stopped before its end."""
        skip = file.tell()
        digest = hashlib.sha256()
        mask = StreamMask(self._secret_values())
        self._stream = self._open_stream()
        if self._stopping:
            self._stream.close()
        for piece in self._capped(self._stream, mask.masked(self._stream)):
            if self._stopping:
                return None
            digest.update(piece)
            self.bytes_read += len(piece)
            fresh, skip = piece[skip:], max(0, skip - len(piece))
            if fresh:
                _write_all(file, fresh)
                # At most one call to the event loop is pending, however fast the tool writes.
                if not self._notified.is_set():
                    self._notified.set()
                    self._on_loop(self._call_on_growth)
        return None if self._stopping else digest.hexdigest()

    def _sync(self, file: BinaryIO) -> None:
        """Sync the file; on failure remove it, since the kernel may report unwritten pages as written."""
        try:
            os.fdatasync(file.fileno())
        except OSError:
            self.path.unlink(missing_ok=True)
            raise

    def _capped(self, stream: LogStream, pieces: Iterable[bytes]) -> Iterator[bytes]:
        left = self._max_bytes
        for piece in pieces:
            if len(piece) > left:
                self.cut = True
                yield piece[:left] + _CUT % self._max_bytes
                stream.close()
                return
            left -= len(piece)
            yield piece

    def verify(self) -> StoredLog:
        """Read the file again and compare it with the output. Blocks; raises LogDiffers or OSError."""
        stored = read_stored_log(self.path)
        if (stored.size, stored.sha256) != (self.bytes_read, self.sha256):
            raise LogDiffers(
                f"The log {self.path} has {stored.size} bytes, not the {self.bytes_read} that the engine has."
            )
        return stored

    def _call_on_growth(self) -> None:
        self._notified.clear()
        self._on_growth()

    def _on_loop(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call)


def _write_all(file: BinaryIO, data: bytes) -> None:
    """Write all data: a nearly full disk accepts a part first and fails at the next call."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def read_stored_log(path: Path, tail_bytes: int = TAIL_BYTES) -> StoredLog:
    """Read a complete log, with its last `tail_bytes` bytes as text. Raises OSError."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
        file.seek(max(0, size - tail_bytes))
        return StoredLog(file.read().decode(errors="replace"), size, digest)


class LogWriter:
    """Runs the copiers of all containers.

    Args:
        max_bytes: limit for one log.
        on_growth: called in the event loop with the run whose log grew.
        secret_values: returns the values to mask in the log of a step.
    """

    def __init__(
        self,
        driver: Driver,
        data_dir: DataDir,
        max_bytes: int,
        on_growth: Callable[[str], None],
        secret_values: Callable[[StepAttempt], Coroutine[Any, Any, Sequence[str]]] | None = None,
    ) -> None:
        self._driver = driver
        self._data_dir = data_dir
        self._max_bytes = max_bytes
        self._on_growth = on_growth
        self._secret_values = secret_values
        self._copiers: dict[StepAttempt, LogCopier] = {}

    def path(self, key: StepAttempt) -> Path:
        return self._data_dir.log(key.run, key.step, key.attempt)

    def ensure(self, key: StepAttempt, container_id: str) -> None:
        """Start a copier for the container unless one is running."""
        copier = self._copiers.get(key)
        if copier is None or (copier.ended.is_set() and not copier.cut):
            self._copiers[key] = self._copier(self.path(key), container_id, key)

    def forget(self, key: StepAttempt) -> None:
        """Stop copying from a container that no longer belongs to a step."""
        copier = self._copiers.pop(key, None)
        if copier is not None:
            copier.stop()

    async def finish(self, key: StepAttempt, container_id: str) -> StoredLog:
        """Store the complete log of an ended container, and return it once all of it is on the disk.

        Raises LogUnavailable; the call can be repeated as long as the container exists.
        """
        following = self._copiers.pop(key, None)
        if following is not None:
            await self._until_ended(following)
        return await self._store(self.path(key), container_id, key, following)

    async def copy_once(self, container_id: str, path: Path) -> StoredLog:
        """Write the output of an ended container to a file of the caller. Raises LogUnavailable."""
        return await self._store(path, container_id, None, None)

    async def close(self) -> None:
        """Stop all copiers; containers continue, and the engine keeps their output."""
        copiers = list(self._copiers.values())
        self._copiers.clear()
        for copier in copiers:
            copier.stop()
        for copier in copiers:
            await asyncio.to_thread(copier.join, STOP_TIMEOUT)

    async def _store(
        self, path: Path, container_id: str, key: StepAttempt | None, following: LogCopier | None
    ) -> StoredLog:
        """Store a complete log; `following` is the copier that followed the container until it ended."""
        last = self._copier(path, container_id, key)
        try:
            return await self._finished_log(last)
        except LogDiffers as error:
            if (
                following is not None
                and following.stored is not None
                and following.bytes_read >= last.bytes_read
            ):
                # It has read the beginning, which the engine has dropped since.
                with contextlib.suppress(OSError, LogDiffers):
                    return await asyncio.to_thread(following.verify)
            log.warning("log.rewritten", path=str(path), error=error.detail)
        with contextlib.suppress(OSError):  # the copy below reports what is wrong
            await asyncio.to_thread(path.replace, path.with_suffix(".log.aside"))
        return await self._finished_log(self._copier(path, container_id, key))

    async def _finished_log(self, copier: LogCopier) -> StoredLog:
        """Wait for the copier of an ended container; return the log it stored. Raises LogUnavailable."""
        try:
            in_time = await self._until_ended(copier)
        except asyncio.CancelledError:
            copier.stop()
            raise
        if copier.stored is not None:
            return copier.stored
        raise _log_unavailable(copier.path, copier.error if in_time else None)

    async def _until_ended(self, copier: LogCopier) -> bool:
        """Wait for a copier, and stop it after DRAIN_TIMEOUT without output. Return False if stopped."""
        bytes_before = -1
        while bytes_before != copier.bytes_read:
            bytes_before = copier.bytes_read
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_TIMEOUT):
                    await copier.ended.wait()
                return True
        copier.stop()
        return False

    def _copier(self, path: Path, container_id: str, key: StepAttempt | None) -> LogCopier:
        """Start a copier. `key`: the step whose secrets are masked and whose growth is told."""
        loop = asyncio.get_running_loop()

        def open_stream() -> LogStream:
            return self._driver.logs(container_id)

        def secret_values() -> Sequence[str]:
            if key is None or self._secret_values is None:
                return ()
            return asyncio.run_coroutine_threadsafe(self._secret_values(key), loop).result(SECRETS_TIMEOUT)

        def on_growth() -> None:
            if key is not None:
                self._on_growth(key.run)

        copier = LogCopier(path, open_stream, secret_values, self._max_bytes, on_growth)
        copier.start()
        return copier


def _log_unavailable(path: Path, error: Exception | None) -> LogUnavailable:
    if isinstance(error, LogUnavailable):
        return error
    if isinstance(error, OSError):
        return LogUnavailable(f"The log {path} cannot be written: {error.strerror or error}.")
    if error is None:
        return LogUnavailable(f"The engine has sent no more output for {DRAIN_TIMEOUT:g} s.")
    words = error.detail if isinstance(error, MaoError) else f"{type(error).__name__}: {error}"
    return LogUnavailable(f"The output cannot be read: {words}")
