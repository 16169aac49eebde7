"""Links that lead out of a tree are detected as a kernel resolves them, in every tree MAO writes or reads."""

from __future__ import annotations

import io
import os
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mao_datamgmt.browse.archive import open_archive, write_archive
from mao_datamgmt.evidence.export import gather
from mao_datamgmt.evidence.export import pack as pack_crate
from mao_datamgmt.settings import About
from mao_datamgmt.steps.output import check_links
from mao_git import MergeConflict
from mao_git.paths import escaping_links
from mao_shared.errors import InvalidInput
from mao_shared.host.data_dir import Workspace
from mao_shared.models import Original, StepRun
from mao_shared.states import RunPhase, StepPhase
from tests.datamgmt.world import NODE, Tool, World, run_of, step, working, writes
from tests.support.git import git
from tests.vote.repo import commit, new_repository, vote

OUT = "outside the folder"
DEEP = {f"l{n}": f"l{n - 1}/l{n - 1}" for n in range(1, 30)} | {"l0": "."}  # 2^29 steps without memory

LEADING_OUT: dict[str, tuple[dict[str, str], str, str]] = {
    "the link of the report": ({"l": ".", "x": "l/l/../../etc/hostname"}, "x", OUT),
    "through a link to a folder": ({"d/l": "..", "x": "d/l/../etc"}, "x", OUT),
    "through a chain": ({"a": "b", "b": "c", "c": "d/e", "d/e": "..", "x": "a/../etc"}, "x", OUT),
    "link to a link that leads out": (
        {"l": ".", "y": "l/l/../../etc", "x": "y"},
        "x",
        "through the link y",
    ),
    "from below": ({"d/e/l": "../../k", "k": ".", "d/x": "e/l/../../etc"}, "d/x", OUT),
    "two ups through two links": ({"p/q/l": "../..", "x": "p/q/l/p/q/l/../etc"}, "x", OUT),
    "a doubling chain": ({**DEEP, "x": "l29/../etc"}, "x", OUT),
    "a chain of many links": (
        {**{f"c{n}": f"c{n + 1}" for n in range(5000)}, "c5000": ".", "x": "c0/../../etc"},
        "x",
        OUT,
    ),
    "what it passes is not there": ({"x": "none/../../etc"}, "x", OUT),
    "absolute": ({"x": "/etc/passwd"}, "x", "absolute path"),
    "absolute through a link": ({"y": "/", "x": "y/etc"}, "x", "through the link y"),
    "absolute on Windows": ({"x": "C:/Windows"}, "x", "absolute path"),
    "absolute share on Windows": ({"x": "\\\\host\\share"}, "x", "absolute path"),
    "parted by backslashes": ({"x": "..\\..\\etc"}, "x", OUT),
    "backslashes through a link": ({"l": ".", "x": "l\\l\\..\\..\\etc"}, "x", OUT),
    "in another case": ({"L": ".", "x": "l/l/../../etc"}, "x", OUT),
    "in another case, two of them": ({"l": "a/b/c", "L": ".", "x": "l/../etc"}, "x", OUT),
    "composed otherwise": ({"\u00e9": ".", "x": "e\u0301/e\u0301/../../etc"}, "x", OUT),
    "dots that Windows strips": ({"l": ".", "x": "l./l /../../etc"}, "x", OUT),
    "dots and a blank": ({"x": ".. /etc"}, "x", OUT),
    "into git's own files": ({"x": ".git/hooks/post-checkout"}, "x", "git directory"),
    "into git's own files by a link": ({"l": ".", "x": "l/.GIT/config"}, "x", "git directory"),
    "into git's as NTFS names it": ({"d/x": "../git~1/config"}, "d/x", "git directory"),
    "an empty target": ({"x": ""}, "x", "unreadable"),
    "not UTF-8": ({"x": "\udcff"}, "x", "unreadable"),
    "longer than a path": ({"x": "a/" * 3000}, "x", "longer"),
}
STAYING: dict[str, dict[str, str]] = {
    "a file beside it": {"x": "f"},
    "a folder above, inside": {"d/x": ".."},
    "to the top itself": {"x": "."},
    "what is not there": {"x": "none"},
    "a loop": {"x": "x"},
    "a loop of three": {"a": "b", "b": "c", "c": "a", "x": "a/../a"},
    "a loop through a folder": {"d/l": "../d/l/m", "x": "d/l"},
    "ups through a link to below": {"k": "p/q/r", "x": "k/../other"},
    "a name with a backslash": {"x": "a\\b"},
    "a name that begins like git's": {"x": ".gitignore"},
    "names with dots": {"x": "..f/g..", "y": "v1..2"},
    "a doubling chain": DEEP,
}


