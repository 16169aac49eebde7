"""Collects the files of a backup, in an order that makes them a consistent state of the node. Blocking.

Each part is at least as new as the parts before it, and so contains what they refer to:

    tips of the clones → store → workspaces with unpublished output → everything else → clones → local remotes

A restored node is like one that was killed when its store was read, with some newer commits, values and
agreements, which do no harm (docs/decisions/0029-backups.md).
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mao_git import Clone, RepositoryError
from mao_shared.errors import MaoError
from mao_shared.etcd_version import OUTPUT_FILE
from mao_shared.federation.resolver import FederationFiles
from mao_shared.host.data_dir import RESTORING, DataDir
from mao_shared.models import Run
from mao_shared.settings import ServiceSettings
from mao_shared.states import StepPhase

from .archive import HEADER, SETTINGS, STORE, ArchiveWriter, Header

REPLACED = "replaced"  # folder into which `restore --replace` moves the existing data
STAGED = ".restore"  # folder in the data directory for parts of the archive that is restored
REPOSITORY_FOLDERS = ("datasets", "aside", "bare")
"""Folders with repositories, in the order in which they are read (see `collect`)."""
LOST_AND_FOUND = "lost+found"  # at the top of a file system, readable for root only
_NOT_BACKED_UP = ("etcd", "run", "worktrees", "git-home", RESTORING, REPLACED, STAGED, LOST_AND_FOUND)
_LOCK = ".lock"
IDENTITY_FILE = "store.json"  # names the node's etcd; a restored node has another one
_UNFINISHED = ".new-"  # prefix of files and folders that are being written
_UNFINISHED_SUFFIXES = (".lock", ".new")
_OBJECT_PATH = re.compile(r"objects/(?:[0-9a-f]{2}/[0-9a-f]{38,62}|pack/pack-[0-9a-f]+\.[a-z]+|info/[a-z-]+)")
_MAX_PASSES = 20  # over the objects; another one is needed when the clone is packed meanwhile
WORKSPACES = "workspaces"
_UNPUBLISHED = (StepPhase.EXITED, StepPhase.PUBLISHING)


@dataclass(frozen=True, slots=True)
class NodePaths:
    """The folders of a node. `agreements` and `federation` may be inside `data`."""

    data: Path
    agreements: Path
    federation: Path

    def folders(self) -> set[Path]:
        return {self.data, self.agreements, self.federation}

    def folder(self, name: str) -> Path:
        """Return the path of one of `archive.FOLDERS`."""
        return {"data": self.data, "agreements": self.agreements, "federation": self.federation}[name]

    def target(self, name: str) -> Path:
        """Return the path to which a file of the archive is restored. The name was checked before."""
        folder, _, inside = name.partition("/")
        return self.folder(folder) / inside

    def data_names(self) -> Iterator[str]:
        """Yield the names at the top of the data directory that are backed up."""
        separate = {self.agreements, self.federation}
        for name in _names(self.data):
            if self.is_backed_up(name) and self.data / name not in separate:
                yield name

    def rebuilt_names(self) -> list[str]:
        """Return names that the node rebuilds from its clones; they must not be used with other clones."""
        return [name for name in ("worktrees",) if (self.data / name).exists()]

    @staticmethod
    def is_backed_up(name: str) -> bool:
        """True if a name at the top of the data directory is backed up; the others are rebuilt."""
        return name not in _NOT_BACKED_UP and not name.endswith(_LOCK) and not name.startswith(_UNFINISHED)

    def agreements_names(self) -> Iterator[str]:
        yield from filter(self._is_plain, _names(self.agreements))

    def federation_names(self) -> Iterator[str]:
        yield from filter(self._is_federation_file, _names(self.federation))

    def may_restore(self, name: str) -> bool:
        """True if a restore may write a file of this name. It writes nothing that the node rebuilds."""
        if "/" not in name:  # header, manifest and so on
            return True
        path = self.target(name)
        rules = {
            self.federation: self._is_federation_file,
            self.agreements: self._is_plain,
            self.data: self.is_backed_up,
        }
        folder = next(parent for parent in rules if parent in path.parents)
        return rules[folder](path.relative_to(folder).parts[0])

    @staticmethod
    def _is_plain(name: str) -> bool:
        return not name.startswith(_UNFINISHED) and name not in (REPLACED, LOST_AND_FOUND)

    def _is_federation_file(self, name: str) -> bool:
        """Exclude the data of the federation's etcd: an old state of one member would undo writes."""
        files = FederationFiles(self.federation)
        excluded = {files.etcd_data.name, files.etcd_config.name, OUTPUT_FILE, IDENTITY_FILE}
        return self._is_plain(name) and name not in excluded


def node_paths(settings: ServiceSettings) -> NodePaths:
    return NodePaths(
        data=settings.data_dir.resolve(),
        agreements=settings.agreement_files().resolve(),
        federation=settings.federation_files().resolve(),
    )


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return []


Copy = Callable[[str, Path], bool]
"""Copies a file under a name; False if the file is gone."""


class SourceChanged(OSError):
    """A folder was replaced while it was copied: the backup has to be restarted."""


