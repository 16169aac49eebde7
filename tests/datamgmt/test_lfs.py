"""Files above a dataset's limit are pointers in git and content elsewhere; with real git-lfs."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from mao_datamgmt.browse import datasets
from mao_datamgmt.browse.diff import difference
from mao_datamgmt.context import Context
from mao_git.attributes import with_paths
from mao_shared.errors import MaoError
from mao_shared.host.data_dir import Workspace
from mao_shared.models import StepRun
from mao_shared.states import StepPhase
from mao_shared.store.memory import MemoryStore
from tests.support.git import file_at, git

from .world import NODE, Tool, World, run_of, step, working, writes

pytestmark = pytest.mark.lfs

ABOVE = 1000
BIG, BIGGER = os.urandom(5000), os.urandom(200_000)


def content(context: Context, name: str, ref: str | None, path: str) -> bytes:
    """Download a file of a dataset."""
    return b"".join(datasets.open_content(context, name, ref, path).pieces)


async def publish(world: World, number: int, tool: Tool, above: int | None = ABOVE) -> StepRun:
    run = run_of(f"run-{number}", step("collect", "data", world.master, above=above), after=number)
    done = await world.whole(run, tool)
    await world.until_gone(run.id) if done.phase is StepPhase.SUCCEEDED else None
    return done


def big_files(workspace: Workspace) -> None:
    (workspace.data / "d").mkdir()
    (workspace.data / "d/a b [1].bin").write_bytes(BIG)
    (workspace.data / "bigger.bin").write_bytes(BIGGER)
    (workspace.data / "small.txt").write_text("small")


def checkout(tmp_path: Path, master: Path) -> Path:
    """Clone the remote with git and git-lfs, as a user does."""
    work = tmp_path / "scientist"
    git(tmp_path, "clone", "-q", "-b", "ground-truth", str(master), str(work))
    git(work, "lfs", "install", "--local")
    git(work, "lfs", "pull")
    return work


async def test_lfs_files_are_pointers_in_git_only(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        done = await publish(world, 1, big_files)
        assert done.phase is StepPhase.SUCCEEDED, done.error
        assert done.pushed
        digest = hashlib.sha256(BIGGER).hexdigest()
        assert f"oid sha256:{digest}\nsize {len(BIGGER)}" in file_at(world.master, f"{NODE}:bigger.bin")
        assert file_at(world.master, f"{NODE}:small.txt") == "small"
        context = world.manager.context
        assert content(context, "data", None, "bigger.bin") == BIGGER
        sizes = {
            file.name: file.size for file in datasets.list_files(context, "data", None, "", 10, None).items
        }
        assert sizes["bigger.bin"] == len(BIGGER)
        changed = difference(context, "data", done.base_commit, done.snapshot, "").files
        assert {file.path: file.size for file in changed}["bigger.bin"] == len(BIGGER)
        work = checkout(tmp_path, world.master)
        assert (work / "bigger.bin").read_bytes() == BIGGER
        assert (work / "d/a b [1].bin").read_bytes() == BIG
        assert git(work, "status", "--porcelain") == ""
        assert git(work, "lfs", "fsck") == "Git LFS fsck OK"


async def test_lfs_next_step_gets_content(tmp_path: Path) -> None:
    def shrink(workspace: Workspace) -> None:
        assert (workspace.data / "bigger.bin").read_bytes() == BIGGER
        assert (workspace.data / "d/a b [1].bin").read_bytes() == BIG
        (workspace.data / "bigger.bin").write_text("now small")
        (workspace.data / "d/a b [1].bin").unlink()

    async with working(tmp_path) as world:
        await publish(world, 1, big_files)
        done = await publish(world, 2, shrink)
        assert done.phase is StepPhase.SUCCEEDED, done.error
        assert file_at(world.master, f"{NODE}:bigger.bin") == "now small"
        assert git(world.master, "ls-tree", "-r", "--name-only", NODE).split() == ["bigger.bin", "small.txt"]
        assert git(checkout(tmp_path, world.master), "status", "--porcelain") == ""


async def test_lfs_other_node_fetches_content(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await publish(world, 1, big_files)
    seen: dict[str, bytes] = {}

    def look(workspace: Workspace) -> None:
        seen.update({name: (workspace.root / name / "bigger.bin").read_bytes() for name in ("data", "input")})
        (workspace.data / "more").write_text("x")

    other = tmp_path / "other"
    other.mkdir()
    (other / "master.git").symlink_to(tmp_path / "master.git")
    async with working(other, MemoryStore(), local_remotes=str(tmp_path)) as world:
        source = ("data", str(world.master), "ground-truth")
        done = await world.whole(run_of("run-2", step("use", "data", world.master, source, ABOVE)), look)
        assert done.phase is StepPhase.SUCCEEDED, done.error
        assert seen == {"data": BIGGER, "input": BIGGER}


async def test_lfs_content_is_pushed_before_branches(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await publish(world, 1, writes(a="1"))
        away = tmp_path / "away.git"
        world.master.rename(away)
        done = await publish(world, 2, big_files)
        assert (done.phase, done.pushed) == (StepPhase.SUCCEEDED, False)
        away.rename(world.master)
        await world.until("run-2", lambda run: run.steps[0].pushed)
        assert (checkout(tmp_path, world.master) / "bigger.bin").read_bytes() == BIGGER


async def test_large_file_without_lfs_is_refused(tmp_path: Path) -> None:
    async with working(tmp_path, max_file_size=10_000) as world:
        done = await publish(world, 1, big_files, None)
        assert done.phase is StepPhase.FAILED
        assert done.error is not None
        assert done.error.code == "output-refused"
        assert "'bigger.bin' has 200000 bytes" in done.error.detail
        assert "Git LFS" in (done.error.next or "")
        assert world.workspace("run-1").data.joinpath("bigger.bin").read_bytes() == BIGGER
        again = await publish(world, 2, big_files)
        assert again.phase is StepPhase.SUCCEEDED, again.error


async def test_lfs_without_the_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    async with working(tmp_path) as world:
        await publish(world, 1, writes(a="1"))
        with monkeypatch.context() as patch:
            patch.setenv("PATH", str(empty))
            done = await publish(world, 2, big_files)
        assert not done.pushed
        assert "no git-lfs program" in (done.waiting or "")
        await world.until("run-2", lambda run: run.steps[0].pushed)


async def test_lfs_lookalike_stays_as_it_is(tmp_path: Path) -> None:
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 5\n"

    def tool(workspace: Workspace) -> None:
        (workspace.data / "trick").write_text(text)
        (workspace.data / ".lfsconfig").write_text("[lfs]\n\turl = http://127.0.0.1:9/elsewhere\n")

    async with working(tmp_path) as world:
        done = await publish(world, 1, tool)
        assert done.phase is StepPhase.SUCCEEDED, done.error
        assert content(world.manager.context, "data", None, "trick").decode() == text


async def test_lfs_missing_content_is_named(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await publish(world, 1, big_files)
        for place in (world.master, world.manager.context.data.clone("data")):
            for path in (place / "lfs/objects").rglob("*"):
                path.unlink() if path.is_file() else None
        with pytest.raises(MaoError) as caught:
            content(world.manager.context, "data", None, "bigger.bin")
        assert caught.value.code == "lfs-content-missing"


@pytest.mark.parametrize("name", ["a b", "a*[x]?\\", "é.bin", "a\nb", '"q"', "#h", "!n", " lead", "dir/x"])
def test_attributes_line_matches_its_path_only(tmp_path: Path, name: str) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitattributes").write_text(with_paths("*.txt text\n", {name}, set()))
    asked = git(tmp_path, "check-attr", "-z", "filter", "--", name, f"sub/{name}", f"{name}z").split("\0")
    assert [asked[i] for i in (2, 5, 8)] == ["lfs", "unspecified", "unspecified"]
    assert with_paths((tmp_path / ".gitattributes").read_text(), set(), {name}) == "*.txt text\n"