@pytest.mark.parametrize("case", LEADING_OUT)
def test_escaping_links_names_each(case: str) -> None:
    links, path, words = LEADING_OUT[case]
    assert words in escaping_links(links)[path]
    with pytest.raises(InvalidInput) as caught:
        check_links(links)
    assert caught.value.code == "output-refused"


@pytest.mark.parametrize("case", STAYING)
def test_escaping_links_spares_links_inside(case: str) -> None:
    assert escaping_links(STAYING[case]) == {}


def test_escaping_links_reason() -> None:
    with pytest.raises(
        InvalidInput, match=r"'x' is a link to l/l/\.\./\.\./etc/hostname.*it leads to \.\./\.\./etc/hostname"
    ):
        check_links({"l": ".", "x": "l/l/../../etc/hostname"})


@pytest.mark.parametrize("seed", range(40))
def test_escaping_links_agrees_with_the_kernel(tmp_path: Path, seed: int) -> None:
    """Compare with the kernel: create random trees of links on the disk, and resolve them there."""
    chance = random.Random(seed)
    root = tmp_path / "out" / "er" / "tree"
    folders = ["", "a/", "a/b/", "c/", "c/d/e/"]
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
    names = ["l", "m", "n", "a", "b", "c", "d", "e", "..", "..", "."]
    links: dict[str, str] = {}
    for _ in range(30):
        path = chance.choice(folders) + chance.choice("lmnopq")
        if not (root / path).is_symlink():
            links[path] = "/".join(chance.choices(names, k=chance.randint(1, 6)))
            (root / path).symlink_to(links[path])
    wrong = escaping_links(links)
    for path in links:
        real = Path(os.path.realpath(root / path))
        if not real.is_relative_to(root):
            assert path in wrong, (path, links[path], real)


def links(**targets: str) -> Tool:
    """Return a tool that makes links; `a__b` stands for a/b."""

    def tool(workspace: Workspace) -> None:
        for name, target in targets.items():
            path = workspace.data / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_symlink() or path.exists():
                path.unlink()
            path.symlink_to(target)

    return tool


async def published(world: World, number: int, tool: Tool) -> StepRun:
    return await world.whole(
        run_of(f"run-{number}", step("collect", "data", world.master), after=number), tool
    )


async def test_publish_refuses_links_that_escape_by_an_older_one(tmp_path: Path) -> None:
    """The earlier link is a file in the folder of the tool, but a link in the tree."""
    async with working(tmp_path) as world:
        assert (await published(world, 0, links(l="."))).phase is StepPhase.SUCCEEDED
        before = git(world.master, "rev-parse", NODE)
        failed = await published(world, 1, links(x="l/l/../../etc/hostname"))
        assert failed.error is not None
        assert (failed.error.code, failed.error.fault) == ("output-refused", "tool")
        assert "'x' is a link to l/l/../../etc/hostname" in failed.error.detail
        assert git(world.master, "rev-parse", NODE) == before
        assert (await published(world, 2, links(x="l/l/f"))).phase is StepPhase.SUCCEEDED


async def test_publish_refuses_a_folder_that_makes_a_link_escape(tmp_path: Path) -> None:
    def folder_for_link(workspace: Workspace) -> None:
        (workspace.data / "j").unlink()
        (workspace.data / "j").mkdir()
        (workspace.data / "j/f").write_text("")

    async with working(tmp_path) as world:
        first = await published(world, 0, links(j="p/q/r", e__k="../j", x="e/k/../../z"))
        assert first.phase is StepPhase.SUCCEEDED, first.error
        failed = await published(world, 1, folder_for_link)
        assert failed.error is not None
        assert "'x' is a link to e/k/../../z" in failed.error.detail


