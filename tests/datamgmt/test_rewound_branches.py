"""A branch rewound at the remote is restored, and reported on every node that fetches it."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mao_git
from mao_datamgmt.context import Context
from mao_datamgmt.datasets import clones, health
from mao_datamgmt.datasets.delivery import push_branches
from mao_datamgmt.datasets.resolve import resolve
from mao_git import Clone, Content
from mao_shared.errors import NotFound
from mao_shared.models.dataset import Strategy
from mao_shared.models.node import Condition
from mao_shared.states import StepPhase
from tests.support.git import bare_repository, git
from tests.support.sshd import SshServer, ssh_server

from .test_races import commit
from .world import NODE, World, context_for, run_of, runs_on, step, working, writes

OTHER = "node-2"
SSH = pytest.param("ssh", marks=pytest.mark.sshd)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    return bare_repository(tmp_path / "remote.git")


@pytest.fixture(params=["path", SSH])
def context(tmp_path: Path, remote: Path, request: pytest.FixtureRequest) -> Context:
    """Yield a node that has pushed a, b and c, each changing one file, and has d to push."""
    if request.param == "path":
        made, url = context_for(tmp_path), str(remote)
    else:
        server: SshServer = request.getfixturevalue("server")
        made, url = context_for(tmp_path, ssh_dir=server.key_dir), server.url(remote)
    clones.ensure_clone(made, "data", url)
    for name in "abc":
        commit(made, name)
        assert push_branches(made, clone_of(made), promote=True).pushed
    return made


def clone_of(context: Context) -> mao_git.Clone:
    return Clone.open(context.data.clone("data"))


def change(context: Context, name: str) -> None:
    clone = clone_of(context)
    tip = clone.tip(NODE)
    assert tip is not None
    content = Content(lambda: io.BytesIO(b"changed"))
    tree = clone.write_tree(clone.tree(tip), {name: content})
    made = clone.commit(tree, [tip], f"change {name}\n", context.author())
    assert clone.move_branch(NODE, made, tip)


def set_back(remote: Path, branch: str, commits: int) -> str:
    """Rewind the remote's branch like a restored backup, and return the lost tip."""
    tip = git(remote, "rev-parse", branch)
    git(remote, "update-ref", f"refs/heads/{branch}", f"{tip}~{commits}")
    return tip


@pytest.mark.parametrize("commits", [1, 3])
@pytest.mark.parametrize("how", ["replay", "merge"])
@pytest.mark.parametrize("unpushed", [False, True])
def test_rewound_branch_restores_lost_commits_unchanged(
    context: Context, remote: Path, how: Strategy, commits: int, unpushed: bool
) -> None:
    for branch in ("ground-truth", NODE):
        set_back(remote, branch, commits)
    if unpushed:
        change(context, "a")  # gone at the remote, and on no other node
    ours = clone_of(context).tip(NODE)
    clone_of(context).fetch(context.access)
    failure = push_branches(context, clone_of(context), promote=True).failure
    assert failure is not None
    assert failure.code == "branch-rewritten"
    assert "set back to an earlier state" in failure.detail
    assert "--replay" in (failure.next or "")
    done, problem = resolve(context, "data", how, promote=True)
    assert (problem, done.pushed, done.rescued, done.commit) == (None, True, [], ours)
    assert git(remote, "rev-parse", NODE, "ground-truth").split() == [ours, ours]
    assert clone_of(context).rewound_branches() == []


def begun_anew(remote: Path) -> None:
    blob = git(remote, "hash-object", "-w", "--stdin", feed="hello")
    tree = git(remote, "mktree", feed=f"100644 blob {blob}\tREADME\n")
    tip = git(remote, "commit-tree", tree, "-m", "another beginning")
    for branch in ("ground-truth", NODE):
        git(remote, "update-ref", f"refs/heads/{branch}", tip)


def backup_and_a_stranger(remote: Path) -> None:
    """Rewind the branch and add a foreign commit."""
    set_back(remote, NODE, 3)
    blob = git(remote, "hash-object", "-w", "--stdin", feed="hello")
    tree = git(remote, "mktree", feed=f"100644 blob {blob}\tREADME\n")
    tip = git(remote, "commit-tree", tree, "-p", NODE, "-m", "a stranger's")
    git(remote, "update-ref", f"refs/heads/{NODE}", tip)


@pytest.mark.parametrize("spoil", [begun_anew, backup_and_a_stranger])
def test_rewound_branch_replays_dependent_commit_with_the_lost_ones(
    context: Context, remote: Path, spoil: Callable[[Path], None]
) -> None:
    """An unpushed commit changes a file that the remote has lost."""
    spoil(remote)
    theirs = git(remote, "rev-parse", NODE)
    clone = clone_of(context)
    tip = clone.tip(NODE)
    assert tip is not None
    tree = git(clone.path, "mktree", feed=git(clone.path, "ls-tree", tip).replace("\ta", "\tz"))
    made = clone.commit(tree, [tip], "a is called z\n", context.author())
    assert clone.move_branch(NODE, made, tip)
    done, failure = resolve(context, "data", "replay", promote=True)
    assert (failure, done.pushed) == (None, True)
    git(remote, "merge-base", "--is-ancestor", theirs, NODE)
    assert git(remote, "ls-tree", "--name-only", NODE).split() == ["README", "b", "c", "z"]


