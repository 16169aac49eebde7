"""Keeping a clone fast and clean: packing objects, and removing what a killed process left.

What a killed process or a power cut leaves in a repository: locks, half-written files, torn objects.

Only for repositories that nobody else writes: our clones, while the lock of the data directory is ours.

Keeping a clone fast for years: loose objects and small packs are put into one pack.

Nothing is removed before the pack that holds it is on the disk, so a kill at any point leaves at most two
copies, which the next time takes together. Large objects stay loose, since only those are read in pieces.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

import pygit2

from .objects import _ID_BYTES, ids_of, is_large, is_whole
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


def sweep(path: Path) -> list[Path]:
    """Removes all of it from a repository; what was removed. Blocks for as long as a walk of `refs` takes."""
    return [*sweep_locks(path), *sweep_half_written(path), *_sweep_torn(path), *_sweep_pushing(path)]


def sweep_half_written(path: Path) -> list[Path]:
    """Removes files that were never finished, and pack indexes without their pack; what was removed."""
    lonely = (each for each in _found(path, ["objects/pack/*.idx"]) if not each.with_suffix(".pack").exists())
    return _remove(chain(_found(path, _HALF_WRITTEN), lonely))


def sweep_locks(path: Path, older_than: float = 0.0) -> list[Path]:
    """Removes the lock files of a killed writer, those of at least so many seconds; what was removed.

    Git holds such a lock for moments, so that in a repository which others push to, age tells a left one.
    """
    return _remove(lock for lock in _found(path, _LOCKS) if _age(lock) >= older_than)


def lock_age(path: Path, reference: str) -> float | None:
    """Seconds since somebody locked a reference; None when it is not locked."""
    lock = path / f"{reference}.lock"
    return _age(lock) if lock.exists() else None


@contextmanager
def unsynced(repo: Repository) -> Iterator[None]:
    """Objects are written in the block without a sync for each; one sync ends it.

    A power cut in between may leave objects with a name and without their content, which a second try would
    take for written. The mark makes the next start look at them.
    """
    mark = repo.path / _UNSYNCED
    if not mark.exists():  # one that is there is of a try that failed: what it wrote is still to be looked at
        with mark.open("w") as file:
            os.fsync(file.fileno())
    yield
    os.sync()
    mark.unlink(missing_ok=True)


@contextmanager
def pushing(repo: Repository, remote: Path, moves: Mapping[str, str]) -> Iterator[None]:
    """References of a repository on this machine are moved in the block, by name to a commit each.

    The mark tells the next start which locks there are ours, should we be killed meanwhile.
    """
    mark = repo.path / _PUSHING
    mark.write_text(json.dumps({str(remote / f"{name}.lock"): new for name, new in moves.items()}))
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def _sweep_pushing(path: Path) -> list[Path]:
    """Removes the locks that we held in a remote when we were killed: they hold what we were writing."""
    mark = path / _PUSHING
    try:
        held: dict[str, str] = dict(json.loads(mark.read_text()))
    except (
        FileNotFoundError,
        ValueError,
        TypeError,
    ):  # killed before the mark was whole, and so before any lock
        held = {}
    ours = (Path(lock) for lock, new in held.items() if _holds(Path(lock), new))
    gone = _remove(ours)
    mark.unlink(missing_ok=True)
    return gone


def _holds(lock: Path, commit: str) -> bool:
    try:
        return lock.read_text().strip() in ("", commit)
    except (OSError, UnicodeDecodeError):
        return False


def _sweep_torn(path: Path) -> list[Path]:
    mark = path / _UNSYNCED
    if not mark.exists():
        return []
    since = mark.stat().st_mtime
    loose = (each for each in path.glob("objects/??/*") if each.stat().st_mtime >= since)
    torn = _remove(each for each in list(loose) if not is_whole(each))
    os.sync()
    mark.unlink()
    return torn


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return -1.0


def _found(path: Path, patterns: Iterable[str]) -> Iterator[Path]:
    """Folders may go meanwhile, as git removes empty ones: what is not found now is the next time."""
    for pattern in patterns:
        with suppress(FileNotFoundError):
            yield from path.glob(pattern)


def _remove(paths: Iterator[Path]) -> list[Path]:
    gone = list(paths)
    for path in gone:
        path.unlink(missing_ok=True)
    return gone


LOOSE = 2000  # objects from which on it is worth it

PACKS = 30

SMALL_PACK = 32 << 20  # bytes; larger ones are left alone

_FAN_OUT = re.compile(r"[0-9a-f]{2}")


def needs_packing(repo: Repository) -> bool:
    """Whether the clone has many loose objects (estimated from a part of them) or many small packs."""
    sample = repo.path / "objects" / "17"
    few = len(list(sample.iterdir())) if sample.is_dir() else 0
    return few * 256 >= LOOSE or len(_small_packs(repo)) >= PACKS


def pack(repo: Repository) -> int:
    """Packs what is loose or in small packs; how many objects. Nobody else may write meanwhile."""
    loose = {oid: path for path, oid in _loose(repo)}
    small = _small_packs(repo)
    packed = {oid for pack in small for oid in ids_of(pack)}
    wanted = loose.keys() | packed
    if not wanted or (not loose and len(small) < 2):
        return 0
    builder = pygit2.PackBuilder(repo.git)
    builder.set_threads(1)
    for oid in sorted(wanted):
        builder.add(pygit2.Oid(hex=oid))
    builder.write()
    _sync(repo.path / "objects" / "pack")
    made = next((pack for pack in _packs(repo) if wanted <= ids_of(pack)), None)
    if made is None:
        return 0  # what is there stays
    for pack in small:
        if pack != made:
            pack.with_suffix(".idx").unlink()
            pack.unlink()
    for path in loose.values():
        path.unlink(missing_ok=True)
    return len(wanted)


def _loose(repo: Repository) -> Iterator[tuple[Path, str]]:
    for folder in (repo.path / "objects").iterdir():
        if _FAN_OUT.fullmatch(folder.name):
            for path in folder.iterdir():
                if len(path.name) == 2 * _ID_BYTES - 2 and not is_large(path):
                    yield path, folder.name + path.name


def _packs(repo: Repository) -> list[Path]:
    return [path for path in (repo.path / "objects" / "pack").glob("pack-*.pack") if _is_whole(path)]


def _is_whole(pack: Path) -> bool:
    return pack.with_suffix(".idx").exists() and not pack.with_suffix(".keep").exists()


def _small_packs(repo: Repository) -> list[Path]:
    return [path for path in _packs(repo) if path.stat().st_size <= SMALL_PACK]


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
