"""Keeping a clone fast for years: loose objects and small packs are put into one pack.

Nothing is removed before the pack that holds it is on the disk, so a kill at any point leaves at most two
copies, which the next time takes together. Large objects stay loose, since only those are read in pieces.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pygit2

from .clone import Clone
from .content import is_large

LOOSE = 2000  # objects from which on it is worth it
PACKS = 30
SMALL_PACK = 32 << 20  # bytes; larger ones are left alone
_FAN_OUT = re.compile(r"[0-9a-f]{2}")
_INDEX_HEAD, _INDEX_TABLE, _ID = 8, 256 * 4, 20  # bytes, of git's pack index version 2


def needs_packing(clone: Clone) -> bool:
    """Whether the clone has many loose objects (estimated from a part of them) or many small packs."""
    sample = clone.path / "objects" / "17"
    few = len(list(sample.iterdir())) if sample.is_dir() else 0
    return few * 256 >= LOOSE or len(_small_packs(clone)) >= PACKS


def pack_objects(clone: Clone) -> int:
    """Packs what is loose or in small packs; how many objects. Nobody else may write meanwhile."""
    loose = {oid: path for path, oid in _loose(clone)}
    small = _small_packs(clone)
    packed = {oid for pack in small for oid in ids_of(pack)}
    wanted = loose.keys() | packed
    if not wanted or (not loose and len(small) < 2):
        return 0
    builder = pygit2.PackBuilder(clone.git)
    builder.set_threads(1)
    for oid in sorted(wanted):
        builder.add(pygit2.Oid(hex=oid))
    builder.write()
    _sync(clone.path / "objects" / "pack")
    made = next((pack for pack in _packs(clone) if wanted <= ids_of(pack)), None)
    if made is None:
        return 0  # what is there stays
    for pack in small:
        if pack != made:
            pack.with_suffix(".idx").unlink()
            pack.unlink()
    for path in loose.values():
        path.unlink(missing_ok=True)
    return len(wanted)


def _loose(clone: Clone) -> Iterator[tuple[Path, str]]:
    for folder in (clone.path / "objects").iterdir():
        if _FAN_OUT.fullmatch(folder.name):
            for path in folder.iterdir():
                if len(path.name) == 2 * _ID - 2 and not is_large(path):
                    yield path, folder.name + path.name


def _packs(clone: Clone) -> list[Path]:
    return [path for path in (clone.path / "objects" / "pack").glob("pack-*.pack") if _is_whole(path)]


def _is_whole(pack: Path) -> bool:
    return pack.with_suffix(".idx").exists() and not pack.with_suffix(".keep").exists()


def _small_packs(clone: Clone) -> list[Path]:
    return [path for path in _packs(clone) if path.stat().st_size <= SMALL_PACK]


def ids_of(pack: Path) -> set[str]:
    """Ids of the objects in a pack, from its index; empty for an index that is not of version 2."""
    data = pack.with_suffix(".idx").read_bytes()
    if data[:_INDEX_HEAD] != b"\xfftOc\0\0\0\x02":
        return set()
    begin = _INDEX_HEAD + _INDEX_TABLE
    count = int.from_bytes(data[begin - 4 : begin], "big")
    ends = range(begin + _ID, begin + (count + 1) * _ID, _ID)
    return {data[end - _ID : end].hex() for end in ends}


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
