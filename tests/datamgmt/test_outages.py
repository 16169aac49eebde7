"""Despite kills, outages and lost races, every observation is committed exactly once."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mao_datamgmt.steps import workspaces
from mao_git import Clone, ObjectMissing, repository
from mao_shared.errors import StoreUnavailable, StoreUnknown
from mao_shared.host.data_dir import Workspace
from mao_shared.states import StepPhase
from mao_shared.store import Event
from mao_shared.store.memory import MemoryStore
from tests.support.git import file_at, git
from tests.support.waiting import eventually

from .world import NODE, PATIENCE, push_as_stranger, run_of, runs_on, step, working, writes


class Killed(Exception):
    """Simulates the end of the process."""


class DiesAt:
    """Call a clone's method and die permanently before or after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, *, after: bool) -> None:
        self.reached = threading.Event()
        owner = Clone if hasattr(Clone, name) else repository
        self._call = getattr(owner, name)
        self._after = after
        monkeypatch.setattr(owner, name, lambda *args, **kwargs: self(*args, **kwargs))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._after:
            self._call(*args, **kwargs)
        self.reached.set()
        raise Killed

    async def wait(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, PATIENCE)


KILL_POINTS = [
    ("write_tree", True),  # blobs and trees are there, no commit
    ("commit", True),  # the commit is there, no branch leads to it
    ("move_branch", True),  # the node's branch has it
    ("promote", True),  # before ground truth is moved
    ("push", False),  # everything is local, nothing is pushed
    ("push", True),  # everything is pushed, nothing is recorded
]


@pytest.mark.parametrize(("name", "after"), KILL_POINTS)
async def test_outage_killed_while_publishing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, after: bool
) -> None:
    store = MemoryStore()
    async with working(tmp_path, store) as world:
        await world.whole(run_of("run-0", step("collect", "data", world.master)), writes(old="0"))
        await world.begin(run_of("run-1", step("collect", "data", world.master), after=1))
        await world.phase("run-1", StepPhase.READY)
        death = DiesAt(monkeypatch, name, after=after)
        await world.run_tool("run-1", writes(a="1"))
        await death.wait()
    monkeypatch.undo()
    async with working(tmp_path, store) as world:
        done = await world.phase("run-1", StepPhase.SUCCEEDED, StepPhase.FAILED)
        assert done.phase is StepPhase.SUCCEEDED, done.error
        assert runs_on(world.master) == ["run-1", "run-0"]
        assert git(world.master, "rev-parse", NODE, "ground-truth").split() == [done.snapshot] * 2
        assert git(world.master, "ls-tree", "--name-only", NODE).split() == ["a", "old"]
        git(world.master, "fsck", "--strict", "--full")


@pytest.mark.parametrize("name", ["fetch", "finish_clone", "checkout_tree"])
async def test_outage_killed_while_preparing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    store = MemoryStore()
    async with working(tmp_path, store) as world:
        death = DiesAt(monkeypatch, name, after=True)
        await world.begin(run_of("run-1", step("collect", "data", world.master)))
        await death.wait()
    monkeypatch.undo()
    async with working(tmp_path, store) as world:
        await world.run_tool("run-1", writes(a="1"))
        await world.phase("run-1", StepPhase.SUCCEEDED)
        assert runs_on(world.master) == ["run-1"]
        await eventually(lambda: not list((tmp_path / "node/workspaces").iterdir()))
        assert [path.name for path in (tmp_path / "node/datasets").iterdir()] == ["data.git"]


class StoreThatLosesAnswers(MemoryStore):
    """Lose the answer of every second write, which is applied or not."""

    def __init__(self) -> None:
        super().__init__()
        self.strict = False
        self.count = 0

    async def replace(self, key: str, value: bytes, revision: int, *, lease: int | None = None) -> int | None:
        self.count += self.strict
        if self.strict and self.count % 4 == 1:
            await super().replace(key, value, revision, lease=lease)
            raise StoreUnknown("no answer")
        if self.strict and self.count % 4 == 3:
            raise StoreUnavailable("down")
        return await super().replace(key, value, revision, lease=lease)


class StoreThatFallsSilent(MemoryStore):
    """Apply the first write of `ready`, but deliver neither its answer nor events until `speak`."""

    def __init__(self) -> None:
        super().__init__()
        self.silent = asyncio.Event()
        self.tries = 0
        self._speaks = asyncio.Event()

    def speak(self) -> None:
        self._speaks.set()

    async def replace(self, key: str, value: bytes, revision: int, *, lease: int | None = None) -> int | None:
        self.tries += 1
        if self.silent.is_set() or b'"phase":"ready"' not in value:
            return await super().replace(key, value, revision, lease=lease)
        self.silent.set()
        await super().replace(key, value, revision, lease=lease)
        raise StoreUnknown("no answer")

    async def watch(self, prefix: str, *, after: int) -> AsyncGenerator[list[Event], None]:
        async for batch in super().watch(prefix, after=after):
            if self.silent.is_set():
                await self._speaks.wait()
            yield batch


