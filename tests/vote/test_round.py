"""A round from the nodes' commits to one commit: its files, determinism and evidence."""

from __future__ import annotations

import json
import subprocess
from itertools import permutations
from pathlib import Path

import pytest

from mao_git import Clone
from mao_shared.errors import InvalidInput
from mao_shared.models.round import Abstention, VoteDefinition
from mao_vote import NoQuorum, tree_vote, vote_round
from mao_vote.evidence import cells_path, evidence_path, load_evidence
from mao_vote.records import RecordFormat
from tests.support.git import git

from .repo import TICK, commit, data_of, new_repository, vote


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return new_repository(tmp_path / "r.git")


def test_vote_round_unanimous_input_is_returned_unchanged(clone: Clone) -> None:
    files = {"a.bin": "1", "b/c.csv": "id,v\n1,2\n", "l": "link:a.bin"}
    voted = vote(clone, {"n1": files, "n2": files, "n3": files})
    assert voted.evidence.tree == clone.tree(commit(clone, files))
    assert voted.evidence.decided == {"unanimous": 3}
    assert not voted.evidence.files


def test_vote_round_order_of_nodes_and_repetition_change_nothing(clone: Clone) -> None:
    versions = {"n1": {"a": "1", "b": "x"}, "n2": {"a": "2"}, "n3": {"a": "1", "c": "z"}}
    made = {vote(clone, {n: versions[n] for n in order}).commit for order in permutations(versions)}
    assert len(made) == 1


def test_vote_round_minorities_lose(clone: Clone) -> None:
    versions = {"n1": {"a": "1", "b": "x"}, "n2": {"a": "2", "b": "x"}, "n3": {"a": "1", "c": "z"}}
    voted = vote(clone, versions)
    assert data_of(clone, voted) == {"a": "1", "b": "x"}
    found = {file.path: file for file in voted.evidence.files}
    assert (found["a"].how, found["a"].why) == ("whole", "majority")
    assert found["a"].votes["n2"].differing == 1
    assert found["c"].notes == ["left out: only 1 of 3 have it (n3)"]
    assert {n: v.differing for n, v in voted.evidence.votes.items()} == {"n1": 0, "n2": 1, "n3": 2}


def test_vote_round_tie_keeps_what_was_there_else_the_heavier_else_nothing(clone: Clone) -> None:
    base = commit(clone, {"a": "2", "keep": "k"})
    tie = {"n1": {"a": "1", "keep": "k"}, "n2": {"a": "2"}}
    assert data_of(clone, vote(clone, tie, base)) == {"a": "2", "keep": "k"}
    heavy = VoteDefinition(weights={"n1": 2})
    assert data_of(clone, vote(clone, tie, definition=heavy)) == {"a": "1", "keep": "k"}
    undecided = vote(clone, tie)
    assert data_of(clone, undecided) == {}
    assert undecided.evidence.conflicts == 2


def test_vote_round_file_where_others_have_a_folder(clone: Clone) -> None:
    base = commit(clone, {"x": "file"})
    voted = vote(clone, {"n1": {"x/y": "1"}, "n2": {"x/y": "1"}, "n3": {"x": "file"}}, base)
    assert data_of(clone, voted) == {"x/y": "1"}
    back = vote(clone, {"n1": {"x/y": "1"}, "n2": {"x": "new"}, "n3": {"x": "new"}}, voted.commit)
    assert data_of(clone, back) == {"x": "new"}


def test_vote_round_links_and_modes(clone: Clone) -> None:
    voted = vote(clone, {"n1": {"x": "link:a"}, "n2": {"x": "link:a"}, "n3": {"x": "a"}})
    entry = clone.entry(voted.tree, "x")
    assert entry is not None
    assert entry.mode == 0o120000


def test_vote_round_what_nodes_put_under_mao_does_not_vote(clone: Clone) -> None:
    first = vote(clone, {"n1": {"a": "1"}, "n2": {"a": "1"}}, round_id="r1")
    lie = {"a": "2", ".mao/rounds/r1.json": "lie", ".mao/other": "junk"}
    second = vote(clone, {"n1": lie, "n2": lie}, first.commit, round_id="r2")
    assert data_of(clone, second) == {"a": "2"}
    assert load_evidence(clone.read_file(second.commit, evidence_path("r1"))).round == "r1"
    assert clone.names_in(second.commit, ".mao") == ["rounds"]


