"""A file becomes a folder of the same name, and a folder a file, in every layer and in later runs."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from mao_datamgmt.browse.archive import open_archive, write_archive
from mao_datamgmt.browse.diff import difference
from mao_shared.host.data_dir import Workspace
from mao_shared.models import StepRun
from mao_shared.states import StepPhase
from tests.support.git import git
from tests.vote.repo import commit, data_of, new_repository, vote

from .world import NODE, World, run_of, step, working

Files = dict[str, str]
LONG = "x" * 3000  # goes to LFS where the dataset uses it
SHAPES: list[Files] = [
    {"a": "file", "d/f": "in a folder", "l": LONG},
    {"a/f": "now a folder", "d": "now a file", "l/big": LONG},
    {"a/f": "now a folder", "d": "now a file", "l/big": LONG, "more": "1"},
    {"a": "a file again", "d/f/g": "deeper", "d/h": LONG, "l": LONG + "y"},
    {"a/b/c/d": "straight down", "d/f": "was a folder", "l": "small"},
    {"a/b": "folder within becomes a file", "a/c": "1", "d/f/x": LONG, "l/l/l": LONG},
    {"a/b": "folder within becomes a file", "a/c": "1", "d/f/x": LONG, "l/l/l": LONG, "last": "1"},
]


def of(folder: Path) -> Files:
    """Return the files in a folder, without those of git and MAO."""
    paths = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_text() for name, path in paths.items() if not name.startswith((".git", ".mao"))}


def become(folder: Path, files: Files) -> None:
    """Change a folder's files to these, leaving equal ones untouched."""
    before = of(folder)
    for path in sorted(before, key=len, reverse=True):
        if files.get(path) != before[path]:
            (folder / path).unlink()
    for inner in sorted(folder.rglob("*"), key=lambda path: len(str(path)), reverse=True):
        if inner.is_dir() and not any(inner.iterdir()):
            inner.rmdir()
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        if files[path] != before.get(path):
            (folder / path).write_text(text)


def archived(world: World) -> Files:
    source = open_archive(world.manager.context, "data", None, "")
    with zipfile.ZipFile(BytesIO(b"".join(write_archive(source, "zip")))) as packed:
        names = {name.partition("/")[2]: packed.read(name).decode() for name in packed.namelist()}
    return {name: text for name, text in names.items() if not name.startswith((".git", ".mao"))}


@pytest.mark.lfs
@pytest.mark.parametrize(
    ("above", "settings", "afresh"),
    [
        (None, {}, False),
        (None, {"clone_depth": 1}, True),
        (1000, {}, False),
        (1000, {"clone_depth": 1}, True),
    ],
    ids=["plain", "shallow, laid afresh", "lfs", "lfs and shallow, laid afresh"],
)
async def test_publish_files_and_folders_in_turn(
    tmp_path: Path, above: int | None, settings: Mapping[str, Any], afresh: bool
) -> None:
    seen: list[Files] = []

    async def publish(world: World, number: int, files: Files) -> StepRun:
        def tool(workspace: Workspace) -> None:
            seen.extend([of(workspace.data), of(workspace.input)] if number else [])
            become(workspace.data, files)

        source = ("data", str(world.master), "ground-truth") if number else None
        run = run_of(f"run-{number}", step("s", "data", world.master, source, above), after=number)
        return await world.whole(run, tool)

    async with working(tmp_path, **settings) as world:
        for number, files in enumerate(SHAPES):
            done = await publish(world, number, files)
            assert done.phase is StepPhase.SUCCEEDED, done.error
            assert done.pushed, done.waiting
            await world.until_gone(f"run-{number}")
            assert archived(world) == files
            if number:
                assert seen[-2:] == [SHAPES[number - 1]] * 2
                found = difference(world.manager.context, "data", done.base_commit, NODE, "", limit=50)
                assert {file.path for file in found.files} >= {*SHAPES[number - 1]} ^ {*files}
            if afresh:
                shutil.rmtree(world.manager.context.data.worktree("data"))
                if number == len(SHAPES) // 2:
                    shutil.rmtree(world.manager.context.data.clone("data"))
        work = tmp_path / "scientist"
        git(tmp_path, "clone", "-q", "-b", "ground-truth", str(world.master), str(work))
        git(work, "lfs", "install", "--local")
        git(work, "lfs", "pull")
        assert of(work) == SHAPES[-1]


@pytest.mark.parametrize("number", range(1, len(SHAPES)))
def test_round_follows_files_and_folders_in_turn(tmp_path: Path, number: int) -> None:
    clone = new_repository(tmp_path / "r.git")
    before, after = SHAPES[number - 1 : number + 1]
    base = commit(clone, before)
    assert data_of(clone, vote(clone, {"n1": after, "n2": after, "n3": after}, base)) == after
    assert data_of(clone, vote(clone, {"n1": after, "n2": before, "n3": after}, base)) == after
    assert data_of(clone, vote(clone, {"n1": after, "n2": before, "n3": before}, base)) == before
    assert data_of(clone, vote(clone, {"n1": after, "n2": before}, base)) == before  # tied: as it was


@pytest.mark.parametrize("number", range(1, len(SHAPES)))
def test_merge_trees_with_files_and_folders_in_turn(tmp_path: Path, number: int) -> None:
    clone = new_repository(tmp_path / "r.git")
    before, after = SHAPES[number - 1 : number + 1]
    base = commit(clone, before)
    ours = commit(clone, {**before, "elsewhere": "1"}, base)
    merged = clone.merge_trees(base, ours, commit(clone, after, base))
    assert sorted(clone.list_paths(merged)) == sorted([*after, "elsewhere"])