def copy_repository(path: Path, name: str, copy: Copy) -> None:
    """Copy a repository while it is in use, with all objects of each copied branch.

    References are copied first and objects last: an object that a reference reaches is then in some file
    from the first listing to the end, though not always in the same one. Loose references are copied before
    packed ones, since git packs them in that order. Raises SourceChanged if the repository was replaced.
    """
    before = _identity(path)
    others = {file for file in _files(path) if not file.startswith("objects/")}
    others.add("packed-refs")  # git may create it when it packs a reference
    for file in sorted(others, key=lambda file: (file.startswith("lfs/"), file == "packed-refs", file)):
        copy(f"{name}/{file}", path / file)
    copied: set[str] = set()
    for _ in range(_MAX_PASSES):
        listed = {file for file in _files(path / "objects", "objects/") if _OBJECT_PATH.fullmatch(file)}
        for file in sorted(listed - copied):
            if copy(f"{name}/{file}", path / file):
                copied.add(file)
        relisted = {file for file in _files(path / "objects", "objects/") if _OBJECT_PATH.fullmatch(file)}
        if listed <= relisted and listed <= copied:  # no object moved into a file that was listed before
            break
    else:
        raise SourceChanged(f"the objects of {path} were packed {_MAX_PASSES} times while they were copied")
    if _identity(path) != before:
        raise SourceChanged(f"{path} was replaced while it was copied")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def raise_unless_gone(error: OSError) -> None:
    """Raise the errors that `os.walk` would skip: a backup must have everything that still exists."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _files(folder: Path, prefix: str = "") -> Iterator[str]:
    """Yield the paths of the files below a folder, without those that are being written."""
    for at, _, names in os.walk(folder, onerror=raise_unless_gone):
        inside = Path(at).relative_to(folder)
        for name in names:
            if not name.endswith(_UNFINISHED_SUFFIXES):
                yield prefix + (inside / name).as_posix()


def read_tips(data: Path, node: str) -> dict[str, str | None]:
    """Return for each dataset the tip of the node's branch in its clone, or None if it cannot be read."""
    tips: dict[str, str | None] = {}
    for path in sorted((data / "datasets").glob("*.git")):
        if path.name.startswith("."):
            continue
        try:
            tips[path.stem] = Clone.open(path).tip(node)
        except (MaoError, RepositoryError):  # a broken clone is copied as it is
            tips[path.stem] = None
    return tips


def waiting_outputs(run: Run) -> list[tuple[str, int, int]]:
    """Return run id, step index and attempt of each output that is not committed yet."""
    steps = enumerate(run.steps)
    return [(run.id, index, step.attempt) for index, step in steps if step.phase in _UNPUBLISHED]


def collect(
    writer: ArchiveWriter,
    paths: NodePaths,
    header: Header,
    store: tuple[IO[bytes], int],
    waiting: list[tuple[str, int, int]],
    settings: Mapping[str, str],
) -> None:
    """Write all files of a backup. `store` is the dump of the store and its size in bytes.

    The tips in `header` and the store must have been read before. Raises OSError; after SourceChanged, a
    """
    writer.add_bytes(HEADER, header.model_dump_json().encode())
    writer.add_stream(STORE, *store)
    writer.add_bytes(SETTINGS, json.dumps(dict(settings), indent=1, sort_keys=True).encode())
    data = DataDir(paths.data)
    for run, index, attempt in waiting:
        # Output is kept as the tool left it, except for what publishing refuses anyway (devices, sockets).
        for path in _walk(data.workspace(run, index, attempt).root):
            name = f"data/{path.relative_to(paths.data).as_posix()}"
            if path.is_symlink():
                writer.add_link(name, os.readlink(path))  # noqa: PTH115 (as text, whatever it is)
            else:
                writer.add_file(name, path)
    for name in paths.data_names():
        if name not in (*REPOSITORY_FOLDERS, WORKSPACES):
            _add_tree(writer, paths.data / name, f"data/{name}")
    for name in paths.agreements_names():
        _add_tree(writer, paths.agreements / name, f"agreements/{name}")
    for name in paths.federation_names():
        _add_tree(writer, paths.federation / name, f"federation/{name}")
    for name in REPOSITORY_FOLDERS:
        _add_repositories(writer, paths.data / name, f"data/{name}")


def _add_tree(writer: ArchiveWriter, path: Path, name: str) -> None:
    """Add a file, or all files below a folder except links and files that are being written.

    The path itself may be a link, to a disk on which the operator has more space.
    """
    path = path.resolve()
    if not path.is_dir():
        writer.add_file(name, path)
        return
    for file in _walk(path):
        if not file.name.startswith(_UNFINISHED):
            writer.add_file(f"{name}/{file.relative_to(path).as_posix()}", file)


def _add_repositories(writer: ArchiveWriter, folder: Path, name: str) -> None:
    """Add everything below a folder, with repositories at any depth (in `aside` they are one level deeper).

    A repository may be a link, to a disk on which the operator has more space; other links are left out.
    """
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith(_UNFINISHED) or path.name == LOST_AND_FOUND:
            continue
        inside = f"{name}/{path.name}"
        if (path / "objects").is_dir() and (path / "HEAD").is_file():
            copy_repository(path.resolve(), inside, writer.add_file)
        elif path.is_symlink():
            continue
        elif path.is_dir():
            _add_repositories(writer, path, inside)
        else:
            writer.add_file(inside, path)


def _walk(folder: Path) -> Iterator[Path]:
    """Yield files and links below a folder without following links. Raises OSError for unreadable ones."""
    for at, folders, names in os.walk(folder, onerror=raise_unless_gone):
        linked = [name for name in folders if Path(at, name).is_symlink()]
        folders[:] = sorted({*folders} - {*linked} - {LOST_AND_FOUND if Path(at) == folder else ""})
        for name in sorted([*names, *linked]):
            path = Path(at, name)
            try:
                kind = path.lstat().st_mode
            except FileNotFoundError:
                continue
            if stat.S_ISREG(kind) or stat.S_ISLNK(kind):
                yield path
