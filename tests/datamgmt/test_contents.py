"""`/datasets/{name}/history`, `/preview`, `/image`, and folders with details."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mao_datamgmt.browse.preview import MAX_READ_BYTES, whole_records
from mao_git import Clone
from mao_vote.records import NotRecords, RecordFormat
from tests.support.git import bare_repository, git
from tests.vote.repo import commit

from .conftest import Api
from .world import NODE

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)
SVG = (
    b'<?xml version="1.0"?><!-- x --><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
)


@pytest.fixture
def clone(api: Api, tmp_path: Path) -> Clone:
    """The clone of a dataset `data` without branches."""
    master = bare_repository(tmp_path / "master.git")
    assert api.put("/datasets/data", json={"name": "data", "master": str(master)}).status_code == 200
    return Clone.open(tmp_path / "node" / "datasets" / "data.git")


def get(api: Api, call: str, **params: Any) -> Any:
    answer = api.get(f"/datasets/data/{call}", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_history_is_lines_of_json(api: Api, clone: Clone) -> None:
    first = commit(clone, {"t.csv": "id,v\nx,1.10\n"}, branch=NODE)
    second = commit(clone, {"t.csv": "id,v\nx,2\u2028\n"}, first, NODE)
    params = {"file": "t.csv", "key": "x", "field": "v"}
    answer = api.get("/datasets/data/history", params=params)
    assert answer.headers["content-type"] == "application/x-ndjson"
    rows = [json.loads(line) for line in answer.text.split("\n") if line]
    assert [(row["commit"], row["value"], row["changed"]) for row in rows] == [
        (second, "2\u2028", True),
        (first, "1.10", True),
    ]
    older = api.get("/datasets/data/history", params={**params, "branch": first})
    assert len(older.text.splitlines()) == 1


@pytest.mark.parametrize(
    ("params", "status", "code"),
    [
        ({"file": "t.txt"}, 422, "not-records"),
        ({"file": "none.csv"}, 404, "path-not-found"),
        ({"key": "y"}, 404, "record-not-found"),
        ({"field": "w"}, 404, "field-not-found"),
        ({"branch": "none"}, 404, "ref-not-found"),
        ({"by": "v"}, 404, "record-not-found"),
        ({"limit": "0"}, 422, "invalid-input"),
        ({"since": "yesterday"}, 422, "invalid-input"),
        ({"file": ""}, 422, "invalid-input"),
    ],
)
def test_history_refuses_invalid_questions(
    api: Api, clone: Clone, params: dict[str, str], status: int, code: str
) -> None:
    commit(clone, {"t.csv": "id,v\nx,1\n"}, branch=NODE)
    answer = api.get("/datasets/data/history", params={"file": "t.csv", "key": "x", "field": "v", **params})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["next"]


def test_preview_of_tables(api: Api, clone: Clone) -> None:
    wide = ",".join(f"c{number}" for number in range(80))
    files: dict[str, bytes | str] = {
        "t.csv": "region,p95\n" + "".join(f"r{number},{number}.0\n" for number in range(50)),
        "r.jsonl": '{"id": "a", "v": 1.10}\n{"id": "b"}\n',
        "d.json": '{"a": {"b": 1.0}}',
        "w.csv": f"{wide}\n{','.join(['x' * 500] * 80)}\n",
        "<b>.csv": "<i>,v\n<script>,2\n",
        "empty.csv": "",
    }
    commit(clone, files, branch=NODE)
    table = get(api, "preview", path="t.csv", ref=NODE, limit=2)
    assert (table["kind"], table["columns"], table["key"]) == ("table", ["region", "p95"], ["region"])
    assert (table["rows"], table["total"], table["more"]) == ([["r0", "0.0"], ["r1", "1.0"]], 50, True)
    last = get(api, "preview", path="t.csv", ref=NODE, limit=2, offset=48)
    assert (last["rows"][-1], last["offset"], last["more"]) == (["r49", "49.0"], 48, False)
    assert get(api, "preview", path="t.csv", ref=NODE, offset=99)["rows"] == []
    assert get(api, "preview", path="r.jsonl", ref=NODE)["rows"] == [['"a"', "1.10"], ['"b"', None]]
    assert get(api, "preview", path="d.json", ref=NODE)["rows"] == [["/a/b", "1.0"]]
    shown = get(api, "preview", path="w.csv", ref=NODE)
    assert (len(shown["columns"]), len(shown["rows"][0][0])) == (50, 201)
    assert "50 of 80 columns" in shown["note"]
    assert get(api, "preview", path="<b>.csv", ref=NODE)["rows"] == [["<script>", "2"]]
    assert get(api, "preview", path="empty.csv", ref=NODE)["rows"] == []


def test_preview_reads_only_the_beginning_of_a_large_table(api: Api, clone: Clone) -> None:
    row = 'x{},"{}\n{}"\n'.format
    content = "id,v\n" + "".join(row(number, "a" * 50, "b" * 50) for number in range(20_000))
    commit(clone, {"t.csv": content, "d.json": json.dumps({"x": "y" * (MAX_READ_BYTES + 1)})}, branch=NODE)
    table = get(api, "preview", path="t.csv", ref=NODE, limit=1, offset=9000)
    assert table["rows"] == [["x9000", f"{'a' * 50}\n{'b' * 50}"]]
    assert (table["size"], table["total"], table["more"]) == (len(content), None, True)
    assert table["note"] == "only the first 1 MiB are read"
    document = get(api, "preview", path="d.json", ref=NODE)
    assert (document["kind"], document["more"]) == ("text", True)
    assert "has to be read as a whole" in document["note"]


def test_preview_of_text_and_of_neither(api: Api, clone: Clone) -> None:
    files: dict[str, bytes | str] = {
        "n.txt": "é" * 20_000,
        "bad.csv": "a,b\n1,2,3\n",
        "b.bin": b"\0\1",
        "latin": "naïve".encode("latin-1"),
        "end": b"abc\xe9",
        "link": "link:n.txt",
        "d/x": "x",
    }
    commit(clone, files, branch=NODE)
    text = get(api, "preview", path="n.txt", ref=NODE)
    assert (text["kind"], text["more"], set(text["text"])) == ("text", True, {"é"})
    bad = get(api, "preview", path="bad.csv", ref=NODE)
    assert (bad["kind"], bad["text"]) == ("text", files["bad.csv"])
    assert bad["note"].startswith("not shown as a table: ")
    assert [get(api, "preview", path=path, ref=NODE)["kind"] for path in ("b.bin", "latin", "end")] == [
        "none"
    ] * 3
    assert get(api, "preview", path="link", ref=NODE)["text"] == "n.txt"
    folder = api.get("/datasets/data/preview", params={"path": "d", "ref": NODE})
    assert (folder.status_code, folder.json()["code"]) == (422, "path-not-a-file")


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0rest", "image/jpeg"),
        (b"GIF89a....", "image/gif"),
        (b"RIFF\0\1\n\3WEBPVP8 ", "image/webp"),
        (SVG, "image/svg+xml"),
        (b"\xef\xbb\xbf\n<!DOCTYPE svg>\n<svg>", "image/svg+xml"),
    ],
)
def test_image_is_sandboxed_and_typed_by_content(
    api: Api, clone: Clone, content: bytes, media_type: str
) -> None:
    commit(clone, {"a.html": content}, branch=NODE)
    assert get(api, "preview", path="a.html", ref=NODE)["media_type"] == media_type
    answer = api.get("/datasets/data/image", params={"path": "a.html", "ref": NODE})
    assert (answer.content, answer.headers["content-type"]) == (content, media_type)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert "script" not in answer.headers["content-security-policy"]
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    "content",
    [
        b"<html><svg></svg><script>alert(1)</script>",
        b'<!DOCTYPE svg [<!ENTITY a "aa">]><svg>&a;</svg>',
        b"<svgx>",
        b"plain",
        b"",
        b"%PDF-1.7",
        b"\x89PNG\n",
    ],
)
def test_image_refuses_other_content(api: Api, clone: Clone, content: bytes) -> None:
    commit(clone, {"a.png": content}, branch=NODE)
    answer = api.get("/datasets/data/image", params={"path": "a.png", "ref": NODE})
    assert (answer.status_code, answer.json()["code"]) == (422, "not-an-image")
    assert get(api, "preview", path="a.png", ref=NODE).get("media_type") is None


def test_image_that_is_too_large(api: Api, clone: Clone) -> None:
    commit(clone, {"a.png": PNG + bytes(8 << 20)}, branch=NODE)
    answer = api.get("/datasets/data/image", params={"path": "a.png", "ref": NODE})
    assert (answer.status_code, answer.json()["code"]) == (422, "file-too-large")
    assert get(api, "preview", path="a.png", ref=NODE)["note"] == "it is larger than 8 MiB"


def test_preview_and_image_fetch_no_lfs_content(api: Api, clone: Clone) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    commit(clone, {"a.png": pointer, ".mao/lfs": "a.png\n"}, branch=NODE)
    shown = get(api, "preview", path="a.png", ref=NODE)
    assert (shown["kind"], shown["size"]) == ("none", 12345)
    answer = api.get("/datasets/data/image", params={"path": "a.png", "ref": NODE})
    assert (answer.status_code, answer.json()["code"]) == (404, "lfs-content-missing")


def test_files_with_details(api: Api, clone: Clone) -> None:
    first = commit(clone, {"a": "1", "d/x": "1", "d/y": "1", "e/z": "1"})
    second = commit(clone, {"a": "1", "d/x": "2", "d/y": "1", "e/z": "1"}, first)
    third = commit(clone, {"a": "2", "d/x": "2", "d/y": "1", "e/z": "1"}, second, NODE)
    top = get(api, "files", ref=NODE, details=True)["items"]
    assert [(item["name"], item["changed_in"], item.get("entries")) for item in top] == [
        ("a", third, None),
        ("d", second, 2),
        ("e", first, 1),
    ]
    inside = get(api, "files", ref=NODE, path="d", details=True)["items"]
    assert [item["changed_in"] for item in inside] == [second, first]
    assert all(item.get("changed_at") is None for item in get(api, "files", ref=NODE)["items"])


def test_files_with_details_of_a_shallow_clone(clone: Clone, tmp_path: Path) -> None:
    first = commit(clone, {"a": "1", "b": "1"})
    commit(clone, {"a": "2", "b": "1"}, first, "main")
    git(tmp_path, "clone", "-q", "--bare", "--depth=1", f"file://{clone.path}", "shallow.git", "-b", "main")
    shallow = Clone.discover(tmp_path / "shallow.git")
    assert shallow.last_changes(shallow.rev_parse("main"), "") == {}


@pytest.mark.parametrize(
    ("content", "kept", "file_format"),
    [
        (b"a,b\n1,2\n3", b"a,b\n1,2\n", RecordFormat.CSV),
        (b'a,b\n1,"x\ny', b"a,b\n", RecordFormat.CSV),
        (b'{"a": "\\""}\n{"a"', b'{"a": "\\""}\n', RecordFormat.JSON_LINES),
    ],
)
def test_whole_records_drops_what_is_cut_off(content: bytes, kept: bytes, file_format: RecordFormat) -> None:
    assert whole_records(content, file_format) == kept


def test_whole_records_of_one_endless_record() -> None:
    with pytest.raises(NotRecords):
        whole_records(b'"' + b"a\n" * 10, RecordFormat.CSV)
