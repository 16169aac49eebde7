"""Broken or malicious files of one node change nothing that the others agree on."""

from __future__ import annotations

from pathlib import Path

import pytest

from mao_git import Clone

from .repo import data_of, new_repository, vote

CSV = "id,v\nx,1\ny,2\n"
JSON = '[{"id": "x", "v": 1}, {"id": "y", "v": 2}]\n'
LINES = '{"id": "x", "v": 1}\n{"id": "y", "v": 2}\n'
DOCUMENT = '{"a": {"b": [1, 2]}, "c": "t"}\n'
BROKEN: dict[str, bytes] = {
    "empty": b"",
    "blank": b"\n\n  \n",
    "not-utf-8": b"id,v\nx,\xff\n",
    "mark": b"\xef\xbb\xbf",
    "nul": b"id,v\nx,\x00\n\x00",
    "utf-16": "id,v\nx,1\n".encode("utf-16"),
    "deep": b"[" * 200_000,
    "deep-closed": b"[" * 50_000 + b"]" * 50_000,
    "deep-objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "quote": b'id,v\n"x,1\n',
    "heading-quote": b'"id,v\nx,1\n',
    "ragged": b"id,v\nx\ny,1,2,3\n",
    "wide": b"," * 100_000 + b"\n1\n",
    "doubled-columns": b"id,id\nx,y\n",
    "doubled-key": b"id,v\nx,1\nx,2\n",
    "no-column": b"\n\n\n",
    "carriage": b"id,v\rx,1\ry,2\r",
    "not-a-number": b'[{"id": "x", "v": NaN}, {"id": "y", "v": Infinity}]',
    "huge-number": b'[{"id": "x", "v": 1' + b"0" * 5000 + b'}, {"id": "y", "v": 1e999}]',
    "huge-csv-number": b"id,v\nx,1" + b"0" * 5000 + b"\ny,1e999\n",
    "doubled-names": b'[{"id": "x", "id": "y", "v": 1}]',
    "half-a-letter": b'[{"id": "\\ud800", "v": "\\udfff"}]',
    "mixed": b'[1, {"id": "x"}, null, []]',
    "scalar": b"17",
    "null": b"null",
    "lines-of-lists": b"[1]\n[2]\n",
    "half-a-line": b'{"id": "x", "v": 1}\n{"id"',
    "other-columns": b"a,b,c\n1,2,3\n",
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 5\n",
    "objects": b'[{"id": {"a": [1]}, "v": {"b": null}}, {"v": []}, {}]',
    "control": b'[{"id": "\\u0000", "v": "\\u001b[2J"}]',
    "separators": "id,v\nx\u2028,\u20291\n".encode(),
}


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return new_repository(tmp_path / "r.git")


@pytest.mark.parametrize("name", BROKEN)
def test_broken_contents_one_broken_version_changes_nothing(clone: Clone, name: str) -> None:
    good = {"d.csv": CSV, "d.json": JSON, "d.jsonl": LINES, "e.json": DOCUMENT}
    bad = dict.fromkeys(good, BROKEN[name])
    voted = vote(clone, {"n1": good, "n2": bad, "n3": good})
    assert data_of(clone, voted) == good
    assert {node: v.differing for node, v in voted.evidence.votes.items()}["n1"] == 0
    assert voted.evidence.conflicts == 0


@pytest.mark.parametrize("name", BROKEN)
def test_broken_contents_broken_versions_alone_are_taken_as_they_are_or_left_out(
    clone: Clone, name: str
) -> None:
    bad = {"d.csv": BROKEN[name], "d.json": BROKEN[name], "d.jsonl": BROKEN[name]}
    other = {path: content + b"\n" for path, content in bad.items()}
    voted = vote(clone, {"n1": bad, "n2": other})
    assert set(voted.evidence.votes) == {"n1", "n2"}
    again = vote(clone, {"n2": other, "n1": bad})
    assert again.commit == voted.commit
