"""`maoctl run export` and `run verify`: what they write, say, and with which code they end."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from . import documents
from .conftest import Maoctl
from .gateways import RememberingGateway

RUN = "20260131T115900Z-daily-0a1b2c3d"
NAME = "0-crawler/output/a"
FILE = {"@id": NAME, "@type": "File", "contentSize": "1", "sha256": hashlib.sha256(b"1").hexdigest()}
METADATA = {"@graph": [FILE]}


def report(*faults: documents.Json, **fields: object) -> documents.Json:
    return {
        "run": RUN,
        "ok": not faults,
        "files": 2,
        "bytes": 10,
        "faults": list(faults),
        "unchecked": [],
        **fields,
    }


def crate_at(path: Path, content: bytes = b"1") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(NAME, content)
        archive.writestr("ro-crate-metadata.json", json.dumps(METADATA))
    return path


@pytest.fixture
def node(gateway: RememberingGateway) -> RememberingGateway:
    gateway.keep("/runs", documents.run(RUN), key="id")
    gateway.answer("GET", f"/runs/{RUN}/crate/metadata", METADATA)
    return gateway


def test_run_as_recorded_is_exit_code_0(maoctl: Maoctl, node: RememberingGateway) -> None:
    node.answer("GET", f"/runs/{RUN}/verify", report(unchecked=["log of a: gone"]))
    result = maoctl("run", "verify", RUN)
    assert result.code == 0
    assert "not checked: log of a: gone" in result.err
    assert "2 files, 10 bytes" in result.err


def test_first_difference_is_named_and_the_code_is_1(maoctl: Maoctl, node: RememberingGateway) -> None:
    fault = {"step": "crawler", "what": "output", "path": "a\x1b.csv", "detail": "It is broken."}
    node.answer("GET", f"/runs/{RUN}/verify", report(fault))
    result = maoctl("run", "verify", RUN)
    assert result.code == 1
    assert result.out.startswith("crawler output a")
    assert "First difference: crawler output a" in result.err
    assert "\x1b" not in result.out + result.err


def test_crate_is_checked_as_well(maoctl: Maoctl, node: RememberingGateway, tmp_path: Path) -> None:
    node.answer("GET", f"/runs/{RUN}/verify", report())
    good, bad = crate_at(tmp_path / "good.zip"), crate_at(tmp_path / "bad.zip", b"2")
    assert maoctl("run", "verify", RUN, "--crate", str(good)).code == 0
    result = maoctl("run", "verify", RUN, "--crate", str(bad))
    assert result.code == 1
    assert result.out.startswith(f"{NAME}: 1 bytes with SHA-256")


def test_something_else_is_no_crate(maoctl: Maoctl, node: RememberingGateway, tmp_path: Path) -> None:
    node.answer("GET", f"/runs/{RUN}/verify", report())
    (tmp_path / "x.zip").write_text("no zip")
    result = maoctl("run", "verify", RUN, "--crate", str(tmp_path / "x.zip"))
    assert result.code == 1
    assert "cannot be read as a crate" in result.out


def test_verification_for_programs(maoctl: Maoctl, node: RememberingGateway) -> None:
    node.answer("GET", f"/runs/{RUN}/verify", report())
    result = maoctl("run", "verify", RUN, "-o", "json")
    assert json.loads(result.out)["ok"] is True


def test_export_that_is_refused_leaves_no_file(
    maoctl: Maoctl, node: RememberingGateway, tmp_path: Path
) -> None:
    problem = {
        "status": 409,
        "code": "run-not-ended",
        "detail": "The run has not ended.",
        "title": "Conflict",
    }
    node.answer("GET", f"/runs/{RUN}/crate", problem, 409)
    result = maoctl("run", "export", RUN, "-o", str(tmp_path / "crate.zip"))
    assert result.code == 5
    assert list(tmp_path.glob("*crate*")) == []
