"""`maoctl vote schema`: on a local repository, and on a node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.git import git

from .conftest import Maoctl
from .gateways import RememberingGateway

CSV = "id,when,v,price\nx,21:05,3.10,$5\ny,9:05 PM,3.9,$1.50\nz,10:00,3.1,-\n"
ROWS = """\
FILE   FIELD  KIND        SOURCE    SPELLING  MISSING  TOLERANCE
d.csv  id     key         inferred
d.csv  when   time        inferred
d.csv  v      identifier  inferred
d.csv  price  number      inferred  $         -        5 % (assumed)
"""
SCHEMA: dict[str, Any] = {
    "commits": {"n1": "c" * 40},
    "definition": {"deadline": 60},
    "files": [
        {
            "path": "d.csv",
            "key": [],
            "unsure": "no column tells records apart",
            "fields": [
                {
                    "name": "t\x1b[2J",
                    "kind": "time",
                    "source": "declared",
                    "nodes": 3,
                    "declared": {"type": "time", "tolerance": 600, "error": 0.1},
                },
                {
                    "name": "n",
                    "kind": "number",
                    "source": "inferred",
                    "decimal": ",",
                    "thousands": ". ",
                    "measured": True,
                    "tolerance": 0.25,
                    "noise": "estimated",
                },
                {
                    "name": "d",
                    "kind": "date",
                    "source": "inferred",
                    "order": "mdy",
                    "unsure": "why not",
                    "tolerance": 2,
                    "noise": "estimated",
                },
                {
                    "name": "w",
                    "kind": "text",
                    "source": "inferred",
                    "missing": ["NA"],
                    "declared": {"missing_is_value": True, "fold": ["case"]},
                },
            ],
            "abstained": {"n2": "it is not CSV"},
        },
        {"path": "x.json", "whole": "it is too large"},
        {"path": "y.json", "document": True, "lists": {"/l": ["a", "b"]}},
    ],
    "more": 7,
    "unmatched": ["metric/*.csv"],
}


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Branches a, b and c with the same file."""
    folder = tmp_path_factory.mktemp("repo")
    git(folder, "init", "-q", "-b", "a")
    (folder / "d.csv").write_text(CSV)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "data")
    git(folder, "branch", "b")
    git(folder, "branch", "c")
    return folder


def test_vote_schema_of_branches(maoctl: Maoctl, repo: Path) -> None:
    for files in ([], ["d.csv"]):
        result = maoctl("vote", "schema", "--repo", str(repo), "--branches", "a, b,c", *files)
        assert (result.code, result.out) == (0, ROWS)
        assert result.err.startswith("warning: d.csv: v is compared as identifier: some end in 0")


def test_vote_schema_pinned_definition_is_accepted(maoctl: Maoctl, repo: Path, tmp_path: Path) -> None:
    here = ("--repo", str(repo), "--branches", "a,b,c")
    result = maoctl("vote", "schema", *here, "--pin")
    assert yaml.safe_load(result.out) == {
        "files": [
            {
                "path": "d.csv",
                "key": ["id"],
                "fields": {
                    "when": {"type": "time"},
                    "v": {"type": "identifier"},
                    "price": {"type": "number", "missing": ["-"]},
                },
            }
        ]
    }
    file = tmp_path / "pinned.yaml"
    file.write_text(result.out)
    again = maoctl("vote", "schema", *here, "--definition", str(file))
    assert again.out == ROWS.replace("inferred", "declared")
    assert not again.err
    assert maoctl("vote", "run", *here, "--definition", str(file)).code == 0
    pinned = maoctl("vote", "schema", *here, "--pin", "-o", "json")
    assert json.loads(pinned.out) == yaml.safe_load(result.out)


def test_vote_schema_of_a_round(maoctl: Maoctl, repo: Path) -> None:
    here = ("--repo", str(repo))
    assert maoctl("vote", "run", *here, "--branches", "a,b,c", "--write", "truth").code == 0
    result = maoctl("vote", "schema", *here, "--truth", "truth")
    assert (result.code, result.out) == (0, ROWS)
    found = json.loads(maoctl("vote", "schema", *here, "--truth", "truth", "d.csv", "-o", "json").out)
    assert list(found["commits"]) == ["a", "b", "c"]
    assert maoctl("vote", "schema", *here, "--truth", "truth", "--round", "zz").code == 3


def test_vote_schema_of_a_dataset(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("GET", "/datasets/data/rounds/latest/schema", SCHEMA)
    gateway.answer("GET", "/datasets/data/rounds/r1/schema", SCHEMA)
    result = maoctl("vote", "schema", "data", "-o", "wide")
    assert result.code == 0, result.err
    rows = [" ".join(line.split()) for line in result.out.splitlines()]
    assert rows == [
        "FILE FIELD KIND SOURCE SPELLING MISSING TOLERANCE NODES",
        "d.csv (position) key inferred",
        "d.csv t\\x1b[2J time declared 10 min or 10 % 3",
        "d.csv n measured number inferred decimal comma, thousands '.' and space 0.25 (estimated) 0",
        "d.csv d date inferred month, day 2 d (estimated) 0",
        "d.csv w text inferred whatever the case all are values 0",
        "x.json voted as a whole",
        "y.json /l/* key: a, b inferred",
    ]
    assert result.err.splitlines() == [
        "warning: the definition has rules for 'metric/*.csv', which apply to no file",
        "warning: d.csv: no column tells records apart",
        "warning: d.csv: d is compared as date: why not",
        "warning: d.csv: the version of n2 is not read: it is not CSV",
        "warning: x.json is voted as a whole: it is too large",
        "7 more record files are not shown; name the files",
    ]
    pinned = yaml.safe_load(maoctl("vote", "schema", "dataset/data", "d.csv", "--round", "r1", "--pin").out)
    assert gateway.calls[-1].query == {"file": "d.csv"}
    assert (pinned["deadline"], pinned["files"][0]["fields"]["n"]) == (60, {"type": "number"})
    assert pinned["files"][0]["fields"]["t\x1b[2J"] == {"type": "time", "tolerance": 600, "error": 0.1}


@pytest.mark.parametrize(
    ("args", "code", "why"),
    [
        ([], 2, "Name a dataset, or a repository with --repo."),
        (["data", "--branches", "a"], 2, "need --repo"),
        (["data", "-d", "x.yaml"], 2, "need --repo"),
        (["--repo", "{repo}", "-d", "x.yaml"], 2, "A round has its own definition."),
        (["--repo", "{repo}", "--branches", "a,zz"], 3, "no branch, tag or commit 'zz'"),
        (["--repo", "{repo}", "--branches", "a,b", "none.csv"], 3, "No node has a file none.csv."),
        (["--repo", "{repo}", "--branches", "a,a"], 2, "named twice: a"),
        (["--repo", "{repo}/none"], 3, "There is no git repository at"),
    ],
)
def test_vote_schema_rejects(maoctl: Maoctl, repo: Path, args: list[str], code: int, why: str) -> None:
    result = maoctl("vote", "schema", *(arg.replace("{repo}", str(repo)) for arg in args))
    assert (result.code, result.out) == (code, "")
    assert why in result.err
    assert "next: " in result.err
