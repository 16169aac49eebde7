"""libgit2's global options: what it may read and how long it waits."""

from __future__ import annotations

from pathlib import Path

import pygit2
from pygit2.enums import ConfigLevel

_HOST_LEVELS = (ConfigLevel.SYSTEM, ConfigLevel.XDG, ConfigLevel.GLOBAL, ConfigLevel.PROGRAMDATA)


def version() -> str:
    """libgit2's own version."""
    return str(pygit2.LIBGIT2_VERSION)


def configure(home: Path, key_dir: Path | None, *, connect: float, silence: float) -> None:
    """Sets libgit2 up for this process; repeating it is harmless.

    Args:
        home: a folder of ours; its `.ssh` is made to point to `key_dir`, since libgit2 reads
            `known_hosts` from there and nowhere else.
        connect, silence: seconds until a remote that does not accept or does not speak is given up.
    """
    _point_ssh_to(home, key_dir)
    settings = pygit2.settings
    settings.homedir = str(home)
    settings.server_connect_timeout = int(connect * 1000)
    settings.server_timeout = int(silence * 1000)
    settings.owner_validation = False  # libgit2 runs no hooks and no programs of a repository's configuration
    for level in _HOST_LEVELS:
        settings.search_path[level] = ""  # no insteadOf, proxy or helper of the host's own configuration


def _point_ssh_to(home: Path, key_dir: Path | None) -> None:
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    link = home / ".ssh"
    target = (key_dir or home / "no-keys").absolute()
    if link.is_symlink() and link.readlink() == target:
        return
    link.unlink(missing_ok=True)
    link.symlink_to(target)
