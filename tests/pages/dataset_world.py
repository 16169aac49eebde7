"""Datasets of a node for the tests of pages: with tables, pictures, hostile names, and one that waits."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pygit2

from mao_shared.commit_messages import embed_record
from tests.support.git import bare_repository
from tests.support.node import NativeNode

BEGIN = datetime(2026, 11, 28, 10, 10, tzinfo=UTC)
HOSTILE = "<img src=x onerror=alert(1)>\x1b[2J\u202e.csv"
COMMITS = 24


def png(width: int = 96, height: int = 48) -> bytes:
    """Return a picture with a gradient."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"".join(bytes((x * 2, y * 4, 160)) for x in range(width)) for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def table(number: int, shift: int = 0) -> str:
    """Return a table of latencies by region; `shift` sets a node's values apart."""
    regions = ("eu-central", "eu-west", "us-east", "ap-south", "sa-east")
    rows = [
        f"{region},ok,{180 + 20 * place + (number * 7 + place * 5 + shift) % 23}.{number % 10},120{place}"
        for place, region in enumerate(regions)
    ]
    return "\n".join(["region,status,p95,requests", *rows, "af-north,timeout,,0", ""])


def write_commit(
    repository: pygit2.Repository, branch: str, files: Mapping[str, bytes], message: str, at: datetime
) -> None:
    """Commit exactly these files on a branch."""
    index = pygit2.Index()
    for path, data in files.items():
        index.add(pygit2.IndexEntry(path, repository.create_blob(data), pygit2.enums.FileMode.BLOB))
    tree = index.write_tree(repository)
    name = f"refs/heads/{branch}"
    parents = [repository.references[name].target] if name in repository.references else []
    author = pygit2.Signature("MAO", "mao@node-1", int(at.timestamp()), 0)
    repository.create_commit(name, author, author, message, tree, parents)


def message_of(run: str, at: datetime, files: Mapping[str, bytes]) -> str:
    record = {"mao": {"scheduled_for": at.isoformat(), "manifest": manifest(files)}}
    subject = "[DATALAD RUNCMD] api-latency: probe on node-1"
    return f"{embed_record(subject, record)}\nMAO-Run: {run}\nMAO-Step: probe\n"


def manifest(files: Mapping[str, bytes]) -> dict[str, int]:
    return {"files": len(files), "bytes": sum(map(len, files.values()))}


def fill(repository: pygit2.Repository, node: str) -> None:
    """Write the branches of a node, of another one, and ground truth."""
    for number in range(COMMITS):
        at = BEGIN + timedelta(hours=number)
        run = f"{at:%Y%m%dT%H%M%SZ}-api-latency-{number:08x}"
        for branch, shift in ((node, 0), ("basel", 4), ("ground-truth", 1)):
            files = {
                "latency.csv": table(number, shift).encode(),
                "plot.png": png(),
                "insights.json": json.dumps({"p95": number, "note": "<b>bold</b>"}).encode(),
                "raw/a.bin": b"\0\1" * 40,
                "raw/notes.txt": b"<script>alert(1)</script>\nsecond line\x1b[2J\n",
                HOSTILE: b"name,value\n<script>alert(1)</script>,1\n'><svg onload=alert(1)>,2\n",
            }
            if branch == node and number == 9:
                files["latency.csv"] = b"region,status\n\xff\n"
            write_commit(repository, branch, files, message_of(run, at, files), at)


def fill_datasets(node: NativeNode, folder: Path) -> None:
    """Register and clone the datasets `latency` and `empty`; register `elsewhere`."""
    for name in ("latency", "empty"):
        master = bare_repository(folder / f"{name}.git")
        if name == "latency":
            fill(pygit2.Repository(str(master)), node.name)
        body = {"name": name, "master": str(master), "description": "p95 by region <b>hourly</b>"}
        assert node.http.post("/registry/datasets", json=body).status_code == 201
        assert node.http.put(f"/datasets/{name}", json={"name": name, "master": str(master)}).is_success
    elsewhere = {"name": "elsewhere", "master": str(folder / "elsewhere.git"), "nodes": ["basel"]}
    bare_repository(folder / "elsewhere.git")
    assert node.http.post("/registry/datasets", json=elsewhere).status_code == 201
