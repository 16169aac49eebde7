"""A failing remote on this machine is reported as such, while steps end and later ticks run."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pygit2
import pytest

from mao_datamgmt.datasets.clones import ensure_clone
from mao_datamgmt.datasets.delivery import push_branches
from mao_git.errors import stable_text
from mao_git.remotes.errors import at_remote, from_remote, network_error
from mao_shared.errors import MaoError, RemoteUnavailable, Unavailable
from mao_shared.models.node import Condition
from mao_shared.states import StepPhase
from tests.datamgmt.world import NODE, World, context_for, run_of, runs_on, step, working, writes
from tests.support.disk import fill
from tests.support.git import bare_repository, git
from tests.support.waiting import eventually

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
SIZE = 8 << 20


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """Mount a separate file system."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", f"size={SIZE}", "mao-test", str(folder))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=False)


class Breakage:
    """Ways in which the remote's file system fails; `mend` undoes them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.master = folder, folder / "master.git"

    def read_only(self) -> None:
        mount("-o", "remount,ro", str(self.folder))

    def full(self) -> None:
        fill(self.folder, leave=0)

    def no_inodes(self) -> None:
        number = 0
        mount("-o", f"remount,nr_inodes={_inodes_used(self.folder) + 1}", str(self.folder))
        while True:
            try:
                (self.folder / f"filler-{number}").touch()
            except OSError:
                return
            number += 1

    def locked(self) -> None:
        (self.master / f"refs/heads/{NODE}.lock").touch()

    def moved_away(self) -> None:
        self.master.rename(self.folder / "away")

    def no_file_system(self) -> None:
        """Leave an empty folder, as after an unmount."""
        mount("-t", "tmpfs", "mao-test-cover", str(self.folder))

    def no_objects(self) -> None:
        (self.master / "objects").rename(self.folder / "objects")

    def emptied_branch(self) -> None:
        branch = self.master / f"refs/heads/{NODE}"
        branch.rename(self.folder / "branch")
        branch.touch()

    def mend(self) -> None:
        if "cover" in subprocess.run(["findmnt", str(self.folder)], capture_output=True, text=True).stdout:
            subprocess.run(["umount", str(self.folder)], check=True)
        mount("-o", f"remount,rw,size={SIZE},nr_inodes=0", str(self.folder))
        for filler in self.folder.glob("filler*"):
            filler.unlink()
        (self.master / f"refs/heads/{NODE}.lock").unlink(missing_ok=True)
        for left, place in (("away", ""), ("objects", "objects"), ("branch", f"refs/heads/{NODE}")):
            if (self.folder / left).exists():
                (self.folder / left).replace(self.master / place)


def _inodes_used(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_files - status.f_ffree


BREAKAGES = {
    "read_only": ("remote-read-only", "mounted read-only"),
    "full": ("remote-full", "system is full"),
    "no_inodes": ("remote-full", "system is full"),
    "locked": ("remote-unavailable", "nobody else moved it"),
    "moved_away": ("dataset-unreachable", "no git repository"),
    "no_file_system": ("dataset-unreachable", "no git repository"),
    "no_objects": ("dataset-unreachable", "no git repository"),
    "emptied_branch": ("remote-unavailable", "cannot be used"),
}


def conditions(world: World) -> dict[tuple[str, str], Condition]:
    return {
        (condition.name, condition.subject): condition for condition in world.manager.conditions.current()
    }


@ROOT_ONLY
@pytest.mark.parametrize("how", BREAKAGES)
async def test_local_remote_failure_keeps_commits(tmp_path: Path, elsewhere: Path, how: str) -> None:
    breakage, (code, words) = Breakage(elsewhere), BREAKAGES[how]
    master = bare_repository(breakage.master)
    async with working(tmp_path) as world:
        first = await world.whole(run_of("run-0", step("collect", "data", master)), writes(a="0"))
        assert first.pushed
        getattr(breakage, how)()
        try:
            for number in (1, 2):
                run = run_of(f"run-{number}", step("collect", "data", master), after=number)
                done = await world.whole(run, writes(a=str(number)))
                assert (done.phase, done.pushed) == (StepPhase.SUCCEEDED, False), done.error
            told = conditions(world)
            assert set(told) == {("remote", "data")}
            assert words in told["remote", "data"].detail
            assert str(master) in told["remote", "data"].detail
            assert told["remote", "data"].next
            status = await world.manager.status("data")
            assert status.outbox.code == code
            assert status.outbox.waiting >= 2
        finally:
            breakage.mend()
        await eventually(lambda: runs_on(master) == ["run-2", "run-1", "run-0"], 20)
        await eventually(lambda: not conditions(world), 20)
        git(master, "fsck", "--strict")


@ROOT_ONLY
async def test_own_disk_read_only_is_not_blamed_on_the_remote(tmp_path: Path, elsewhere: Path) -> None:
    """A failure that repeats is written to the store only once."""
    async with working(tmp_path, data_dir=elsewhere / "node", min_free=0) as world:
        await world.whole(run_of("run-0", step("collect", "data", world.master)), writes(a="0"))
        await world.begin(run_of("run-1", step("collect", "data", world.master), after=1))
        breakage = Breakage(elsewhere)

        def tool(workspace: object) -> None:
            writes(a="1")(world.workspace("run-1"))
            breakage.read_only()

        await world.run_tool("run-1", tool)
        try:
            stuck = (await world.until("run-1", lambda run: run.steps[0].error is not None)).steps[0]
            assert stuck.phase is StepPhase.PUBLISHING
            assert stuck.error is not None
            assert stuck.error.code == "disk-trouble"
            assert "read-only" in stuck.error.detail.lower()
            assert ("remote", "data") not in conditions(world)
            revision = (await world.get("run-1")).revision
            tries = world.metric("mao_datamgmt_publish_seconds_count") or 0
            await eventually(
                lambda: (world.metric("mao_datamgmt_publish_seconds_count") or 0) >= tries + 3, 20
            )
            assert (await world.get("run-1")).revision == revision
        finally:
            mount("-o", "remount,rw", str(elsewhere))
        done = await world.phase("run-1", StepPhase.SUCCEEDED)
        assert (done.attempt, done.pushed) == (1, True)
        assert runs_on(world.master) == ["run-1", "run-0"]


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """Make a folder that another user may read."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def _own(*paths: Path) -> None:
    for top in paths:
        for path in (top, *top.rglob("*")):
            os.chown(path, 65534, 65534, follow_symlinks=False)


