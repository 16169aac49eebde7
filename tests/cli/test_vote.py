"""`maoctl vote`: on a local repository, and on a node."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.git import file_at, git

from . import documents
from .conftest import Maoctl
from .gateways import RememberingGateway

VERSIONS = {"a": "id,v\nx,p\ny,7\n", "b": "id,v\nx,p\ny,7\n", "c": "id,v\nx,q\ny,7\n"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "commit", "-q", "--allow-empty", "-m", "begin")
    for name, content in VERSIONS.items():
        git(folder, "switch", "-q", "-c", name, "main")
        (folder / "d.csv").write_text(content)
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", name)
    git(folder, "switch", "-q", "main")
    return folder


@pytest.fixture
def repo(tmp_path: Path, template: Path) -> Path:
    """Branches a, b and c, of which c differs in one cell; an empty branch is checked out."""
    return Path(shutil.copytree(template, tmp_path / "repo"))


def voted(maoctl: Maoctl, repo: Path, *more: str) -> dict[str, Any]:
    result = maoctl("vote", "run", "--repo", str(repo), "--branches", "a,b,c", "-o", "json", *more)
    assert result.code == 0, result.err
    return dict(json.loads(result.out))


def test_vote_run_without_a_node(maoctl: Maoctl, repo: Path) -> None:
    result = maoctl("vote", "run", "--repo", str(repo), "--branches", "a, b,c")
    assert result.code == 0, result.err
    assert "voted      3 of 3 nodes" in result.out
    assert "d.csv  records  id (inferred)  1      0          0          a, b have the same file" in result.out
    assert "No branch was moved." in result.err
    assert git(repo, "branch", "--format=%(refname:short)").split() == ["a", "b", "c", "main"]


def test_vote_run_writes_a_branch_once(maoctl: Maoctl, repo: Path) -> None:
    first = voted(maoctl, repo, "--write", "truth")
    assert git(repo, "rev-parse", "truth") == first["commit"]
    assert file_at(repo, "truth:d.csv") == VERSIONS["a"].strip()
    again = maoctl("vote", "run", "--repo", str(repo), "--branches", "a,b,c", "--write", "truth")
    assert "Already up to date: this round is commit" in again.err
    assert git(repo, "rev-list", "--count", "truth") == "1"


def test_vote_run_with_a_definition_file(maoctl: Maoctl, repo: Path, tmp_path: Path) -> None:
    file = tmp_path / "vdx.yaml"
    file.write_text("quorum: until\nquorum_percentage: 100\nfiles:\n- {path: '*.csv', opaque: true}\n")
    made = voted(maoctl, repo, "--definition", str(file))
    assert made["evidence"]["definition"]["quorum"] == "UNTIL"
    assert [f["how"] for f in made["evidence"]["files"]] == ["whole"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[", "cannot be read as YAML or JSON: line 1, column 2: while parsing"),
        ("- a", "does not contain a vote definition"),
        ("{exclusion: LOUDEST, colour: red}", "exclusion: input should be 'NONE'"),
        ("{exclusion: LOUDEST}", "This vote definition is invalid:"),
        ("a: 1\nquorum: ALL\na: 2", "line 3, column 1: the key 'a' appears twice"),
        ("{quorum: UNTIL}", "'quorum' and 'quorum_percentage' go together"),
        ("[" * 5000, "cannot be read"),
    ],
)
def test_vote_run_rejects_invalid_definitions(
    maoctl: Maoctl, repo: Path, tmp_path: Path, text: str, why: str
) -> None:
    file = tmp_path / "vdx.yaml"
    file.write_text(text)
    result = maoctl("vote", "run", "--repo", str(repo), "--branches", "a,b", "-d", str(file))
    assert result.code == 2
    assert why in result.err
    assert "next: " in result.err


@pytest.mark.parametrize(
    ("args", "code", "why"),
    [
        (["--repo", "{repo}/none", "--branches", "a"], 3, "There is no git repository at"),
        (["--repo", "{repo}", "--branches", "a,zz"], 3, "no branch, tag or commit 'zz'"),
        (["--repo", "{repo}", "--branches", "a,a"], 2, "named twice: a"),
        (["--repo", "{repo}", "--branches", "a,b", "--write", "b"], 2, "b is one of those voted on"),
        (["--repo", "{repo}", "--branches", " ,"], 2, "No branch is named"),
        (["--repo", "{repo}", "--branches", "a", "--write", "main"], 5, "main is checked out"),
        (["--repo", "{repo}", "--branches", "a", "--write", "x..y"], 2, "cannot be the name of a branch"),
        (["--repo", "{repo}", "--branches", "a", "--round", "../x"], 2, "is not a valid round id"),
    ],
)
def test_vote_run_rejects_invalid_branches_and_repositories(
    maoctl: Maoctl, repo: Path, args: list[str], code: int, why: str
) -> None:
    result = maoctl("vote", "run", *(arg.replace("{repo}", str(repo)) for arg in args))
    assert result.code == code
    assert why in result.err
    assert "next: " in result.err
    assert not result.out


def test_vote_list_show_cell_and_audit(maoctl: Maoctl, repo: Path) -> None:
    made = voted(maoctl, repo, "--write", "ground-truth")
    round_id, here = made["evidence"]["round"], ("--repo", str(repo))
    assert round_id in maoctl("vote", "list", *here).out
    assert maoctl("vote", "show", *here, f"round/{round_id}").code == 0
    assert maoctl("vote", "list", *here, "-o", "name").out == f"round/{round_id}\n"
    shown = maoctl("vote", "show", *here, round_id[:8])
    assert f"commit     {made['commit']}" in shown.out
    cells = maoctl("vote", "show", *here, "--cells").out
    assert "d.csv  x    v      p       majority  no         a=p, b=p, c=q" in cells
    told = maoctl("vote", "show", *here, "--cell", "d.csv", "x", "v").out
    assert "why     majority: more than half of the nodes that voted have this value" in told
    audit = maoctl("vote", "audit", *here, round_id)
    assert (audit.code, f"round/{round_id} is reproduced" in audit.err) == (0, True)
    ranking = maoctl("vote", "ranking", *here).out.splitlines()
    assert ranking[1].split()[0] == "c"


def test_vote_audit_that_fails_exits_with_1(maoctl: Maoctl, repo: Path) -> None:
    voted(maoctl, repo, "--write", "ground-truth")
    git(repo, "switch", "-q", "ground-truth")
    (repo / "d.csv").write_text(VERSIONS["c"])
    git(repo, "commit", "-q", "--amend", "--no-edit", "-a")
    result = maoctl("vote", "audit", "--repo", str(repo))
    assert result.code == 1
    assert "differs     d.csv" in result.out
    assert "is not reproduced: the data differ in 1 files, first d.csv" in result.err


def test_vote_reports_a_tip_made_by_no_round(maoctl: Maoctl, repo: Path) -> None:
    made, here = voted(maoctl, repo, "--write", "ground-truth"), ("--repo", str(repo))
    assert "warning" not in maoctl("vote", "list", *here).err
    git(repo, "switch", "-q", "ground-truth")
    (repo / "d.csv").write_text("id,v\nx,mine\ny,7\n")
    git(repo, "commit", "-qam", "by hand")
    tip = git(repo, "rev-parse", "--short=10", "HEAD")
    why = f"1 commit on ground-truth was made by no round; newest round is {made['evidence']['round']}, tip"
    assert f"warning: {why} is {tip}" in maoctl("vote", "list", *here).err
    audit = maoctl("vote", "audit", *here)
    assert audit.code == 1
    assert f"is reproduced, but {why} is {tip}." in audit.err
    assert f"git -C {repo} show --stat {tip}" in audit.err
    cell = maoctl("vote", "show", *here, "--cell", "d.csv", "x", "v")
    assert "at the tip  mine" in cell.out
    assert f"warning: the file at the tip {tip} says 'mine', which no round decided" in cell.err
    assert "warning" not in maoctl("vote", "show", *here, "--cell", "d.csv", "y", "v").err


def test_vote_list_before_the_first_round(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("GET", "/datasets/data/rounds", {"items": [], "cursor": None})
    gateway.answer("GET", "/datasets/data/ranking", {"rounds": 0, "items": []})
    gateway.answer("GET", "/datasets/data/spikes", {"rounds": 0, "metrics": ["m"], "items": []})
    for command in ("list", "ranking", "spikes"):
        result = maoctl("vote", command, "data")
        assert result.code == 0, result.err
        assert "no decided rounds yet\nnext: maoctl vote status data\n" in result.err


def test_vote_status_of_an_unknown_dataset(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/registry/datasets", documents.dataset("sensors"))
    gateway.answer("GET", "/rounds", {"items": [], "cursor": None})
    assert maoctl("vote", "status", "sensors").code == 0
    unknown = maoctl("vote", "status", "sensor")
    assert unknown.code == 3
    assert "Did you mean sensors?" in unknown.err


def test_vote_show_of_an_undecided_value(maoctl: Maoctl, repo: Path) -> None:
    definition = repo.with_name("vdx.yaml")
    definition.write_text("ties: open\n")
    run = ("vote", "run", "--repo", str(repo), "--branches", "a,c", "--write", "ground-truth")
    made = maoctl(*run, "--definition", str(definition))
    assert "1 differ, 1 contested, 1 undecided" in made.out
    told = maoctl("vote", "show", "--repo", str(repo), "--cell", "d.csv", "x", "v").out
    assert "value   (none)" in told
    assert "the vote is tied, also by weight: the value stays empty" in told


def test_vote_show_of_a_tied_value(maoctl: Maoctl, repo: Path) -> None:
    made = maoctl("vote", "run", "--repo", str(repo), "--branches", "a,c", "--write", "ground-truth")
    assert "1 differ, 1 contested, 0 undecided" in made.out
    assert "tied: 1 cell of v, where other values have as many voices" in made.out
    told = maoctl("vote", "show", "--repo", str(repo), "--cell", "d.csv", "x", "v").out
    assert "tie (contested): the vote was tied; the nodes with this value are right more often" in told


@pytest.fixture
def contested(maoctl: Maoctl, repo: Path) -> Path:
    """A decided round with a cell of a majority, one without, a row that one lacks, and a file apart."""
    for name, text in (
        ("a", "id,v,w\nx,p,1\ny,q,2\nz,r,3\n"),
        ("b", "id,v,w\nx,p,1\ny,s,2\n"),
        ("c", "id,v,w\nx,o,1\ny,t,2\n"),
    ):
        git(repo, "switch", "-q", name)
        (repo / "d.csv").write_text(text)
        (repo / "same.csv").write_text("id,v\n1,2\n")
        git(repo, "add", ".")
        git(repo, "commit", "-q", "-m", "more")
    git(repo, "switch", "-q", "main")
    voted(maoctl, repo, "--write", "ground-truth")
    return repo


def test_vote_show_counts_and_filters_contested_cells(maoctl: Maoctl, contested: Path) -> None:
    here = ("vote", "show", "--repo", str(contested))
    every, some = maoctl(*here, "--cells"), maoctl(*here, "--contested")
    rows = [line.split()[1:] for line in every.out.splitlines()]
    assert rows[0][:5] == ["KEY", "FIELD", "CHOSEN", "REASON", "CONTESTED"]
    assert [row[:5] for row in rows[1:3]] == [
        ["x", "v", "p", "majority", "no"],
        ["y", "v", "q", "tie", "yes"],
    ]
    assert rows[3][:4] == ["z", "(none)", "row", "no"]
    assert [line.split()[1:3] for line in some.out.splitlines()[1:]] == [["y", "v"]]
    assert every.err == "3 cells differ, 1 contested, 0 undecided; 3 shown\n"
    assert some.err == "3 cells differ, 1 contested, 0 undecided; 1 shown\n"
    assert "3 differ, 1 contested, 0 undecided" in maoctl(*here).out
    listed = json.loads(maoctl(*here, "--contested", "-o", "json").out)
    assert [cell["contested"] for cell in listed] == [True]


def test_vote_show_cells_of_a_file(maoctl: Maoctl, contested: Path) -> None:
    here = ("vote", "show", "--repo", str(contested), "--cells", "--file")
    assert maoctl(*here, "d.csv").err.startswith("3 cells differ in d.csv, 1 contested")
    same = maoctl(*here, "same.csv")
    assert same.code == 0
    assert "no cell differs in same.csv: all nodes have the same" in same.err
    none = maoctl(*here, "none.csv")
    assert none.code == 3
    assert "has no file 'none.csv'" in none.err
    assert "next: " in none.err


def test_vote_show_of_a_record_that_some_nodes_lack(maoctl: Maoctl, contested: Path) -> None:
    told = maoctl("vote", "show", "--repo", str(contested), "--cell", "d.csv", "z", "").out
    assert "1 of 3 nodes have it, and it is left out" in told
    assert "a     (has the record)" in told
    assert "b     (no such record)" in told
    assert "(no such field)" not in told


def test_vote_run_warns_of_paths_that_match_no_file(maoctl: Maoctl, repo: Path, tmp_path: Path) -> None:
    file = tmp_path / "vdx.yaml"
    file.write_text("files:\n- {path: 'metric/*.csv', key: [id]}\n- {path: 'd.csv', key: [id]}\n")
    result = maoctl("vote", "run", "--repo", str(repo), "--branches", "a,b,c", "-d", str(file))
    warned = [line for line in result.err.splitlines() if line.startswith("warning")]
    assert warned == ["warning: the definition has rules for 'metric/*.csv', which apply to no file"]


@pytest.mark.parametrize("args", [["show"], ["show", "a", "b", "c"], ["audit"], ["list"], ["ranking"]])
def test_vote_needs_a_dataset_or_a_repository(maoctl: Maoctl, args: list[str]) -> None:
    result = maoctl("vote", *args)
    assert result.code == 2
    assert "maoctl vote show DATASET [ROUND]" in result.err


def test_vote_run_without_mao_vote_installed(
    maoctl: Maoctl, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "maoctl.voting", raising=False)
    monkeypatch.setitem(sys.modules, "mao_vote", None)
    result = maoctl("vote", "run", "--repo", str(repo), "--branches", "a")
    assert result.code == 1
    assert "needs the package mao-vote" in result.err
    assert "pip install" in result.err


def test_vote_show_asks_a_node_for_a_cell(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    cell = {
        "round": "r1",
        "commit": "c" * 40,
        "file": "d.csv",
        "key": ["x"],
        "field": "v",
        "values": {"n1": "1\x1b[2J", "n2": None},
        "chosen": "1\x1b[2J",
        "why": "plurality",
        "contested": True,
        "words": "most say so",
        "silent": {"n3": "abstained: late"},
    }
    gateway.answers["GET", "/datasets/data/rounds/r1/cell"] = [(200, cell)]
    result = maoctl("vote", "show", "data", "r1", "--cell", "d.csv", "x", "v")
    assert result.code == 0, result.err
    assert "plurality (contested): most say so" in result.out
    assert "n1    1\\x1b[2J         chosen" in result.out
    assert "n3                     abstained: late" in result.out
    assert gateway.calls[-1].query == {"file": "d.csv", "key": "x", "field": "v"}


def test_vote_status_reports_waiting_snapshots(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("GET", "/rounds", {"items": [], "cursor": None, "waiting": 1})
    assert "1 snapshot waits to be announced\n" in maoctl("vote", "status", "data").err
    gateway.answers["GET", "/rounds"] = [(200, {"items": [], "cursor": None, "waiting": 6})]
    gateway.as_of = documents.ago(300)
    said = maoctl("vote", "status", "data", "--live").err
    assert "the federation does not answer; this is as of 5m ago\n" in said
    assert "6 snapshots wait for the federation\n" in said


def test_vote_status_warns_of_unsure_newest_round(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    at = "2026-01-31T12:00:00Z"
    decided: dict[str, Any] = {
        "dataset": "data",
        "id": "r2",
        "pipeline": "p",
        "step": "s",
        "tick": at,
        "nodes": ["n1"],
    }
    decided |= {"phase": "decided", "opened_by": "n1", "opened_at": at, "deadline": at, "needed_nodes": 1}
    decided |= {"announced": {}, "silent": [], "computed": {}, "missing": {}}
    gateway.answer("GET", "/rounds", {"items": [decided], "cursor": None})
    row = {"round": "r2", "tick": "2026-01-31T12:00:00Z", "commit": "c" * 40, "nodes": 3, "voters": 2}
    row |= {"files": 1, "cells": 2, "conflicts": 0, "warnings": ["d.csv: the key v may be wrong"]}
    older = {**row, "round": "r1", "warnings": ["d.csv: old"]}
    gateway.answer("GET", "/datasets/data/rounds", {"items": [row, older], "cursor": None})
    for command in ("status", "list"):
        result = maoctl("vote", command, "data")
        assert result.code == 0, result.err
        assert "warning: data r2: d.csv: the key v may be wrong\n" in result.err
        assert "old" not in result.err


def test_vote_list_warns_of_unsure_key_but_not_of_ignored_field(maoctl: Maoctl, repo: Path) -> None:
    for name, (one, other) in {"a": ("foo", "bar"), "c": ("FOO", "Bar")}.items():
        git(repo, "switch", "-q", name)
        (repo / "d.csv").write_text(f"repo,n,pid\n{one},1,{name}\n{other},2,{name}\n")
        git(repo, "commit", "-qam", "other records")
    definition = repo.parent / "vdx.json"
    definition.write_text('{"files": [{"path": "*.csv", "ignore": ["pid"]}]}')
    where = ("--repo", str(repo))
    made = maoctl(
        "vote", "run", *where, "--branches", "a,c", "-d", str(definition), "--write", "ground-truth"
    )
    assert made.code == 0, made.err
    assert "left out: pid" in made.out
    said = maoctl("vote", "list", *where).err
    assert said.count("warning: ") == 1
    assert "declare fold: [case]" in said


def test_vote_list_reads_all_pages(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    row = {"round": "r", "tick": "2026-01-31T12:00:00Z", "commit": "c" * 40, "nodes": 3, "voters": 2}
    row |= {"files": 1, "cells": 2, "conflicts": 0}
    gateway.answers["GET", "/datasets/data/rounds"] = [
        (200, {"items": [row], "cursor": "c" * 40}),
        (200, {"items": [{**row, "round": "q"}], "cursor": None}),
    ]
    gateway.answers["GET", "/datasets/data/rounds/latest/audit"] = [
        (404, {"code": "commits-missing", "detail": "Commits are not here.", "next": "Fetch."})
    ]
    listed = maoctl("vote", "list", "data", "-o", "name")
    assert listed.out == "round/r\nround/q\n"
    missing = maoctl("vote", "audit", "data")
    assert (missing.code, "Commits are not here." in missing.err) == (3, True)


def test_vote_run_and_dataset_vote_report_definitions_alike(
    maoctl: Maoctl, gateway: RememberingGateway, repo: Path, tmp_path: Path
) -> None:
    file = tmp_path / "vdx.yaml"
    gateway.keep("/registry/datasets", documents.dataset())
    for text, code in (("{exclusion: LOUDEST}", 2), ("[", 2), ("{exclusion: FURTHEST}", 0)):
        file.write_text(text)
        run = maoctl("vote", "run", "--repo", str(repo), "--branches", "a,b", "-d", str(file))
        kept = maoctl("dataset", "vote", "data", "--definition", str(file))
        assert (run.code, kept.code) == (code, code)
        assert run.err.splitlines()[0] == kept.err.splitlines()[0]
    assert "warning: exclusion FURTHEST has no effect" in kept.err


@pytest.mark.parametrize("command", ["list", "ranking"])
def test_vote_rejects_a_dataset_with_a_repository(maoctl: Maoctl, repo: Path, command: str) -> None:
    result = maoctl("vote", command, "values", "--repo", str(repo))
    assert result.code == 2
    assert "Unexpected argument 'values'" in result.err


def test_vote_show_rejects_an_incomplete_cell(maoctl: Maoctl, repo: Path) -> None:
    result = maoctl("vote", "show", "--repo", str(repo), "--cell", "d.csv", "x")
    assert result.code == 2
    assert "next: Give all three: --cell FILE KEY FIELD" in result.err


@pytest.mark.parametrize(
    ("file", "text", "key", "field", "value"),
    [
        ("d.json", '[{"id": "x", "v": 1}, {"id": "y", "v": 2}]', "x", "v", "1"),
        ("d.json", '{"images": {"total": 3}}', "/images/total", "value", "3"),
        ("d.jsonl", '{"id": "x", "v": 1}\n{"id": "y", "v": 2}\n', "y", "v", "2"),
    ],
)
def test_vote_show_of_json_cells(
    maoctl: Maoctl, repo: Path, file: str, text: str, key: str, field: str, value: str
) -> None:
    for name in VERSIONS:
        git(repo, "switch", "-q", name)
        (repo / file).write_text(text)
        git(repo, "add", ".")
        git(repo, "commit", "-qm", "json")
    git(repo, "switch", "-q", "main")
    voted(maoctl, repo, "--write", "ground-truth")
    told = maoctl("vote", "show", "--repo", str(repo), "--cell", file, key, field)
    assert f"value   {value}" in told.out, told.err
