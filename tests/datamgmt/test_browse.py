"""Differences between a dataset's commits, and downloads."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mao_git import Clone
from mao_shared.models import GROUND_TRUTH
from mao_shared.models.round import FieldRule, FileRule, VoteDefinition
from tests.support.git import bare_repository, git
from tests.vote.repo import commit, vote

from .conftest import Api
from .world import NODE


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a repository with two commits on ground-truth."""
    work = tmp_path_factory.mktemp("work")
    git(work, "init", "-q", "-b", "ground-truth")
    (work / "d").mkdir()
    (work / "r.csv").write_text("id,v\na,1\nb,2\n")
    (work / "d" / "t.txt").write_text("one\ntwo\n")
    (work / "blob").write_bytes(b"\0\1")
    (work / "run.sh").write_text("#!/bin/sh\n")
    (work / "run.sh").chmod(0o755)
    (work / "link").symlink_to("r.csv")
    _commit(work)
    (work / "r.csv").write_text("id,v\nb,3\na,1\nc,4\n")
    (work / "d" / "t.txt").write_text("one\n2\n")
    (work / "blob").write_bytes(b"\0\2")
    (work / "bad.json").write_text("{")
    _commit(work)
    return work


def _commit(work: Path) -> None:
    git(work, "add", "-A")
    git(work, "commit", "-qm", "x")


@pytest.fixture
def commits(api: Api, work: Path) -> tuple[str, str]:
    """A dataset `data` with two commits on ground-truth."""
    master = Path(api.post("/bare-repo/init", json={"name": "data"}).json()["master"])
    git(work, "push", "-q", str(master), "ground-truth")
    assert api.put("/datasets/data", json={"name": "data", "master": str(master)}).status_code == 200
    first, second = git(work, "rev-parse", "HEAD~1", "HEAD").split()
    return first, second


def diff(api: Api, commits: tuple[str, str], **params: Any) -> Any:
    answer = api.get("/datasets/data/diff", params={"from": commits[0], "to": commits[1], **params})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_diff_of_files_in_pages(api: Api, commits: tuple[str, str]) -> None:
    first = diff(api, commits, limit=2)
    assert [(file["path"], file["change"]) for file in first["files"]] == [
        ("bad.json", "added"),
        ("blob", "changed"),
    ]
    assert [file["size"] for file in first["files"]] == [1, 2]
    rest = diff(api, commits, cursor=first["cursor"])
    assert [(file["path"], file["size"]) for file in rest["files"]] == [("d/t.txt", 6), ("r.csv", 17)]
    removed = diff(api, (commits[1], commits[0]), limit=1)["files"][0]
    assert (removed["path"], removed["change"], removed["size"]) == ("bad.json", "removed", None)
    assert [file["path"] for file in diff(api, commits, path="d")["files"]] == ["d/t.txt"]
    same = api.get("/datasets/data/diff").json()
    assert (same["before"], same["after"], same["files"]) == (commits[1], commits[1], [])


def test_diff_of_rows_and_fields(api: Api, commits: tuple[str, str]) -> None:
    rows = diff(api, commits, path="r.csv")["rows"]
    assert (rows["key"], rows["key_source"]) == (["id"], "inferred")
    assert (rows["added"], rows["removed"], rows["changed"], rows["same"]) == (1, 0, 1, 1)
    assert rows["rows"][0] == {
        "change": "changed",
        "key": {"id": "b"},
        "fields": {"v": {"before": "2", "after": "3"}},
    }
    assert diff(api, commits, path="r.csv", limit=1)["rows"]["truncated"]


def releases(*names: str, changed: str = "") -> str:
    entries = [{"tag": name, "size": 1 + (name == changed), "os": ["linux"]} for name in names]
    return json.dumps({"total": len(names), "releases": entries}, indent=1)


@pytest.fixture
def clone(api: Api, tmp_path: Path) -> Clone:
    """The clone of a dataset `data` without branches."""
    master = bare_repository(tmp_path / "master.git")
    assert api.put("/datasets/data", json={"name": "data", "master": str(master)}).status_code == 200
    return Clone.open(tmp_path / "node" / "datasets" / "data.git")


def test_diff_of_a_document_matches_entries_by_what_identifies_them(api: Api, clone: Clone) -> None:
    before = commit(clone, {"d.json": releases("v1", "v2", "v3")})
    after = commit(clone, {"d.json": releases("new", "v1", "v2", "v3", changed="v2")}, before)
    rows = diff(api, (before, after), path="d.json")["rows"]
    assert (rows["key"], rows["added"], rows["removed"], rows["changed"]) == (["path"], 3, 0, 2)
    assert [(row["change"], row["key"]["path"]) for row in rows["rows"]] == [
        ("changed", "/total"),
        *(("added", f'/releases/[tag="new"]/{name}') for name in ("tag", "size", "os/0")),
        ("changed", '/releases/[tag="v2"]/size'),
    ]
    removed = commit(clone, {"other": "x"}, after)
    assert diff(api, (after, removed), path="d.json")["rows"]["removed"] == 13
    assert diff(api, (removed, after), path="d.json")["rows"]["added"] == 13


