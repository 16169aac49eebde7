"""Digests of content while it is read."""

from __future__ import annotations

import hashlib
import io

import pytest

from mao_datamgmt.digests import ContentDigest, HashingReader, content_digest


@pytest.mark.parametrize("sizes", [[-1], [0, 3, 3, 3], [100, 1], [None]])
def test_hashing_reader_covers_the_bytes_read(sizes: list[int | None]) -> None:
    with HashingReader(io.BytesIO(b"content")) as reader:
        data = b"".join(reader.read(size) for size in sizes)
    assert data == b"content"
    assert (reader.size, reader.sha256) == (7, hashlib.sha256(data).hexdigest())


def test_hashing_reader_stops_where_its_reader_stops() -> None:
    reader = HashingReader(io.BytesIO(b"content"))
    reader.read(3)
    assert (reader.size, reader.sha256) == (3, hashlib.sha256(b"con").hexdigest())


def test_hashing_reader_closes_its_stream() -> None:
    stream = io.BytesIO(b"content")
    HashingReader(stream).close()
    assert stream.closed


@pytest.mark.parametrize("chunks", [[], [b"test content\n"], [b"test ", memoryview(b"content\n"), b""]])
def test_content_digest_of_chunks(chunks: list[bytes | memoryview]) -> None:
    data = b"".join(chunks)
    digest = content_digest(len(data), chunks)
    assert (digest.size, digest.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    ids = {
        b"": "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
        b"test content\n": "d670460b4b4aece5915caf5c68d12f560a9fe3e4",
    }
    assert digest.blob == ids[data]


@pytest.mark.parametrize("declared", [6, 8])
def test_content_digest_refuses_another_size(declared: int) -> None:
    digest = ContentDigest(declared)
    with pytest.raises(OSError, match=f"it has 7 bytes; {declared} were expected"):
        list(digest.read([b"con", b"tent"]))
