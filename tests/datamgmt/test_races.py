"""Several clones push to the same branches concurrently: nothing is lost or force-pushed."""

from __future__ import annotations

import io
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from mao_datamgmt.context import Context
from mao_datamgmt.datasets import clones
from mao_datamgmt.datasets.delivery import PushOutcome, push_branches
from mao_git import Clone, Content
from tests.support.git import bare_repository, git
from tests.support.sshd import ssh_server

from .world import NODE, context_for


def commit(context: Context, name: str) -> None:
    clone = Clone.open(context.data.clone("data"))
    tip = clone.tip(context.node)
    assert tip is not None
    tree = clone.write_tree(clone.tree(tip), {name: Content(lambda: io.BytesIO(name.encode()))})
    made = clone.commit(tree, [tip], f"{name}\n", context.author())
    assert clone.move_branch(context.node, made, tip)


def commit_and_push(context: Context, prefix: str, count: int, results: list[PushOutcome]) -> None:
    for number in range(count):
        commit(context, f"{prefix}{number}")
        results.append(push_branches(context, Clone.open(context.data.clone("data")), promote=True))


@pytest.mark.parametrize("writers", [2, 6])
@pytest.mark.parametrize("transport", ["path", pytest.param("ssh", marks=pytest.mark.sshd)])
def test_race_writers_race_for_the_same_branches(tmp_path: Path, transport: str, writers: int) -> None:
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
        clones.ensure_clone(context, "data", url)
    results: list[list[PushOutcome]] = [[] for _ in contexts]
    threads = [
        threading.Thread(target=commit_and_push, args=(context, prefix, count, results[place]))
        for place, (context, prefix) in enumerate(zip(contexts, prefixes, strict=True))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for context in contexts:  # whoever was overtaken too often has it still here
        Clone.open(context.data.clone("data")).fetch(context.access)
        assert push_branches(context, Clone.open(context.data.clone("data")), promote=True).pushed
    subjects = git(remote, "log", "--format=%s", NODE).splitlines()
    expected = {f"{prefix}{number}" for prefix in prefixes for number in range(count)}
    assert sorted(subjects) == sorted([*expected, "Begin the dataset"])
    assert set(git(remote, "ls-tree", "--name-only", NODE).split()) == expected
    assert set(git(remote, "ls-tree", "--name-only", "ground-truth").split()) == expected
    assert all(len(result) == count for result in results)
    git(remote, "fsck", "--strict", "--full")
    branches = git(remote, "for-each-ref", "--format=%(refname:short)").split()
    assert sorted(branches) == ["ground-truth", NODE]
    assert_never_forced(remote, branches, count)


NODES = 6


@pytest.mark.parametrize("transport", ["path", pytest.param("ssh", marks=pytest.mark.sshd)])
def test_race_six_nodes_push_to_their_own_branches_and_to_ground_truth(
    tmp_path: Path, transport: str
) -> None:
    remote = bare_repository(tmp_path / "remote.git")
    git(remote, "config", "core.logAllRefUpdates", "always")
    if transport == "path":
        race_of_nodes(tmp_path, remote, str(remote), 4)
    else:
        with ssh_server(tmp_path / "sshd") as server:
            race_of_nodes(tmp_path, remote, server.url(remote), 2, ssh_dir=server.key_dir)


def race_of_nodes(tmp_path: Path, remote: Path, url: str, count: int, **settings: Path) -> None:
    names = [f"node-{number}" for number in range(1, NODES + 1)]
    nodes = [context_for(tmp_path, node=name, data_dir=tmp_path / name, **settings) for name in names]
    for node in nodes:
        clones.ensure_clone(node, "data", url)
    threads = [
        threading.Thread(target=commit_and_push, args=(node, f"{node.node}-", count, [])) for node in nodes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for node in nodes:  # whoever was overtaken too often has it still here
        clone = Clone.open(node.data.clone("data"))
        clone.fetch(node.access)
        assert push_branches(node, clone, promote=True).pushed
    for name in names:  # each in order, none twice
        subjects = git(remote, "log", "--format=%s", "--reverse", "--first-parent", name).splitlines()
        assert subjects[-count:] == [f"{name}-{number}" for number in range(count)]
        git(remote, "merge-base", "--is-ancestor", name, "ground-truth")
    git(remote, "fsck", "--strict", "--full")
    assert_never_forced(remote, [*names, "ground-truth"], 1)


def assert_never_forced(remote: Path, branches: list[str], moves: int) -> None:
    """Check in the remote's reflog, with more than `moves` entries, that every update was a fast-forward."""
    for branch in branches:
        tips = git(remote, "log", "--walk-reflogs", "--format=%H", branch).split()
        assert len(tips) > moves
        for newer, older in pairwise(tips):  # git fails where it is no ancestor
            git(remote, "merge-base", "--is-ancestor", older, newer)
