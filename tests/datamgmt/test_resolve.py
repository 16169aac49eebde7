"""The node's branch was rewritten at the remote, or changed in the same files: a person decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from mao_datamgmt.context import Context
from mao_datamgmt.datasets import clones
from mao_datamgmt.datasets.delivery import push_branches
from mao_datamgmt.datasets.resolve import resolve
from mao_git import Clone
from mao_shared.errors import Conflict
from mao_shared.models.dataset import Strategy
from mao_shared.states import StepPhase
from tests.support.git import bare_repository, file_at, git
from tests.support.sshd import ssh_server

from .test_races import commit
from .world import NODE, context_for, run_of, step, working, writes


def rewrite(remote: Path, onto: str, name: str = "theirs") -> str:
    """Somebody moves the node's branch to `onto` and a commit with one file of their own; its tip."""
    blob = git(remote, "hash-object", "-w", "--stdin", feed="theirs")
    tree = git(remote, "mktree", feed=f"100644 blob {blob}\t{name}\n")
    tip = git(remote, "commit-tree", tree, "-p", onto, "-m", "theirs")
    git(remote, "update-ref", f"refs/heads/{NODE}", tip)
    return tip


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    return bare_repository(tmp_path / "remote.git")


@pytest.fixture
def context(tmp_path: Path, remote: Path) -> Context:
    """A node that pushed `a`, has `b` unpushed, and whose branch was rewritten to before `a`."""
    made = context_for(tmp_path)
    clones.ensure_clone(made, "data", str(remote))
    commit(made, "a")
    clone = Clone.open(made.data.clone("data"))
    assert push_branches(made, clone, promote=True).pushed
    rewrite(remote, git(remote, "rev-parse", f"{NODE}~1"))
    commit(made, "b")
    return made


def rescued(context: Context) -> list[str]:
    return git(
        context.data.clone("data"), "for-each-ref", "--format=%(objectname)", "refs/mao/rescued"
    ).split()


def test_resolve_rewritten_branch_stops_and_keeps_the_old_tip(context: Context, remote: Path) -> None:
    before = git(remote, "rev-parse", NODE)
    clone = Clone.open(context.data.clone("data"))
    known, ours = clone.upstream_base(NODE), clone.tip(NODE)
    for _ in range(2):
        failure = push_branches(context, clone, promote=True).failure
        assert failure is not None
        assert failure.code == "branch-rewritten"
        assert "maoctl dataset resolve data" in (failure.next or "")
    assert git(remote, "rev-parse", NODE) == before
    assert clone.tip(NODE) == ours
    assert rescued(context) == [known]
    git(remote, "update-ref", f"refs/heads/{NODE}", str(known))  # whoever did it puts it right again
    assert push_branches(context, clone, promote=True).pushed


@pytest.mark.parametrize(
    ("how", "files", "subjects"),
    [
        ("merge", ["a", "b"], ["Begin the dataset", "a", "b", "theirs"]),
        ("replay", ["b", "theirs"], ["Begin the dataset", "b", "theirs"]),
        ("take-theirs", ["theirs"], ["Begin the dataset", "theirs"]),
    ],
)
def test_resolve(
    context: Context, remote: Path, how: Strategy, files: list[str], subjects: list[str]
) -> None:
    theirs = git(remote, "rev-parse", NODE)
    clone = Clone.open(context.data.clone("data"))
    ours = clone.tip(NODE)
    done, failure = resolve(context, "data", how, promote=True)
    assert failure is None
    assert done.pushed
    assert git(remote, "rev-parse", NODE) == done.commit
    git(remote, "merge-base", "--is-ancestor", theirs, NODE)
    assert git(remote, "ls-tree", "--name-only", NODE).split() == files
    assert git(remote, "ls-tree", "--name-only", "ground-truth").split() == files
    merged = [line for line in git(remote, "log", "--format=%s", NODE).splitlines() if "Merge" not in line]
    assert sorted(merged) == sorted(subjects)
    if how != "merge":
        assert ours in rescued(context)
    commit(context, "c")
    assert push_branches(context, Clone.open(clone.path), promote=True).pushed
    with pytest.raises(Conflict) as caught:
        resolve(context, "data", how, promote=True)
    assert caught.value.code == "nothing-to-resolve"


def test_resolve_may_be_repeated_after_a_kill(
    context: Context, remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Clone, "set_upstream_base", killed)
    with pytest.raises(KeyboardInterrupt):
        resolve(context, "data", "replay", promote=True)
    monkeypatch.undo()
    assert resolve(context, "data", "replay", promote=True)[0].pushed
    assert git(remote, "log", "--format=%s", NODE).splitlines() == ["b", "theirs", "Begin the dataset"]


@pytest.mark.parametrize(("how", "text"), [("merge", "b"), ("take-theirs", "theirs")])
def test_resolve_conflict_in_one_file(tmp_path: Path, remote: Path, how: Strategy, text: str) -> None:
    context = context_for(tmp_path)
    clone = clones.ensure_clone(context, "data", str(remote))
    commit(context, "b")
    tip = rewrite(remote, NODE, "b")
    with pytest.raises(Conflict) as caught:
        resolve(context, "data", "replay", promote=True)
    assert caught.value.code == "branch-conflict"
    assert "--merge or --take-theirs" in (caught.value.next or "")
    assert resolve(context, "data", how, promote=True)[0].pushed
    assert file_at(remote, f"{NODE}:b") == text
    git(remote, "merge-base", "--is-ancestor", tip, NODE)
    assert clone.path.is_dir()


async def test_resolve_runs_go_on_and_are_pushed_once_it_is_resolved(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await world.whole(run_of("run-0", step("collect", "data", world.master)), writes(a="0"))
        rewrite(world.master, git(world.master, "rev-parse", f"{NODE}~1"))
        done = await world.whole(
            run_of("run-1", step("collect", "data", world.master), after=1), writes(a="1")
        )
        assert done.phase is StepPhase.SUCCEEDED
        assert not done.pushed
        assert "was rewritten" in str(done.waiting)
        resolution = await world.manager.resolve("data", "merge")
        assert resolution.pushed
        pushed = await world.until("run-1", lambda run: run.steps[0].pushed is True)
        assert pushed.steps[0].waiting is None


@pytest.mark.sshd
def test_resolve_branch_set_back_over_ssh_is_not_silently_restored(tmp_path: Path, remote: Path) -> None:
    with ssh_server(tmp_path / "sshd") as server:
        context = context_for(tmp_path, ssh_dir=server.key_dir)
        url = server.url(remote)
        clone = clones.ensure_clone(context, "data", url)
        commit(context, "a")
        assert push_branches(context, clone, promote=True).pushed
        back = git(remote, "rev-parse", f"{NODE}~1")
        git(remote, "update-ref", f"refs/heads/{NODE}", back)
        with pytest.raises(Conflict) as caught:
            clones.ensure_clone(context, "data", url)
        assert caught.value.code == "branch-rewritten"
        assert git(remote, "rev-parse", NODE) == back
        assert resolve(context, "data", "merge", promote=True)[0].pushed
        assert git(remote, "ls-tree", "--name-only", NODE) == "a"
