"""Making clones and the node's branch, and clearing workspaces away."""

from __future__ import annotations

import asyncio
import io
import os
from functools import partial
from pathlib import Path

import pytest

from mao_datamgmt import clones, repository, workspaces
from mao_datamgmt.bare import dataset_names, remove_half_made
from mao_datamgmt.deliver import deliver
from mao_datamgmt.repository import Content
from mao_shared.errors import Conflict, InvalidInput
from mao_shared.states import StepPhase
from mao_shared.workspace import DataDir
from tests.support.git import bare_repository, git
from tests.support.waiting import eventually

from .world import NODE, context_for, run_of, step, working, writes


def seeded(tmp_path: Path, *branches: str) -> Path:
    """A remote whose branches each hold a file of their name."""
    remote = bare_repository(tmp_path / "remote.git")
    work = tmp_path / "work"
    git(tmp_path, "clone", "-q", str(remote), str(work))
    for branch in branches:
        git(work, "checkout", "-q", "--orphan", branch)
        (work / branch).write_text("x")
        git(work, "add", branch)
        git(work, "commit", "-qm", branch)
        git(work, "push", "-q", "origin", branch)
        git(work, "rm", "-q", "--cached", branch)
        (work / branch).unlink()
    return remote


@pytest.mark.parametrize(
    ("branches", "begins_with"),
    [
        ((), None),
        (("main",), "main"),
        (("main", "ground-truth"), "ground-truth"),
        (("main", "ground-truth", NODE), NODE),
        (("other",), None),
    ],
)
def test_where_the_nodes_branch_begins(
    tmp_path: Path, branches: tuple[str, ...], begins_with: str | None
) -> None:
    remote = seeded(tmp_path, *branches)
    context = context_for(tmp_path)
    for _ in range(2):  # repeating changes nothing
        clones.ensure(context, "data", str(remote))
        assert git(remote, "ls-tree", "--name-only", NODE) == (begins_with or "")
        assert git(remote, "rev-list", "--count", NODE) == "1"


def test_file_url(tmp_path: Path) -> None:
    remote = bare_repository(tmp_path / "with%20percent.git".replace("%20", "%"))
    clones.ensure(context_for(tmp_path), "data", f"file://{str(remote).replace('%', '%25')}")
    assert git(remote, "rev-list", "--count", NODE) == "1"


def test_a_dataset_that_moved_is_followed_with_all_that_is_here(tmp_path: Path) -> None:
    context = context_for(tmp_path)
    clones.ensure(context, "data", str(bare_repository(tmp_path / "one.git")))
    for name in ("empty.git", "mirror.git"):
        new = bare_repository(tmp_path / name)
        if name == "mirror.git":
            git(tmp_path / "one.git", "push", "-q", "--mirror", str(new))
        clones.ensure(context, "data", str(new))
        assert repository.open_clone(context.data.clone("data")).url == str(new)
        assert git(new, "rev-list", "--count", NODE) == "1"


def test_other_data_under_the_name_is_refused(tmp_path: Path) -> None:
    context = context_for(tmp_path)
    one = bare_repository(tmp_path / "one.git")
    clones.ensure(context, "data", str(one))
    stranger = bare_repository(tmp_path / "three.git")
    commit = git(stranger, "commit-tree", "-m", "other data", git(stranger, "mktree", feed=""))
    git(stranger, "update-ref", "refs/heads/main", commit)
    with pytest.raises(Conflict) as caught:
        clones.ensure(context, "data", str(stranger))
    assert caught.value.code == "dataset-master-changed"
    assert repository.open_clone(context.data.clone("data")).url == str(one)


def test_remote_with_a_work_tree_refuses_only_its_checked_out_branch(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", NODE, "work")
    with pytest.raises(Exception, match="checked out"):
        clones.ensure(context_for(tmp_path), "data", str(tmp_path / "work"))
    git(tmp_path / "work", "symbolic-ref", "HEAD", "refs/heads/main")
    clones.ensure(context_for(tmp_path), "data", str(tmp_path / "work"))


@pytest.mark.parametrize("make", ["file", "folder"])
def test_what_is_no_repository(tmp_path: Path, make: str) -> None:
    target = tmp_path / "x"
    target.mkdir() if make == "folder" else target.write_text("x")
    with pytest.raises(InvalidInput) as caught:
        clones.ensure(context_for(tmp_path), "data", str(target))
    assert caught.value.code == "dataset-unreachable"


def test_half_made_repositories_are_cleared_away(tmp_path: Path) -> None:
    context = context_for(tmp_path)
    clones.ensure(context, "data", str(bare_repository(tmp_path / "one.git")))
    (context.data.clone("x").parent / ".new-1234-x.git").mkdir()
    assert dataset_names(context.data) == ["data"]
    remove_half_made(context.data)
    assert [path.name for path in context.data.clone("x").parent.iterdir()] == ["data.git"]


def test_folder_without_rights_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/file").write_text("x")
    (folder / "a/b").chmod(0)
    (folder / "a").chmod(0o500)
    workspaces.remove(folder)
    assert not folder.exists()


async def test_workspaces_expire_but_never_those_of_active_runs(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await world.begin(run_of("active", step("collect", "data", world.master)))
        await world.phase("active", StepPhase.READY)
        for name in ("active", "ended"):
            folder = world.manager.context.data.run_workspaces(name)
            folder.mkdir(exist_ok=True)
            os.utime(folder, (0, 0))
    async with working(tmp_path, world.store) as world:
        data = world.manager.context.data
        await world.run_tool("active", writes(a="1"))
        done = await world.phase("active", StepPhase.SUCCEEDED)
        assert done.snapshot
        await eventually(lambda: not data.run_workspaces("ended").exists())


def test_branch_that_cannot_follow_the_remote_is_told(tmp_path: Path) -> None:
    one, two = (context_for(tmp_path, data_dir=tmp_path / name) for name in "ab")
    remote = bare_repository(tmp_path / "remote.git")
    for context, text in ((one, "1"), (two, "2")):
        clone = clones.ensure(context, "data", str(remote))
        tip = repository.find_branch(clone, NODE)
        assert tip is not None
        content = Content(partial(io.BytesIO, text.encode()))
        tree = repository.tree_with(clone, repository.tree_of(clone, tip), {"f": content})
        made = repository.commit_tree(clone, tree, [tip], "m\n", context.author())
        assert repository.move_branch(clone, NODE, made, tip)
    deliver(one, repository.open_clone(one.data.clone("data")), promote=False)
    with pytest.raises(Conflict) as caught:
        clones.ensure(two, "data", str(remote))
    assert caught.value.code == "branch-conflict"


async def test_a_run_that_begins_while_workspaces_are_listed_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(tmp_path, keep_workspaces=0) as world:
        loop = asyncio.get_running_loop()
        begin = run_of("late", step("collect", "data", world.master))

        def list_late(data: DataDir) -> list[workspaces.Kept]:
            monkeypatch.setattr(workspaces, "list_kept", list_kept)
            asyncio.run_coroutine_threadsafe(world.begin(begin), loop).result()
            asyncio.run_coroutine_threadsafe(world.phase("late", StepPhase.READY), loop).result()
            return list_kept(data)

        list_kept = workspaces.list_kept
        monkeypatch.setattr(workspaces, "list_kept", list_late)
        await world.manager.retain_once()
        await world.phase("late", StepPhase.READY)
        assert world.workspace("late").data.is_dir()
