"""Output that this node cannot store is refused; a step that cannot publish can be cancelled."""

from __future__ import annotations

import asyncio
import os
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from mao_datamgmt.steps import workspaces
from mao_scheduler.runs.stuck import stuck_steps
from mao_shared.host.data_dir import Workspace
from mao_shared.models import CancelRequest, Run
from mao_shared.states import StepPhase
from tests.support.disk import set_read_only, small_disk
from tests.support.git import git

from .world import BEGIN, NODE, PATIENCE, Tool, World, run_of, runs_on, step, working, writes


def nested(data: Path, *names: str) -> None:
    """Create a file in nested folders, each relative to its parent so that no path is too long."""
    here = os.open(data, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=here)
        here, outer = os.open(name, os.O_RDONLY, dir_fd=here), here
        os.close(outer)
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=here))
    os.close(here)


def no_way_in(workspace: Workspace) -> None:
    (workspace.data / "d").mkdir()
    (workspace.data / "d/f").write_text("x")
    (workspace.data / "d").chmod(0)


def secret_file(workspace: Workspace) -> None:
    (workspace.data / "f").write_text("x")
    (workspace.data / "f").chmod(0)


UNFIT: dict[str, tuple[Tool, str]] = {
    "path that no host can open": (lambda w: nested(w.data, *["d" * 200] * 40), "bytes; "),
    "path that fits the container only": (lambda w: nested(w.data, *["d" * 200] * 20), "bytes; "),
    "path of few characters and many bytes": (lambda w: nested(w.data, *["ü" * 120] * 16), "bytes; "),
    "folders without a file's end in sight": (lambda w: nested(w.data, *["d"] * 3000), "folders deep"),
    "name that leads out on Windows": (lambda w: (w.data / "..\\..\\x").touch(), "backslash separates names"),
    "git's own, below a backslash": (
        lambda w: (w.data / "a\\.git\\config").touch(),
        "backslash separates names",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
async def test_publish_unfit_output_is_refused_and_blocks_nothing(tmp_path: Path, case: str) -> None:
    tool, words = UNFIT[case]
    async with working(tmp_path) as world:
        failed = await world.whole(run_of("run-0", step("collect", "data", world.master)), tool)
        assert failed.phase is StepPhase.FAILED
        assert failed.error is not None
        assert (failed.error.code, failed.error.fault) == ("output-refused", "tool")
        assert words in failed.error.detail
        assert len(failed.error.detail) < 500
        fine = await world.whole(
            run_of("run-1", step("collect", "data", world.master), after=1), writes(a="1")
        )
        assert fine.phase is StepPhase.SUCCEEDED, fine.error
        workspaces.remove_tree(world.manager.context.data.run_workspaces("run-0"))
        assert not world.manager.context.data.run_workspaces("run-0").exists()


@pytest.mark.parametrize("letter", ["d", "ü"])
async def test_publish_longest_path_can_be_checked_out(tmp_path: Path, letter: str) -> None:
    def tool(workspace: Workspace) -> None:
        left = world.manager.context.limits.path - len("/f")
        folders = [letter * (100 // len(letter.encode()))] * (left // 101)
        folders[-1] += "x" * (left - len("/".join(folders).encode()))
        nested(workspace.data, *folders)

    async with working(tmp_path) as world:
        done = await world.whole(run_of("run-0", step("collect", "data", world.master)), tool)
        assert done.phase is StepPhase.SUCCEEDED, done.error
        named = git(world.master, "-c", "core.quotePath=false", "ls-tree", "-r", "-z", "--name-only", NODE)
        assert len(named.rstrip("\0").encode()) == world.manager.context.limits.path
        source = ("data", str(world.master), "ground-truth")
        again = run_of("a-run-with-a-name-" + "x" * 150, step("use", "data", world.master, source), after=1)
        done = await world.whole(again, writes(b="2"))
        assert done.phase is StepPhase.SUCCEEDED, done.error


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("tool", [no_way_in, secret_file])
async def test_publish_unreadable_output_is_refused(tmp_path: Path, tool: Tool) -> None:
    tmp_path.chmod(0o777)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    os.seteuid(65534)
    try:
        async with working(tmp_path) as world:
            failed = await world.whole(run_of("run-0", step("collect", "data", world.master)), tool)
            assert failed.phase is StepPhase.FAILED
            assert failed.error is not None
            assert failed.error.code == "output-unreadable"
    finally:
        os.seteuid(0)


async def cancel(world: World, run_id: str) -> None:
    wish = CancelRequest(requested_at=BEGIN, reason="Enough.")
    await world.change(run_id, lambda run: run.model_copy(update={"cancel": wish}))


def shown(run: Run) -> bool:
    return run.steps[0].error is not None


async def test_publish_without_progress_is_stuck_and_cancellable(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 24 << 20) as small:
        async with working(tmp_path, data_dir=small / "node", min_free=0) as world:
            await world.whole(run_of("run-0", step("collect", "data", world.master)), writes(old="0"))
            await world.begin(run_of("run-1", step("collect", "data", world.master), after=1))
            ready = await world.phase("run-1", StepPhase.READY)
            assert ready.base_commit is not None

            def tool(workspace: Workspace) -> None:
                writes(new="1")(workspace)
                set_read_only(small, True)

            await world.run_tool("run-1", tool)
            run = await world.until("run-1", shown)
            assert run.steps[0].phase is StepPhase.PUBLISHING
            since = run.steps[0].times[StepPhase.PUBLISHING]
            (stuck,) = stuck_steps([run], since + timedelta(hours=1), timedelta(minutes=15))
            assert "disk" in stuck.reason
            await cancel(world, "run-1")
            await world.phase("run-1", StepPhase.CANCELLED)
            set_read_only(small, False)
            done = await world.whole(
                run_of("run-2", step("collect", "data", world.master), after=2), writes(b="2")
            )
            assert done.phase is StepPhase.SUCCEEDED, done.error
            assert runs_on(world.master) == ["run-2", "run-0"]


@pytest.mark.parametrize("busy", [False, True], ids=["at once", "while others are at work on the dataset"])
async def test_publish_cancellation_keeps_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    async with working(tmp_path) as world:
        await world.whole(run_of("run-0", step("collect", "data", world.master)), writes(old="0"))
        await world.begin(run_of("run-1", step("collect", "data", world.master), after=1))
        monkeypatch.setattr("mao_datamgmt.steps.controller.push_output", _never)
        await world.run_tool("run-1", writes(new="1"))
        await world.until("run-1", shown)
        assert git(world.manager.context.data.clone("data"), "show", f"{NODE}:new") == "1"
        go, at_work = threading.Event(), threading.Event()

        def long() -> None:
            at_work.set()
            go.wait(PATIENCE)

        held = asyncio.ensure_future(world.manager._executor.write(["data"], long))
        try:
            if busy:
                await asyncio.to_thread(at_work.wait, PATIENCE)
            else:
                go.set()
            await cancel(world, "run-1")
            done = await world.phase("run-1", StepPhase.SUCCEEDED, StepPhase.CANCELLED)
            assert done.phase is StepPhase.SUCCEEDED
            told = [condition.name for condition in world.manager.conditions.current()]
            assert "remote" not in told  # which has not even been asked
        finally:
            go.set()
            await held
        assert (await world.until("run-1", lambda run: run.steps[0].pushed)).steps[0].snapshot is not None
        assert runs_on(world.master) == ["run-1", "run-0"]


def _never(*_: object, **__: object) -> None:
    raise OSError("the disk is asleep")


async def test_publish_cancelled_once_it_has_exited_publishes_nothing(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await world.begin(run_of("run-0", step("collect", "data", world.master)))
        await world.phase("run-0", StepPhase.READY)
        await cancel(world, "run-0")
        await world.run_tool("run-0", writes(a="1"))
        await world.phase("run-0", StepPhase.CANCELLED)
        assert git(world.master, "log", "--all") == ""


@pytest.mark.parametrize("phase", [StepPhase.PREPARING, StepPhase.PUBLISHING])
async def test_publish_waiting_for_dataset_is_cancellable(tmp_path: Path, phase: StepPhase) -> None:
    """Hold the dataset's lock for long, as the push of a large file does."""
    async with working(tmp_path) as world:
        works, go, at_work = world.manager._executor, threading.Event(), threading.Event()

        def long() -> None:
            at_work.set()
            go.wait(PATIENCE)

        await world.whole(run_of("run-0", step("collect", "data", world.master)), writes(old="0"))
        run = run_of("run-1", step("collect", "data", world.master), after=1)
        if phase is StepPhase.PUBLISHING:
            await world.begin(run)
            await world.phase("run-1", StepPhase.READY)
        held = asyncio.ensure_future(works.write(["data"], long))
        await asyncio.to_thread(at_work.wait, PATIENCE)
        try:
            if phase is StepPhase.PUBLISHING:
                await world.run_tool("run-1", writes(new="1"))
            else:
                await world.begin(run)
            await world.phase("run-1", phase)
            await cancel(world, "run-1")
            await world.phase("run-1", StepPhase.CANCELLED)
            assert not held.done()
        finally:
            go.set()
            await held
        done = await world.whole(
            run_of("run-2", step("collect", "data", world.master), after=2), writes(b="2")
        )
        assert done.phase is StepPhase.SUCCEEDED, done.error
        assert runs_on(world.master) == ["run-2", "run-0"]
