"""A malicious tree cannot be checked out to a place outside its folder."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

import pytest

from mao_datamgmt.context import Context
from mao_git import CheckoutOptions, Clone
from mao_shared.errors import InvalidInput
from tests.datamgmt.world import context_for
from tests.support.git import bare_repository, git


def raw_object(repo: Path, kind: str, body: bytes) -> str:
    """Write an object without any of git's checks."""
    content = f"{kind} {len(body)}\0".encode() + body
    name = hashlib.sha1(content).hexdigest()
    path = repo / "objects" / name[:2] / name[2:]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(zlib.compress(content))
    return name


def tree(repo: Path, *entries: tuple[str, bytes, str]) -> str:
    body = b"".join(mode.encode() + b" " + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries)
    return raw_object(repo, "tree", body)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return context_for(tmp_path)


@pytest.fixture
def clone(tmp_path: Path, context: Context) -> Clone:
    bare = bare_repository(tmp_path / "bare.git")
    git(bare, "remote", "add", "origin", str(bare))
    return Clone.open(bare)


UNSAFE = [b"..", b".", b".git", b".GIT", b"a/b", b"../x", b"git~1", b".git. ", b".git::$INDEX_ALLOCATION"]
UNSAFE += [".g\u200cit".encode(), b"\xe9", b"x" * 300]


@pytest.mark.parametrize("name", UNSAFE)
def test_checkout_tree_refuses_unsafe_names(tmp_path: Path, clone: Clone, name: bytes) -> None:
    blob = raw_object(clone.path, "blob", b"x")
    folder = tmp_path / "out"
    folder.mkdir()
    for mode in ("100644", "40000"):
        inner = blob if mode == "100644" else tree(clone.path, ("100644", b"f", blob))
        with pytest.raises(InvalidInput) as caught:
            clone.checkout_tree(tree(clone.path, (mode, name, inner)), folder, CheckoutOptions())
        assert caught.value.code == "dataset-unsafe"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare.git", "node", "out"]


def test_checkout_tree_never_writes_through_a_link(tmp_path: Path, clone: Clone) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = raw_object(clone.path, "blob", str(outside).encode())
    blob = raw_object(clone.path, "blob", b"x")
    inner = tree(clone.path, ("100644", b"f", blob))
    hostile = tree(clone.path, ("120000", b"d", link), ("40000", b"d", inner))
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(InvalidInput, match="exists"):
        clone.checkout_tree(hostile, folder, CheckoutOptions())
    assert list(outside.iterdir()) == []
    assert not (folder / "d").is_symlink()


def test_checkout_tree_refuses_a_tree_that_is_too_deep(tmp_path: Path, clone: Clone) -> None:
    hostile = tree(clone.path, ("100644", b"f", raw_object(clone.path, "blob", b"x")))
    for _ in range(2000):
        hostile = tree(clone.path, ("40000", b"d", hostile))
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(InvalidInput, match="folders deep"):
        clone.checkout_tree(hostile, folder, CheckoutOptions())


def test_checkout_tree_leaves_submodules_out(tmp_path: Path, clone: Clone) -> None:
    blob = raw_object(clone.path, "blob", b"x")
    base = tree(clone.path, ("100644", b"f", blob), ("160000", b"sub", "1" * 40))
    folder = tmp_path / "out"
    folder.mkdir()
    assert list(clone.checkout_tree(base, folder, CheckoutOptions())) == ["f"]
    changed = clone.write_tree(base, {"f": None})
    assert git(clone.path, "ls-tree", changed).split()[:2] == ["160000", "commit"]
