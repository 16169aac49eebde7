"""Copying a repository during commits and packing: the copy has all objects of each of its references."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from mao_datamgmt.backup.collect import Copy, SourceChanged, copy_repository
from mao_git import Clone
from tests.support.git import bare_repository, git


def copier(target: Path) -> Copy:
    def copy(name: str, path: Path) -> bool:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path, target / name)
        except FileNotFoundError:
            return False
        return True

    return copy


def clone_with_commits(tmp_path: Path, count: int) -> Path:
    path = bare_repository(tmp_path / "clone.git")
    git(path, "remote", "add", "origin", "https://example.org/x.git")
    for number in range(count):
        commit(path, number)
    return path


def commit(path: Path, number: int) -> None:
    blob = git(path, "hash-object", "-w", "--stdin", feed=f"{number}\n" * 50)
    tree = git(path, "mktree", feed=f"100644 blob {blob}\tfile\n")
    found = git(path, "for-each-ref", "--format=%(objectname)", "refs/heads/node-1")
    parent = ["-p", found] if found else []
    made = git(path, "commit-tree", tree, *parent, "-m", f"number {number}")
    git(path, "update-ref", "refs/heads/node-1", made)


def fsck(copy: Path) -> int:
    """Check the copy with fsck and count its commits."""
    for folder in ("refs/heads", "objects/pack"):
        (copy / folder).mkdir(parents=True, exist_ok=True)
    git(copy, "fsck", "--full", "--strict")
    return int(git(copy, "rev-list", "--count", "node-1"))


def test_copy_repository_packed_meanwhile(tmp_path: Path) -> None:
    path = clone_with_commits(tmp_path, 10)
    copy = copier(tmp_path / "copy")
    packed = False

    def packing(name: str, source: Path) -> bool:
        nonlocal packed
        if "/objects/" in name and not packed:  # all loose ones go at once, behind the listing's back
            packed = True
            assert Clone.open(path).pack() > 0
        return copy(name, source)

    copy_repository(path, "c.git", packing)
    assert packed
    assert fsck(tmp_path / "copy" / "c.git") == 10


def test_copy_repository_while_git_packs(tmp_path: Path) -> None:
    path = clone_with_commits(tmp_path, 3)
    stop = threading.Event()

    def work() -> None:
        number = 3
        while not stop.is_set():
            commit(path, number)
            git(path, "gc", "-q", "--prune=now") if number % 3 else git(path, "pack-refs", "--all")
            number += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for number in range(6):
            target = tmp_path / f"copy-{number}"
            copy_repository(path, "c.git", copier(target))
            assert fsck(target / "c.git") >= 3
    finally:
        stop.set()
        worker.join()


def test_copy_repository_with_a_later_commit(tmp_path: Path) -> None:
    path = clone_with_commits(tmp_path, 2)
    copy = copier(tmp_path / "copy")
    made = False

    def committing(name: str, source: Path) -> bool:
        nonlocal made
        if "/objects/" in name and not made:
            made = True
            commit(path, 99)
        return copy(name, source)

    copy_repository(path, "c.git", committing)
    assert fsck(tmp_path / "copy" / "c.git") == 2


def test_copy_repository_replaced_meanwhile(tmp_path: Path) -> None:
    path = clone_with_commits(tmp_path, 2)
    other = shutil.copytree(path, tmp_path / "other.git")
    copy = copier(tmp_path / "copy")

    def exchanging(name: str, source: Path) -> bool:
        if other.exists():
            path.rename(tmp_path / "aside.git")
            other.rename(path)
        return copy(name, source)

    with pytest.raises(SourceChanged):
        copy_repository(path, "c.git", exchanging)


def test_copy_repository_leaves_out_unfinished_files(tmp_path: Path) -> None:
    path = clone_with_commits(tmp_path, 1)
    for name in ("refs/heads/node-1.lock", "objects/pack/pack_git2_abc", "objects/ab/tmp_obj_1"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(b"half")
    copy_repository(path, "c.git", copier(tmp_path / "copy"))
    names = [path.name for path in (tmp_path / "copy").rglob("*")]
    assert not {"node-1.lock", "pack_git2_abc", "tmp_obj_1"} & set(names)