def test_vote_round_commit_says_what_it_is_and_git_accepts_it(clone: Clone) -> None:
    base = commit(clone, {"a": "0"})
    voted = vote(clone, {"n1": {"a": "1"}, "n2": {"a": "1"}, "n3": {"a": "2"}}, base)
    assert git(clone.path, "fsck", "--strict", "--no-dangling") == ""
    shown = git(clone.path, "show", "-s", "--format=%an %ae %at %P%n%B", voted.commit).splitlines()
    assert shown[0] == f"MAO federation mao@federation {int(TICK.timestamp())} {base}"
    assert "MAO-Round: 20260131T120000Z-p-s" in shown
    cells = clone.read_file(voted.commit, cells_path("20260131T120000Z-p-s")).splitlines()
    assert json.loads(cells[0])["why"] == "majority"


def test_vote_round_evidence_reads_back(clone: Clone) -> None:
    voted = vote(clone, {"n1": {"a": "1"}, "n2": {"a": "1"}}, definition=VoteDefinition(weights={"n1": 2}))
    read = load_evidence(clone.read_file(voted.commit, evidence_path(voted.evidence.round)))
    assert read == voted.evidence


def test_vote_round_abstention_and_quorum(clone: Clone) -> None:
    commits = {"n1": commit(clone, {"a": "1"}), "n2": commit(clone, {"a": "1"})}
    late = {"n3": Abstention(reason="late")}
    options = {"round_id": "r", "tick": TICK, "base": None, "definition": VoteDefinition()}
    voted = vote_round(clone, nodes=["n1", "n2", "n3"], commits=commits, abstained=late, **options)  # type: ignore[arg-type]
    assert voted.evidence.abstained == late
    with pytest.raises(NoQuorum, match="Only 2 of 4 nodes have a voice, and the vote needs 3"):
        vote_round(clone, nodes=["n1", "n2", "n3", "n4"], commits=commits, abstained=late, **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="n2 may not vote"):
        vote_round(clone, nodes=["n1", "n3"], commits=commits, abstained=late, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", ["", "a/b", "..", "a..b", ".x", "x" * 201, "é"])
def test_vote_round_ids_that_are_no_names_are_refused(clone: Clone, bad: str) -> None:
    with pytest.raises(InvalidInput, match="not a valid round id"):
        vote(clone, {"n1": {"a": "1"}}, round_id=bad)


@pytest.mark.parametrize("name", [b"caf\xe9", b".git", b"GIT~1", b"a\\..\\b", b".."])
def test_vote_round_hostile_names_are_left_out_and_noted(clone: Clone, name: bytes) -> None:
    blob = git(clone.path, "hash-object", "-w", "--stdin", feed="x")
    tree = b"".join(b"100644 blob %s\t%s\0" % (blob.encode(), file_name) for file_name in (name, b"good"))
    made = subprocess.run(
        ["git", "-C", str(clone.path), "mktree", "-z"], input=tree, capture_output=True, check=True
    )
    hostile = git(clone.path, "commit-tree", "-m", "x", made.stdout.decode().strip())
    voted = vote_round(
        clone,
        round_id="r",
        tick=TICK,
        nodes=["n1", "n2"],
        commits={"n1": hostile, "n2": hostile},
        abstained={},
        base=None,
        definition=VoteDefinition(),
    )
    assert data_of(clone, voted) == {"good": "x"}
    assert [file.how for file in voted.evidence.files] == ["refused"]
    load_evidence(clone.read_file(voted.commit, evidence_path("r")))


def test_vote_round_identical_contents_are_not_read(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = Clone.read_blob

    def read_blob(clone: Clone, oid: str) -> bytes:
        read.append(oid)
        return real(clone, oid)

    monkeypatch.setattr(Clone, "read_blob", read_blob)
    same = {"big.csv": "id,v\n1,2\n", "a.csv": "id,v\n1,1\n"}
    base = commit(clone, same)
    vote(
        clone,
        {"n1": same, "n2": {**same, "a.csv": "id,v\n1,2\n"}, "n3": {**same, "big.csv": "id,v\n1,3\n"}},
        base,
    )
    assert len(read) == 4
    read.clear()
    changed = {**same, "big.csv": "id,v\n7,7\n"}
    vote(clone, dict.fromkeys(("n1", "n2", "n3"), changed), base)
    assert not read


def test_vote_round_history_is_kept_where_the_definition_asks_for_it(clone: Clone) -> None:
    plain = {"n1": {"d.csv": "id,v\n1,2\n"}, "n2": {"d.csv": "id,v\n1,2\n"}, "n3": {"d.csv": "id,v\n1,9\n"}}
    forgetful = VoteDefinition(memory=False)
    assert vote(clone, plain, definition=forgetful).evidence.ledger.after is None
    asked = VoteDefinition(history="STANDARD")
    first = vote(clone, plain, definition=asked, round_id="r1")
    ledger = json.loads(clone.read_file(first.commit, ".mao/history.json"))["files"]["d.csv"]
    assert ledger["n1"] == {"successes": 1.0, "rounds": 1}
    assert ledger["n3"]["successes"] < 1
    second = vote(clone, plain | {"n1": {}, "n2": {}}, first.commit, asked, "r2")
    assert second.evidence.ledger.before == first.evidence.ledger.after
    assert json.loads(clone.read_file(second.commit, ".mao/history.json"))["files"] == {}


def test_vote_round_ledger_that_cannot_be_read_is_reset(clone: Clone) -> None:
    base = commit(clone, {".mao/history.json": "{", "d.csv": "id,v\n1,1\n"})
    files = {"d.csv": "id,v\n1,2\n"}
    asked = VoteDefinition(history="STANDARD")
    voted = vote(clone, {"n1": files, "n2": files}, base, asked)
    assert voted.evidence.notes == ["history begins anew: .mao/history.json cannot be read"]
    assert voted.evidence.ledger.after != voted.evidence.ledger.before


def test_vote_round_record_files_are_voted_by_field(clone: Clone) -> None:
    versions = {
        "n1": {"d.csv": "id,a,b\nx,1,p\ny,5,q\n"},
        "n2": {"d.csv": "id,a,b\nx,1,p\ny,6,q\n"},
        "n3": {"d.csv": "id,a,b\nx,2,p\ny,5,q\n"},
    }
    voted = vote(clone, versions)
    assert data_of(clone, voted) == {"d.csv": "id,a,b\nx,1,p\ny,5,q\n"}
    [file] = voted.evidence.files
    assert (file.how, file.key, file.key_source, file.cells) == ("records", ["id"], "inferred", 2)
    assert {node: v.differing for node, v in file.votes.items()} == {"n1": 0, "n2": 1, "n3": 1}
    lines = clone.read_file(voted.commit, cells_path(voted.evidence.round)).splitlines()
    assert json.loads(lines[0]) == {
        "file": "d.csv",
        "key": ["x"],
        "field": "a",
        "values": {"n1": "1", "n2": "1", "n3": "2"},
        "chosen": "1",
        "why": "majority",
        "contested": False,
        "observed": 3,
    }


def test_vote_round_files_that_are_no_records_after_all_are_voted_whole(clone: Clone) -> None:
    voted = vote(clone, {"n1": {"d.json": "{"}, "n2": {"d.json": "{"}, "n3": {"d.json": "{{"}})
    assert data_of(clone, voted) == {"d.json": "{"}
    assert voted.evidence.files[0].how == "whole"
    assert "decided as a whole" in voted.evidence.files[0].warnings[0]


def test_vote_round_lfs_pointers_are_voted_as_they_are(clone: Clone) -> None:
    pointers = [
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{digit * 64}\nsize 9\n" for digit in "ab"
    ]
    voted = vote(clone, {n: {"d.csv": pointers[n == "n3"]} for n in ("n1", "n2", "n3")})
    assert data_of(clone, voted) == {"d.csv": pointers[0]}
    assert voted.evidence.files[0].warnings == ["voted as a whole: it is kept in Git LFS"]


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 5\n"


@pytest.mark.parametrize("bad", ["id,v\n" + "x,1\n" * 30, POINTER])
def test_vote_round_version_too_large_or_elsewhere_does_not_vote(
    clone: Clone, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    monkeypatch.setitem(tree_vote.MAX_RECORDS_BYTES, RecordFormat.CSV, 100)
    versions = {
        "n1": {"d.csv": "id,v\nx,1\ny,p\n"},
        "n2": {"d.csv": bad},
        "n3": {"d.csv": "id,v\nx,1\nz,q\n"},
    }
    voted = vote(clone, versions, base=commit(clone, {"d.csv": "id,v\nx,1\n"}))
    assert data_of(clone, voted) == {"d.csv": "id,v\nx,1\ny,p\nz,q\n"}
    assert list(voted.evidence.files[0].abstained) == ["n2"]
    twice = vote(clone, {**versions, "n4": {"d.csv": bad}})
    assert [file.how for file in twice.evidence.files] == ["whole"]
    assert data_of(clone, twice) == {"d.csv": bad}