@pytest.mark.parametrize("how", ["branches removed", "made anew and empty"])
def test_rewound_branch_pushes_deleted_branch_again(context: Context, remote: Path, how: str) -> None:
    ours = clone_of(context).tip(NODE)
    if how == "branches removed":
        for branch in ("ground-truth", NODE):
            git(remote, "update-ref", "-d", f"refs/heads/{branch}")
    else:
        shutil.rmtree(remote)
        bare_repository(remote)
    clone_of(context).fetch(context.access)
    assert {back.branch: back.tip for back in clone_of(context).rewound_branches()} == {
        NODE: None,
        "ground-truth": None,
    }
    assert push_branches(context, clone_of(context), promote=True).pushed
    assert git(remote, "rev-parse", NODE, "ground-truth").split() == [ours, ours]
    assert clone_of(context).rewound_branches() == []


def test_rewound_branch_replay_restores_voted_ground_truth(context: Context, remote: Path) -> None:
    """Rewind ground truth only, on a node that does not decide alone."""
    lost = set_back(remote, "ground-truth", 2)
    clone_of(context).fetch(context.access)
    assert push_branches(context, clone_of(context), promote=False).pushed
    assert git(remote, "rev-parse", "ground-truth") != lost
    done, failure = resolve(context, "data", "replay", promote=False)
    assert (failure, done.branch, done.pushed, done.commit) == (None, "ground-truth", True, lost)
    assert git(remote, "rev-parse", "ground-truth") == lost


def test_rewound_branch_ignores_branches_of_no_node(tmp_path: Path, context: Context, remote: Path) -> None:
    git(remote, "update-ref", "refs/heads/main", f"{NODE}~1")
    first = git(remote, "commit-tree", git(remote, "mktree", feed=""), "-m", "first")
    git(remote, "update-ref", "refs/heads/main", first)
    clone_of(context).fetch(context.access)
    second = git(remote, "commit-tree", git(remote, "mktree", feed=""), "-m", "second")
    git(remote, "update-ref", "refs/heads/main", second)
    clone_of(context).fetch(context.access)
    assert [back.branch for back in clone_of(context).rewound_branches()] == ["main"]
    assert health.rewound_branches(context, "data") == []


def told(world: World) -> dict[str, Condition]:
    return {
        condition.subject: condition
        for condition in world.manager.conditions.current()
        if condition.name == "branch-went-back"
    }


async def look(world: World) -> dict[str, Condition]:
    """Fetch from the remote, check its branches, and return the resulting conditions."""
    clone = Clone.open(world.manager.context.data.clone("data"))
    clone.fetch(world.manager.context.access)
    await world.manager.health.rewound.check("data")
    return told(world)


@pytest.mark.parametrize("branch", [OTHER, "ground-truth"])
@pytest.mark.parametrize("how", ["set back", "rewritten", "removed"])
async def test_rewound_branch_of_another_node_is_reported_and_kept(
    tmp_path: Path, branch: str, how: str
) -> None:
    async with working(tmp_path) as world:
        for number in range(3):
            run = run_of(f"run-{number}", step("collect", "data", world.master), after=number)
            assert (await world.whole(run, writes(a=str(number)))).phase is StepPhase.SUCCEEDED
        git(world.master, "update-ref", f"refs/heads/{OTHER}", NODE)  # as if that had made them
        assert await look(world) == {}
        tip = git(world.master, "rev-parse", branch)
        if how == "removed":
            git(world.master, "update-ref", "-d", f"refs/heads/{branch}")
        else:
            set_back(world.master, branch, 2)
        if how == "rewritten":
            new = git(world.master, "commit-tree", f"{branch}^{{tree}}", "-p", branch, "-m", "other")
            git(world.master, "update-ref", f"refs/heads/{branch}", new)
        found = await look(world)
        assert set(found) == {f"data/{branch}"}
        condition = found[f"data/{branch}"]
        assert tip[:10] in condition.detail
        assert "--replay" in condition.next
        clone = world.manager.context.data.clone("data")
        assert git(clone, "rev-parse", f"refs/mao/seen/{branch}") == tip
        git(clone, "gc", "-q", "--prune=now")
        git(world.master, "fetch", "-q", str(clone), f"refs/mao/seen/{branch}")
        git(world.master, "update-ref", f"refs/heads/{branch}", tip)  # it was put right again
        assert await look(world) == {}


async def test_rewound_branch_reported_by_next_run_until_acknowledged(
    tmp_path: Path,
) -> None:
    async with working(tmp_path) as world:
        for number in range(2):
            run = run_of(f"run-{number}", step("collect", "data", world.master), after=number)
            await world.whole(run, writes(a=str(number)))
        git(world.master, "update-ref", f"refs/heads/{OTHER}", NODE)
        await world.whole(run_of("run-2", step("collect", "data", world.master), after=2), writes(a="2"))
        lost = set_back(world.master, OTHER, 1)
        await world.whole(run_of("run-3", step("collect", "data", world.master), after=3), writes(a="3"))
        await world.manager.health.rewound.check("data")
        assert set(told(world)) == {f"data/{OTHER}"}
        assert runs_on(world.master) == ["run-3", "run-2", "run-1", "run-0"]
        await world.manager.acknowledge("data")
        assert told(world) == {}
        clone = world.manager.context.data.clone("data")
        kept = git(clone, "for-each-ref", "--format=%(objectname)", f"refs/mao/rescued/{OTHER}").split()
        assert kept == [lost]
        assert await look(world) == {}
        with pytest.raises(NotFound):
            await world.manager.acknowledge("data")


async def test_rewound_branch_reported_again_after_restart(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        for number in range(2):
            run = run_of(f"run-{number}", step("collect", "data", world.master), after=number)
            await world.whole(run, writes(a=str(number)))
        git(world.master, "update-ref", f"refs/heads/{OTHER}", NODE)
        await look(world)
        set_back(world.master, OTHER, 1)
        await look(world)
    async with working(tmp_path) as world:
        await world.manager.health.rewound.check("data")
        assert set(told(world)) == {f"data/{OTHER}"}