async def test_outage_no_workspace_is_laid_anew_under_a_tool(tmp_path: Path) -> None:
    store = StoreThatFallsSilent()
    async with working(tmp_path, store) as world:
        await world.begin(run_of("run-1", step("collect", "data", world.master)))
        await asyncio.wait_for(store.silent.wait(), PATIENCE)
        writes(a="1")(world.workspace("run-1"))  # the runner has seen `ready`
        tries = store.tries
        await eventually(lambda: store.tries > tries)  # the data manager has not, and tries again
        assert world.workspace("run-1").data.joinpath("a").read_text() == "1"
        store.speak()
        await world.run_tool("run-1", lambda _: None)
        done = await world.phase("run-1", StepPhase.SUCCEEDED, StepPhase.FAILED)
        assert done.phase is StepPhase.SUCCEEDED, done.error
        assert file_at(world.master, f"{NODE}:a") == "1"


async def test_outage_lost_answers_of_the_store(tmp_path: Path) -> None:
    store = StoreThatLosesAnswers()
    async with working(tmp_path, store) as world:
        for number in range(4):
            run = await world.begin(run_of(f"run-{number}", step("collect", "data", world.master)))
            store.strict = True
            await world.phase(run.id, StepPhase.READY)
            store.strict = False
            await world.run_tool(run.id, writes(**{f"f{number}": "x"}))
            store.strict = True
            await world.phase(run.id, StepPhase.SUCCEEDED)
            store.strict = False
        assert runs_on(world.master) == [f"run-{number}" for number in (3, 2, 1, 0)]


