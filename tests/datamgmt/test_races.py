"""Several clones push to the same branches at the same time: nothing is lost and nothing is forced."""

from __future__ import annotations

import io
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from mao_datamgmt import clones, repository
from mao_datamgmt.context import Context
from mao_datamgmt.deliver import Delivery, deliver
from mao_datamgmt.repository import Content
from tests.support.git import bare_repository, git
from tests.support.sshd import ssh_server

from .world import NODE, context_for


def commit(context: Context, name: str) -> None:
    clone = repository.open_clone(context.data.clone("data"))
    tip = repository.find_branch(clone, NODE)
    assert tip is not None
    tree = repository.tree_with(
        clone, repository.tree_of(clone, tip), {name: Content(lambda: io.BytesIO(name.encode()))}
    )
    made = repository.commit_tree(clone, tree, [tip], f"{name}\n", context.author())
    assert repository.move_branch(clone, NODE, made, tip)


def commit_and_push(context: Context, prefix: str, count: int, results: list[Delivery]) -> None:
    for number in range(count):
        commit(context, f"{prefix}{number}")
        results.append(deliver(context, repository.open_clone(context.data.clone("data")), promote=True))


@pytest.mark.parametrize("writers", [2, 6])
@pytest.mark.parametrize("transport", ["path", pytest.param("ssh", marks=pytest.mark.sshd)])
def test_writers_race_for_the_same_branches(tmp_path: Path, transport: str, writers: int) -> None:
    remote = bare_repository(tmp_path / "remote.git")
    git(remote, "config", "core.logAllRefUpdates", "always")
    if transport == "path":
        race(tmp_path, remote, str(remote), writers, 16 // writers)
    else:
        with ssh_server(tmp_path / "sshd") as server:
            race(tmp_path, remote, server.url(remote), writers, 2, ssh_dir=server.key_dir)


def race(tmp_path: Path, remote: Path, url: str, writers: int, count: int, **settings: Path) -> None:
    contexts = [context_for(tmp_path, data_dir=tmp_path / f"node-{n}", **settings) for n in range(writers)]
    prefixes = "abcdef"[:writers]
    for context in contexts:
        clones.ensure(context, "data", url)
    results: list[list[Delivery]] = [[] for _ in contexts]
    threads = [
        threading.Thread(target=commit_and_push, args=(context, prefix, count, results[place]))
        for place, (context, prefix) in enumerate(zip(contexts, prefixes, strict=True))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for context in contexts:  # whoever was overtaken too often has it still here
        repository.fetch(repository.open_clone(context.data.clone("data")), context.access)
        assert deliver(context, repository.open_clone(context.data.clone("data")), promote=True).pushed
    subjects = git(remote, "log", "--format=%s", NODE).splitlines()
    expected = {f"{prefix}{number}" for prefix in prefixes for number in range(count)}
    assert sorted(subjects) == sorted([*expected, "Begin the dataset"])
    assert set(git(remote, "ls-tree", "--name-only", NODE).split()) == expected
    assert set(git(remote, "ls-tree", "--name-only", "ground-truth").split()) == expected
    assert all(len(each) == count for each in results)
    git(remote, "fsck", "--strict", "--full")
    branches = git(remote, "for-each-ref", "--format=%(refname:short)").split()
    assert sorted(branches) == ["ground-truth", NODE]
    for branch in branches:
        tips = git(remote, "log", "--walk-reflogs", "--format=%H", branch).split()
        assert len(tips) > count
        for newer, older in pairwise(tips):  # never forced: git fails where it is no ancestor
            git(remote, "merge-base", "--is-ancestor", older, newer)
