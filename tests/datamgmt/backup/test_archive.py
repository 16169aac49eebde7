"""The format of a backup: a written archive is read back, and any other file is refused."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mao_datamgmt.backup.archive import (
    FOLDERS,
    HEADER,
    MANIFEST,
    SETTINGS,
    STORE,
    ArchiveWriter,
    Header,
    read_files,
    verify_backup,
)
from mao_shared.errors import InvalidInput

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
DEEP = "data/logs/" + "d" * 120 + "/0.1.log"


def header(**changes: Any) -> bytes:
    said = Header(node="node-1", mao="0", taken_at=AT, revision=7).model_dump(mode="json")
    return json.dumps({**said, **changes}).encode()


def write(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None, **changes: Any) -> Path:
    with path.open("wb") as file:
        writer = ArchiveWriter(file)
        writer.add_bytes(HEADER, header(**changes))
        writer.add_bytes(STORE, b"")
        for name, content in files.items():
            writer.add_bytes(name, content)
        for name, target in (links or {}).items():
            writer.add_link(name, target)
        writer.close()
    return path


def forged(path: Path, *infos: tuple[tarfile.TarInfo, bytes], manifest: Any = None) -> Path:
    """Build a backup with arbitrary further tar members."""
    files = {HEADER: header(), STORE: b""}
    with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files.items():
            add(tar, name, content)
        for info, content in infos:
            tar.addfile(info, io.BytesIO(content))
        add(tar, MANIFEST, json.dumps(manifest or {"files": {}}).encode())
    return path


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def info(name: str, kind: bytes = tarfile.REGTYPE, **more: Any) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type = kind
    for key, value in more.items():
        setattr(found, key, value)
    return found


def refused(path: Path) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        verify_backup(path)
    return caught.value


def test_archive_keeps_modes_and_names(tmp_path: Path) -> None:
    odd = "data/workspaces/r/0.1/data/" + os.fsdecode(b"\xff odd\n\xc3\xa4")
    script = tmp_path / "script"
    script.write_bytes(b"#!/bin/sh\n")
    script.chmod(0o755)
    with (tmp_path / "b").open("wb") as file:
        writer = ArchiveWriter(file)
        writer.add_bytes(HEADER, header())
        writer.add_bytes(STORE, b"{}\n")
        writer.add_bytes(DEEP, b"deep")
        writer.add_bytes(odd, b"odd")
        assert writer.add_file("data/script", script)
        assert not writer.add_file("data/gone", tmp_path / "gone")
        writer.close()
    found, manifest = verify_backup(tmp_path / "b")
    assert (found.node, found.revision) == ("node-1", 7)
    with (tmp_path / "b").open("rb") as file:
        read = {member.name: (member.stream.read(100), member.executable) for member in read_files(file)}
    assert read[DEEP] == (b"deep", False)
    assert read[odd] == (b"odd", False)
    assert read["data/script"] == (b"#!/bin/sh\n", True)
    assert manifest.files.keys() == read.keys() - {MANIFEST}


def test_archive_is_unpacked_by_tar(tmp_path: Path) -> None:
    path = write(tmp_path / "b", {DEEP: b"deep", SETTINGS: b"{}"})
    with tarfile.open(path) as tar:
        assert tar.extractfile(DEEP).read() == b"deep"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "name",
    [
        "data/../../etc/passwd",
        "/etc/passwd",
        "data//x",
        "data/./x",
        "data",
        "elsewhere/x",
        "..",
        "data/a/..",
        "data/" + "x" * 5000,
    ],
)
def test_verify_backup_refuses_unsafe_names(tmp_path: Path, name: str) -> None:
    error = refused(forged(tmp_path / "b", (info(name), b"")))
    assert error.code == "backup-invalid"
    assert "Nothing was changed" in (error.next or "")


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (tarfile.SYMTYPE, {"linkname": "/etc"}),
        (tarfile.LNKTYPE, {"linkname": "data/other"}),
        (tarfile.CHRTYPE, {"devmajor": 1, "devminor": 3}),
        (tarfile.BLKTYPE, {}),
        (tarfile.FIFOTYPE, {}),
        (tarfile.DIRTYPE, {}),
        (tarfile.GNUTYPE_SPARSE, {}),
        (tarfile.XHDTYPE, {}),
        (tarfile.XGLTYPE, {}),
        (tarfile.GNUTYPE_LONGLINK, {}),
    ],
)
def test_verify_backup_refuses_special_files(tmp_path: Path, kind: bytes, more: dict[str, Any]) -> None:
    assert "not a regular file" in refused(forged(tmp_path / "b", (info("data/x", kind, **more), b""))).detail


@pytest.mark.parametrize(
    "size",
    [b"77777777777\0", b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7, b"\xff" + b"\xff" * 11],
    ids=["8 GiB", "2^63", "negative"],
)
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME])
def test_verify_backup_refuses_absurd_sizes(tmp_path: Path, size: bytes, kind: bytes) -> None:
    block = bytearray(info("data/x", kind).tobuf(tarfile.GNU_FORMAT))
    block[124:136] = size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    begin = info(HEADER, size=len(header())).tobuf(tarfile.GNU_FORMAT)
    padded = header().ljust(-(-len(header()) // 512) * 512, b"\0")
    path = tmp_path / "b"
    path.write_bytes(gzip.compress(begin + padded + bytes(block)))
    assert refused(path).code == "backup-invalid"


def test_verify_backup_refuses_a_torn_file(tmp_path: Path) -> None:
    whole = write(tmp_path / "b", {f"data/logs/{n}": os.urandom(2000) for n in range(5)}).read_bytes()
    for length in (0, 1, 5, 20, len(whole) // 3, len(whole) // 2, len(whole) - 200, len(whole) - 1):
        (tmp_path / "torn").write_bytes(whole[:length])
        assert refused(tmp_path / "torn").code == "backup-invalid", length


def test_verify_backup_refuses_a_damaged_file(tmp_path: Path) -> None:
    whole = write(tmp_path / "b", {f"data/logs/{n}": os.urandom(2000) for n in range(3)}).read_bytes()
    for at in range(12, len(whole) - 8, 97):
        bad = whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :]
        with contextlib.suppress(EOFError, gzip.BadGzipFile, zlib.error):
            if gzip.decompress(bad) == gzip.decompress(whole):
                continue  # the byte describes a code that the compressed data do not use
        (tmp_path / "bad").write_bytes(bad)
        assert refused(tmp_path / "bad").code == "backup-invalid", at


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no gzip",
        gzip.compress(b"", mtime=0),
        gzip.compress(b"no tar" * 200, mtime=0),
        gzip.compress(bytes(1024), mtime=0),
    ],
)
def test_verify_backup_refuses_other_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b").write_bytes(content)
    assert refused(tmp_path / "b").code == "backup-invalid"


def test_verify_backup_refuses_another_tar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "b", "w:gz") as tar:
        add(tar, "data/x", b"")
    assert "first file is" in refused(tmp_path / "b").detail


def test_verify_backup_names_a_later_format(tmp_path: Path) -> None:
    error = refused(write(tmp_path / "b", {}, format=2))
    assert error.code == "backup-version"
    assert "later" in (error.next or "")


def changed(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    known = {HEADER: header(), STORE: b""}
    files = {name: [hashlib.sha256(data).hexdigest(), len(data)] for name, data in known.items()}
    manifest: dict[str, Any] = {"files": files, "links": {}}
    change(manifest)
    return manifest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["files"].pop(STORE), "not in its manifest"),
        (lambda m: m["files"].update({"data/x": ["0" * 64, 0]}), "is missing"),
        (lambda m: m["files"].update({STORE: ["0" * 64, 0]}), "SHA-256 differs"),
        (lambda m: m["links"].update({"data/datasets/x": "/etc"}), "not in a tool's output"),
        (lambda m: m["links"].update({"data/workspaces/../x": "/etc"}), "contains a file"),
        (lambda m: m.pop("files"), "manifest cannot be read"),
    ],
)
def test_verify_backup_refuses_a_wrong_manifest(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    assert words in refused(forged(tmp_path / "b", manifest=changed(change))).detail


def test_verify_backup_refuses_names_listed_twice(tmp_path: Path) -> None:
    link = "data/workspaces/r/0.1/data/out"
    path = write(tmp_path / "b", {f"{link}/passwd": b"x"}, {link: "/etc"})
    assert "more than one of file, link and folder" in refused(path).detail
    path = write(tmp_path / "b", {link: b"x"}, {link: "/etc"})
    assert "more than one of file, link and folder" in refused(path).detail


def test_verify_backup_refuses_extra_files(tmp_path: Path) -> None:
    path = forged(tmp_path / "b", (info("data/x"), b""), (info("data/x"), b""))
    assert "twice" in refused(path).detail
    with tarfile.open(tmp_path / "c", "w:gz") as tar:
        for name, content in ((HEADER, header()), (MANIFEST, b'{"files": {}}'), ("data/x", b"")):
            add(tar, name, content)
    assert "after its manifest" in refused(tmp_path / "c").detail


def test_node_paths_know_all_folders() -> None:
    assert FOLDERS == ("data", "agreements", "federation")
