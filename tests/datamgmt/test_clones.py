"""Creation of clones and of the node's branch, and removal of workspaces."""

from __future__ import annotations

import asyncio
import io
import os
import shlex
from functools import partial
from pathlib import Path

import pytest

from mao_datamgmt.datasets import clones
from mao_datamgmt.datasets.clones import dataset_names, remove_unfinished
from mao_datamgmt.datasets.delivery import push_branches
from mao_datamgmt.steps import workspaces
from mao_git import Clone, Content
from mao_shared import keys
from mao_shared.errors import Conflict, InvalidInput, NotFound
from mao_shared.host.data_dir import DataDir
from mao_shared.models import Dataset, Enrolment
from mao_shared.states import StepPhase
from mao_shared.store.records import dump
from tests.support.git import bare_repository, git
from tests.support.waiting import eventually

from .world import NODE, context_for, run_of, step, working, writes


def seeded(tmp_path: Path, *branches: str) -> Path:
    """Create a remote whose branches each hold a file named after the branch."""
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
def test_clone_where_the_nodes_branch_begins(
    tmp_path: Path, branches: tuple[str, ...], begins_with: str | None
) -> None:
    remote = seeded(tmp_path, *branches)
    context = context_for(tmp_path)
    for _ in range(2):  # repeating changes nothing
        clones.ensure_clone(context, "data", str(remote))
        assert git(remote, "ls-tree", "--name-only", NODE) == (begins_with or "")
        assert git(remote, "rev-list", "--count", NODE) == "1"


def test_clone_file_url(tmp_path: Path) -> None:
    remote = bare_repository(tmp_path / "with%20percent.git".replace("%20", "%"))
    clones.ensure_clone(context_for(tmp_path), "data", f"file://{str(remote).replace('%', '%25')}")
    assert git(remote, "rev-list", "--count", NODE) == "1"


def test_clone_moved_dataset_keeps_local_commits(tmp_path: Path) -> None:
    context = context_for(tmp_path)
    clones.ensure_clone(context, "data", str(bare_repository(tmp_path / "one.git")))
    for name in ("empty.git", "mirror.git"):
        new = bare_repository(tmp_path / name)
        if name == "mirror.git":
            git(tmp_path / "one.git", "push", "-q", "--mirror", str(new))
        clones.ensure_clone(context, "data", str(new))
        assert Clone.open(context.data.clone("data")).url == str(new)
        assert git(new, "rev-list", "--count", NODE) == "1"


def test_clone_other_data_under_the_name_is_refused(tmp_path: Path) -> None:
    context = context_for(tmp_path)
    one = bare_repository(tmp_path / "one.git")
    clones.ensure_clone(context, "data", str(one))
    stranger = bare_repository(tmp_path / "three.git")
    commit = git(stranger, "commit-tree", "-m", "other data", git(stranger, "mktree", feed=""))
    git(stranger, "update-ref", "refs/heads/main", commit)
    with pytest.raises(Conflict) as caught:
        clones.ensure_clone(context, "data", str(stranger))
    assert caught.value.code == "dataset-master-changed"
    assert Clone.open(context.data.clone("data")).url == str(one)


