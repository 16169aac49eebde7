"""A published step's folder is reused by the next one, with nothing of the tool but its content."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mao_datamgmt.steps import workspaces
from mao_datamgmt.steps.output import make_stamp
from mao_shared.host.data_dir import Workspace
from mao_shared.models import StepRun
from mao_shared.states import StepPhase
from tests.support.git import file_at, git

from .world import NODE, World, push_as_stranger, run_of, step, working, writes


async def publish(world: World, number: int, tool: Callable[[Workspace], None]) -> StepRun:
    done = await world.whole(
        run_of(f"run-{number}", step("collect", "data", world.master), after=number), tool
    )
    assert done.phase is StepPhase.SUCCEEDED, done.error
    await world.until_gone(f"run-{number}")
    return done


async def laid(world: World, number: int) -> Path:
    await world.begin(run_of(f"run-{number}", step("collect", "data", world.master), after=number))
    await world.phase(f"run-{number}", StepPhase.READY)
    return world.workspace(f"run-{number}").data


def content(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


async def test_worktree_files_that_stay_are_not_written_again(tmp_path: Path) -> None:
    async with working(tmp_path) as world:

        def tool(workspace: Workspace) -> None:
            writes(a="1", d__b="2")(workspace)
            if (owner := world.manager.context.owner) is not None:  # the user that a container would run as
                for path in workspace.data.rglob("*"):
                    os.chown(path, owner, owner)

        await publish(world, 1, tool)
        kept = world.manager.context.data.worktree("data") / "data"
        before = {name: make_stamp((kept / name).stat()) for name in ("a", "d/b")}
        folder = await laid(world, 2)
        assert {name: make_stamp((folder / name).stat()) for name in ("a", "d/b")} == before
        assert content(folder) == {"a": "1", "d/b": "2"}


async def test_worktree_checks_out_commits_of_others(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await publish(world, 1, writes(a="1", d__b="2", d__c="3", e__x__f="4"))
        push_as_stranger(tmp_path, world.master, NODE, a="changed", new="n")
        work = tmp_path / "more"
        git(tmp_path, "clone", "-q", "-b", NODE, str(world.master), str(work))
        git(work, "rm", "-q", "e/x/f", "d/b")
        (work / "e").write_text("a file where a folder was")
        git(work, "add", "-A")
        git(work, "commit", "-qm", "by a stranger")
        git(work, "push", "-q", "origin", NODE)
        folder = await laid(world, 2)
        assert content(folder) == {"a": "changed", "new": "n", "d/c": "3", "e": "a file where a folder was"}


def _traces(workspace: Workspace) -> None:
    data = workspace.data
    (data / "hidden").mkdir()
    (data / "f").write_text("f")
    (data / "g").hardlink_to(data / "f")
    (data / "link").symlink_to("f")
    (data / "d").mkdir(mode=0o777)
    (data / "d").chmod(0o2777)
    (data / "d/s").write_text("s")
    (data / "d/s").chmod(0o6777)
    (data / "x").write_text("x")
    os.setxattr(data / "x", "user.note", b"for the next tool")
    os.setxattr(data / "d", "user.note", b"for the next tool")


async def test_worktree_only_content_passes_on(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await publish(world, 1, _traces)
        folder = await laid(world, 2)
        owner = world.manager.context.owner or os.geteuid()
        assert content(folder) == {"f": "f", "g": "f", "link": "f", "d/s": "s", "x": "x"}
        assert {str(p.relative_to(folder)) for p in folder.rglob("*")} == {"f", "g", "link", "d", "d/s", "x"}
        for path in (folder, *folder.rglob("*")):
            status = path.lstat()
            executable = path.is_dir() or path.name == "s"
            assert (status.st_mode & 0o7777, status.st_uid) == (0o755 if executable else 0o644, owner), path
            assert os.listxattr(path) == [], path
            assert path.is_dir() or status.st_nlink == 1, path


@pytest.mark.parametrize("harm", ["changed", "added", "removed", "no seal", "no note", "a link for a folder"])
async def test_worktree_modified_kept_folder_is_checked_out_again(tmp_path: Path, harm: str) -> None:
    async with working(tmp_path) as world:
        await publish(world, 1, writes(a="1", d__b="2"))
        kept = world.manager.context.data.worktree("data")
        if harm == "changed":
            (kept / "data/a").write_text("9")
        elif harm == "added":
            (kept / "data/z").write_text("9")
        elif harm == "removed":
            (kept / "data/a").unlink()
        elif harm == "a link for a folder":
            (kept / "data/d").rename(tmp_path / "elsewhere")
            (kept / "data/d").symlink_to(tmp_path / "elsewhere")
        else:
            (kept / (workspaces.SEAL if harm == "no seal" else "published.json")).unlink()
        folder = await laid(world, 2)
        assert content(folder) == {"a": "1", "d/b": "2"}
        assert not (folder / "d").is_symlink()


async def test_worktree_chain_of_changes_is_published_right(tmp_path: Path) -> None:
    def more(workspace: Workspace) -> None:
        (workspace.data / "a").write_text((workspace.data / "a").read_text() + "+")
        (workspace.data / "d/b").unlink(missing_ok=True)

    async with working(tmp_path) as world:
        await publish(world, 1, writes(a="1", d__b="2", c="3"))
        for number in range(2, 6):
            await publish(world, number, more)
        assert file_at(world.master, f"{NODE}:a") == "1++++"
        assert git(world.master, "ls-tree", "-r", "--name-only", NODE).split() == ["a", "c"]
        git(world.master, "fsck", "--strict", "--full")
