"""Voting on a local repository, listing rounds, explaining cells and auditing."""

from __future__ import annotations

from pathlib import Path

import pytest

import mao_git
from mao_git import Clone
from mao_shared.errors import Conflict, InvalidInput, NotFound
from mao_shared.models.round import VoteDefinition
from mao_vote.audit import audit_round
from mao_vote.explain import explain_cell
from mao_vote.local import LocalVote, open_local, vote_locally
from mao_vote.round_history import find_round, list_rounds
from tests.support.git import git

from .repo import commit, new_repository

A, B, C = ({"d.csv": f"id,v\n1,{v}\n2,7\n", "same.csv": "k,v\nx,1\n"} for v in "112")
ALL = ("a", "b", "c")


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    clone = new_repository(tmp_path / "r.git")
    for name, files in zip(ALL, (A, B, C), strict=True):
        commit(clone, files, branch=name)
    return clone


def asked(**changes: object) -> LocalVote:
    return LocalVote(**{"branches": ALL, "definition": VoteDefinition(), "write": "truth", **changes})  # type: ignore[arg-type]


def test_local_vote_branch_is_written_and_repeating_changes_nothing(clone: Clone) -> None:
    made = vote_locally(clone, asked())
    assert made.moved
    assert clone.tip("truth") == made.decided.commit
    again = vote_locally(clone, asked())
    assert (again.known, again.moved, again.decided.commit) == (True, False, made.decided.commit)


def test_local_vote_rounds_build_upon_each_other_and_are_found_again(clone: Clone) -> None:
    first = vote_locally(clone, asked()).decided
    commit(clone, {**A, "new": "x"}, branch="a")
    commit(clone, {**A, "new": "x"}, branch="b")
    second = vote_locally(clone, asked()).decided
    assert second.evidence.base == first.commit
    assert second.evidence.round == first.evidence.round + "-2"
    page = list_rounds(clone, second.commit, 1)
    assert [item.round for item in page.items] == [second.evidence.round]
    assert [round_.commit for round_ in list_rounds(clone, second.commit, 1, page.cursor).items] == [
        first.commit
    ]
    assert find_round(clone, second.commit, None).commit == second.commit
    assert find_round(clone, second.commit, first.evidence.round).commit == first.commit
    with pytest.raises(InvalidInput, match="2 rounds begin with '2026'"):
        find_round(clone, second.commit, "2026")
    with pytest.raises(NotFound, match="No round 'x'"):
        find_round(clone, second.commit, "x")


def test_local_vote_nothing_but_objects_is_written_without_a_branch(clone: Clone) -> None:
    before = git(clone.path, "for-each-ref")
    made = vote_locally(clone, asked(write=None))
    assert data_of_commit(clone, made.decided.commit)["d.csv"] == A["d.csv"]
    assert git(clone.path, "for-each-ref") == before


def data_of_commit(clone: Clone, tip: str) -> dict[str, str]:
    return {p: clone.read_file(tip, p).decode() for p in clone.list_paths(tip)}


