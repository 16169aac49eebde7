"""Maintenance of a clone: packing objects, and removing the leftovers of a killed process.

Only for repositories that no other process writes to: our clones, while we hold the data directory's lock.

Packing removes an object only after its pack is on the disk, so that a kill leaves at most two
copies, which the next call packs together. Large objects stay loose, since only those can be read in pieces.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

import pygit2

from mao_shared.host.files import sync_folder

from .objects import is_large, is_whole, loose_id, loose_objects, packed_ids
from .repository import Repository

_UNSYNCED = "mao-unsynced"
_PUSHING = "mao-pushing"
_HALF_WRITTEN = (
    "objects/*_git2_*",
    "objects/pack/*_git2_*",
    "objects/??/tmp_obj_*",
    "objects/pack/tmp_*",
    "lfs/tmp/mao-*",
)
_LOCKS = ("*.lock", "refs/**/*.lock", "objects/info/*.lock", "objects/pack/*.lock")
MAX_LOOSE = 2000  # loose objects; a clone with more is packed
MAX_SMALL_PACKS = 30  # a clone with more is packed, too
SMALL_PACK_SIZE = 32 << 20  # bytes; larger packs are left alone


def sweep(path: Path) -> list[Path]:
    """Remove what a killed process left in a repository and in its remote. Returns the removed paths.

    Walks all of `refs`.
    """
    gone = [*sweep_locks(path), *sweep_half_written(path)]

    # Objects written without a sync may have a name and no content, see `unsynced`.
    mark = path / _UNSYNCED
    if mark.exists():
        since = mark.stat().st_mtime
        loose = (file for file in path.glob("objects/??/*") if file.stat().st_mtime >= since)
        gone += _remove(file for file in list(loose) if not is_whole(file))
        os.sync()
        mark.unlink()

    # The locks that we held in a remote contain what we were writing, see `pushing`.
    mark = path / _PUSHING
    try:
        held: dict[str, str] = dict(json.loads(mark.read_text()))
    except (FileNotFoundError, ValueError, TypeError):  # killed before the marker was whole: before any lock
        held = {}
    ours = []
    for lock, commit in held.items():
        with suppress(OSError, UnicodeDecodeError):
            if Path(lock).read_text().strip() in ("", commit):
                ours.append(Path(lock))
    try:
        gone += _remove(ours)
    except OSError:  # the remote may be read-only: the marker stays for the next start
        return gone
    mark.unlink(missing_ok=True)
    return gone


def sweep_half_written(path: Path) -> list[Path]:
    """Remove files that were never finished, and pack indexes without a pack. Returns the removed paths."""
    indexes = _matching_files(path, ["objects/pack/*.idx"])
    orphans = (index for index in indexes if not index.with_suffix(".pack").exists())
    return _remove(chain(_matching_files(path, _HALF_WRITTEN), orphans))


def sweep_locks(path: Path, older_than: float = 0.0) -> list[Path]:
    """Remove lock files that are at least `older_than` seconds old. Returns the removed paths.

    Git holds such a lock for moments only, so an old one is stale even in a repository that others push to.
    """
    return _remove(lock for lock in _matching_files(path, _LOCKS) if _age(lock) >= older_than)


def lock_age(path: Path, reference: str) -> float | None:
    """Return the age of a reference's lock in seconds; None if it is not locked."""
    lock = path / f"{reference}.lock"
    return _age(lock) if lock.exists() else None


@contextmanager
def unsynced(repo: Repository) -> Iterator[None]:
    """Within the block objects are written without a sync for each; one sync ends it.

    A power cut before that may leave objects with a name and no content, which a second attempt would take
    for written. A marker file makes the next start check them.
    """
    mark = repo.path / _UNSYNCED
    if not mark.exists():  # otherwise an attempt has failed, and its objects are still to be checked
        with mark.open("w") as file:
            os.fsync(file.fileno())
    yield
    os.sync()
    mark.unlink(missing_ok=True)


@contextmanager
def pushing(repo: Repository, remote: Path, moves: Mapping[str, str]) -> Iterator[None]:
    """Within the block references of a repository on this machine are moved. `moves`: name → commit.

    If we are killed meanwhile, a marker file tells the next start which locks in that repository are ours.
    """
    mark = repo.path / _PUSHING
    mark.write_text(json.dumps({str(remote / f"{name}.lock"): new for name, new in moves.items()}))
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return -1.0


def _matching_files(path: Path, patterns: Iterable[str]) -> Iterator[Path]:
    """Yield files by patterns. If git removes an empty folder meanwhile, the rest is found the next time."""
    for pattern in patterns:
        with suppress(FileNotFoundError):
            yield from path.glob(pattern)


def _remove(paths: Iterable[Path]) -> list[Path]:
    gone = list(paths)
    for path in gone:
        path.unlink(missing_ok=True)
    return gone


def needs_packing(repo: Repository) -> bool:
    """True if there are many loose objects (estimated from one of 256 folders, as by git) or small packs."""
    sample = repo.path / "objects" / "17"
    count = len(list(sample.iterdir())) if sample.is_dir() else 0
    return count * 256 >= MAX_LOOSE or len(_small_packs(repo)) >= MAX_SMALL_PACKS


def pack(repo: Repository) -> int:
    """Pack loose objects and small packs; return the number of objects. No other process may be writing."""
    loose = {loose_id(path): path for path in loose_objects(repo.path) if not is_large(path)}
    small = _small_packs(repo)
    packed = {oid for pack in small for oid in packed_ids(pack)}
    wanted = loose.keys() | packed
    if not wanted or (not loose and len(small) < 2):
        return 0
    builder = pygit2.PackBuilder(repo.git)
    builder.set_threads(1)
    for oid in sorted(wanted):
        builder.add(pygit2.Oid(hex=oid))
    builder.write()
    sync_folder(repo.path / "objects" / "pack")
    made = next((pack for pack in _packs(repo) if wanted <= packed_ids(pack)), None)
    if made is None:
        return 0  # everything stays
    for pack in small:
        if pack != made:
            pack.with_suffix(".idx").unlink()
            pack.unlink()
    for path in loose.values():
        path.unlink(missing_ok=True)
    return len(wanted)


def _packs(repo: Repository) -> list[Path]:
    packs = (repo.path / "objects" / "pack").glob("pack-*.pack")
    return [
        path for path in packs if path.with_suffix(".idx").exists() and not path.with_suffix(".keep").exists()
    ]


def _small_packs(repo: Repository) -> list[Path]:
    return [path for path in _packs(repo) if path.stat().st_size <= SMALL_PACK_SIZE]