@ROOT_ONLY
@pytest.mark.parametrize(
    ("protect", "words"),
    [
        (
            lambda master: [shutil.chown(path, "root") for path in (master / "objects").rglob("*")],
            "permission",
        ),
        (lambda master: (master / "objects").chmod(0o555), "permission"),
        (lambda master: (master / "refs/heads").chmod(0o555), "permission"),
        (lambda master: master.chmod(0), "permission"),
    ],
)
def test_local_remote_without_permission_is_named(
    open_to_all: Path, protect: Callable[[Path], object], words: str
) -> None:
    """Run as another user, since root has all permissions."""
    root = open_to_all
    master = bare_repository(root / "master.git")
    _own(root / "master.git")
    (root / "node").mkdir()
    _own(root / "node")
    os.seteuid(65534)
    try:
        context = context_for(root, local_remotes=str(root))
        clone = ensure_clone(context, "data", str(master))
        tip = clone.tip(NODE)
        assert tip is not None
        tree = clone.tree(tip)
        new = clone.commit(tree, [tip], "more\n", context.author())
        assert clone.move_branch(NODE, new, tip)
        os.seteuid(0)
        for folder in (master / "objects").iterdir():
            os.chown(folder, 0, 0)
        protect(master)
        if (master / "objects").stat().st_mode & 0o777 != 0o555:
            os.chown(master / "objects", 0, 0)
        os.seteuid(65534)
        failure = push_branches(context, clone, promote=True).failure
        assert failure is not None
        assert failure.code == "remote-no-permission"
        assert words in failure.detail
        assert "65534" in failure.detail
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.EROFS, "remote-read-only"),
        (errno.EACCES, "remote-no-permission"),
        (errno.EPERM, "remote-no-permission"),
        (errno.ENOSPC, "remote-full"),
        (errno.EDQUOT, "remote-full"),
        (errno.EIO, "remote-unavailable"),
        (errno.ESTALE, "remote-unavailable"),
        (errno.ENOTCONN, "remote-unavailable"),
    ],
)
@pytest.mark.parametrize("in_words", [False, True])
def test_at_remote_names_the_failure(tmp_path: Path, number: int, code: str, in_words: bool) -> None:
    """libgit2 gives most reasons in words only."""
    said = f"failed to open '{tmp_path}/HEAD': {os.strerror(number)}"
    with pytest.raises(RemoteUnavailable) as caught, at_remote("/r.git", tmp_path):
        raise OSError(said) if in_words else OSError(number, os.strerror(number), str(tmp_path / "HEAD"))
    assert caught.value.code == code
    assert caught.value.next


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.EACCES, "Permission denied", "{remote}/objects/aa"), "remote-no-permission"),
        (OSError("failed to open '{remote}/HEAD': Input/output error"), "remote-unavailable"),
        (OSError("failed to open '{own}/objects/pack': Input/output error"), OSError),
        (OSError(errno.EROFS, "Read-only file system", "{own}/objects/aa"), OSError),
        (OSError("failed to write: Read-only file system"), OSError),
        (OSError("failed to write: No space left on device"), "disk-full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "{own}/x"), "disk-full"),
        (KeyError("object not found - no match for id"), "remote-unavailable"),
    ],
)
def test_from_remote_tells_remote_failures_from_ours(
    tmp_path: Path, error: Exception, expected: str | type[Exception]
) -> None:
    remote, own = tmp_path / "remote.git", tmp_path / "own.git"
    own.mkdir()
    parts = [part.format(remote=remote, own=own) if isinstance(part, str) else part for part in error.args]
    name = getattr(error, "filename", None)
    names = [name.format(remote=remote, own=own)] if name else []
    raised = type(error)(*parts, *names)
    with pytest.raises((MaoError, OSError)) as caught, from_remote("/r.git", remote, own):
        raise raised
    if isinstance(expected, str):
        assert isinstance(caught.value, MaoError)
        assert caught.value.code == expected
    else:
        assert caught.value is raised


def test_to_error_of_a_full_server() -> None:
    error = pygit2.GitError("remote: fatal: write error: No space left on device")
    pushed = network_error(error, "git@host:x", writes_there=True)
    assert isinstance(pushed, RemoteUnavailable)
    assert pushed.code == "remote-full"
    fetched = network_error(error, "git@host:x")
    assert isinstance(fetched, Unavailable)
    assert fetched.code == "disk-full"


def test_stable_text_is_the_same_for_each_try() -> None:
    said = "failed to create '/r.git/objects/{}': Read-only file system"
    one, two = (said.format(name) for name in ("tmp_object_git2_4f03a886", "tmp_object_git2_a3b41bd0"))
    assert one != two
    assert stable_text(one) == stable_text(two)
