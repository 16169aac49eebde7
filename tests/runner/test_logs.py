"""Logs are copied completely, continued without duplicates, cut at their limit, and followed."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

import pytest

from mao_runner.drivers.fake import FakeDriver, FakeLogs
from mao_runner.drivers.protocol import Container
from mao_runner.labels import StepAttempt
from mao_runner.logs.reader import LogChunk, LogReader, RunNotifier, read_offset, step_index
from mao_runner.logs.writer import LogUnavailable, LogWriter, StoredLog
from mao_runner.routes import encode_chunk
from mao_shared.errors import InvalidInput, NotFound
from mao_shared.host.data_dir import DataDir
from mao_shared.keys import runs_prefix
from mao_shared.models import Run
from mao_shared.states import StepPhase
from mao_shared.store import Records
from mao_shared.store.memory import MemoryStore
from tests.support.waiting import eventually

from .harness import NODE, ready_run

KEY = StepAttempt("r", 0, 1)


@pytest.fixture
def driver() -> FakeDriver:
    driver = FakeDriver()
    driver.containers["c"] = Container("c", "c", {}, "running")
    driver.output["c"] = FakeLogs()
    return driver


def make_logs(driver: FakeDriver, root: Path, cap: int = 1000) -> LogWriter:
    return LogWriter(driver, DataDir(root), cap, lambda run: None)


async def test_writer_finish_returns_complete_log(driver: FakeDriver, tmp_path: Path) -> None:
    logs = make_logs(driver, tmp_path)
    logs.ensure(KEY, "c")
    driver.output["c"].write(b"one\n")
    driver.output["c"].write(b"two\n")
    driver.output["c"].end()
    end = await logs.finish(KEY, "c")
    assert logs.path(KEY).read_bytes() == b"one\ntwo\n"
    assert end == StoredLog("one\ntwo\n", 8, hashlib.sha256(b"one\ntwo\n").hexdigest())


@pytest.mark.parametrize("had", [b"", b"on", b"one\n", b"one\ntw", b"one\ntwo\n"])
async def test_writer_continues_log(driver: FakeDriver, tmp_path: Path, had: bytes) -> None:
    logs = make_logs(driver, tmp_path)
    logs.path(KEY).parent.mkdir(parents=True)
    logs.path(KEY).write_bytes(had)
    driver.output["c"].write(b"one\n")
    driver.output["c"].write(b"two\n")
    driver.output["c"].end()
    await logs.finish(KEY, "c")
    assert logs.path(KEY).read_bytes() == b"one\ntwo\n"


async def test_writer_cuts_log_once(driver: FakeDriver, tmp_path: Path) -> None:
    logs = make_logs(driver, tmp_path, cap=10)
    driver.output["c"].write(b"0123456789abc")
    await logs.finish(KEY, "c")
    cut = logs.path(KEY).read_bytes()
    await logs.finish(KEY, "c")
    assert cut.startswith(b"0123456789\n[mao] the log is cut here")
    assert logs.path(KEY).read_bytes() == cut


@pytest.mark.parametrize(
    "had", [b"ONE\n", b"two\n", b"one\ntwo\nthree\n", b"\0" * 8, b"one\nTWO\n", b"x" * 5000]
)
async def test_writer_rewrites_file_that_differs(driver: FakeDriver, tmp_path: Path, had: bytes) -> None:
    logs = make_logs(driver, tmp_path)
    logs.path(KEY).parent.mkdir(parents=True)
    logs.path(KEY).write_bytes(had)
    driver.output["c"].write(b"one\ntwo\n")
    driver.output["c"].end()
    end = await logs.finish(KEY, "c")
    assert logs.path(KEY).read_bytes() == b"one\ntwo\n"
    assert (end.size, end.sha256) == (8, hashlib.sha256(b"one\ntwo\n").hexdigest())


@pytest.mark.parametrize("kept", [0, 1, 2])
@pytest.mark.parametrize("cap", [1000, 8, 4])
async def test_writer_keeps_log_whose_beginning_engine_dropped(
    driver: FakeDriver, tmp_path: Path, kept: int, cap: int
) -> None:
    logs = make_logs(driver, tmp_path, cap=cap)
    logs.ensure(KEY, "c")
    for line in (b"one\n", b"two\n", b"six\n"):
        driver.output["c"].write(line)
    following = logs._copiers[KEY]
    driver.output["c"].end()
    await following.ended.wait()
    seen = logs.path(KEY).read_bytes()
    driver.output["c"] = FakeLogs()
    for line in (b"one\n", b"two\n", b"six\n")[3 - kept :]:
        driver.output["c"].write(line)
    driver.output["c"].end()
    end = await logs.finish(KEY, "c")
    assert seen.startswith(b"one\n")
    assert logs.path(KEY).read_bytes() == seen
    assert (end.size, end.sha256) == (len(seen), hashlib.sha256(seen).hexdigest())


async def test_writer_reads_on_after_early_end(driver: FakeDriver, tmp_path: Path) -> None:
    logs = make_logs(driver, tmp_path)
    logs.ensure(KEY, "c")
    driver.output["c"].write(b"one\n")
    following = logs._copiers[KEY]
    driver.output["c"].end()
    await following.ended.wait()
    assert following.stored is not None
    driver.output["c"] = FakeLogs()
    driver.output["c"].write(b"one\ntwo\n")
    driver.output["c"].end()
    assert (await logs.finish(KEY, "c")).tail == "one\ntwo\n"


@pytest.mark.parametrize("size", [9, 10, 11, 35])
async def test_writer_log_of_exact_limit_is_whole(driver: FakeDriver, tmp_path: Path, size: int) -> None:
    logs = make_logs(driver, tmp_path, cap=10)
    for _ in range(size):
        driver.output["c"].write(b"x")
    driver.output["c"].end()
    end = await logs.finish(KEY, "c")
    stored = logs.path(KEY).read_bytes()
    assert stored.startswith(b"x" * min(size, 10))
    assert (b"the log is cut here" in stored) == (size > 10)
    assert (end.size, end.sha256) == (len(stored), hashlib.sha256(stored).hexdigest())


async def test_writer_reports_no_log_that_was_not_written(driver: FakeDriver, tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("not a folder")
    driver.output["c"].write(b"one\n")
    driver.output["c"].end()
    logs = make_logs(driver, tmp_path)
    with pytest.raises(LogUnavailable, match="Not a directory"):
        await asyncio.wait_for(logs.finish(KEY, "c"), 60)
    (tmp_path / "logs").unlink()
    assert (await logs.finish(KEY, "c")).tail == "one\n"


class Followed:
    """A run whose log the test extends."""

    def __init__(self, root: Path) -> None:
        self.changes = RunNotifier()
        self.runs = Records(MemoryStore(), runs_prefix(NODE), Run)
        self.reader = LogReader(self.runs, DataDir(root), self.changes)
        self.path = DataDir(root).log("r", 0, 1)
        self.path.parent.mkdir(parents=True)
        self.pieces: list[LogChunk] = []

    def say(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)
        self.changes.grew("r")

    async def end(self) -> None:
        stored = await self.runs.get("r")
        assert stored is not None
        step = stored.record.steps[0].model_copy(update={"phase": StepPhase.EXITED})
        assert await self.runs.replace("r", stored.record.with_step(0, step), stored.revision)
        self.changes.moved("r")

    async def follow(self, offset: int = 0) -> None:
        async for piece in self.reader.follow(KEY, offset):
            self.pieces.append(piece)

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


@pytest.fixture
async def followed(tmp_path: Path) -> Followed:
    followed = Followed(tmp_path)
    await followed.runs.create("r", ready_run("r"))
    return followed


async def test_reader_follows_log_to_its_end(followed: Followed) -> None:
    task = asyncio.create_task(followed.follow())
    followed.say(b"one\n")
    await eventually(lambda: followed.text == "one\n")
    followed.say("zwö".encode()[:-1])  # cut within a character
    await eventually(lambda: followed.text == "one\nzw")
    assert followed.pieces[-1].offset == 6
    followed.say("zwö".encode()[-1:])
    await followed.end()
    await asyncio.wait_for(task, 60)
    assert followed.text == "one\nzwö"
    assert followed.pieces[-1].last
    assert [piece.last for piece in followed.pieces].count(True) == 1


async def test_reader_follow_continues_after_last_event(followed: Followed) -> None:
    followed.say(b"one\ntwo\n")
    await followed.end()
    await followed.follow(read_offset("4"))
    assert followed.text == "two\n"
    assert followed.pieces[-1].offset == 8


@pytest.mark.parametrize("bad", ["x", "-1", "1.5", "9" * 30])
def test_reader_invalid_offset(bad: str) -> None:
    with pytest.raises(InvalidInput):
        read_offset(bad)


def test_encode_chunk_keeps_line_breaks() -> None:
    event = encode_chunk(LogChunk("a\r\nb\rc\n\u2028", 9)).decode()
    (data,) = [line for line in event.split("\n") if line.startswith("data:")]
    assert json.loads(data[5:]) == "a\r\nb\rc\n\u2028"
    assert "id: 9" in event
    assert "\r" not in event


def test_reader_finds_step_by_name_or_number() -> None:
    run = ready_run("r")
    assert step_index(run, "t") == step_index(run, "0") == step_index(run, None) == 0
    for missing in ("1", "nobody"):
        with pytest.raises(NotFound):
            step_index(run, missing)