def test_diff_of_a_document_uses_the_key_that_the_newest_round_declared(api: Api, clone: Clone) -> None:
    usual = {"l": [{"name": "x", "slot": 1.5}, {"name": "y", "slot": 2.5}]}
    moved = {"l": [{"name": "y", "slot": 1.5}, {"name": "x", "slot": 2.5}]}
    before, after = (commit(clone, {"d.json": json.dumps(found)}) for found in (usual, moved))
    by_name = diff(api, (before, after), path="d.json")["rows"]
    assert {row["key"]["path"] for row in by_name["rows"]} == {f'/l/[name="{name}"]/slot' for name in "xy"}
    declared = VoteDefinition(files=[FileRule(fields={"/l": FieldRule(key=["slot"])})])
    decided = vote(clone, {node: {"d.json": json.dumps(usual)} for node in ("n1", "n2")}, definition=declared)
    clone.move_branch(GROUND_TRUTH, decided.commit, None)
    by_slot = diff(api, (before, after), path="d.json")["rows"]
    assert {row["key"]["path"] for row in by_slot["rows"]} == {"/l/[slot=1.5]/name", "/l/[slot=2.5]/name"}


def test_diff_of_lines_and_binary_files(api: Api, commits: tuple[str, str]) -> None:
    lines = diff(api, commits, path="d/t.txt")["lines"]["lines"]
    assert lines[1:] == [" one", "-two", "+2"]
    assert diff(api, commits, path="blob")["note"].startswith("Binary")
    broken = diff(api, commits, path="bad.json")
    assert broken["lines"]["lines"][1:2] == ["+{"]
    assert "not JSON" in broken["note"]
    assert "+b,3" in diff(api, commits, path="r.csv", **{"as": "lines"})["lines"]["lines"]


@pytest.mark.parametrize(
    ("params", "status", "code"),
    [
        ({"from": "none"}, 404, "ref-not-found"),
        ({"path": "none"}, 404, "path-not-found"),
        ({"path": "../x"}, 404, "path-not-found"),
        ({"path": "bad.json", "as": "rows"}, 422, "not-records"),
        ({"path": "r.csv", "key": "nope"}, 422, "not-records"),
        ({"as": "x"}, 422, "invalid-input"),
    ],
)
def test_diff_refuses_invalid_questions(
    api: Api,
    commits: tuple[str, str],
    params: dict[str, str],
    status: int,
    code: str,
) -> None:
    answer = api.get("/datasets/data/diff", params={"from": commits[0], **params})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["next"]


def test_archive_of_a_commit(api: Api, commits: tuple[str, str], tmp_path: Path) -> None:
    answer = api.get("/datasets/data/archive", params={"ref": commits[0]})
    root = f"data-{commits[0][:10]}"
    assert answer.headers["content-disposition"].endswith(f"{root}.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as packed:
        packed.extractall(tmp_path / "out", filter="data")
    assert (tmp_path / "out" / root / "d" / "t.txt").read_text() == "one\ntwo\n"
    assert (tmp_path / "out" / root / "link").readlink() == Path("r.csv")
    assert (tmp_path / "out" / root / "run.sh").stat().st_mode & 0o111
    assert api.get("/datasets/data/archive", params={"ref": commits[0]}).content == answer.content


def test_archive_zip_of_a_folder(api: Api, commits: tuple[str, str], tmp_path: Path) -> None:
    answer = api.get("/datasets/data/archive", params={"path": "d", "format": "zip", "ref": NODE})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        assert packed.testzip() is None
        name = f"data-{commits[1][:10]}/d/t.txt"
        assert packed.namelist() == [name]
        assert packed.read(name) == b"one\n2\n"


def test_archive_refuses_a_file_or_nothing(api: Api, commits: tuple[str, str]) -> None:
    answers = [api.get("/datasets/data/archive", params={"path": path}) for path in ("r.csv", "none")]
    assert [answer.json()["code"] for answer in answers] == ["path-not-a-folder", "path-not-found"]


def test_open_content_streams_a_packed_file(api: Api, commits: tuple[str, str], tmp_path: Path) -> None:
    for clone in (tmp_path / "node").rglob("data.git"):
        git(clone, "gc", "-q")
    answer = api.get("/datasets/data/file", params={"path": "r.csv"})
    assert answer.headers["content-length"] == str(len(answer.content)) == "17"
