"""Pure but for reading the zip: whether a crate has what it says, and what the node says."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

METADATA = "ro-crate-metadata.json"
CHANGES = frozenset({"run.json"})  # may be told of a later push, so that the node's is newer
PIECE = 1 << 20  # bytes that are read at once
Digest = tuple[int, str]  # size in bytes, SHA-256


def crate_faults(path: Path, node: dict[str, Any]) -> Iterator[str]:
    """What is wrong, one line each; `node`: the metadata as the node has it now."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield from _faults(archive, node)
    except (zipfile.BadZipFile, OSError, ValueError, KeyError) as error:
        yield f"{path.name}: it cannot be read as a crate: {error}"


def _faults(archive: zipfile.ZipFile, node: dict[str, Any]) -> Iterator[str]:
    said = digests(json.loads(archive.read(METADATA)))
    known = digests(node)
    names = set(archive.namelist()) - {METADATA}
    for name, digest in said.items():
        found = _digest(archive, name) if name in names else "it is missing"
        if isinstance(found, str):
            yield f"{name}: {found}"
        elif found != digest:
            yield f"{name}: {_words(found)}; its metadata says {_words(digest)}"
        elif name in known and name not in CHANGES and known[name] != digest:
            yield f"{name}: {_words(found)}; the node has {_words(known[name])}"
    yield from (f"{name}: its metadata does not name it" for name in sorted(names - said.keys()))
    if any(_is_data(name) for name in said):  # one made with --no-data has none of them
        yield from (
            f"{name}: the node has it, the crate does not" for name in sorted(known.keys() - said.keys())
        )


def digests(metadata: dict[str, Any]) -> dict[str, Digest]:
    """The files that a crate's metadata names, by path."""
    files = (entity for entity in metadata["@graph"] if entity.get("@type") == "File")
    return {unquote(entity["@id"]): (int(entity["contentSize"]), str(entity["sha256"])) for entity in files}


def _is_data(name: str) -> bool:
    return "/output/" in name or "/input/" in name


def _digest(archive: zipfile.ZipFile, name: str) -> Digest | str:
    """Size and digest, or why it cannot be read."""
    digest, size = hashlib.sha256(), 0
    try:
        with archive.open(name) as file:
            while piece := file.read(PIECE):
                digest.update(piece)
                size += len(piece)
    except (zipfile.BadZipFile, zlib.error, OSError) as error:
        return f"it cannot be read: {error}"
    return size, digest.hexdigest()


def _words(digest: Digest) -> str:
    return f"{digest[0]} bytes with SHA-256 {digest[1]}"
