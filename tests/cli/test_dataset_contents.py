"""`maoctl dataset diff|compare|branches|download`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .conftest import Maoctl
from .gateways import RememberingGateway

COMMITS = {"before": "a" * 40, "after": "b" * 40}
CHANGED = {"path": "r.csv", "change": "changed"}


def rows(**fields: Any) -> dict[str, Any]:
    return {
        "key": ["id"],
        "key_source": "inferred",
        "columns_added": ["unit"],
        "columns_removed": [],
        "added": 0,
        "removed": 0,
        "changed": 1,
        "same": 7,
        "rows": [
            {"change": "changed", "key": {"id": "b\x1b[2J"}, "fields": {"v": {"before": "2", "after": None}}}
        ],
        "truncated": False,
        **fields,
    }


def test_compare_shows_fields_and_counts(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answers["GET", "/datasets/data/diff"] = [(200, {**COMMITS, "files": [CHANGED], "rows": rows()})]
    result = maoctl("dataset", "compare", "data", "node-2", "r.csv", "--key", "id")
    assert result.code == 0, result.err
    assert "changed  id=b\\x1b[2J  v" in result.out
    assert "1 changed, 7 same; column unit added" in result.err
    query = gateway.calls[-1].query
    assert (query["from"], query["to"], query["path"], query["key"]) == (
        "ground-truth",
        "node-2",
        "r.csv",
        "id",
    )


def test_diff_of_equal_commits_and_by_lines(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    lines = {"lines": ["@@ -1 +1 @@", "-a", "+b\x07"], "truncated": False}
    gateway.answers["GET", "/datasets/data/diff"] = [
        (200, {**COMMITS, "files": []}),
        (200, {**COMMITS, "files": [CHANGED], "lines": lines}),
    ]
    assert "No difference" in maoctl("dataset", "diff", "data", "x", "y").err
    assert maoctl("dataset", "diff", "data", "x", "y", "r.csv").out == "@@ -1 +1 @@\n-a\n+b\\x07\n"


def test_diff_reads_all_pages(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answers["GET", "/datasets/data/diff"] = [
        (200, {**COMMITS, "files": [CHANGED], "cursor": "r.csv"}),
        (200, {**COMMITS, "files": [{"path": "s.csv", "change": "added"}]}),
    ]
    assert maoctl("dataset", "diff", "data", "x", "y").out.split()[2:] == [
        "changed",
        "r.csv",
        "added",
        "s.csv",
    ]


def test_download_leaves_no_file_when_it_fails(
    maoctl: Maoctl, gateway: RememberingGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert maoctl("dataset", "download", "data", "none.csv").code != 0
    assert maoctl("dataset", "download", "data", "-o", str(tmp_path / "no" / "folder.zip")).code == 1
    assert list(tmp_path.iterdir()) == []
