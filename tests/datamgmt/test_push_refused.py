"""A remote that refuses some branches gets the others, and the refusal is reported as such."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mao_git
from mao_datamgmt.context import Context
from mao_datamgmt.datasets import clones
from mao_datamgmt.datasets.delivery import PushOutcome, push_branches, push_lost
from mao_datamgmt.rounds import remote as rounds
from mao_git import Clone, RemoteMoved
from mao_shared.errors import Conflict, MaoError
from mao_shared.models import GROUND_TRUTH, Dataset
from mao_shared.states import StepPhase
from tests.support.git import bare_repository, git
from tests.support.sshd import SshServer, ssh_server

from .test_races import commit
from .world import NODE, context_for, run_of, runs_on, step, working, writes

SSH = pytest.param("ssh", marks=pytest.mark.sshd)
Spoil = Callable[[Path], object]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    return bare_repository(tmp_path / "remote.git")


@pytest.fixture
def at(tmp_path: Path, remote: Path, request: pytest.FixtureRequest) -> tuple[Context, str]:
    """Yield a node, and the remote's URL for the test's transport."""
    if request.param == "path":
        return context_for(tmp_path), str(remote)
    server: SshServer = request.getfixturevalue("server")
    return context_for(tmp_path, ssh_dir=server.key_dir), server.url(remote)


BOTH = pytest.mark.parametrize("at", ["path", SSH], indirect=True)
OVER_SSH = pytest.mark.parametrize("at", [SSH], indirect=True)


def hook(name: str, *lines: str) -> Spoil:
    def spoil(remote: Path) -> None:
        path = remote / "hooks" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        path.chmod(0o755)

    return spoil


def empty_commit(remote: Path) -> str:
    return git(remote, "commit-tree", git(remote, "mktree", feed=""), "-m", "empty")


def make_branch(remote: Path, name: str) -> None:
    git(remote, "update-ref", f"refs/heads/{name}", empty_commit(remote))


def push_one(context: Context, name: str = "a") -> PushOutcome:
    commit(context, name)
    return push_branches(context, Clone.open(context.data.clone("data")), promote=True)


PROTECTED: dict[str, Spoil] = {
    "update hook, as a protected branch": hook(
        "update", 'case "$1" in */ground-truth) echo "GT is protected" >&2; exit 1;; esac'
    ),
    "pre-receive hook, which refuses all of a push": hook(
        "pre-receive",
        'while read o n ref; do case "$ref" in */ground-truth) echo "GT protected" >&2; exit 1;; esac; done',
    ),
    "a branch below that name": lambda remote: make_branch(remote, "ground-truth/x"),
}


@pytest.mark.sshd
@pytest.mark.parametrize("how", PROTECTED)
async def test_push_refused_own_branch_is_pushed_where_ground_truth_is_refused(
    tmp_path: Path, server: SshServer, remote: Path, how: str
) -> None:
    PROTECTED[how](remote)
    async with working(tmp_path, ssh_dir=server.key_dir, push_retry=3600) as world:
        for number in range(2):
            run = run_of(f"run-{number}", step("collect", "data", server.url(remote)), after=number)
            done = await world.whole(run, writes(a=str(number)))
            assert (done.phase, done.pushed) == (StepPhase.SUCCEEDED, True), done.waiting
            assert (done.waiting or "").startswith("ground-truth is not pushed yet")
            assert git(remote, "rev-parse", NODE) == done.snapshot
        [told] = world.manager.conditions.current()
        assert (told.name, told.subject) == ("remote", "data")
        assert "ground-truth" in told.detail
        outbox = (await world.manager.status("data")).outbox
        assert (outbox.state, outbox.waiting, outbox.detail) == ("refused", 0, told.detail)
        (remote / "hooks" / "update").unlink(missing_ok=True)
        (remote / "hooks" / "pre-receive").unlink(missing_ok=True)
        if (remote / "refs/heads/ground-truth").is_dir():
            git(remote, "update-ref", "-d", "refs/heads/ground-truth/x")
        await world.manager.push_now("data")
        assert world.manager.conditions.current() == []
        last = await world.until("run-1", lambda run: run.steps[0].waiting is None)
    assert runs_on(remote, "ground-truth") == ["run-1", "run-0"]
    assert last.steps[0].ground_truth == git(remote, "rev-parse", "ground-truth")


@OVER_SSH
def test_push_refused_ground_truth_waits_where_own_branch_is_refused(
    at: tuple[Context, str], remote: Path
) -> None:
    context, url = at
    clones.ensure_clone(context, "data", url)
    hook("pre-receive", f'while read o n r; do case "$r" in */{NODE}) exit 1;; esac; done')(remote)
    delivery = push_one(context)
    assert (delivery.pushed, delivery.observed) == (False, False)
    assert git(remote, "for-each-ref", "--format=%(refname:short)") == NODE


@BOTH
@pytest.mark.parametrize("below", ["x", "deep/er/x"])
def test_push_refused_names_branch_below_the_nodes_one(
    at: tuple[Context, str], remote: Path, below: str
) -> None:
    context, url = at
    make_branch(remote, f"{NODE}/{below}")
    with pytest.raises(Conflict) as caught:
        clones.ensure_clone(context, "data", url)
    assert caught.value.code == "branch-name-taken"
    assert f"{NODE}/{below}" in caught.value.detail
    assert f":refs/heads/{NODE}/{below}" in (caught.value.next or "")
    git(remote, "update-ref", "-d", f"refs/heads/{NODE}/{below}")
    clones.ensure_clone(context, "data", url)
    assert push_one(context).pushed


def test_push_refused_next_step_quotes_branch_names() -> None:
    """Anyone with push access chooses the branch's name, which is part of a suggested command."""
    advice = mao_git.branch_name_taken("/r.git", NODE, [f"{NODE}/x;$(reboot)'"]).next or ""
    words = shlex.split(advice.partition(": ")[2].partition(" . ")[0], comments=False)
    assert words[-1] == f":refs/heads/{NODE}/x;$(reboot)'"
    assert words[:4] == [
        "git",
        "push",
        "origin",
        f"origin/{NODE}/x;$(reboot)':refs/heads/kept-{NODE}-x;$(reboot)'",
    ]


