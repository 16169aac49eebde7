"""Repositories on this node's disk: local remotes, and the clones that are here. Blocking."""

from __future__ import annotations

from pathlib import Path

import mao_git
from mao_shared.host.data_dir import DataDir
from mao_shared.models import Name, Record

OLD_LOCK = 60.0  # seconds


class BareRequest(Record):
    """Body of `POST /bare-repo/init`."""

    name: Name


class BareRepository(Record):
    """`master` is what to register as the dataset's remote; `path` is the original's word for it."""

    name: Name
    master: str
    path: str = ""


def init_bare(data: DataDir, name: str, *, mine: bool = False) -> BareRepository:
    """An empty bare repository with HEAD on ground truth.

    Raises AlreadyExists, unless `mine`: then an earlier try of the same command made what is there.
    """
    path = data.bare(name)
    if not (mine and path.is_dir()):
        mao_git.create_bare(path)
    return BareRepository(name=name, master=str(path), path=str(path))


def dataset_names(data: DataDir) -> list[str]:
    """The datasets that have a clone here, in order."""
    folder = data.clone("x").parent
    if not folder.is_dir():
        return []
    names = (path.name.removesuffix(".git") for path in folder.iterdir() if path.name.endswith(".git"))
    return sorted(name for name in names if not name.startswith(mao_git.TEMPORARY))


def remove_half_made(data: DataDir) -> None:
    """Removes what a killed process left half-made; only when no other call runs, that is, at the start."""
    for folder in (data.clone("x").parent, data.bare("x").parent):
        for path in folder.glob(f"{mao_git.TEMPORARY}*"):
            mao_git.discard_clone(path)


def sweep_left_over(data: DataDir) -> list[Path]:
    """Removes what a killed process left in our clones, and old locks in local remotes; what was removed.

    Only at the start, under the lock of the data directory: then no writer of our clones is alive. To the
    local remotes others may be pushing, whose locks are young.
    """
    swept = [path for name in dataset_names(data) for path in mao_git.sweep(data.clone(name))]
    return swept + sweep_old_locks(data)


def sweep_old_locks(data: DataDir) -> list[Path]:
    """Removes locks that a killed writer left in the local remotes; what was removed."""
    bare = data.bare("x").parent
    whole = (each for each in bare.glob("*.git") if not each.name.startswith(mao_git.TEMPORARY))
    return [lock for each in whole for lock in mao_git.sweep_locks(each, OLD_LOCK)]