async def test_outage_remote_moved_meanwhile_is_built_upon(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await world.whole(run_of("run-0", step("collect", "data", world.master)), writes(a="0"))
        await world.begin(run_of("run-1", step("collect", "data", world.master), after=1))
        await world.phase("run-1", StepPhase.READY)
        push_as_stranger(tmp_path, world.master, NODE, theirs="x")
        push_as_stranger(tmp_path, world.master, "ground-truth", notes="y")
        await world.run_tool("run-1", writes(a="1"))
        done = await world.phase("run-1", StepPhase.SUCCEEDED, StepPhase.FAILED)
        assert done.phase is StepPhase.SUCCEEDED, done.error
        assert done.pushed
        assert git(world.master, "rev-parse", NODE) == done.snapshot
        assert git(world.master, "log", "--format=%s", NODE).splitlines() == [
            "[DATALAD RUNCMD] pipeline: collect on node-1",
            "by a stranger",
            "[DATALAD RUNCMD] pipeline: collect on node-1",
            "Begin the dataset",
        ]
        assert git(world.master, "ls-tree", "--name-only", NODE).split() == ["a", "theirs"]
        parents = git(world.master, "log", "-1", "--format=%P", "ground-truth").split()
        assert len(parents) == 2
        assert parents[1] == done.snapshot
        assert git(world.master, "rev-parse", "ground-truth^{tree}") == git(
            world.master, "rev-parse", f"{NODE}^{{tree}}"
        )


async def test_outage_conflict_with_a_stranger_fails_and_keeps_the_output(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await world.whole(run_of("run-0", step("collect", "data", world.master)), writes(a="0"))
        await world.begin(run_of("run-1", step("collect", "data", world.master), after=1))
        await world.phase("run-1", StepPhase.READY)
        push_as_stranger(tmp_path, world.master, NODE, a="theirs")
        await world.run_tool("run-1", writes(a="ours"))
        failed = await world.phase("run-1", StepPhase.SUCCEEDED, StepPhase.FAILED)
        assert failed.error is not None
        assert (failed.error.code, failed.error.fault) == ("output-conflict", "infrastructure")
        assert (world.workspace("run-1").data / "a").read_text() == "ours"
        assert runs_on(world.master, "ground-truth") == ["run-0"]
        done = await world.whole(
            run_of("run-2", step("collect", "data", world.master), after=2), writes(a="again")
        )
        assert done.phase is StepPhase.SUCCEEDED
        assert file_at(world.master, f"{NODE}:a") == "again"
        assert runs_on(world.master, "ground-truth") == ["run-2", "run-0"]


async def test_outage_conflicting_commits_are_kept_and_shown(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await world.whole(run_of("run-0", step("collect", "data", world.master)), writes(a="0"))
        away = world.master.rename(tmp_path / "away.git")
        await world.whole(run_of("run-1", step("collect", "data", world.master), after=1), writes(a="1"))
        push_as_stranger(tmp_path, away, NODE, a="theirs")
        away.rename(world.master)
        await eventually(lambda: "data" in world.manager.pusher.failures)
        done = await world.whole(
            run_of("run-2", step("collect", "data", world.master), after=2), writes(b="2")
        )
        assert done.phase is StepPhase.SUCCEEDED
        assert not done.pushed
        log = await world.manager.commits("data", None, 10, None)
        assert [entry.run for entry in log.items] == ["run-2", "run-1", "run-0", None]


@contextmanager
def silent_server() -> Iterator[int]:
    """Accept connections and never answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def test_outage_hanging_remote_blocks_only_its_dataset(tmp_path: Path) -> None:
    with silent_server() as port:
        async with working(tmp_path, remote_silence_timeout=1, remote_connect_timeout=1) as world:
            hanging = f"ssh://git@127.0.0.1:{port}/srv/x.git"
            await world.begin(run_of("run-0", step("collect", "hanging", hanging)))
            done = await world.whole(run_of("run-1", step("collect", "data", world.master)), writes(a="1"))
            assert done.phase is StepPhase.SUCCEEDED
            assert (await world.get("run-0")).record.steps[0].phase is StepPhase.PREPARING
            failed = await world.phase("run-0", StepPhase.FAILED)
            assert failed.error is not None
            assert (failed.error.code, failed.error.fault) == ("remote-unavailable", "infrastructure")


async def test_outage_vanished_workspace_is_reported(tmp_path: Path) -> None:
    async with working(tmp_path) as world:

        def tool(workspace: Workspace) -> None:
            workspace.root.rename(tmp_path / "gone")

        failed = await world.whole(run_of("run-0", step("collect", "data", world.master)), tool)
        assert failed.error is not None
        assert (failed.error.code, failed.error.fault) == ("workspace-missing", "infrastructure")


async def test_outage_lost_seal_only_costs_time(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await world.whole(run_of("run-0", step("collect", "data", world.master)), writes(a="0", b="0"))

        def tool(workspace: Workspace) -> None:
            (workspace.root / "handed-over").unlink()
            (workspace.data / "a").unlink()

        done = await world.whole(run_of("run-1", step("collect", "data", world.master), after=1), tool)
        assert done.phase is StepPhase.SUCCEEDED
        assert git(world.master, "ls-tree", "--name-only", NODE).split() == ["b"]


async def test_outage_agreed_ground_truth_replaces_local_one(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await world.whole(run_of("run-0", step("collect", "data", world.master)), writes(a="0"))
        away = world.master.rename(tmp_path / "away.git")
        await world.whole(run_of("run-1", step("collect", "data", world.master), after=1), writes(a="1"))
        push_as_stranger(tmp_path, away, "ground-truth", agreed="x")
        await world.takes_part("node-2", "data")
        away.rename(world.master)
        await eventually(lambda: not world.manager.pusher.failures)
        assert runs_on(world.master) == ["run-1", "run-0"]
        assert git(world.master, "ls-tree", "--name-only", "ground-truth").split() == ["a", "agreed"]
        await world.whole(run_of("run-2", step("collect", "data", world.master), after=2), writes(a="2"))
        listed = await world.manager.files("data", "ground-truth", "", 10, None)
        assert [entry.name for entry in listed.items] == ["a", "agreed"]


async def test_outage_broken_objects_are_shown_on_the_step_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any) -> str:
        raise ObjectMissing("1234abcd")

    async with working(tmp_path) as world:
        await world.begin(run_of("run-0", step("collect", "data", world.master)))
        await world.phase("run-0", StepPhase.READY)
        monkeypatch.setattr(Clone, "write_tree", missing)
        await world.run_tool("run-0", writes(a="0"))
        shown = await world.until("run-0", lambda run: run.steps[0].waiting is not None)
        assert shown.steps[0].phase is StepPhase.PUBLISHING
        assert "1234abcd" in str(shown.steps[0].waiting)
        monkeypatch.undo()
        assert (await world.phase("run-0", StepPhase.SUCCEEDED)).waiting is None


async def test_outage_unremovable_workspace_blocks_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    async with working(tmp_path, keep_workspaces=0) as world:
        data = world.manager.context.data
        data.run_workspaces("of-root").mkdir(parents=True)
        data.clone("broken").mkdir(parents=True)
        monkeypatch.setattr(workspaces, "remove_tree", refuse)
    async with working(tmp_path, keep_workspaces=0) as world:
        await world.manager.upkeep.run_once()
        monkeypatch.undo()
        done = await world.whole(run_of("run-0", step("collect", "data", world.master)), writes(a="0"))
        assert done.phase is StepPhase.SUCCEEDED
        await world.manager.upkeep.run_once()
        assert not data.run_workspaces("of-root").exists()
