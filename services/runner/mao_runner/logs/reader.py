"""Reads logs, and follows them until their step has ended, without polling."""

from __future__ import annotations

import asyncio
import codecs
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mao_runner.labels import StepAttempt
from mao_runner.logs import lines
from mao_shared.errors import InvalidInput, NotFound
from mao_shared.host.data_dir import DataDir
from mao_shared.models import Run
from mao_shared.models.log import LogLines
from mao_shared.states import RUN_ENDED, StepPhase
from mao_shared.store import Records

CHUNK_BYTES = 64 * 1024
KEEP_ALIVE_SECONDS = 15.0

LOG_GROWS = frozenset(
    {StepPhase.PENDING, StepPhase.PREPARING, StepPhase.READY, StepPhase.STARTING, StepPhase.RUNNING}
)


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Text of a log and the byte offset after it. An empty text keeps the connection alive."""

    text: str
    offset: int
    last: bool = False


class LogReader:
    """Finds and reads the logs of runs."""

    def __init__(self, runs: Records[Run], data_dir: DataDir, changes: RunNotifier) -> None:
        self._runs = runs
        self._data_dir = data_dir
        self._changes = changes

    async def find(self, run_id: str, step: str | None, attempt: int | None) -> StepAttempt:
        """Return the attempt whose log is requested: by default the latest of the latest step that started.

        Raises NotFound (`unknown-run`, `step-not-found`, `attempt-not-found`, `log-removed`).
        """
        stored = await self._runs.get(run_id)
        if stored is None:
            raise NotFound(
                f"There is no run {run_id}.", code="unknown-run", next="List the runs with 'maoctl run list'."
            )
        index = step_index(stored.record, step)
        latest = stored.record.steps[index].attempt
        if attempt is not None and attempt > latest:
            raise NotFound(
                f"Step {stored.record.steps[index].spec.name} has had {latest} attempt(s), not {attempt}.",
                code="attempt-not-found",
                next=f"Omit 'attempt', or give 1 to {latest}.",
            )
        key = StepAttempt(run_id, index, attempt or latest)
        step_run = stored.record.steps[index]
        if attempt not in (None, latest) or step_run.log_bytes is None:
            return key
        if await asyncio.to_thread(self._data_dir.log(key.run, key.step, key.attempt).exists):
            return key
        raise NotFound(  # instead of showing an empty log
            f"The log of step {step_run.spec.name} of the run {key.run} was removed by retention "
            f"(MAO_LOG_RETENTION, MAO_LOG_KEEP, MAO_LOG_SPACE). It had {step_run.log_bytes} bytes, SHA-256 "
            f"{step_run.log_sha256}.",
            code="log-removed",
            next=f"See the run: maoctl run show {key.run}",
            log_bytes=step_run.log_bytes,
            log_sha256=step_run.log_sha256,
        )

    async def whole(self, key: StepAttempt, end: int | None = None) -> AsyncIterator[bytes]:
        """Return the log in its current length, in chunks; with `end` only that many bytes at its end.

        Raises NotFound (`log-not-found`).
        """
        path = self._data_dir.log(key.run, key.step, key.attempt)
        try:
            size = (await asyncio.to_thread(path.stat)).st_size
        except FileNotFoundError:
            raise _not_found(key) from None
        return _read_range(path, size, 0 if end is None else max(0, size - end))

    async def lines(self, key: StepAttempt, text: str | None, first: int | None, limit: int) -> LogLines:
        """Return numbered lines: those with a text, or from number `first` on, or the last ones.

        Raises NotFound (`log-not-found`).
        """
        path = self._data_dir.log(key.run, key.step, key.attempt)
        grows = not await self._ended(key)
        try:
            if text:
                found = await asyncio.to_thread(lines.search_lines, path, text, first or 1, limit)
            else:
                found = await asyncio.to_thread(lines.read_lines, path, first, limit)
        except FileNotFoundError:
            if not grows:
                raise _not_found(key) from None
            found = lines.LinesFound([], 0, 0, 0, 0 if text else None)
        stored = await self._runs.get(key.run)
        name = stored.record.steps[key.step].spec.name if stored else str(key.step)
        return LogLines(
            step=name,
            index=key.step,
            attempt=key.attempt,
            items=found.lines,
            total=found.total,
            matches=found.matches,
            size=found.size,
            follow_from=found.open_line,
            grows=grows,
        )

    async def follow(self, key: StepAttempt, offset: int) -> AsyncIterator[LogChunk]:
        """Yield the log from `offset` on as it grows, until the step's container has ended."""
        path = self._data_dir.log(key.run, key.step, key.attempt)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with self._changes.listen(key.run) as listener:
            ended = False
            while not ended:
                if listener.moved:
                    listener.moved = False
                    ended = await self._ended(key)
                while data := await asyncio.to_thread(read_at, path, offset):
                    offset += len(data)
                    text = decoder.decode(data)
                    yield LogChunk(text, offset - len(decoder.getstate()[0]))
                if not ended and not await listener.wait(KEEP_ALIVE_SECONDS):
                    yield LogChunk("", offset)
            yield LogChunk(decoder.decode(b"", final=True), offset, last=True)

    async def _ended(self, key: StepAttempt) -> bool:
        stored = await self._runs.get(key.run)
        if stored is None or stored.record.phase in RUN_ENDED:
            return True
        step = stored.record.steps[key.step]
        return step.attempt > key.attempt or step.phase not in LOG_GROWS