@BOTH
@pytest.mark.parametrize(("before", "after"), [("x", "x/y"), ("x/y", "x"), ("x/y/z", "x/y"), ("x", "x/y/z")])
def test_push_refused_fetches_branch_and_folder_of_same_name(
    at: tuple[Context, str], remote: Path, before: str, after: str
) -> None:
    context, url = at
    make_branch(remote, before)
    clone = clones.ensure_clone(context, "data", url)
    git(remote, "update-ref", "-d", f"refs/heads/{before}")
    make_branch(remote, after)
    clone = Clone.open(clone.path)
    clone.fetch(context.access)
    assert set(clone.list_branches(remote=True)) == {after, NODE}
    assert push_one(context).pushed


@BOTH
def test_push_refused_round_names_the_obstacle(at: tuple[Context, str], remote: Path) -> None:
    context, url = at
    clones.ensure_clone(context, "data", url)
    commit(context, "a")
    tip = Clone.open(context.data.clone("data")).tip(NODE)
    assert tip is not None
    make_branch(remote, "ground-truth/x")
    with pytest.raises(MaoError) as caught:
        rounds.deliver_ground_truth(context, Dataset(name="data", master=url), tip, None)
    assert caught.value.code == "branch-name-taken"


WHOLE: dict[str, tuple[Spoil, str, str]] = {
    "size limit": (
        lambda remote: git(remote, "config", "receive.maxInputSize", "10"),
        "remote-not-stored",
        "maxInputSize",
    ),
    "read-only": (hook("pre-receive", "echo it is read-only >&2; exit 1"), "push-refused", "writable"),
    "quota": (hook("pre-receive", "echo you are over quota >&2; exit 1"), "push-refused", "limit"),
    "file size": (hook("update", "echo 'x exceeds the size limit' >&2; exit 1"), "push-refused", "limit"),
    "checked out": (
        lambda remote: [
            git(remote, "config", "core.bare", "false"),
            git(remote, "symbolic-ref", "HEAD", f"refs/heads/{NODE}"),
        ],
        "push-refused",
        "bare repository",
    ),
    "some rule": (hook("update", "echo sign off first >&2; exit 1"), "push-refused", "branch protection"),
}


@OVER_SSH
@pytest.mark.parametrize("why", WHOLE)
def test_push_refused_error_has_server_message_and_next_step(
    at: tuple[Context, str], remote: Path, why: str
) -> None:
    context, url = at
    spoil, code, advice = WHOLE[why]
    clones.ensure_clone(context, "data", url)
    before = git(remote, "rev-parse", NODE)
    spoil(remote)
    failure = push_one(context).failure
    assert failure is not None
    assert (failure.code, advice in (failure.next or "")) == (code, True), failure.next
    if code == "push-refused" and why != "checked out":
        assert "It says:" in failure.detail
    assert git(remote, "rev-parse", NODE) == before


def test_push_refused_checked_out_branch_of_a_folder_is_refused(tmp_path: Path, remote: Path) -> None:
    context = context_for(tmp_path)
    clones.ensure_clone(context, "data", str(remote))
    WHOLE["checked out"][0](remote)
    failure = push_one(context).failure
    assert failure is not None
    assert "checked out" in failure.detail
    assert "bare repository" in (failure.next or "")


def test_push_refused_protected_ground_truth_does_not_block_own_branch(tmp_path: Path, remote: Path) -> None:
    """On a local remote, where no hook runs, a stale lock blocks ground truth."""
    context = context_for(tmp_path)
    clones.ensure_clone(context, "data", str(remote))
    assert push_one(context).pushed
    (remote / "refs/heads/ground-truth.lock").touch()
    delivery = push_one(context, "b")
    assert (delivery.pushed, delivery.observed) == (False, True)
    assert delivery.failure is not None
    assert "nobody else moved it" in delivery.failure.detail
    assert git(remote, "rev-parse", NODE) == delivery.tip


@pytest.mark.parametrize(
    ("name", "others", "found"),
    [
        ("a", ["a/b", "ab", "a-b"], ["a/b"]),
        ("a", ["ab", "b/a"], []),
        ("a/b", ["a", "a/c"], ["a"]),
        ("a", ["a"], []),
        ("a/b", ["a/b/c/d", "a/bc"], ["a/b/c/d"]),
    ],
)
def test_push_refused_in_the_way(name: str, others: list[str], found: list[str]) -> None:
    assert mao_git.conflicting_branches(name, others) == found


def test_push_refused_case_insensitive_server_is_named(tmp_path: Path, remote: Path) -> None:
    assert mao_git.case_variants("node-1", ["Node-1", "node-1", "node-11"]) == ["Node-1"]
    context = context_for(tmp_path)
    make_branch(remote, "Ground-Truth")
    clone = clones.ensure_clone(context, "data", str(remote))
    error = push_lost(clone, [GROUND_TRUTH], RemoteMoved("reference already exists"), was_moved=False)
    assert error.code == "branch-name-taken"
    assert "Ground-Truth" in error.detail
