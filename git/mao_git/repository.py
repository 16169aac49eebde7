"""Opening and creating repositories, and the settings of libgit2."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pygit2
from pygit2.enums import ConfigLevel, RepositoryOpenFlag

from mao_shared.errors import AlreadyExists, NotFound
from mao_shared.models import GROUND_TRUTH

from .errors import CloneBroken, git_errors

REMOTE = "origin"
HEADS = "refs/heads/"
TRACKED = f"refs/remotes/{REMOTE}/"
FETCH_SPEC = f"+refs/heads/*:{TRACKED}*"
KEYS, TRUSTED = "keys", "trusted"  # in the folder that libgit2 takes for the user's home
_UNFINISHED = ".new-"  # names of unfinished repositories begin so; a dataset's name cannot
# Characters that separate folders in a list for libgit2, or have a meaning in an option of ssh or to a shell.
_NOT_PLAIN = re.compile(r"""[\s:%"'\\$`]""")
_HOST_LEVELS = (ConfigLevel.SYSTEM, ConfigLevel.XDG, ConfigLevel.GLOBAL, ConfigLevel.PROGRAMDATA)


@dataclass(frozen=True, slots=True)
class Repository:
    """An open repository and the URL of its remote, empty without one. `git` is for this package only."""

    path: Path
    url: str
    git: pygit2.Repository

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a clone. Raises NotFound if there is none, CloneBroken if it cannot be opened."""
        with git_errors():
            try:
                git = pygit2.Repository(str(path), RepositoryOpenFlag.BARE | RepositoryOpenFlag.NO_SEARCH)
                clone = cls(path, str(git.remotes[REMOTE].url), git)
            except (pygit2.GitError, KeyError, ValueError) as error:
                if os.path.lexists(path):
                    raise CloneBroken.of(path.stem, str(error)) from error
                raise NotFound(
                    f"This node has no clone of dataset {path.stem!r}.",
                    code="dataset-not-here",
                    next="Enrol in a pipeline that uses it: maoctl pipeline enrol NAME",
                ) from error
            for name in ("HEAD", "packed-refs"):  # git never leaves them empty; branches would be lost
                with suppress(FileNotFoundError):
                    if (path / name).stat().st_size == 0:
                        raise CloneBroken.of(path.stem, f"its file {name} is empty")
            return clone

    @classmethod
    def discover(cls, path: Path) -> Self:
        """Open the repository at or above `path`, as git finds it. Raises NotFound."""
        with git_errors():
            try:
                found = pygit2.discover_repository(str(path))
                if found is None:
                    raise _no_repository(path, "there is none")
                git = pygit2.Repository(found)
            except (pygit2.GitError, KeyError, ValueError) as error:
                raise _no_repository(path, str(error)) from error
            folder = Path(git.path)
            named = folder / "commondir"  # of a linked worktree: where the objects are
            return cls((folder / named.read_text().strip()).resolve() if named.is_file() else folder, "", git)

    @classmethod
    @contextmanager
    def create(cls, path: Path, url: str) -> Iterator[Self]:
        """Create a bare clone of `url`, without commits yet. It gets its name at the end of the block.

        Until then it does not count as a dataset, so that a kill leaves no incomplete clone. If the block
        raises, it is removed; if another clone has the name by then, that one stays.
        """
        temporary = _init_clone(path, url)
        try:
            yield cls.open(temporary)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        finish_clone(temporary, path)

    @classmethod
    @contextmanager
    def scratch(cls, folder: Path, url: str) -> Iterator[Self]:
        """Create a bare clone of `url` in `folder` for the block only."""
        temporary = _init_clone(folder / "scratch.git", url)
        try:
            yield cls.open(temporary)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _init_clone(path: Path, url: str) -> Path:
    with git_errors():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f"{_UNFINISHED}{secrets.token_hex(4)}-{path.name}")
        git = pygit2.init_repository(str(temporary), bare=True, initial_head="main")
        git.remotes.create(REMOTE, url, FETCH_SPEC)
        git.config["core.fsyncObjectFiles"] = True  # commits and references are on the disk before they count
        return temporary


def finish_clone(temporary: Path, path: Path) -> None:
    """Give a clone its name; if there is a clone of that name already, that one stays."""
    with git_errors():
        try:
            os.rename(temporary, path)  # noqa: PTH104 (fails on a folder that is not empty)
        except OSError:
            shutil.rmtree(temporary)


def _no_repository(path: Path, why: str) -> NotFound:
    return NotFound(
        f"There is no git repository at {path}: {why}.",
        code="repository-not-found",
        next=f"Check it: git -C {path} status. Give a folder of a repository, or a bare one.",
    )


def init_bare(path: Path) -> None:
    """Create an empty bare repository to serve as a remote. Raises AlreadyExists.

    HEAD names ground truth, so that `git clone` checks out what the nodes agree on.
    """
    with git_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{_UNFINISHED}{secrets.token_hex(4)}-{path.name}")
        pygit2.init_repository(str(temporary), bare=True, initial_head=GROUND_TRUTH)
        try:
            os.rename(temporary, path)  # noqa: PTH104 (as above)
        except OSError as error:
            shutil.rmtree(temporary)
            raise AlreadyExists(
                f"The repository {path.stem!r} exists already at {path}.",
                next=f"Use another name, or register it: maoctl dataset add NAME {path}",
                master=str(path),
            ) from error


def tree_entry(tree: pygit2.Tree, path: str) -> pygit2.Object | None:
    """Return the object at a path of a tree, through folders; None if there is none."""
    try:
        return tree[path]
    except KeyError:
        return None


def is_unfinished(name: str) -> bool:
    """True if a folder of this name is a repository that a killed process has not finished."""
    return name.startswith(_UNFINISHED)


def remove_unfinished(folder: Path) -> None:
    """Remove the unfinished repositories in a folder. No process may be creating one there."""
    for path in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)


def libgit2_version() -> str:
    """Return the version of the loaded libgit2, like 1.9.7."""
    return str(pygit2.LIBGIT2_VERSION)


def configure(home: Path, key_dir: Path | None, *, connect: float, silence: float) -> None:
    """Configure libgit2 for this process; may be repeated.

    Args:
        home: a folder of ours, the only one from which libgit2 reads `.ssh/known_hosts`, which is made from
            the file in `key_dir` (see `remotes.host_keys`).
        connect, silence: timeouts in seconds for connecting, and for waiting for data.
    """
    trusted = (home / TRUSTED).absolute()
    trusted.mkdir(parents=True, exist_ok=True, mode=0o700)
    _link(home / ".ssh", trusted)  # a link, as earlier versions make it, so that a downgrade works
    _link(home / KEYS, (key_dir or home / "no-keys").absolute())
    settings = pygit2.settings
    settings.homedir = _plain_path(home.absolute())
    settings.server_connect_timeout = int(connect * 1000)
    settings.server_timeout = int(silence * 1000)
    settings.owner_validation = False  # libgit2 runs no hooks and no programs of a repository's configuration
    for level in _HOST_LEVELS:
        settings.search_path[level] = ""  # no insteadOf, proxy or helper of the host's own configuration


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and link.readlink() == target:
        return
    link.unlink(missing_ok=True)
    link.symlink_to(target)


_opened: dict[Path, int] = {}  # folders that are named by a descriptor, which stays open for that


def _plain_path(folder: Path) -> str:
    """Return a path of the folder without special characters, for libgit2 and the programs that we run.

    libgit2 parses its home as a list of folders separated by colons; ssh splits and expands paths.
    """
    if not _NOT_PLAIN.search(str(folder)):
        return str(folder)
    if folder in _opened and not os.path.samestat(os.fstat(_opened[folder]), folder.stat()):
        os.close(_opened.pop(folder))
    if folder not in _opened:
        _opened[folder] = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/{os.getpid()}/fd/{_opened[folder]}"