def _not_found(key: StepAttempt) -> NotFound:
    return NotFound(
        f"Run {key.run} has no log for step {key.step}, attempt {key.attempt}: "
        "it has not run yet, or the log was removed by retention.",
        code="log-not-found",
        next=f"See the run: maoctl run show {key.run}",
    )


def step_index(run: Run, step: str | None) -> int:
    """Return the index of a step given by its name or number from 0; by default the latest that started.

    Raises NotFound (`step-not-found`).
    """
    if step is None:
        return max((i for i, known in enumerate(run.steps) if StepPhase.STARTING in known.times), default=0)
    names = [known.spec.name for known in run.steps]
    if step in names:
        return names.index(step)
    if step.isdecimal() and len(step) < 4 and int(step) < len(names):
        return int(step)
    raise NotFound(
        f"Run {run.id} has no step {step!r}.",
        code="step-not-found",
        next=f"Its steps are: {', '.join(names)}.",
    )


def read_offset(last_event_id: str | None) -> int:
    """Parse the offset in a Last-Event-ID. Raises InvalidInput (`offset-invalid`)."""
    if not last_event_id:
        return 0
    if last_event_id.isdecimal() and len(last_event_id) <= 15:
        return int(last_event_id)
    raise InvalidInput(
        f"Last-Event-ID is {last_event_id!r}; for a log it must be a number of bytes.",
        code="offset-invalid",
        next="Send the id of the last event received, or omit the header.",
    )


def read_at(path: Path, offset: int, max_bytes: int = CHUNK_BYTES) -> bytes:
    """Read up to `max_bytes` bytes; none at the end of the file, or if it does not exist yet."""
    try:
        with path.open("rb") as file:
            return os.pread(file.fileno(), max_bytes, offset)
    except FileNotFoundError:
        return b""


async def _read_range(path: Path, size: int, offset: int) -> AsyncIterator[bytes]:
    while offset < size:
        data = await asyncio.to_thread(read_at, path, offset, min(CHUNK_BYTES, size - offset))
        if not data:
            return
        offset += len(data)
        yield data


class RunListener:
    """Collects the changes of a run for one reader; at first its document counts as changed."""

    def __init__(self) -> None:
        self.moved = True  # the run's document was written
        self._woken = asyncio.Event()

    def wake(self, *, moved: bool) -> None:
        self.moved = self.moved or moved
        self._woken.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for a change; return False if there is none within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True


class RunNotifier:
    """Wakes the listeners of a run when its document or one of its logs changes."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[RunListener]] = {}

    @contextmanager
    def listen(self, run: str) -> Iterator[RunListener]:
        listener = RunListener()
        self._listeners.setdefault(run, set()).add(listener)
        try:
            yield listener
        finally:
            self._listeners[run].discard(listener)
            if not self._listeners[run]:
                del self._listeners[run]

    def moved(self, run: str) -> None:
        """Wake the listeners of a run whose document was written."""
        for listener in self._listeners.get(run, ()):
            listener.wake(moved=True)

    def grew(self, run: str) -> None:
        """Wake the listeners of a run of which a log grew."""
        for listener in self._listeners.get(run, ()):
            listener.wake(moved=False)
