"""Opening and making bare repositories, and libgit2's own settings.

libgit2's global options: what it may read and how long it waits.

Making and opening bare clones.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pygit2
from pygit2.enums import ConfigLevel, RepositoryOpenFlag

from mao_shared.errors import (
    AlreadyExists,
    NotFound,
)
from mao_shared.models import GROUND_TRUTH

from .errors import CloneBroken

# What parts a list of folders for libgit2, or means something in an option of ssh or to a shell.
_NOT_PLAIN = re.compile(r"""[\s:%"'\\$`]""")

_HOST_LEVELS = (ConfigLevel.SYSTEM, ConfigLevel.XDG, ConfigLevel.GLOBAL, ConfigLevel.PROGRAMDATA)


def version() -> str:
    """libgit2's own version."""
    return str(pygit2.LIBGIT2_VERSION)


def configure(home: Path, key_dir: Path | None, *, connect: float, silence: float) -> None:
    """Sets libgit2 up for this process; repeating it is harmless.

    Args:
        home: a folder of ours; libgit2 reads `.ssh/known_hosts` from there and nowhere else, which is made
            of the one in `key_dir` (see `host_keys`).
        connect, silence: seconds until a remote that does not accept or does not speak is given up.
    """
    _point_ssh_to(home, key_dir)
    settings = pygit2.settings
    settings.homedir = _plain_path(home.absolute())
    settings.server_connect_timeout = int(connect * 1000)
    settings.server_timeout = int(silence * 1000)
    settings.owner_validation = False  # libgit2 runs no hooks and no programs of a repository's configuration
    for level in _HOST_LEVELS:
        settings.search_path[level] = ""  # no insteadOf, proxy or helper of the host's own configuration


def _point_ssh_to(home: Path, key_dir: Path | None) -> None:
    trusted = (home / TRUSTED).absolute()
    trusted.mkdir(parents=True, exist_ok=True, mode=0o700)
    _link(home / ".ssh", trusted)  # a link, as the version before makes it: it can be put back
    _link(home / KEYS, (key_dir or home / "no-keys").absolute())


_opened: dict[Path, int] = {}  # folders that are named by a descriptor, which stays open for that


def _plain_path(folder: Path) -> str:
    """A path of the folder in which no character means anything, for us and the programs that we run.

    libgit2 takes its home for a list parted by colons, and ssh parts and expands the paths in its options.
    """
    if not _NOT_PLAIN.search(str(folder)):
        return str(folder)
    if folder in _opened and not os.path.samestat(os.fstat(_opened[folder]), folder.stat()):
        os.close(_opened.pop(folder))
    if folder not in _opened:
        _opened[folder] = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/{os.getpid()}/fd/{_opened[folder]}"


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and link.readlink() == target:
        return
    link.unlink(missing_ok=True)
    link.symlink_to(target)


REMOTE = "origin"

TRACKED = f"refs/remotes/{REMOTE}/"

FETCH_SPEC = f"+refs/heads/*:{TRACKED}*"

UNFINISHED = ".new-"  # names of half-made repositories begin so; a dataset's name cannot


@dataclass(frozen=True, slots=True)
class Clone:
    """An open bare clone and its remote. `git` is for this package only."""

    path: Path
    url: str
    git: pygit2.Repository


def open_clone(path: Path) -> Clone:
    """Opens a clone; raises NotFound when it is not there, CloneBroken for one that is there and is none."""
    try:
        git = pygit2.Repository(str(path), RepositoryOpenFlag.BARE | RepositoryOpenFlag.NO_SEARCH)
        clone = Clone(path, str(git.remotes[REMOTE].url), git)
    except (pygit2.GitError, KeyError, ValueError) as error:
        if os.path.lexists(path):
            raise CloneBroken.of(path.stem, str(error)) from error
        raise NotFound(
            f"This node has no clone of dataset {path.stem!r}.",
            code="dataset-not-here",
            next="Enrol in a pipeline that uses it: maoctl pipeline init.",
        ) from error
    for name in ("HEAD", "packed-refs"):  # git never leaves them so, and branches would be forgotten
        with suppress(FileNotFoundError):
            if (path / name).stat().st_size == 0:
                raise CloneBroken.of(path.stem, f"its file {name} is emptied")
    return clone


def create_clone(path: Path, url: str) -> Path:
    """A bare clone of `url` in the making beside `path`, without its commits yet; `finish_clone` names it.

    Until it is renamed nobody takes it for a dataset, so a kill in between leaves nothing half-made.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f"{UNFINISHED}{secrets.token_hex(4)}-{path.name}")
    git = pygit2.init_repository(str(temporary), bare=True, initial_head="main")
    git.remotes.create(REMOTE, url, FETCH_SPEC)
    git.config["core.fsyncObjectFiles"] = True  # a commit is on the disk before it counts; references as well
    return temporary


def discard_clone(temporary: Path) -> None:
    """Removes a clone in the making."""
    shutil.rmtree(temporary, ignore_errors=True)


def finish_clone(temporary: Path, path: Path) -> None:
    """Gives a clone its name; one that is there already stays and the new one goes."""
    try:
        os.rename(temporary, path)  # noqa: PTH104 (fails on a folder that is not empty; Path.replace says less)
    except OSError:
        shutil.rmtree(temporary)


def create_bare(path: Path) -> None:
    """An empty bare repository that serves as a remote; raises AlreadyExists when there is one.

    HEAD names ground truth, so that `git clone` checks out what the nodes agree on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{UNFINISHED}{secrets.token_hex(4)}-{path.name}")
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


KEYS, TRUSTED = "keys", "trusted"  # in the folder that libgit2 takes for the user's home

HEADS = "refs/heads/"


def open_repository(path: Path) -> Clone:
    """Opens the repository that `path` is, or is a folder in, as git finds it. Raises NotFound."""
    try:
        found = pygit2.discover_repository(str(path))
        if found is None:
            raise _no_repository(path, "there is none")
        git = pygit2.Repository(found)
    except (pygit2.GitError, KeyError, ValueError) as error:
        raise _no_repository(path, str(error)) from error
    return Clone(_common_folder(Path(git.path)), "", git)


def _common_folder(folder: Path) -> Path:
    """Where the objects are: a linked worktree's folder names another."""
    named = folder / "commondir"
    return (folder / named.read_text().strip()).resolve() if named.is_file() else folder


def _no_repository(path: Path, why: str) -> NotFound:
    return NotFound(
        f"There is no git repository at {path}: {why}.",
        code="repository-not-found",
        next=f"Check it: git -C {path} status. Give a folder of a repository, or a bare one.",
    )