def test_clone_remote_with_a_work_tree_refuses_only_its_checked_out_branch(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", NODE, "work")
    with pytest.raises(Exception, match="checked out"):
        clones.ensure_clone(context_for(tmp_path), "data", str(tmp_path / "work"))
    git(tmp_path / "work", "symbolic-ref", "HEAD", "refs/heads/main")
    clones.ensure_clone(context_for(tmp_path), "data", str(tmp_path / "work"))


@pytest.mark.parametrize("make", ["file", "folder"])
def test_clone_of_no_repository_is_refused(tmp_path: Path, make: str) -> None:
    target = tmp_path / "x"
    target.mkdir() if make == "folder" else target.write_text("x")
    with pytest.raises(InvalidInput) as caught:
        clones.ensure_clone(context_for(tmp_path), "data", str(target))
    assert caught.value.code == "dataset-unreachable"


def test_clone_half_made_repositories_are_cleared_away(tmp_path: Path) -> None:
    context = context_for(tmp_path)
    clones.ensure_clone(context, "data", str(bare_repository(tmp_path / "one.git")))
    (context.data.clone("x").parent / ".new-1234-x.git").mkdir()
    assert dataset_names(context.data) == ["data"]
    remove_unfinished(context.data)
    assert [path.name for path in context.data.clone("x").parent.iterdir()] == ["data.git"]


def test_clone_folder_without_rights_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/file").write_text("x")
    (folder / "a/b").chmod(0)
    (folder / "a").chmod(0o500)
    workspaces.remove_tree(folder)
    assert not folder.exists()


async def test_clone_workspaces_expire_but_never_those_of_active_runs(tmp_path: Path) -> None:
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


def test_clone_diverged_branch_is_reported(tmp_path: Path) -> None:
    one, two = (context_for(tmp_path, data_dir=tmp_path / name) for name in "ab")
    remote = bare_repository(tmp_path / "remote.git")
    for context, text in ((one, "1"), (two, "2")):
        clone = clones.ensure_clone(context, "data", str(remote))
        tip = clone.tip(NODE)
        assert tip is not None
        content = Content(partial(io.BytesIO, text.encode()))
        tree = clone.write_tree(clone.tree(tip), {"f": content})
        made = clone.commit(tree, [tip], "m\n", context.author())
        assert clone.move_branch(NODE, made, tip)
    push_branches(one, Clone.open(one.data.clone("data")), promote=False)
    with pytest.raises(Conflict) as caught:
        clones.ensure_clone(two, "data", str(remote))
    assert caught.value.code == "branch-conflict"


async def test_clone_cleanup_keeps_workspace_of_starting_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(tmp_path, keep_workspaces=0) as world:
        loop = asyncio.get_running_loop()
        begin = run_of("late", step("collect", "data", world.master))

        def list_late(data: DataDir) -> list[workspaces.StoredWorkspace]:
            monkeypatch.setattr(workspaces, "list_stored", list_kept)
            asyncio.run_coroutine_threadsafe(world.begin(begin), loop).result()
            asyncio.run_coroutine_threadsafe(world.phase("late", StepPhase.READY), loop).result()
            return list_kept(data)

        list_kept = workspaces.list_stored
        monkeypatch.setattr(workspaces, "list_stored", list_late)
        await world.manager.upkeep.run_once()
        await world.phase("late", StepPhase.READY)
        assert world.workspace("late").data.is_dir()


def test_clone_way_out_of_other_data_deletes_no_branch_of_others(tmp_path: Path) -> None:
    context = context_for(tmp_path)
    clones.ensure_clone(context, "data", str(bare_repository(tmp_path / "one.git")))
    there = seeded(tmp_path, "node-2", "ground-truth")
    before = git(there, "for-each-ref")
    with pytest.raises(Conflict) as caught:
        clones.ensure_clone(context, "data", str(there))
    assert caught.value.next is not None
    assert "--mirror" not in caught.value.next
    command = caught.value.next.partition("branch there: ")[2].partition(" .")[0]
    assert shlex.split(command)[0] == "git"
    git(tmp_path, *shlex.split(command)[1:])
    assert set(before.splitlines()) < set(git(there, "for-each-ref").splitlines())
    assert clones.ensure_clone(context, "data", str(there)).url == str(there)


async def test_clone_set_aside_keeps_everything(tmp_path: Path) -> None:
    other = bare_repository(tmp_path / "other.git")
    commit = git(other, "commit-tree", "-m", "x", git(other, "mktree", feed=""))
    git(other, "update-ref", "refs/heads/main", commit)
    async with working(tmp_path) as world:
        done = await world.whole(run_of("one", step("collect", "data", world.master)), writes(a="1"))
        data, manager = world.manager.context.data, world.manager
        await world.until_gone("one")
        assert await world.store.delete(keys.run(NODE, "one"))
        await eventually(lambda: not dict(manager.mirror.items()))
        record = Dataset(name="data", master=str(world.master), nodes=[NODE])
        await world.store.create(keys.registry("datasets", "data"), dump(record))
        with pytest.raises(Conflict) as caught:
            await manager.set_aside("data")
        assert caught.value.code == "dataset-in-use"
        await world.store.delete(keys.registry("datasets", "data"))
        aside = await manager.set_aside("data")
        assert aside.remote == str(world.master)
        assert git(Path(aside.path), "rev-parse", NODE) == done.snapshot
        assert dataset_names(data) == []
        with pytest.raises(NotFound):
            await manager.set_aside("data")
        renewed = Dataset(name="data", master=str(other))
        assert (await manager.ensure_dataset(renewed)).name == "data"
        ended = await world.whole(run_of("two", step("collect", "data", other)), writes(b="2"))
        assert ended.phase is StepPhase.SUCCEEDED


async def test_clone_set_aside_takes_its_metrics_along(tmp_path: Path) -> None:
    """Otherwise the age of commits that are nobody's concern any more would grow and alert for ever."""
    async with working(tmp_path) as world:
        await world.whole(run_of("one", step("collect", "data", world.master)), writes(a="1"))
        world.master.rename(tmp_path / "away.git")
        await world.whole(run_of("two", step("collect", "data", world.master), after=1), writes(a="2"))
        names = ("mao_datamgmt_unpushed_commits", "mao_datamgmt_unpushed_age_seconds")
        await eventually(lambda: all(world.metric(name, dataset="data") is not None for name in names))
        for name in ("one", "two"):
            await world.until_gone(name)
            assert await world.store.delete(keys.run(NODE, name))
        await eventually(lambda: not dict(world.manager.mirror.items()))
        await world.manager.set_aside("data")
        await eventually(lambda: all(world.metric(name, dataset="data") is None for name in names))


async def test_clone_of_enrolment_is_not_set_aside(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        clones.ensure_clone(world.manager.context, "data", str(world.master))
        run = run_of("one", step("collect", "data", world.master))
        fields = {"pipeline": "daily", "node": NODE, "pipeline_revision": 1, "enrolled_at": run.created_at}
        enrolment = Enrolment.model_validate({**fields, "steps": [run.steps[0].spec]})
        await world.store.create(keys.enrolment(NODE, "daily"), enrolment.model_dump_json().encode())
        with pytest.raises(Conflict, match="pipeline daily"):
            await world.manager.set_aside("data")
