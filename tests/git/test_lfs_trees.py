"""Merged trees still declare their LFS pointers when the `.gitattributes` of their sources differ."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest

import mao_git
from mao_git import Author, Clone, Content, MergeConflict
from mao_git.attributes import with_paths
from mao_shared.models.round import VoteDefinition
from mao_vote import vote_round
from tests.support.git import git
from tests.vote.repo import TICK, new_repository


def pointer_to(name: str) -> bytes:
    data = name.encode()
    return mao_git.LfsPointer(hashlib.sha256(data).hexdigest(), len(data)).text()


def tree_of(clone: Clone, words: str, *large: str, mark: bool = True, lines: bool = True) -> str:
    """Commit pointers, and the attributes that publishing writes."""
    files = {name: pointer_to(name) for name in large} | {"f": b"1"}
    files |= {".gitattributes": with_paths(words, large if lines else (), ()).encode()}
    files |= {".mao/lfs": b"x"} if mark else {}
    contents = {path: _content(data) for path, data in files.items() if data}
    tree = clone.write_tree(clone.tree(None), contents)
    return clone.commit(tree, [], "x\n", Author("n", "n@example.org", TICK))


def _content(data: bytes) -> Content:
    return Content(lambda: io.BytesIO(data), len(data))


def attributes(clone: Clone, tree: str) -> str:
    return clone.top_text(tree, ".gitattributes")


# What the three nodes have: the tool's own words, whether our lines are there still, and the large files.
VOTES: dict[str, tuple[list[tuple[str, bool, str]], str]] = {
    "each has another": ([("", True, "ab"), ("", True, "ac"), ("", True, "ad")], "a"),
    "tools wrote different ones": ([("* x\n", True, "ab"), ("* y\n", True, "ab"), ("", True, "b")], "ab"),
    "most have lost theirs": ([("", True, "a"), ("", False, "a"), ("", False, "a")], "a"),
    "all have lost theirs": ([("* z\n", False, "a"), ("", False, "a"), ("", False, "a")], "a"),
}


@pytest.mark.parametrize("case", VOTES)
def test_settle_lfs_lists_the_pointers_of_ground_truth(tmp_path: Path, case: str) -> None:
    clone = new_repository(tmp_path / "r.git")
    nodes, expected = VOTES[case]
    commits = {
        f"n{number}": tree_of(clone, words, *large, lines=lines)
        for number, (words, lines, large) in enumerate(nodes, 1)
    }

    def decided(order: list[str]) -> str:
        return vote_round(
            clone,
            round_id="20260131T120000Z-p-s",
            tick=TICK,
            nodes=order,
            commits={node: commits[node] for node in order},
            abstained={},
            base=None,
            definition=VoteDefinition(),
        ).commit

    made = decided(["n1", "n2", "n3"])
    assert attributes(clone, made) == with_paths("", set(expected), ())
    assert clone.blob_ids(made, [".mao/lfs"])
    assert decided(["n3", "n1", "n2"]) == made


def test_merge_trees_unites_the_pointers_of_both_sides(tmp_path: Path) -> None:
    clone = new_repository(tmp_path / "r.git")
    base = tree_of(clone, "* x\n", "m")
    ours, theirs = tree_of(clone, "* x\n", "a", "m"), tree_of(clone, "* y\n", "m", "z")
    merged = clone.merge_trees(base, ours, theirs)
    assert attributes(clone, merged) == with_paths("* y\n", {"a", "m", "z"}, ())
    removed = tree_of(clone, "", "m", "n", lines=False)
    assert attributes(clone, clone.merge_trees(base, ours, removed)) == with_paths("", {"a", "m", "n"}, ())
    with pytest.raises(MergeConflict) as caught:
        clone.merge_trees(base, tree_of(clone, "* z\n", "a", "m"), theirs)
    assert caught.value.paths == [".gitattributes"]


def test_settle_lfs_marks_a_tree_without_attributes(tmp_path: Path) -> None:
    clone = new_repository(tmp_path / "r.git")
    node = tree_of(clone, "", "a")
    for path in (".gitattributes/x", ".gitattributes"):  # a folder; a file of which git reads nothing
        files = {"a": _content(pointer_to("a")), ".gitattributes": None, path: _content(b"\0")}
        bare = clone.write_tree(clone.tree(None), files)
        settled = clone.settle_lfs(bare, [node])
        assert clone.blob_ids(settled, [path]) == clone.blob_ids(bare, [path])
        assert clone.blob_ids(settled, [".mao/lfs"])


@pytest.mark.parametrize(
    "name", ["a b", "a\tb", "a\u00a0b", "a\u2003b", "a\x0bb", "a\x85b", "a\r", "[x]*?\\"]
)
def test_attributes_line_matches_blanks_as_git_does(tmp_path: Path, name: str) -> None:
    git(tmp_path, "init", "-q")
    text = with_paths("# mine\n\n*.txt text", {name}, set())
    (tmp_path / ".gitattributes").write_bytes(text.encode())
    asked = git(tmp_path, "check-attr", "-z", "filter", "--", name, f"{name}z").split("\0")
    assert [asked[i] for i in (2, 5)] == ["lfs", "unspecified"]
    assert with_paths(text, {name}, set()) == text
    assert with_paths(text, set(), {name}) == "# mine\n\n*.txt text\n"
