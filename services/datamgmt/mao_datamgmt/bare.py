"""Repositories on this node's disk: local remotes, and the clones that are here. Blocking."""

from __future__ import annotations

from mao_shared.models import Name, Record
from mao_shared.workspace import DataDir

from . import repository


class BareRequest(Record):
    """Body of `POST /bare-repo/init`."""

    name: Name


class BareRepository(Record):
    """`master` is what to register as the dataset's remote."""

    name: Name
    master: str


def init_bare(data: DataDir, name: str, *, mine: bool = False) -> BareRepository:
    """An empty bare repository with HEAD on ground truth.

    Raises AlreadyExists, unless `mine`: then an earlier try of the same command made what is there.
    """
    path = data.bare(name)
    if not (mine and path.is_dir()):
        repository.create_bare(path)
    return BareRepository(name=name, master=str(path))


def dataset_names(data: DataDir) -> list[str]:
    """The datasets that have a clone here, in order."""
    folder = data.clone("x").parent
    if not folder.is_dir():
        return []
    names = (path.name.removesuffix(".git") for path in folder.iterdir() if path.name.endswith(".git"))
    return sorted(name for name in names if not name.startswith(repository.TEMPORARY))


def remove_half_made(data: DataDir) -> None:
    """Removes what a killed process left half-made; only when no other call runs, that is, at the start."""
    for folder in (data.clone("x").parent, data.bare("x").parent):
        for path in folder.glob(f"{repository.TEMPORARY}*"):
            repository.discard_clone(path)
