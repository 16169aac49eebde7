"""What a killed process or a power cut leaves in a repository: locks, half-written files, torn objects.

Only for repositories that nobody else writes: our clones, while the lock of the data directory is ours.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

from .clone import Clone
from .objects import is_whole

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
def unsynced(clone: Clone) -> Iterator[None]:
    """Objects are written in the block without a sync for each; one sync ends it.

    A power cut in between may leave objects with a name and without their content, which a second try would
    take for written. The mark makes the next start look at them.
    """
    mark = clone.path / _UNSYNCED
    if not mark.exists():  # one that is there is of a try that failed: what it wrote is still to be looked at
        with mark.open("w") as file:
            os.fsync(file.fileno())
    yield
    os.sync()
    mark.unlink(missing_ok=True)


@contextmanager
def pushing(clone: Clone, remote: Path, moves: Mapping[str, str]) -> Iterator[None]:
    """References of a repository on this machine are moved in the block, by name to a commit each.

    The mark tells the next start which locks there are ours, should we be killed meanwhile.
    """
    mark = clone.path / _PUSHING
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
