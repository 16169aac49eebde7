"""`maoctl run export|verify|reproduce`: output and exit codes."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from . import documents
from .conftest import Maoctl
from .gateways import RememberingGateway, Stream, sse

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


def test_verify_of_an_unchanged_run_exits_with_0(maoctl: Maoctl, node: RememberingGateway) -> None:
    node.answer("GET", f"/runs/{RUN}/verify", report(unchecked=["log of a: gone"]))
    result = maoctl("run", "verify", RUN)
    assert result.code == 0
    assert "not checked: log of a: gone" in result.err
    assert "2 files, 10 bytes" in result.err


def test_verify_names_the_first_difference_and_exits_with_1(maoctl: Maoctl, node: RememberingGateway) -> None:
    fault = {"step": "crawler", "what": "output", "path": "a\x1b.csv", "detail": "It is broken."}
    node.answer("GET", f"/runs/{RUN}/verify", report(fault))
    result = maoctl("run", "verify", RUN)
    assert result.code == 1
    assert result.out.startswith("crawler output a")
    assert "First difference: crawler output a" in result.err
    assert "\x1b" not in result.out + result.err


def test_verify_checks_a_crate(maoctl: Maoctl, node: RememberingGateway, tmp_path: Path) -> None:
    node.answer("GET", f"/runs/{RUN}/verify", report())
    good, bad = crate_at(tmp_path / "good.zip"), crate_at(tmp_path / "bad.zip", b"2")
    assert maoctl("run", "verify", RUN, "--crate", str(good)).code == 0
    result = maoctl("run", "verify", RUN, "--crate", str(bad))
    assert result.code == 1
    assert result.out.startswith(f"{NAME}: 1 bytes with SHA-256")


def test_verify_of_a_file_that_is_not_a_crate(
    maoctl: Maoctl, node: RememberingGateway, tmp_path: Path
) -> None:
    node.answer("GET", f"/runs/{RUN}/verify", report())
    (tmp_path / "x.zip").write_text("no zip")
    result = maoctl("run", "verify", RUN, "--crate", str(tmp_path / "x.zip"))
    assert result.code == 1
    assert "not a readable crate" in result.out


def test_verify_prints_json(maoctl: Maoctl, node: RememberingGateway) -> None:
    node.answer("GET", f"/runs/{RUN}/verify", report())
    result = maoctl("run", "verify", RUN, "-o", "json")
    assert json.loads(result.out)["ok"] is True


def test_export_leaves_no_file_when_refused(maoctl: Maoctl, node: RememberingGateway, tmp_path: Path) -> None:
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


OLD = "20260131T115900Z-daily-0a1b2c3d"
NEW = "20260131T120000Z-daily-11223344"


def reproduction(**found: object) -> documents.Json:
    step = documents.step(snapshot=None, reproduced=found)
    original = {"run": OLD, "step": "crawler", "snapshot": "c" * 40}
    return documents.run(NEW, trigger="reproduce", steps=[step], reproduces=original)


@pytest.fixture
def gateway_with_run(gateway: RememberingGateway) -> RememberingGateway:
    gateway.keep("/runs", documents.run(OLD), key="id")
    gateway.answer("POST", f"/runs/{OLD}/reproduce", documents.run(NEW, "queued"), 201)
    return gateway


def test_reproduce_of_identical_files_exits_with_0(
    maoctl: Maoctl, gateway_with_run: RememberingGateway
) -> None:
    gateway_with_run.stream(f"/runs/{NEW}/events", Stream([sse(reproduction(identical=3))]))
    result = maoctl("run", "reproduce", OLD, "--step", "crawler", "--wait")
    assert (result.code, result.out) == (0, "identical  3 files\n")
    (call,) = gateway_with_run.called("POST", f"/runs/{OLD}/reproduce")
    assert call.body == {"step": "crawler"}


def test_reproduce_lists_differing_files_and_exits_with_1(
    maoctl: Maoctl, gateway_with_run: RememberingGateway
) -> None:
    found = reproduction(identical=1, different=["a", "b\x1b[31m"], missing=["c"], extra=["d"], unlisted=7)
    gateway_with_run.stream(f"/runs/{NEW}/events", Stream([sse(found)]))
    result = maoctl("run", "reproduce", OLD, "--wait")
    assert result.code == 1
    assert [line.split()[0] for line in result.out.splitlines()] == [
        "different",
        "different",
        "missing",
        "extra",
        "…",
        "identical",
    ]
    assert "\x1b" not in result.out
    assert f"workspaces/{NEW}" in result.err


def test_reproduce_without_wait_only_starts(maoctl: Maoctl, gateway_with_run: RememberingGateway) -> None:
    result = maoctl("-o", "name", "run", "reproduce", OLD)
    assert (result.code, result.out) == (0, f"run/{NEW}\n")


def test_run_show_of_a_reproduction(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/runs", reproduction(identical=2, missing=["c"]), key="id")
    result = maoctl("run", "show", NEW)
    assert OLD in result.out
    assert "2 identical, 1 missing" in result.out
