"""`Clone`: creating and opening one, and the errors that its methods raise."""

from __future__ import annotations

import inspect
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mao_git import (
    Author,
    CheckoutOptions,
    Clone,
    Content,
    GitError,
    InvalidPath,
    ObjectBroken,
    ObjectMissing,
    RepositoryError,
    StorageError,
    salvage,
)
from mao_git.errors import find_errno, is_full
from mao_shared.errors import NotFound

ABSENT = "1" * 40
AUTHOR = Author("n1", "n1@example.org", datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    with Clone.create(tmp_path / "data.git", "/nowhere"):
        pass
    return Clone.open(tmp_path / "data.git")


def commit(clone: Clone, files: dict[str, bytes]) -> str:
    tree = clone.write_tree(clone.tree(None), {path: Content.of(data) for path, data in files.items()})
    made = clone.commit(tree, [], "files\n", AUTHOR)
    assert clone.move_branch("main", made, None)
    return made


def test_create_names_the_clone_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "datasets" / "data.git"
    with Clone.create(path, "/nowhere") as clone:
        assert not path.exists()
        commit(clone, {"a": b"1"})
    assert Clone.open(path).read_file(Clone.open(path).resolve("main"), "a") == b"1"


def test_create_leaves_nothing_when_the_block_raises(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Clone.create(tmp_path / "data.git", "/nowhere"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_create_keeps_a_clone_of_that_name(tmp_path: Path, clone: Clone) -> None:
    made = commit(clone, {"a": b"1"})
    with Clone.create(clone.path, "/elsewhere"):
        pass
    assert (Clone.open(clone.path).tip("main"), Clone.open(clone.path).url) == (made, "/nowhere")


def test_scratch_is_removed(tmp_path: Path) -> None:
    with Clone.scratch(tmp_path, "/nowhere") as clone:
        assert clone.path.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_open_without_a_clone(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no clone of dataset 'data'"):
        Clone.open(tmp_path / "data.git")


def test_methods_raise_object_missing(clone: Clone) -> None:
    with pytest.raises(ObjectMissing, match=ABSENT):
        clone.tree(ABSENT)


def test_methods_raise_object_broken(clone: Clone) -> None:
    made = commit(clone, {"a": b"1"})
    loose = clone.path / "objects" / made[:2] / made[2:]
    loose.chmod(0o600)
    loose.write_bytes(loose.read_bytes()[:-4])
    with pytest.raises(ObjectBroken, match="broken or truncated"):
        clone.tip("main")


def test_methods_raise_storage_error(tmp_path: Path, clone: Clone) -> None:
    made = commit(clone, {"a": b"1"})
    with pytest.raises(StorageError, match="No such file or directory") as caught:
        clone.checkout_paths(made, tmp_path / "none", ["a"], CheckoutOptions())
    assert (find_errno(caught.value), is_full(caught.value)) == (2, False)
    assert caught.value.strerror == "No such file or directory"


def test_generators_raise_git_errors_while_they_are_read(clone: Clone) -> None:
    entries = clone.log_since(ABSENT, None, 10)
    with pytest.raises(GitError):
        next(entries)


def test_write_tree_refuses_names_that_git_cannot_hold(clone: Clone) -> None:
    with pytest.raises(InvalidPath, match="cannot hold the name"):
        clone.write_tree(clone.tree(None), {".git": Content.of(b"")})


def test_tip_of_what_cannot_be_a_branch(clone: Clone) -> None:
    assert clone.tip("a..b") is None


def test_methods_are_documented() -> None:
    public = {name: method for name, method in vars(Clone).items() if inspect.isfunction(method)}
    assert [name for name, method in public.items() if not name.startswith("_") and not method.__doc__] == []


@pytest.mark.parametrize("folder", ["objects", "refs/heads"])
def test_salvage_into_a_clone_that_takes_no_writes_is_a_repository_error(
    tmp_path: Path, clone: Clone, folder: str
) -> None:
    commit(clone, {"a": b"1"})
    with Clone.create(tmp_path / "new.git", "/nowhere"):
        pass
    new = Clone.open(tmp_path / "new.git")
    shutil.rmtree(new.path / folder)
    (new.path / folder).write_text("no folder")
    with pytest.raises(RepositoryError):
        salvage(clone.path, new, "main", lambda message: message, None)
