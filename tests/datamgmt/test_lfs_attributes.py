"""Whatever a tool writes to `.gitattributes`, large files stay in LFS for MAO and for git."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from mao_datamgmt.browse.archive import open_archive, write_archive
from mao_datamgmt.steps.publish import lfs_texts
from mao_git import Clone
from mao_git.lfs import MARK
from mao_git.tree_writer import Content
from mao_shared.host.data_dir import Workspace
from mao_shared.models import Reproduced
from mao_shared.states import StepPhase
from mao_shared.store.memory import MemoryStore
from tests.support.git import file_at, git

from .test_lfs import ABOVE, checkout, content, publish
from .test_reproduce import again, reproduced
from .world import NODE, Tool, World, run_of, step, working, writes

pytestmark = pytest.mark.lfs

BIG, DEEP = os.urandom(5000), os.urandom(7000)
TRICK = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 5\n".encode()


def large_files(workspace: Workspace) -> None:
    (workspace.data / "d/e f").mkdir(parents=True)
    (workspace.data / "big.bin").write_bytes(BIG)
    (workspace.data / "d/e f/deep.bin").write_bytes(DEEP)
    (workspace.data / "small.txt").write_text("small")


def removes(workspace: Workspace) -> None:
    (workspace.data / ".gitattributes").unlink()
    (workspace.data / "more").write_text("x")


def rebuilds(workspace: Workspace) -> None:
    """Empty the folder and write its files anew, as some tools do."""
    shutil.rmtree(workspace.data / "d")
    for path in workspace.data.iterdir():
        path.unlink()
    large_files(workspace)


def overwrites(**files: str) -> Tool:
    return writes(**{name.replace("ATTRIBUTES", ".gitattributes"): text for name, text in files.items()})


def appends(workspace: Workspace) -> None:
    with (workspace.data / ".gitattributes").open("a") as file:
        file.write("*.bin -filter -diff -merge text\n")


def deep_attributes(workspace: Workspace) -> None:
    (workspace.data / "d/.gitattributes").write_text("* -filter\n")
    (workspace.data / "d/e f/.gitattributes").write_text("*.bin !filter text")


def own_mark(workspace: Workspace) -> None:
    assert not (workspace.data / ".mao").exists()
    (workspace.data / ".mao").mkdir()
    (workspace.data / ".mao/lfs").write_text("nothing to see here")
    (workspace.data / ".gitattributes").unlink()


def other_files_of_git(workspace: Workspace) -> None:
    (workspace.data / ".lfsconfig").write_text(
        "[lfs]\n\tfetchexclude = *\n\turl = http://127.0.0.1:9/x\n\tpushurl = http://127.0.0.1:9/x\n"
    )
    (workspace.data / ".gitignore").write_text("*\n")
    (workspace.data / ".gitmodules").write_text('[submodule "d"]\n\tpath = d\n\turl = ../d\n')
    (workspace.data / "new.bin").write_bytes(BIG[::-1])


MEDDLING: dict[str, Tool] = {
    "removes it": removes,
    "begins with an empty folder": rebuilds,
    "overwrites it": overwrites(ATTRIBUTES="* text=auto eol=crlf\n"),
    "writes it without LFS": overwrites(ATTRIBUTES="[attr]lfs -filter\n*.bin binary\n* -filter"),
    "appends what outweighs it": appends,
    "has its own in folders": deep_attributes,
    "writes where MAO's mark is": own_mark,
    "has all that git reads": other_files_of_git,
}


async def another_node_reads(tmp_path: Path, master: Path) -> dict[str, bytes]:
    other = tmp_path / "other"
    other.mkdir()
    (other / "master.git").symlink_to(master)
    seen: dict[str, bytes] = {}

    def look(workspace: Workspace) -> None:
        seen["data"] = (workspace.data / "big.bin").read_bytes()
        seen["input"] = (workspace.input / "d/e f/deep.bin").read_bytes()
        (workspace.data / "seen").write_text("x")

    async with working(other, MemoryStore(), local_remotes=str(tmp_path)) as world:
        source = ("data", str(world.master), "ground-truth")
        done = await world.whole(run_of("run-9", step("use", "data", world.master, source, ABOVE)), look)
        assert done.phase is StepPhase.SUCCEEDED, done.error
    return seen


@pytest.mark.parametrize("case", MEDDLING)
async def test_lfs_untouched_files_stay_pointers(tmp_path: Path, case: str) -> None:
    left: dict[str, bytes] = {}

    def look(workspace: Workspace) -> None:
        left["big"] = (workspace.data / "big.bin").read_bytes()
        left["deep"] = (workspace.data / "d/e f/deep.bin").read_bytes()
        assert not (workspace.data / ".mao").exists()
        (workspace.data / "z").write_text("z")

    async with working(tmp_path) as world:
        await publish(world, 1, large_files)
        done = await publish(world, 2, MEDDLING[case])
        assert done.phase is StepPhase.SUCCEEDED, done.error
        assert done.pushed
        context = world.manager.context
        assert content(context, "data", None, "big.bin") == BIG
        assert content(context, "data", NODE, "d/e f/deep.bin") == DEEP
        last = await publish(world, 3, look)
        assert last.phase is StepPhase.SUCCEEDED, last.error
        assert left == {"big": BIG, "deep": DEEP}
        assert len(b"".join(write_archive(open_archive(context, "data", None, ""), "zip"))) > len(BIG) + len(
            DEEP
        )
    assert await another_node_reads(tmp_path, tmp_path / "master.git") == {"data": BIG, "input": DEEP}
    if case != "has all that git reads":  # a tool may well tell git-lfs to fetch nothing
        work = checkout(tmp_path, tmp_path / "master.git")
        assert (work / "big.bin").read_bytes() == BIG
        assert (work / "d/e f/deep.bin").read_bytes() == DEEP
        assert git(work, "lfs", "fsck") == "Git LFS fsck OK"


async def test_lfs_ignores_the_lfsconfig_of_a_tool(tmp_path: Path) -> None:
    def late(workspace: Workspace) -> None:
        (workspace.data / "late.bin").write_bytes(DEEP[::-1])

    async with working(tmp_path) as world:
        await publish(world, 1, large_files)
        await publish(world, 2, other_files_of_git)
        clone = world.manager.context.data.clone("data")
        git(clone, "symbolic-ref", "HEAD", f"refs/heads/{NODE}")  # where git-lfs looks in a bare repository
        assert "FetchExclude=*" in git(clone, "lfs", "env")
        done = await publish(world, 3, late)
        assert done.pushed, done.waiting
        name = hashlib.sha256(DEEP[::-1]).hexdigest()
        assert (world.master / "lfs/objects" / name[:2] / name[2:4] / name).read_bytes() == DEEP[::-1]
        shutil.rmtree(clone / "lfs/objects")
        assert content(world.manager.context, "data", NODE, "late.bin") == DEEP[::-1]
        assert content(world.manager.context, "data", NODE, "big.bin") == BIG


async def test_attributes_of_a_tool_are_kept(tmp_path: Path) -> None:
    words = "# ours\n\n*.csv text\r\n\n*.png binary"
    async with working(tmp_path) as world:
        await publish(world, 1, large_files)
        await publish(world, 2, overwrites(ATTRIBUTES=words))
        text = content(world.manager.context, "data", NODE, ".gitattributes").decode()
        assert text.startswith(f"{words}\n/big.bin filter=lfs")

        def shrink(workspace: Workspace) -> None:
            (workspace.data / "big.bin").write_text("small now")
            (workspace.data / "d/e f/deep.bin").unlink()

        await publish(world, 3, shrink)
        names = git(world.master, "ls-tree", "-r", "--name-only", NODE).split()
        assert names == [".gitattributes", "big.bin", "small.txt"]
        assert "filter=lfs" not in file_at(world.master, f"{NODE}:.gitattributes")


async def test_mark_goes_with_the_last_large_file_whatever_else_attributes_say(tmp_path: Path) -> None:
    words = "# ours\n*.csv text"
    async with working(tmp_path) as world:
        await publish(world, 1, large_files)
        await publish(world, 2, overwrites(ATTRIBUTES=words))
        clone = Clone.open(world.manager.context.data.clone("data"))
        base = clone.tree(git(world.master, "rev-parse", NODE))
        one: dict[str, Content | None] = {"big.bin": Content.of(b"small now")}
        both = one | {"d/e f/deep.bin": None}
        left, gone = (lfs_texts(clone, base, clone.write_tree(base, found), found) for found in (one, both))

    assert MARK not in left
    assert b"deep.bin filter=lfs" in (left[".gitattributes"] or b"")
    assert gone == {".gitattributes": f"{words}\n".encode(), MARK: None}


def folder_there(workspace: Workspace) -> None:
    (workspace.data / ".gitattributes").unlink()
    (workspace.data / ".gitattributes").mkdir()
    (workspace.data / ".gitattributes/f").write_text("x")


def link_there(workspace: Workspace) -> None:
    (workspace.data / ".gitattributes").unlink()
    (workspace.data / ".gitattributes").symlink_to("small.txt")


def file_for_folder(workspace: Workspace) -> None:
    (workspace.data / ".mao").write_text("x")


def name_too_long(workspace: Workspace) -> None:
    folder = workspace.data.joinpath(*["x" * 200] * 11)
    folder.mkdir(parents=True)
    (folder / "large").write_bytes(BIG)


def below_the_mark(workspace: Workspace) -> None:
    (workspace.data / ".mao/lfs").mkdir(parents=True)
    (workspace.data / ".mao/lfs/x").write_text("nowhere to keep it")


def nul_byte(workspace: Workspace) -> None:
    (workspace.data / ".gitattributes").write_bytes(b"\0")


def wide_letters(workspace: Workspace) -> None:
    (workspace.data / ".gitattributes").write_text("*.txt text\n", encoding="utf-16")


@pytest.mark.parametrize(
    "tool",
    [folder_there, link_there, file_for_folder, name_too_long, below_the_mark, nul_byte, wide_letters],
)
async def test_attributes_that_git_would_not_read_are_refused(tmp_path: Path, tool: Tool) -> None:
    async with working(tmp_path) as world:
        await publish(world, 1, large_files)
        failed = await publish(world, 2, tool)
        assert failed.phase is StepPhase.FAILED
        assert failed.error is not None
        assert failed.error.code == "output-refused"
        assert (await publish(world, 3, writes(a="1"))).phase is StepPhase.SUCCEEDED


async def test_lfs_first_large_file_keeps_lookalikes(tmp_path: Path) -> None:
    def tricks(workspace: Workspace) -> None:
        (workspace.data / "d").mkdir()
        for name in ("trick", "d/trick"):
            (workspace.data / name).write_bytes(TRICK)
        (workspace.data / "d/trick").chmod(0o755)

    def big_and_its_pointer(workspace: Workspace) -> None:
        assert (workspace.data / "trick").read_bytes() == TRICK
        (workspace.data / "big.bin").write_bytes(BIG)
        digest = hashlib.sha256(BIG).hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(BIG)}\n"
        (workspace.data / "big.pointer").write_text(pointer)

    async with working(tmp_path) as world:
        await publish(world, 1, tricks, above=None)
        context = world.manager.context
        assert content(context, "data", NODE, "trick") == TRICK
        assert (await publish(world, 2, writes(a="1"))).phase is StepPhase.SUCCEEDED
        done = await publish(world, 3, big_and_its_pointer)
        assert done.phase is StepPhase.SUCCEEDED, done.error
        assert (await publish(world, 4, removes)).phase is StepPhase.SUCCEEDED
        assert all(content(context, "data", NODE, name) == TRICK for name in ("trick", "d/trick"))
        assert content(context, "data", NODE, "big.pointer").startswith(b"version https")
        work = checkout(tmp_path, world.master)
        assert (work / "trick").read_bytes() == (work / "d/trick").read_bytes() == TRICK
        assert (work / "big.pointer").read_bytes().startswith(b"version https")
        assert (work / "big.bin").read_bytes() == BIG
        assert (work / "d/trick").stat().st_mode & 0o111


def without_attributes(world: World, *also: str) -> None:
    """Prepare the branch that the previous version left after a tool removed `.gitattributes`."""
    names = "\n".join(
        line
        for line in git(world.master, "ls-tree", NODE).splitlines()
        if line.split("\t")[1] not in (".gitattributes", *also)
    )
    damaged = git(world.master, "mktree", feed=names + "\n")
    made = git(world.master, "commit-tree", damaged, "-p", NODE, "-m", "x")
    git(world.master, "update-ref", f"refs/heads/{NODE}", made)


@pytest.mark.parametrize("also", [(), (".mao",)])
async def test_attributes_lost_are_read_and_restored(tmp_path: Path, also: tuple[str, ...]) -> None:
    seen: dict[str, bytes] = {}

    def look(workspace: Workspace) -> None:
        seen["big"] = (workspace.data / "big.bin").read_bytes()
        (workspace.data / "another.bin").write_bytes(DEEP[::-1])

    async with working(tmp_path) as world:
        await publish(world, 1, large_files)
        without_attributes(world, *also)
        done = await publish(world, 2, look)
        assert done.phase is StepPhase.SUCCEEDED, done.error
        assert seen == {"big": BIG}
        assert content(world.manager.context, "data", NODE, "d/e f/deep.bin") == DEEP
        if not also:
            git(world.master, "update-ref", "refs/heads/ground-truth", f"{NODE}~1")  # the mark alone
        else:
            work = checkout(tmp_path, world.master)
            assert (work / "big.bin").read_bytes() == BIG
            assert (work / "d/e f/deep.bin").read_bytes() == DEEP
    if not also:
        assert await another_node_reads(tmp_path, tmp_path / "master.git") == {"data": BIG, "input": DEEP}


async def test_attributes_of_an_earlier_version_are_continued(tmp_path: Path) -> None:
    """Earlier versions wrote no mark, only `.gitattributes`."""
    async with working(tmp_path) as world:
        await publish(world, 1, large_files)
        lines = [line for line in git(world.master, "ls-tree", NODE).splitlines() if "\t.mao" not in line]
        older = git(world.master, "mktree", feed="\n".join(lines) + "\n")
        made = git(world.master, "commit-tree", older, "-p", NODE, "-m", "x")
        git(world.master, "update-ref", f"refs/heads/{NODE}", made)
        done = await publish(world, 2, removes)
        assert done.phase is StepPhase.SUCCEEDED, done.error
        assert content(world.manager.context, "data", NODE, "big.bin") == BIG
        assert ".mao/lfs" in git(world.master, "ls-tree", "-r", "--name-only", NODE)


REPRODUCED: dict[str, tuple[Tool, Tool, Reproduced]] = {
    "overwritten": (
        overwrites(ATTRIBUTES="* text\n"),
        overwrites(ATTRIBUTES="* text\n"),
        Reproduced(identical=1),
    ),
    "appended": (appends, appends, Reproduced(identical=1)),
    "removed, and more": (removes, removes, Reproduced(identical=1)),
    "written in another way": (
        overwrites(ATTRIBUTES="* text\n"),
        overwrites(ATTRIBUTES="* binary\n"),
        Reproduced(different=[".gitattributes"]),
    ),
    "first large file beside what looks like one": (large_files, large_files, Reproduced(identical=4)),
}


@pytest.mark.parametrize("case", REPRODUCED)
async def test_reproduce_compares_attributes_without_our_lines(tmp_path: Path, case: str) -> None:
    first, second, expected = REPRODUCED[case]

    def trick(workspace: Workspace) -> None:
        (workspace.data / "trick").write_bytes(TRICK)

    async with working(tmp_path) as world:
        begins = first is large_files
        await publish(world, 1, trick if begins else large_files, above=None if begins else ABOVE)
        done = await publish(world, 2, first)
        assert done.phase is StepPhase.SUCCEEDED, done.error
        run = (await world.get("run-2")).record
        assert await reproduced(world, again(run, done), second) == expected