async def test_publish_replaces_files_by_folders(tmp_path: Path) -> None:
    def swap(workspace: Workspace) -> None:
        (workspace.data / "a").unlink()
        (workspace.data / "a").mkdir()
        (workspace.data / "a/f").write_text("folder")
        (workspace.data / "d/f").unlink()
        (workspace.data / "d").rmdir()
        (workspace.data / "d").write_text("file")

    async with working(tmp_path) as world:
        await published(world, 0, writes(a="1", d__f="2"))
        done = await published(world, 1, swap)
        assert done.phase is StepPhase.SUCCEEDED, done.error
        assert git(world.master, "ls-tree", "-r", "--name-only", NODE).split() == ["a/f", "d"]


async def test_publish_accepts_escaping_links_of_earlier_versions(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await published(world, 0, writes(a="1"))
        stranger(tmp_path, world, NODE, {"l": ".", "x": "l/l/../../etc/hostname"})
        assert (await published(world, 1, writes(b="2"))).phase is StepPhase.SUCCEEDED
        failed = await published(world, 2, links(y="l/l/../../etc/hostname"))
        assert failed.error is not None
        assert "'y'" in failed.error.detail


async def test_reproduce_refuses_escaping_links(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await published(world, 0, links(l="."))
        run = run_of("run-1", step("collect", "data", world.master), after=1)
        done = await world.whole(run, writes(a="1"))
        fresh = StepRun(spec=done.spec, base_commit=done.base_commit)
        again = run_of("again", fresh, after=2)
        original = Original(run=run.id, step=done.spec.name, snapshot=done.snapshot or "")
        again = again.model_copy(update={"trigger": "reproduce", "reproduces": original})
        failed = await world.whole(again, links(x="l/l/../../etc/hostname"))
        assert failed.error is not None
        assert failed.error.code == "output-refused"


def stranger(tmp_path: Path, world: World, branch: str, targets: dict[str, str]) -> None:
    """Push links to a branch of the remote with plain git."""
    work = tmp_path / f"stranger-{branch}"
    git(tmp_path, "clone", "-q", "-b", branch, str(world.master), str(work))
    (work / "f").write_text("inside")
    for path, target in targets.items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).symlink_to(target)
    git(work, "add", "-A")
    git(work, "commit", "-qm", "by a stranger")
    git(work, "push", "-q", "origin", branch)


HOSTILE = {
    "l": ".",
    "x": "l/l/../../etc/hostname",
    "abs": "/etc/hostname",
    "up": "../../../etc",
    "hooks": "l/.git/hooks",
    "fine": "l/f",
}


def unpack_tar(data: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(data)) as packed:
        packed.extractall(folder, filter="fully_trusted")  # as an unwary consumer does


def unpack_zip(data: bytes, folder: Path) -> None:
    """Unpack as Info-ZIP does, which makes links."""
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        for info in packed.infolist():
            path = folder / info.filename
            path.parent.mkdir(parents=True, exist_ok=True)
            if (info.external_attr >> 16) & 0o170000 == 0o120000:
                path.symlink_to(packed.read(info).decode())
            else:
                path.write_bytes(packed.read(info))


@pytest.mark.parametrize(("packing", "unpack"), [("tar.gz", unpack_tar), ("zip", unpack_zip)])
async def test_archive_has_no_escaping_links(
    tmp_path: Path, packing: str, unpack: Callable[[bytes, Path], None]
) -> None:
    async with working(tmp_path) as world:
        await published(world, 0, writes(a="1"))
        stranger(tmp_path, world, NODE, HOSTILE)
        await published(world, 1, writes(b="2"))
        source = open_archive(world.manager.context, "data", NODE, "")
        unpack(b"".join(write_archive(source, packing)), tmp_path / "consumer")  # type: ignore[arg-type]
    root = tmp_path / "consumer" / source.root
    kept = {path.name for path in root.rglob("*") if path.is_symlink()}
    assert kept == {"l", "fine"}
    assert all(Path(os.path.realpath(path)).is_relative_to(root) for path in root.rglob("*"))
    assert (root / "x").read_text() == HOSTILE["x"]
    assert (root / "fine").read_text() == "inside"


async def test_checkout_input_has_no_links(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await published(world, 0, writes(a="1"))
        stranger(tmp_path, world, "ground-truth", HOSTILE)
        source = ("data", str(world.master), "ground-truth")
        await world.begin(run_of("run-1", step("sum", "data", world.master, source), after=1))
        ready = await world.phase("run-1", StepPhase.READY)
        assert ready.input_commit is not None
        laid = list(world.workspace("run-1").input.rglob("*"))
        assert {"l", "x", "abs", "up", "hooks"} <= {path.name for path in laid}
        assert not any(path.is_symlink() for path in laid)
        assert (world.workspace("run-1").input / "abs").read_text() == "/etc/hostname"


async def test_crate_has_no_links(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await published(world, 0, writes(a="1"))
        stranger(tmp_path, world, "ground-truth", HOSTILE)
        source = ("data", str(world.master), "ground-truth")
        run = run_of("run-1", step("sum", "data", world.master, source), after=1)
        done = await world.whole(run, writes(b="1"))
        assert done.phase is StepPhase.SUCCEEDED, done.error
        run = (await world.get("run-1")).record.model_copy(update={"phase": RunPhase.SUCCEEDED})
        crate = b"".join(pack_crate(gather(world.manager.context, run.id, run, About(person="p"))))
    with zipfile.ZipFile(io.BytesIO(crate)) as packed:
        names = {info.filename for info in packed.infolist()}
        assert "0-sum/input/abs" in names
        assert not any((info.external_attr >> 16) & 0o170000 == 0o120000 for info in packed.infolist())


def test_round_leaves_out_links_that_escape_together(tmp_path: Path) -> None:
    """No node's tree is harmful alone: two of three nodes have `l`, and another two have `x`."""
    clone = new_repository(tmp_path / "r.git")
    one, two = {"l": "link:."}, {"x": "link:l/l/../../etc/hostname"}
    voted = vote(clone, {"n1": {"f": "1", **one}, "n2": {"f": "1", **one, **two}, "n3": {"f": "1", **two}})
    assert escaping_links(clone.links(voted.commit)) == {}
    assert clone.links(voted.commit) == {"l": "."}
    assert any(note.startswith("left out: x is a link to l/l/") for note in voted.evidence.notes)
    again = vote(clone, {"n3": {"f": "1", **two}, "n2": {"f": "1", **one, **two}, "n1": {"f": "1", **one}})
    assert again.commit == voted.commit


def test_round_removes_escaping_links_of_the_base(tmp_path: Path) -> None:
    clone = new_repository(tmp_path / "r.git")
    base = commit(clone, {"f": "1", "abs": "link:/etc/passwd", "git": "link:.git/config"})
    kept = {"f": "2", "abs": "link:/etc/passwd", "git": "link:.git/config"}
    voted = vote(clone, {"n1": kept, "n2": kept}, base)
    assert clone.links(voted.commit) == {}


def test_merge_trees_refuses_links_that_escape_together(tmp_path: Path) -> None:
    clone = new_repository(tmp_path / "r.git")
    base = commit(clone, {"f": "1"})
    ours = commit(clone, {"f": "1", "l": "link:."}, base)
    theirs = commit(clone, {"f": "1", "x": "link:l/l/../../etc/hostname"}, base)
    with pytest.raises(MergeConflict) as caught:
        clone.merge_trees(base, ours, theirs)
    assert caught.value.paths == ["x"]
    harmless = commit(clone, {"f": "1", "x": "link:l/f"}, base)
    assert set(clone.links(clone.merge_trees(base, ours, harmless))) == {"l", "x"}


def test_links_reads_only_changed_folders(tmp_path: Path) -> None:
    clone = new_repository(tmp_path / "r.git")
    files = {f"d{n}/f{m}": "x" for n in range(20) for m in range(20)}
    plain = commit(clone, files)
    assert clone.links(plain) == {}
    for loose in (clone.path / "objects").glob("??/*"):
        if git(clone.path, "cat-file", "-t", loose.parent.name + loose.name) == "blob":
            loose.unlink()  # contents are not read, of links only
    assert clone.links(commit(clone, {**files, "d3/l": "link:f1"})) == {"d3/l": "f1"}
