"""The data manager's answers to `git clone`; for real clones see tests/e2e/test_git_http.py."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from mao_datamgmt.browse import git_http
from mao_datamgmt.browse.git_http import (
    MAX_REQUEST_BYTES,
    UploadPack,
    check_git_service,
    decompress_request,
    parse_protocol,
)
from mao_shared.errors import InvalidInput, MaoError, Unavailable
from tests.support.git import bare_repository, git

from .conftest import Api

REFS = "/git/data.git/info/refs"
FETCH = {"service": "git-upload-pack"}


def registered(api: Api, master: str) -> None:
    answer = api.put("/datasets/data", json={"name": "data", "master": master})
    assert answer.status_code == 200, answer.text


@pytest.fixture
def commit(api: Api, tmp_path: Path) -> str:
    """Create a dataset `data` and return its remote's commit."""
    master = Path(api.post("/bare-repo/init", json={"name": "elsewhere-named"}).json()["master"])
    work = tmp_path / "work"
    git(tmp_path, "clone", "-q", str(master), str(work))
    git(work, "commit", "-q", "--allow-empty", "-m", "one")
    git(work, "push", "-q", "origin", "HEAD:ground-truth")
    registered(api, str(master))
    return git(work, "rev-parse", "HEAD")


@pytest.mark.parametrize(
    ("protocol", "head"),
    [
        (None, b"001e# service=git-upload-pack\n0000"),
        ("version=1", b"001e# service=git-upload-pack\n0000"),
        ("version=2", b"000eversion 2\n"),
        ("version=2:x=$(id)", b"001e# service=git-upload-pack\n0000"),
    ],
)
def test_upload_pack_advertises_in_the_protocol_asked_for(
    api: Api, commit: str, protocol: str | None, head: bytes
) -> None:
    answer = api.get(REFS, params=FETCH, headers={"Git-Protocol": protocol} if protocol else {})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-git-upload-pack-advertisement"
    assert "no-cache" in answer.headers["cache-control"]
    assert answer.content.startswith(head)
    assert (commit.encode() in answer.content) is (protocol != "version=2")


@pytest.mark.parametrize(
    ("service", "status", "code"),
    [
        ("git-receive-pack", 403, "git-read-only"),
        ("git-upload-archive", 422, "invalid-input"),
        (None, 422, "invalid-input"),
    ],
)
def test_git_http_refuses_pushes(api: Api, commit: str, service: str | None, status: int, code: str) -> None:
    answer = api.get(REFS, params={"service": service} if service else {})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["next"]
    assert api.post("/git/data.git/git-receive-pack", content=b"0000").status_code in (404, 405)


@pytest.mark.parametrize("name", ["nope", "elsewhere-named"])
def test_git_http_finds_a_repository_by_its_dataset(api: Api, commit: str, name: str) -> None:
    answer = api.get(f"/git/{name}.git/info/refs", params=FETCH)
    assert (answer.status_code, answer.json()["code"]) == (404, "dataset-not-here")


@pytest.mark.parametrize(
    "path", ["/git/..%2f..%2fetc.git/info/refs", "/git/.git/info/refs", "/git/data/info/refs"]
)
def test_git_http_serves_no_other_folder(api: Api, commit: str, path: str) -> None:
    assert api.get(path, params=FETCH).status_code in (404, 422)


def test_git_http_refuses_a_remote_outside(api: Api, commit: str, tmp_path: Path) -> None:
    outside = bare_repository(tmp_path.parent / f"{tmp_path.name}-outside.git")
    link = next(tmp_path.rglob("elsewhere-named.git"))
    link.rename(link.with_name("moved.git"))
    link.symlink_to(outside)
    answer = api.get(REFS, params=FETCH)
    assert (answer.status_code, answer.json()["code"]) == (403, "remote-not-allowed")


def lfs(api: Api, operation: str, *oids: str) -> httpx.Response:
    objects = [{"oid": oid, "size": 3} for oid in oids]
    body = json.dumps({"operation": operation, "transfers": ["basic"], "objects": objects})
    headers = {"content-type": "application/vnd.git-lfs+json", "x-forwarded-host": "node.lab:8080"}
    return api.post("/git/data.git/info/lfs/objects/batch", content=body, headers=headers)


def test_lfs_batch_lists_objects(api: Api, commit: str, tmp_path: Path) -> None:
    folder = next(tmp_path.rglob("elsewhere-named.git")) / "lfs/objects"
    here, gone, led_out = "ab" * 32, "cd" * 32, "ef" * 32
    for oid in (here, led_out):
        (folder / oid[:2] / oid[2:4]).mkdir(parents=True)
    (folder / "ab/ab" / here).write_text("big")
    (folder / "ef/ef" / led_out).symlink_to("/etc/hostname")

    answer = lfs(api, "download", here, gone, led_out)

    assert answer.headers["content-type"] == "application/vnd.git-lfs+json"
    told = {answered["oid"]: answered for answered in answer.json()["objects"]}
    url = told[here]["actions"]["download"]["href"]
    assert url == f"http://node.lab:8080/git/data.git/lfs/{here}"
    for oid in (gone, led_out):
        assert told[oid]["error"]["code"] == 404
        assert api.get(f"/git/data.git/lfs/{oid}").status_code == 404
    assert api.get(f"/git/data.git/lfs/{here}").text == "big"


@pytest.mark.parametrize(
    ("operation", "oid", "status"),
    [("upload", "ab" * 32, 403), ("verify", "ab" * 32, 403), ("download", "../../../config", 422)],
)
def test_lfs_batch_refuses_uploads(api: Api, commit: str, operation: str, oid: str, status: int) -> None:
    assert lfs(api, operation, oid).status_code == status
    assert api.get(f"/git/data.git/lfs/{oid}").status_code in (404, 422)


async def test_upload_pack_busy_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_http, "QUEUE_SECONDS", 0.05)
    path = bare_repository(tmp_path / "r.git")
    nothing: Any = None  # nothing of the node is asked for once the repository is known
    served = UploadPack(nothing, nothing, nothing)
    begun = [await served.advertise(path, None) for _ in range(git_http.MAX_PROCESSES)]
    with pytest.raises(Unavailable) as caught:
        await served.advertise(path, None)
    assert (caught.value.code, bool(caught.value.next)) == ("git-busy", True)
    await begun.pop().aclose()
    begun.append(await served.advertise(path, None))
    for stream in begun:
        await stream.aclose()


def test_decompress_request() -> None:
    assert decompress_request(b"0000", None) == b"0000"
    assert decompress_request(gzip.compress(b"0032want", mtime=0), "gzip") == b"0032want"
    assert (
        decompress_request(gzip.compress(b"x" * MAX_REQUEST_BYTES, mtime=0), "x-gzip")
        == b"x" * MAX_REQUEST_BYTES
    )


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"no gzip", "gzip"),
        (gzip.compress(b"0032want", mtime=0)[:-12], "gzip"),
        (gzip.compress(b"x" * (MAX_REQUEST_BYTES + 1)), "gzip"),
        (zlib.compress(b"0032want"), "deflate"),
    ],
)
def test_decompress_request_refuses_invalid_bodies(body: bytes, encoding: str) -> None:
    with pytest.raises(InvalidInput):
        decompress_request(body, encoding)


def test_protocol_of_known_versions() -> None:
    assert [parse_protocol(header) for header in ("version=0", "version=2")] == ["version=0", "version=2"]
    assert [parse_protocol(header) for header in (None, "", "version=3", "version=2\n", "x")] == [None] * 5
    with pytest.raises(MaoError):
        check_git_service("git-upload-pack ")
