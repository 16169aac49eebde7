"""libgit2's global options: what it may read and how long it waits."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pygit2
from pygit2.enums import ConfigLevel

from .remotes.mao_datamgmt_host_keys import KEYS, TRUSTED

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