def test_local_vote_branch_that_is_checked_out_is_not_written(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "f").write_text("1")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "x")
    git(folder, "branch", "other")
    clone = open_local(folder)
    for same in ("other", "refs/heads/other"):
        with pytest.raises(InvalidInput, match="one of those voted on"):
            vote_locally(clone, asked(branches=[same], write="other"))
    with pytest.raises(Conflict, match="is checked out"):
        vote_locally(clone, asked(branches=["other"], write="main"))
    git(folder, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    (tmp_path / "side" / "deeper").mkdir()
    linked = open_local(tmp_path / "side" / "deeper")
    assert vote_locally(linked, asked(branches=["main", "side"])).moved
    assert git(folder, "rev-parse", "truth") == linked.tip("truth")
    with pytest.raises(Conflict, match="is checked out"):
        vote_locally(linked, asked(branches=["other"], write="main"))


@pytest.mark.parametrize("branches", [[], ["a", "a"]])
def test_local_vote_branches_that_make_no_vote(clone: Clone, branches: list[str]) -> None:
    with pytest.raises(InvalidInput):
        vote_locally(clone, asked(branches=branches))


def test_local_vote_names_that_are_not_there(clone: Clone, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no branch, tag or commit 'zz'"):
        vote_locally(clone, asked(branches=["a", "zz"]))
    with pytest.raises(NotFound, match="no git repository"):
        open_local(tmp_path)


def test_local_vote_cell_is_explained(clone: Clone) -> None:
    decided = vote_locally(clone, asked()).decided
    told = explain_cell(clone, decided, "d.csv", "1", "v")
    assert (told.chosen, told.why, told.values) == ("1", "majority", {"a": "1", "b": "1", "c": "2"})
    same = explain_cell(clone, decided, "d.csv", "2", "v")
    assert (same.chosen, same.why, set(same.values.values())) == ("7", "unanimous", {"7"})
    unread = explain_cell(clone, decided, "same.csv", "x", "v")
    assert (unread.chosen, unread.words.partition(",")[0]) == (
        "1",
        "all 3 nodes that voted have the same file",
    )
    for file, key, field, why in (
        ("no", "1", "v", "has no file 'no'"),
        ("same.csv", "y", "v", "has no record 'y'; the key is k"),
        ("same.csv", "x", "w", "has no field 'w'; it has k, v"),
    ):
        with pytest.raises(NotFound, match=why):
            explain_cell(clone, decided, file, key, field)


def test_local_vote_cell_of_a_record_that_was_voted_whole_is_explained_by_the_record(clone: Clone) -> None:
    definition = VoteDefinition.model_validate({"files": [{"atomic": "record"}]})
    decided = vote_locally(clone, asked(definition=definition)).decided
    told = explain_cell(clone, decided, "d.csv", "1", "v")
    assert (told.field, told.why) == ("*", "majority")
    assert told.values["c"] == '{"v":"2.0"}'
    assert audit_round(clone, decided).ok


def test_local_vote_numbers_of_records_that_are_none(clone: Clone) -> None:
    decided = vote_locally(clone, asked()).decided
    for key in ("²", "9" * 5000):
        with pytest.raises(NotFound):
            explain_cell(clone, decided, "d.csv", key, "v")


def test_local_vote_audit_of_an_honest_round(clone: Clone) -> None:
    decided = vote_locally(clone, asked()).decided
    found = audit_round(clone, decided)
    assert found.ok
    assert (found.faults, found.notes, found.differing) == ([], [], [])
    assert found.recomputed_commit == decided.commit


def test_local_vote_audit_of_a_forged_round(clone: Clone) -> None:
    decided = vote_locally(clone, asked()).decided
    tree = clone.place_entries(
        decided.commit,
        {"d.csv": clone.entry(clone.rev_parse("c"), "d.csv")},
    )
    author = mao_git.Author("MAO federation", "mao@federation", decided.evidence.tick)
    forged = clone.commit(tree, [], f"x\n\nMAO-Round: {decided.evidence.round}\n", author)
    found = audit_round(clone, find_round(clone, forged, None))
    assert not found.ok
    assert not found.data_is_same
    assert found.differing == ["d.csv"]
    assert found.faults == ["the data differ in 1 files, first d.csv"]


def test_local_vote_audit_shows_of_a_rewritten_branch_and_of_missing_commits(clone: Clone) -> None:
    decided = vote_locally(clone, asked()).decided
    commit(clone, {"d.csv": "id,v\n"}, branch="c")
    found = audit_round(clone, decided)
    assert found.ok
    assert found.notes == [f"the branch of c no longer contains {decided.evidence.commits['c'][:10]}"]
    decided.evidence.commits["c"] = "1" * 40
    with pytest.raises(NotFound, match="1111111111 of c"):
        audit_round(clone, decided)


def test_local_vote_data_are_as_most_nodes_have_them(clone: Clone) -> None:
    made = vote_locally(clone, asked(branches=["c", "b", "a"]))
    assert made.decided.evidence.tree == clone.tree(clone.rev_parse("a"))
