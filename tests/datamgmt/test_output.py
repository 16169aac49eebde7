"""Output of tools that is accepted, and output that is refused."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mao_datamgmt.context import OutputLimits
from mao_datamgmt.steps.output import open_file, scan
from mao_shared.errors import InvalidInput
from mao_shared.host.data_dir import Workspace
from mao_shared.states import StepPhase
from tests.support.git import git

from .world import NODE, run_of, step, working

LIMITS = OutputLimits(file_size=100, files=10)


def _socket(folder: Path) -> None:
    before = Path.cwd()
    os.chdir(folder)  # a socket's path may not be long
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("s")
    finally:
        os.chdir(before)


def _link_up_from_below(folder: Path) -> None:
    (folder / "d").mkdir()
    (folder / "d/x").symlink_to("../../x")


def _nested(folder: Path) -> None:
    (folder / "sub/.git/hooks").mkdir(parents=True)
    (folder / "sub/.git/HEAD").write_text("ref: refs/heads/main\n")


def _sparse(folder: Path) -> None:
    with (folder / "x").open("w") as file:
        file.truncate(1 << 40)


def _deep(folder: Path) -> None:
    for _ in range(120):
        folder = folder / "d"
        folder.mkdir()


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "link to /etc/passwd": (lambda f: (f / "x").symlink_to("/etc/passwd"), "absolute path"),
    "link to what is not UTF-8": (lambda f: (f / "x").symlink_to(os.fsdecode(b"/\xff")), "unreadable target"),
    "link out": (lambda f: (f / "x").symlink_to("../../../etc/passwd"), "outside the folder"),
    "link up from below": (_link_up_from_below, "outside the folder"),
    "link to a folder outside": (lambda f: (f / "x").symlink_to("/etc"), "absolute path"),
    "named pipe": (lambda f: os.mkfifo(f / "x"), "named pipe"),
    "socket": (_socket, "socket"),
    "git directory": (lambda f: (f / ".git").mkdir(), "git directory"),
    "git file": (lambda f: (f / ".git").write_text("gitdir: /etc"), "git directory"),
    "git in capitals": (lambda f: (f / ".GiT").mkdir(), "git directory"),
    "git as NTFS names it": (lambda f: (f / "GIT~1").mkdir(), "git directory"),
    "git with a dot": (lambda f: (f / ".git.").mkdir(), "git directory"),
    "git as HFS+ takes it": (lambda f: (f / ".g\u200cit").mkdir(), "git directory"),
    "git as an NTFS stream": (lambda f: (f / ".git::$INDEX_ALLOCATION").mkdir(), "git directory"),
    "nested repository": (_nested, "git directory"),
    "name that is not UTF-8": (lambda f: Path(os.fsdecode(bytes(f) + b"/\xe9")).touch(), "UTF-8"),
    "sparse file": (
        lambda f: os.truncate(os.open(f / "x", os.O_CREAT | os.O_RDWR), 1 << 40),
        "MAO_MAX_FILE_SIZE",
    ),
    "file too large": (lambda f: (f / "x").write_bytes(b"x" * 101), "MAO_MAX_FILE_SIZE"),
    "too many files": (lambda f: [(f / str(n)).write_text("") for n in range(11)], "MAO_MAX_FILES"),
    "too deep": (_deep, "folders deep"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_output_hostile_output_is_refused(tmp_path: Path, case: str) -> None:
    make, words = HOSTILE[case]
    make(tmp_path)
    with pytest.raises(InvalidInput) as caught:
        scan(tmp_path, LIMITS)
    assert caught.value.code == "output-refused"
    assert words in f"{caught.value.detail} {caught.value.next}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices")
def test_output_device_is_refused(tmp_path: Path) -> None:
    os.mknod(tmp_path / "null", 0o20666, os.makedev(1, 3))
    with pytest.raises(InvalidInput, match="a device"):
        scan(tmp_path, LIMITS)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("what", ["file", "folder", "folder of names only", "all"])
def test_output_unreadable_output_is_told(what: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "d").mkdir()
        (root / "d/f").write_text("x")
        modes = {"file": (root / "d/f", 0), "folder": (root / "d", 0), "all": (root, 0)}
        path, mode = modes.get(what, (root / "d", 0o444))
        root.chmod(0o755)
        path.chmod(mode)
        os.seteuid(65534)
        try:
            with pytest.raises(InvalidInput) as caught:
                open_file(root, scan(root, LIMITS)["d/f"])
        finally:
            os.seteuid(0)
        assert caught.value.code == "output-unreadable"


def test_output_links_within_and_odd_names_are_fine(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_text("x")
    (tmp_path / "latest").symlink_to("d/f")
    (tmp_path / "d/up").symlink_to("../d/./f")
    (tmp_path / "a\nb ü").write_text("x")
    found = scan(tmp_path, LIMITS)
    assert sorted(found) == ["a\nb ü", "d/f", "d/up", "latest"]
    assert found["latest"].link == "d/f"


def test_output_file_swapped_for_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_text("x")
    found = scan(tmp_path, LIMITS)["d/f"]
    (tmp_path / "d/f").unlink()
    (tmp_path / "d/f").symlink_to("/etc/passwd")
    with pytest.raises(InvalidInput, match="changed while it was read"):
        open_file(tmp_path, found)


def test_output_folder_swapped_for_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/passwd").write_text("x")
    found = scan(tmp_path, LIMITS)["d/passwd"]
    (tmp_path / "d").rename(tmp_path / "elsewhere")
    (tmp_path / "d").symlink_to("/etc")
    with pytest.raises(InvalidInput, match="changed while it was read"):
        open_file(tmp_path, found)


def test_output_file_swapped_for_a_pipe_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    found = scan(tmp_path, LIMITS)["f"]
    (tmp_path / "f").unlink()
    os.mkfifo(tmp_path / "f")
    with pytest.raises(InvalidInput, match="changed while it was read"):
        open_file(tmp_path, found)


async def test_output_refused_output_fails_the_step_and_is_kept(tmp_path: Path) -> None:
    def tool(workspace: Workspace) -> None:
        (workspace.data / "leak").symlink_to("/etc/passwd")

    async with working(tmp_path) as world:
        done = await world.whole(run_of("run-1", step("collect", "data", world.master)), tool)
        assert done.phase is StepPhase.FAILED
        assert done.error is not None
        assert (done.error.code, done.error.fault) == ("output-refused", "tool")
        assert "'leak'" in done.error.detail
        assert world.workspace("run-1").data.is_dir()
        pushed = git(world.master, "log", "--all", "--format=%s")
        assert pushed in ("", "Begin the dataset")  # the branch's first commit, without output, may be pushed


async def test_output_link_within_is_kept_as_a_link_and_laid_as_a_file(tmp_path: Path) -> None:
    def link(workspace: Workspace) -> None:
        (workspace.data / "f").write_text("x")
        (workspace.data / "latest").symlink_to("f")

    def look(workspace: Workspace) -> None:
        assert not (workspace.data / "latest").is_symlink()
        assert (workspace.data / "latest").read_text() == "f"
        (workspace.data / "g").write_text("y")

    async with working(tmp_path) as world:
        await world.whole(run_of("run-1", step("collect", "data", world.master)), link)
        done = await world.whole(run_of("run-2", step("collect", "data", world.master), after=1), look)
        assert done.phase is StepPhase.SUCCEEDED
        assert git(world.master, "ls-tree", NODE, "latest").startswith("120000 ")


async def test_output_large_file_goes_through_in_pieces(tmp_path: Path) -> None:
    content = os.urandom(3 << 20)

    def tool(workspace: Workspace) -> None:
        (workspace.data / "large").write_bytes(content)

    async with working(tmp_path) as world:
        done = await world.whole(run_of("run-1", step("collect", "data", world.master)), tool)
        assert done.phase is StepPhase.SUCCEEDED
        assert int(git(world.master, "cat-file", "-s", f"{NODE}:large")) == len(content)
        assert git(world.master, "fsck", "--strict") == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_output_workspace_belongs_to_the_tools_user(tmp_path: Path) -> None:
    async with working(tmp_path, tool_uid=12345) as world:
        await world.begin(run_of("run-1", step("collect", "data", world.master)))
        await world.phase("run-1", StepPhase.READY)
        workspace = world.workspace("run-1")
        assert workspace.data.stat().st_uid == 12345
        assert workspace.input.stat().st_uid == 0
        assert workspace.root.parent.stat().st_mode & 0o077 == 0


async def test_output_many_files_at_once(tmp_path: Path) -> None:
    def tool(workspace: Workspace) -> None:
        for number in range(600):
            (workspace.data / f"f{number}").write_text(str(number))

    async with working(tmp_path) as world:
        done = await world.whole(run_of("run-1", step("collect", "data", world.master)), tool)
        assert done.phase is StepPhase.SUCCEEDED, done.error
        assert len(git(world.master, "ls-tree", "--name-only", NODE).splitlines()) == 600
        git(world.master, "fsck", "--strict", "--full")


async def test_output_hard_links_odd_names_and_special_bits_become_plain_files(tmp_path: Path) -> None:
    def tool(workspace: Workspace) -> None:
        (workspace.data / "d").mkdir()
        (workspace.data / "here").symlink_to("d")
        (workspace.data / "here/f").write_text("x")
        (workspace.data / "again").hardlink_to(workspace.data / "d/f")
        for name in ("two\nlines", "README", "readme", "-rf", "\u202eabc"):
            (workspace.data / name).write_text(name)
        (workspace.data / "tool").write_text("#!/bin/sh")
        (workspace.data / "tool").chmod(0o6777)

    async with working(tmp_path) as world:
        done = await world.whole(run_of("run-1", step("collect", "data", world.master)), tool)
        assert done.phase is StepPhase.SUCCEEDED, done.error
        await world.begin(run_of("run-2", step("collect", "data", world.master), after=1))
        await world.phase("run-2", StepPhase.READY)
        laid = {
            p.relative_to(world.workspace("run-2").data): p for p in world.workspace("run-2").data.rglob("*")
        }
        texts = {str(name): path.read_text() for name, path in laid.items() if path.is_file()}
        names = {name: name for name in ("two\nlines", "README", "readme", "-rf", "\u202eabc")}
        assert texts == {**names, "d/f": "x", "again": "x", "here": "d", "tool": "#!/bin/sh"}
        assert laid[Path("tool")].stat().st_mode & 0o7777 == 0o755
        assert not any(path.is_symlink() for path in laid.values())
